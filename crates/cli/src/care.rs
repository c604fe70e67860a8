//! What is dangerous is shown before it is done, and what cannot be taken back is asked for.

use crate::place::Place;
use crate::terminal;
use anyhow::Result;
use serde::Serialize;

/// Of a command that can be taken back.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Dry {
    /// Only show what would be done, and to how many. Nothing is changed.
    #[arg(long)]
    pub dry_run: bool,
}

/// Of a command that cannot be taken back.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Sure {
    /// Only show what would be done, and to how many. Nothing is changed.
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking.
    #[arg(long, short)]
    pub yes: bool,
}

impl Sure {
    /// Whether to go on and do it.
    pub fn goes_on(self, would: &Would, place: &Place) -> Result<bool> {
        if self.dry_run {
            would.tell(place)?;
            return Ok(false);
        }
        terminal::ask_first(self.yes, &would.sentence)?;
        Ok(true)
    }
}

impl Dry {
    pub fn goes_on(self, would: &Would, place: &Place) -> Result<bool> {
        if self.dry_run {
            would.tell(place)?;
        }
        Ok(!self.dry_run)
    }
}

/// What a command would do. Found out by reading only.
#[derive(Debug, Serialize)]
pub struct Would {
    pub dry_run: bool,
    /// As the event would be called: `device.revoke`.
    pub action: String,
    /// As events name it.
    pub subject: String,
    /// How many devices, sessions or tokens it would reach, as things stand.
    pub reaches: u64,
    /// Ends with a full stop.
    pub sentence: String,
    pub notes: Vec<String>,
}

impl Would {
    pub fn new(action: &str, subject: String, reaches: u64, sentence: String) -> Self {
        let action = action.to_owned();
        Self { dry_run: true, action, subject, reaches, sentence, notes: Vec::new() }
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn tell(&self, place: &Place) -> Result<()> {
        if place.json {
            tell!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        tell!("dry run, nothing is changed: {}", self.sentence);
        for note in &self.notes {
            tell!("  {note}");
        }
        Ok(())
    }
}
