//! Questions to the store, and its counters.

use crate::client::Client;
use crate::place::Place;
use crate::table::{self, Format};
use anyhow::Result;
use api::Ask;
use api::path;

pub async fn query(place: &Place, ask: Ask, format: Format) -> Result<()> {
    let client = Client::of(place)?;
    if place.json {
        let body = client.ask_bytes(&ask).await?;
        tell!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    table::print(&client.ask(&ask).await?, format, &mut std::io::stdout().lock())
}

pub async fn metrics(place: &Place) -> Result<()> {
    let text = Client::of(place)?.get(path::METRICS).await?;
    tell!("{}", String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

pub fn now_ms() -> u64 {
    crate::station::now().as_secs() * 1000
}
