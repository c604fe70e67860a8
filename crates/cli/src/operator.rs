//! What an operator asks of a running site.

use crate::client::{self, Client};
use crate::table::{self, Format};
use anyhow::{Context, Result};
use api::{Ask, Cell, path};
use std::path::Path;

pub async fn query(data: &Path, ask: Ask, format: Format) -> Result<()> {
    let answer = Client::of(data)?.ask(&ask).await?;
    table::print(&answer, format, &mut std::io::stdout().lock())
}

pub async fn metrics(data: &Path) -> Result<()> {
    let response = Client::of(data)?.get(path::METRICS).await?;
    print!("{}", response.text().await?);
    Ok(())
}

pub async fn allow(data: &Path, serial: &str, role: &str, zone: &str) -> Result<()> {
    let body = serde_json::json!({ "serial": serial, "role": role, "zone": zone });
    Client::of(data)?.post(path::OWNERSHIP, &body).await?;
    println!("{serial} may enrol as a {role} in zone {zone}");
    Ok(())
}

pub async fn devices(data: &Path, format: Format) -> Result<()> {
    let response = Client::of(data)?.get(path::DEVICES).await?;
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await?)?;
    let rows = body["devices"].as_array().context("the answer has no `devices`")?;
    let names = ["id", "role", "zone", "standing"];
    let rows = rows.iter().map(|row| names.map(|name| row[name].clone()).to_vec()).collect();
    table::print(&table::of(&names, rows), format, &mut std::io::stdout().lock())
}

/// What the vendor has published, as control has verified it.
pub async fn releases(data: &Path, refresh: bool, format: Format) -> Result<()> {
    let client = Client::of(data)?;
    let response = match refresh {
        true => client.post(&format!("{}/refresh", path::RELEASES), &serde_json::json!({})).await?,
        false => client.get(path::RELEASES).await?,
    };
    let page: api::release::Releases = client::read(&response.bytes().await?)?;
    let names =
        ["product", "release", "hardware", "security_version", "must_pass", "bytes", "sha256"];
    let row = |release: &api::release::Release| -> Vec<Cell> {
        vec![
            release.product.as_str().into(),
            release.version.as_str().into(),
            release.hardware.join(" ").into(),
            release.security_version.into(),
            release.must_pass.join(" ").into(),
            release.length.into(),
            release.sha256.as_str().into(),
        ]
    };
    let rows = page.releases.iter().map(row).collect();
    table::print(&table::of(&names, rows), format, &mut std::io::stdout().lock())?;
    // Not among the rows: a program that reads them asks the API for the rest.
    if let Some(failed) = page.failed {
        eprintln!("not read the last time: {failed}");
    }
    Ok(())
}

/// What a device runs, by its own newest word.
pub async fn software(data: &Path, device: &str, json: bool) -> Result<()> {
    let at = format!("{}/{device}/software", path::DEVICES);
    let body = Client::of(data)?.get(&at).await?.bytes().await?;
    if json {
        println!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let said: api::release::Software = client::read(&body)?;
    for component in &said.components {
        let api::release::Component { product, version, boot, sha256, hardware, .. } = component;
        println!("{product} {version} ({boot}) on {hardware}, sha256 {sha256}");
    }
    if let Some(api::release::Outcome { product, end, reason, rollout, .. }) = &said.outcome {
        let by = rollout.as_deref().unwrap_or("no rollout");
        println!(
            "newest install: {product} by {by}: {end}{}",
            match reason.as_str() {
                "" => String::new(),
                reason => format!(", {}", table::plain(reason)),
            }
        );
    }
    Ok(())
}

/// `verb` is one of the drawn edges: revoke, quarantine, release.
pub async fn change_standing(data: &Path, device: &str, verb: &str) -> Result<()> {
    let path = format!("{}/{device}/{verb}", path::DEVICES);
    Client::of(data)?.post(&path, &serde_json::json!({})).await?;
    println!("{device}: {verb} done");
    Ok(())
}
