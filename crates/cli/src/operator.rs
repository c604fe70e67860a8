//! What an operator asks of a running site.

use crate::client::Client;
use crate::table::{self, Format};
use anyhow::{Context, Result};
use api::{Answer, Ask, Cell, Column, path};
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
    let answer = Answer {
        columns: names.map(|name| Column { name: name.into(), kind: "Utf8".into() }).to_vec(),
        rows: rows
            .iter()
            .map(|row| names.map(|name| row[name].clone()).to_vec())
            .collect::<Vec<Vec<Cell>>>(),
        truncated: false,
        took_ms: 0,
    };
    table::print(&answer, format, &mut std::io::stdout().lock())
}

/// `verb` is one of the drawn edges: revoke, quarantine, release.
pub async fn change_standing(data: &Path, device: &str, verb: &str) -> Result<()> {
    let path = format!("{}/{device}/{verb}", path::DEVICES);
    Client::of(data)?.post(&path, &serde_json::json!({})).await?;
    println!("{device}: {verb} done");
    Ok(())
}
