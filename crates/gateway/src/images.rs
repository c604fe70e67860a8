//! The image repository's metadata, kept in memory by name.
//!
//! Promises: what may change is at most [`FRESH`] old, what has a number in its name at most [`LASTING`], and older only while
//! control cannot be asked; memory is bounded by bytes and by names (INV-COST-1).
//! Never: believes any of it. Control has verified it, and each device does.

use crate::ask::ImageName;
use crate::control::Link;
use crate::metrics::Metrics;
use crate::uplink::Reply;
use hyper::body::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a timestamp is given out before it is asked for again, and how long it is believed that there is no next root.
/// A release that was just ordered is not long unknown here; and a zone costs control one question in this time.
const FRESH: Duration = Duration::from_secs(5);
/// What has a number in its name does not change. Yet nobody here has looked into it: a control plane that once gave nonsense, or
/// was put back to what it was, is not spoken after until this process ends.
const LASTING: Duration = Duration::from_secs(600);
/// For how long control is not asked again when it did not answer: whoever waits would wait for a timeout each.
const AWAY: Duration = Duration::from_secs(2);
/// Eight times the longest file.
const BYTES_MAX: usize = 16 * 1024 * 1024;
const NAMES_MAX: usize = 256;

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    File(Bytes),
    /// There is none of this name.
    Absent,
    /// It is not here, and control is away.
    Away,
}

/// What is kept. Pure.
#[derive(Debug, Default)]
struct Files {
    files: HashMap<ImageName, Kept>,
    uses: u64,
    away_since: Option<Duration>,
}

#[derive(Debug)]
struct Kept {
    told: Told,
    at: Duration,
    used: u64,
}

impl Files {
    /// `None`: control has to be asked.
    fn look(&mut self, name: ImageName, now: Duration) -> Option<Told> {
        self.uses += 1;
        let is_away = self.away_since.is_some_and(|since| now < since + AWAY);
        match self.files.get_mut(&name) {
            Some(kept) => {
                kept.used = self.uses;
                let lasts = matches!(kept.told, Told::File(_)) && name.is_immutable();
                let lasts_for = if lasts { LASTING } else { FRESH };
                (is_away || now < kept.at + lasts_for).then(|| kept.told.clone())
            }
            None => is_away.then_some(Told::Away),
        }
    }

    /// Takes control's answer, and says what to say. Without one, what is there is good enough; the second value says so.
    fn settle(&mut self, name: ImageName, reply: Reply, now: Duration) -> (Told, bool) {
        let told = match reply {
            Reply::Http { status: 200, body, .. } => Told::File(body.into()),
            Reply::Http { status: 404, .. } => Told::Absent,
            Reply::Http { .. } | Reply::None(_) => {
                self.away_since = Some(now);
                let kept = self.files.get(&name).map(|kept| kept.told.clone());
                return (kept.clone().unwrap_or(Told::Away), kept.is_some());
            }
        };
        self.away_since = None;
        if matches!(told, Told::File(_)) || name.is_probed() {
            self.keep(name, told.clone(), now);
        } else {
            self.files.remove(&name);
        }
        (told, false)
    }

    fn keep(&mut self, name: ImageName, told: Told, now: Duration) {
        self.uses += 1;
        self.files.insert(name, Kept { told, at: now, used: self.uses });
        while self.files.len() > NAMES_MAX || self.bytes() > BYTES_MAX {
            // That there is no such file goes first: else who asks for what there is not would drive out what others need.
            let oldest = self.files.iter().min_by_key(|(_, kept)| (kept.told.len() > 0, kept.used));
            let Some(oldest) = oldest.map(|(name, _)| *name) else { return };
            self.files.remove(&oldest);
        }
    }

    fn bytes(&self) -> usize {
        self.files.values().map(|kept| kept.told.len()).sum()
    }
}

impl Told {
    fn len(&self) -> usize {
        if let Self::File(bytes) = self { bytes.len() } else { 0 }
    }
}

/// See the module's head.
pub(crate) struct Images {
    link: Arc<Link>,
    metrics: Metrics,
    began: Instant,
    files: Mutex<Files>,
    /// Whoever asks control for a name; the others wait for what it hears.
    turns: Mutex<HashMap<ImageName, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    pub fn new(link: Arc<Link>, metrics: Metrics) -> Arc<Self> {
        let (files, turns) = (Mutex::default(), Mutex::default());
        Arc::new(Self { link, metrics, began: Instant::now(), files, turns })
    }

    pub async fn get(self: &Arc<Self>, name: ImageName) -> Told {
        if let Some(told) = self.look(name) {
            return told;
        }
        let turn = self.turn(name).lock_owned().await;
        // Whoever had the turn before may have heard it.
        if let Some(told) = self.look(name) {
            return told;
        }
        let this = self.clone();
        // To its end, also if the device hangs up: over a slow line no file would ever come whole.
        let asked = tokio::spawn(async move {
            let _turn = turn;
            let reply = this.link.image(name).await;
            let (told, is_stale) = this.files().settle(name, reply, this.began.elapsed());
            this.metrics.images_stale.inc_by(is_stale.into());
            told
        });
        asked.await.unwrap_or(Told::Away)
    }

    /// Those who ask for one name ask one after the other.
    fn turn(&self, name: ImageName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns();
        if turns.len() >= NAMES_MAX {
            // Those for which nobody waits any more; the rest are no more than there are connections.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(name).or_default().clone()
    }

    fn look(&self, name: ImageName) -> Option<Told> {
        self.files().look(name, self.began.elapsed())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("nothing panics while it holds the files")
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<ImageName, Arc<tokio::sync::Mutex<()>>>> {
        self.turns.lock().expect("nothing panics while it holds the turns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::{Ask, read};

    const S: Duration = Duration::from_secs(1);

    fn name(name: &str) -> ImageName {
        match read("GET", &format!("/v1/images/{name}"), None) {
            Ok(Ask::Image(name)) => name,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn says(status: u16, body: &[u8]) -> Reply {
        Reply::Http { status, retry_after: None, body: body.to_vec() }
    }

    fn file(body: &'static [u8]) -> Told {
        Told::File(Bytes::from_static(body))
    }

    #[test]
    fn what_has_a_number_is_asked_for_once_and_what_may_change_again() {
        let mut files = Files::default();
        let (root, next) = (name("1.root.json"), name("2.root.json"));
        let (time, targets) = (name("timestamp.json"), name("7.targets.json"));
        for name in [root, next, time, targets] {
            assert_eq!(files.look(name, S), None);
        }
        assert_eq!(files.settle(root, says(200, b"r"), S), (file(b"r"), false));
        assert_eq!(files.settle(next, says(404, b""), S), (Told::Absent, false));
        assert_eq!(files.settle(time, says(200, b"t"), S), (file(b"t"), false));
        assert_eq!(files.settle(targets, says(404, b""), S), (Told::Absent, false));
        let soon = S + FRESH - Duration::from_millis(1);
        assert_eq!(files.look(next, soon), Some(Told::Absent));
        assert_eq!(files.look(time, soon), Some(file(b"t")));
        // It may be published at any moment, and a timestamp that is fresh may name it.
        assert_eq!(files.look(targets, soon), None);
        for (name, expected) in [(root, Some(file(b"r"))), (next, None), (time, None)] {
            assert_eq!(files.look(name, S + FRESH), expected, "{name}");
        }
        assert_eq!(files.settle(time, says(200, b"u"), S + FRESH), (file(b"u"), false));
        assert_eq!(files.look(time, S + FRESH), Some(file(b"u")));
    }

    /// A control plane that gave nonsense, and does not any more.
    #[test]
    fn what_was_wrong_under_a_numbered_name_is_not_given_out_for_ever() {
        let mut files = Files::default();
        let targets = name("7.targets.json");
        files.settle(targets, says(200, b"nonsense"), S);
        let soon = S + LASTING - Duration::from_millis(1);
        assert_eq!(files.look(targets, soon), Some(file(b"nonsense")));
        assert_eq!(files.look(targets, S + LASTING), None);
        assert_eq!(files.settle(targets, says(200, b"t"), S + LASTING), (file(b"t"), false));
        assert_eq!(files.look(targets, S + LASTING), Some(file(b"t")));
        // Nor is what was taken away again.
        assert_eq!(files.settle(targets, says(404, b""), S + LASTING), (Told::Absent, false));
        assert_eq!(files.look(targets, S + LASTING), None);
    }

    #[test]
    fn while_control_is_away_what_is_there_is_good_enough_and_it_is_not_asked_in_a_loop() {
        let mut files = Files::default();
        let (time, root) = (name("timestamp.json"), name("1.root.json"));
        files.settle(time, says(200, b"t"), S);
        for reply in [says(503, b""), says(403, b""), Reply::None("hung up".into())] {
            let now = 100 * S;
            assert_eq!(files.settle(time, reply, now), (file(b"t"), true));
            assert_eq!(files.look(time, now + AWAY - S), Some(file(b"t")));
            assert_eq!(files.look(root, now + AWAY - S), Some(Told::Away));
            assert_eq!((files.look(time, now + AWAY), files.look(root, now + AWAY)), (None, None));
        }
        assert_eq!(files.settle(root, Reply::None("gone".into()), 200 * S), (Told::Away, false));
        assert_eq!(files.settle(root, says(200, b"r"), 203 * S), (file(b"r"), false));
    }

    /// INV-COST-1.
    #[test]
    fn names_and_bytes_are_bounded_and_who_was_used_longest_ago_goes() {
        let mut files = Files::default();
        let numbered = |n: usize| name(&format!("{n}.targets.json"));
        for n in 1..=NAMES_MAX + 1 {
            files.settle(numbered(n), says(200, b"x"), S);
            files.look(numbered(1), S);
        }
        assert_eq!(files.files.len(), NAMES_MAX);
        assert!(files.look(numbered(1), S).is_some());
        assert!(files.look(numbered(2), S).is_none());
        // Nobody drives out a file by asking for what there is not.
        for n in 1..=2 * NAMES_MAX {
            files.settle(name(&format!("{n}.root.json")), says(404, b""), S);
        }
        let there = (1..=NAMES_MAX + 1).filter(|n| files.look(numbered(*n), S).is_some());
        assert_eq!((there.count(), files.files.len()), (NAMES_MAX, NAMES_MAX));
        let longest = vec![0; 2 * 1024 * 1024];
        for n in 1..=20 {
            files.settle(numbered(n), says(200, &longest), S);
        }
        assert!(files.bytes() <= BYTES_MAX);
        assert!(files.look(numbered(20), S).is_some());
    }
}
