//! `plimsoll evidence`: what an operator hands out of the record of what was done, and what an auditor does with it, without
//! a site, a network or our word for anything.

use crate::client::{self, Client, with_words};
use crate::device::download;
use crate::place::Place;
use crate::table::{self, Format};
use anyhow::{Context, Error, Result, anyhow};
use api::Cell;
use api::event::{EVENTS_PAGE_MAX, Events};
use api::path;
use clap::{Args, Subcommand};
use evidence::export::{self, EXPORT_BYTES_MAX, Proven};
use evidence::note::NOTE_BYTES_MAX;
use evidence::{Checkpoint, Head, NoteKey};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Evidence {
    /// Prove an export of events with nothing but the log's public key.
    ///
    /// Ends with 0 if all of it is proven, 1 if it is not, 2 if that could not be found out.
    #[command(
        after_help = "Example:\n  plimsoll evidence verify pump-1.json --key evidence.pub --print"
    )]
    Verify(Verify),
    /// Write events of a running site to a file, with what proves them.
    ///
    /// Whoever gets it needs nothing else but the log's public key: `site/evidence.pub`.
    #[command(
        after_help = "Example:\n  plimsoll evidence export --subject device/pump-1 --out pump-1.json"
    )]
    Export {
        /// What the events tell of, such as rollout/r-1 or device/pump-1. All events, if it is left out.
        #[arg(long)]
        subject: Option<String>,
        /// The first event.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// The event before which it ends.
        #[arg(long)]
        to: Option<u64>,
        /// A checkpoint that the auditor kept: the export proves that the log has only grown since.
        #[arg(long)]
        since: Option<PathBuf>,
        #[arg(long)]
        out: PathBuf,
    },
    /// Print what was done, by whom, in order.
    #[command(after_help = "Example:\n  plimsoll evidence log --subject rollout/r-1")]
    Log {
        /// What it was done to, such as rollout/r-1 or device/pump-1.
        #[arg(long)]
        subject: Option<String>,
        /// Only events behind this one.
        #[arg(long)]
        after: Option<u64>,
        #[arg(long, default_value_t = EVENTS_PAGE_MAX)]
        limit: usize,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Print the newest signed checkpoint. Keep it: later exports prove that the log has only grown since.
    #[command(after_help = "Example:\n  plimsoll evidence checkpoint > kept.txt")]
    Checkpoint,
}

#[derive(Args)]
pub struct Verify {
    /// The export.
    export: PathBuf,
    /// The log's public key, or a file with it. Get it once, by another way than the export.
    #[arg(long)]
    key: String,
    /// A checkpoint of the log that you kept: prove also that the log has only grown since.
    #[arg(long)]
    since: Option<PathBuf>,
    /// Print the proven events, one JSON object a line.
    #[arg(long)]
    print: bool,
}

const NOT_PROVEN: u8 = 1;

/// As clap ends when the command line is wrong.
const COULD_NOT_TRY: u8 = 2;

/// A key has a name of some length and 60 bytes.
const KEY_BYTES_MAX: u64 = 4096;

impl Verify {
    pub fn run(self) -> ExitCode {
        let Self { export, key, since, print } = self;
        let verdict = verify(&export, &key, since.as_deref()).and_then(|verdict| {
            if let Verdict::Proven(proven) = &verdict {
                tell(proven, print, &mut io::stdout().lock())
                    .context("printing what was proven")?;
            }
            Ok(verdict)
        });
        match verdict {
            Ok(Verdict::Proven(_)) => ExitCode::SUCCESS,
            Ok(Verdict::NotProven(why)) => {
                eprintln!("not proven: {why:#}");
                ExitCode::from(NOT_PROVEN)
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(COULD_NOT_TRY)
            }
        }
    }
}

/// What is asked of a running site.
pub async fn ask(evidence: Evidence, place: &Place) -> Result<()> {
    match evidence {
        Evidence::Verify(_) => unreachable!("`main` ends with it: it needs no site"),
        Evidence::Export { subject, from, to, since, out } => {
            let since = match since {
                None => None,
                Some(path) => {
                    Some(String::from_utf8(read(&path, NOTE_BYTES_MAX)?).context("no checkpoint")?)
                }
            };
            let (from, to) = (Some(from.to_string()), to.map(|to| to.to_string()));
            let words = [("subject", subject), ("from", from), ("to", to), ("since", since)];
            let path = with_words(&format!("{}/export", path::EVIDENCE), words)?;
            let export = download(&Client::of(place)?, &path, "export").await?;
            disk::replace(&disk::RealDisk, &out, &export)
                .with_context(|| format!("cannot write {}", out.display()))?;
            let (out, bytes) = (out.display(), export.len());
            match place.json {
                true => {
                    let said = serde_json::json!({ "file": out.to_string(), "bytes": bytes });
                    tell!("{said}");
                }
                false => tell!("{out}: {bytes} bytes; `plimsoll evidence verify` proves it"),
            }
            place.next(&format!("plimsoll evidence verify {out} --key site/evidence.pub"))
        }
        Evidence::Log { subject, after, limit, format } => {
            let (after, limit) = (after.map(|after| after.to_string()), Some(limit.to_string()));
            let words = [("subject", subject), ("after", after), ("limit", limit)];
            let body = Client::of(place)?.get(&with_words(path::EVENTS, words)?).await?;
            if place.json {
                tell!("{}", String::from_utf8_lossy(&body));
                return Ok(());
            }
            print_events(&client::read(&body)?, format)
        }
        Evidence::Checkpoint => {
            let path = format!("{}/checkpoint", path::EVIDENCE);
            let text = Client::of(place)?.get(&path).await?;
            // Its bytes are signed: not one more, not one less.
            io::stdout().write_all(&text).context("printing the checkpoint")
        }
    }
}

fn print_events(page: &Events, format: Format) -> Result<()> {
    // Programs have read `at_ms` there since the first release.
    let at = if format == Format::Table { "when" } else { "at_ms" };
    let names = ["event", at, "actor", "action", "subject", "detail", "covered"];
    let row = |event: &api::event::Event| -> Vec<Cell> {
        vec![
            event.sequence.into(),
            table::time(Some(event.at_ms), format),
            event.actor.as_str().into(),
            event.action.as_str().into(),
            event.subject.as_str().into(),
            event.detail.to_string().into(),
            (event.sequence < page.covered).into(),
        ]
    };
    let rows = page.events.iter().map(row).collect();
    table::list(&names, rows, "event", format)?;
    if let Some(next) = page.next {
        crate::log::next_step(&format!("there are more: --after {next}"));
    }
    Ok(())
}

#[derive(Debug)]
enum Verdict {
    Proven(Proven),
    NotProven(Error),
}

/// An error says that there is no verdict.
fn verify(export: &Path, key: &str, since: Option<&Path>) -> Result<Verdict> {
    let key = read_key(key)?;
    let kept = since.map(|path| read_checkpoint(path, &key)).transpose()?;
    let proven = match export::verify(&read(export, EXPORT_BYTES_MAX)?, &key) {
        Ok(proven) => proven,
        Err(why) => return Ok(Verdict::NotProven(why.into())),
    };
    if let Some(kept) = kept {
        let mut shown = proven.earlier.iter().chain([&proven.checkpoint]).map(Checkpoint::head);
        if !shown.any(|head| head == kept) {
            return Ok(Verdict::NotProven(anyhow!(
                "the export does not show that the log has only grown since the checkpoint that \
                 was kept ({kept}): ask for one that does"
            )));
        }
    }
    Ok(Verdict::Proven(proven))
}

fn read_key(text: &str) -> Result<NoteKey> {
    let not_a_key = match text.parse() {
        Ok(key) => return Ok(key),
        Err(e) => e,
    };
    let path = Path::new(text);
    if !path.exists() {
        return Err(Error::new(not_a_key).context(format!("no file `{text}`, and no key")));
    }
    let bytes = read(path, KEY_BYTES_MAX)?;
    let key = String::from_utf8_lossy(&bytes).trim().parse();
    key.with_context(|| format!("reading the key in `{text}`"))
}

fn read_checkpoint(path: &Path, key: &NoteKey) -> Result<Head> {
    let bytes = read(path, NOTE_BYTES_MAX)?;
    let checkpoint = Checkpoint::open(&String::from_utf8_lossy(&bytes), key);
    Ok(checkpoint.with_context(|| format!("reading the checkpoint in {path:?}"))?.head())
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let read = disk::Disk::read(&disk::RealDisk, path, bytes_max);
    read.with_context(|| format!("reading {path:?}"))
}

fn tell(proven: &Proven, print: bool, out: &mut dyn Write) -> io::Result<()> {
    let Proven { checkpoint, earlier, events } = proven;
    if print {
        return events.iter().try_for_each(|event| {
            out.write_all(event.leaf())?;
            out.write_all(b"\n")
        });
    }
    let s = if events.len() == 1 { "" } else { "s" };
    writeln!(out, "proven: {} event{s} of the log, which has {}", events.len(), checkpoint.head())?;
    if let Some(earlier) = earlier {
        writeln!(out, "proven: it has only grown since it had {}", earlier.head())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::SimDisk;
    use evidence::event::Said;
    use evidence::{Event, Log};
    use std::fs;
    use std::sync::Arc;
    use trust::cose::SecretKey;

    #[test]
    fn an_export_is_proven_with_the_key_and_the_growth_since_a_kept_checkpoint() {
        let desk = Desk::lay();
        let Verdict::Proven(proven) = desk.verify("export", "key", Some("kept")).unwrap() else {
            panic!("not proven");
        };
        let mut said = Vec::new();
        tell(&proven, false, &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.starts_with("proven: 2 events of the log, which has 20 events, root "),
            "{said}"
        );
        assert!(
            said.contains("\nproven: it has only grown since it had 10 events, root "),
            "{said}"
        );

        let mut printed = Vec::new();
        tell(&proven, true, &mut printed).unwrap();
        let expected: Vec<u8> = [2, 12]
            .into_iter()
            .flat_map(|n| [event(n, "control").leaf(), b"\n"].concat())
            .collect();
        assert_eq!(printed, expected);

        for (export, since) in [("export", None), ("alone", None), ("alone", Some("newest"))] {
            assert!(matches!(desk.verify(export, "key", since), Ok(Verdict::Proven(_))));
        }
        let key = fs::read_to_string(desk.path("key")).unwrap();
        let by_text = verify(&desk.path("export"), key.trim(), None);
        assert!(matches!(by_text, Ok(Verdict::Proven(_))), "the key itself, instead of a file");
    }

    #[test]
    fn what_is_not_proven_is_told_from_what_could_not_be_tried() {
        let desk = Desk::lay();
        let good = fs::read_to_string(desk.path("export")).unwrap();
        desk.write(
            "changed",
            good.replace("\"actor\":\"control\"", "\"actor\":\"nobody!\"").as_bytes(),
        );
        for (export, key, since, expected) in [
            ("changed", "key", None, "event 2 is not in the log, or was changed"),
            ("key", "key", None, "not an export of evidence"),
            ("export", "stranger", None, "the export is of the log with the key"),
            (
                "alone",
                "key",
                Some("kept"),
                "only grown since the checkpoint that was kept (10 events",
            ),
            (
                "export",
                "key",
                Some("fork"),
                "only grown since the checkpoint that was kept (10 events",
            ),
        ] {
            match desk.verify(export, key, since) {
                Ok(Verdict::NotProven(why)) => {
                    assert!(format!("{why:#}").contains(expected), "{why:#}");
                }
                other => panic!("{export} with {key} since {since:?}: {other:?}"),
            }
        }
        for (export, key, since, expected) in [
            ("nothing", "key", None, "nothing"),
            ("export", "nothing", None, "no key"),
            ("export", "export", None, "not a key of a note"),
            ("alone", "kept", None, "reading the key"),
            ("export", "key", Some("key"), "reading the checkpoint"),
            ("export", "stranger", Some("kept"), "is not signed by"),
        ] {
            match desk.verify(export, key, since) {
                Err(error) => assert!(format!("{error:#}").contains(expected), "{error:#}"),
                other => panic!("{export} with {key} since {since:?}: {other:?}"),
            }
        }
    }

    /// What an auditor has: exports of a log of 20 events, its key, and the checkpoint that he kept when it had 10.
    struct Desk(tempfile::TempDir);

    impl Desk {
        fn lay() -> Self {
            let desk = Self(tempfile::tempdir().unwrap());
            let mut log = open(3);
            let kept = grow(&mut log, 10, "control");
            desk.write("kept", kept.as_bytes());
            desk.write("newest", grow(&mut log, 10, "control").as_bytes());
            let reader = log.reader();
            desk.write("export", &reader.export(&[2, 12], Some(&kept)).unwrap());
            desk.write("alone", &reader.export(&[2], None).unwrap());
            desk.write("key", format!("{}\n", reader.key()).as_bytes());
            desk.write("stranger", open(4).reader().key().to_string().as_bytes());
            desk.write("fork", grow(&mut open(3), 10, "another story").as_bytes());
            desk
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.path(name), bytes).unwrap();
        }

        fn verify(&self, export: &str, key: &str, since: Option<&str>) -> Result<Verdict> {
            let key = self.path(key);
            let since = since.map(|name| self.path(name));
            verify(&self.path(export), key.to_str().unwrap(), since.as_deref())
        }
    }

    fn open(seed: u8) -> Log {
        let key = SecretKey::from_random(model::envelope::Algorithm::Ed25519, &[seed; 32]).unwrap();
        let (disk, origin) = (SimDisk::new(0).shared(), "press.example/evidence");
        Log::open(disk, Path::new("/evidence"), origin, Arc::new(key), None).unwrap()
    }

    /// Returns the checkpoint.
    fn grow(log: &mut Log, events: u64, actor: &str) -> String {
        for sequence in log.next()..log.next() + events {
            log.append(&event(sequence, actor)).unwrap();
        }
        log.checkpoint().unwrap().note().to_owned()
    }

    fn event(sequence: u64, actor: &str) -> Event {
        let (action, subject) = ("halt".to_owned(), "rollout".to_owned());
        let said = Said { actor: actor.to_owned(), action, subject, ..Said::default() };
        Event::new(sequence, said).unwrap()
    }
}
