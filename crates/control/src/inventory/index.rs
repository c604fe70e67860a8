//! The fleet as a table of short lines, sorted by id, so that a question over 100,000 devices is one pass over memory.
//!
//! Words that many lines share (zones, groups, versions, gateways) are numbers here: to compare two of them is to compare two
//! integers, and to count them is to count in an array. A word that no line has any more gives its number back, so that a
//! device which reports a new version each time costs no more than its last one. Pure: it reads no clock and does no IO.

use crate::directory::{Device, Directory};
use crate::principal::Reach;
use api::device::{DeviceLine, SUMMARY_NAMES_MAX, Summary};
use api::{Role, Standing};
use memchr::memmem::Finder;
use model::{DeviceId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is known of a device beside its identity. See the module's head.
#[derive(Debug)]
struct Line {
    device: Arc<Device>,
    /// `device.id`, here so that a search reads one place of memory and not two.
    id: Box<str>,
    zone: Word,
    group: Word,
    /// `product version`, of its first product by its own signed word.
    software: Option<Word>,
    standing: Standing,
    role: Role,
    heard: Heard,
}

/// When a device was heard, and by whom. Times are milliseconds since 1970; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    at_ms: u64,
    gateway: Option<Word>,
    /// Since when that gateway has been the one, as long as nobody has written it down.
    moved_ms: Option<u64>,
    /// What of `at_ms` is on disk.
    kept_ms: u64,
}

/// What is asked of the lines. An empty one holds for all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In lower case: ids are, and an id is its serial number in lower case.
    pub search: String,
    pub site: Option<String>,
    pub zone: Option<String>,
    pub group: Option<String>,
    pub standing: Option<Standing>,
    pub role: Option<Role>,
    pub version: Option<String>,
    pub gateway: Option<String>,
    /// Not heard since then, in milliseconds since 1970, or never.
    pub silent_since_ms: Option<u64>,
}

/// Of a pass over the lines: a page of those that the filter holds for, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub devices: Vec<DeviceLine>,
    pub total: u64,
    pub next: Option<String>,
}

/// When a device was heard, to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub device: DeviceId,
    pub at_ms: u64,
    pub gateway: Option<String>,
    /// Since when it has been that gateway, if that is news.
    pub moved_ms: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Index {
    generation: u64,
    lines: Vec<Line>,
    words: Words,
}

impl Index {
    /// Takes up what the directory says of each device. What else is known of them stays.
    pub fn follow(&mut self, directory: &Directory) {
        if directory.generation() <= self.generation {
            return;
        }
        self.generation = directory.generation();
        let mut known = std::mem::take(&mut self.lines).into_iter().peekable();
        self.lines.reserve(directory.len());
        for device in directory.devices(None) {
            // Devices are never removed, so whoever is known is met here.
            let line = known.next_if(|line| Arc::ptr_eq(&line.device, device));
            let line = line.or_else(|| known.next_if(|line| line.device.id == device.id));
            self.lines.push(match line {
                Some(line) if Arc::ptr_eq(&line.device, device) => line,
                Some(mut line) => {
                    self.words.replace(&mut line.zone, device.zone.as_str());
                    self.words.replace(&mut line.group, device.group.as_str());
                    (line.standing, line.role) = (device.standing, device.role);
                    line.device = device.clone();
                    line
                }
                None => Line {
                    id: device.id.as_str().into(),
                    zone: self.words.take(device.zone.as_str()),
                    group: self.words.take(device.group.as_str()),
                    software: None,
                    standing: device.standing,
                    role: device.role,
                    heard: Heard::default(),
                    device: device.clone(),
                },
            });
        }
    }

    /// What a device runs: product and version of the first thing on it.
    pub fn runs(&mut self, device: &DeviceId, software: Option<(&str, &str)>) {
        let Some(at) = self.place(device) else { return };
        let text = software.map(|(product, version)| format!("{product} {version}"));
        let next = text.map(|text| self.words.take(&text));
        if let Some(before) = std::mem::replace(&mut self.lines[at].software, next) {
            self.words.give(before);
        }
    }

    /// A device was heard. Without a gateway it came by itself, and its gateway is still the one before.
    pub fn hear(&mut self, device: &DeviceId, gateway: Option<&str>, at_ms: u64) {
        let Some(at) = self.place(device) else { return };
        let heard = &mut self.lines[at].heard;
        heard.at_ms = heard.at_ms.max(at_ms);
        let Some(gateway) = gateway else { return };
        if heard.gateway.is_some_and(|known| self.words.is(known, gateway)) {
            return;
        }
        let before = heard.gateway.replace(self.words.take(gateway));
        heard.moved_ms = Some(at_ms);
        if let Some(before) = before {
            self.words.give(before);
        }
    }

    /// What is on disk of it, at the start.
    pub fn recall(&mut self, device: &DeviceId, gateway: Option<&str>, at_ms: u64) {
        self.hear(device, gateway, at_ms);
        if let Some(at) = self.place(device) {
            let heard = &mut self.lines[at].heard;
            (heard.moved_ms, heard.kept_ms) = (None, at_ms);
        }
    }

    /// Up to `max` devices of which something is not on disk, from line number `from` on; and where to go on.
    pub fn unkept(&self, from: usize, max: usize) -> (Vec<Kept>, Option<usize>) {
        let mut kept = Vec::new();
        for (number, line) in self.lines.iter().enumerate().skip(from) {
            if kept.len() == max {
                return (kept, Some(number));
            }
            let Heard { at_ms, gateway, moved_ms, kept_ms } = line.heard;
            if at_ms == kept_ms && moved_ms.is_none() {
                continue;
            }
            kept.push(Kept {
                device: line.device.id.clone(),
                at_ms,
                gateway: gateway.map(|word| self.words.text(word).to_owned()),
                moved_ms,
            });
        }
        (kept, None)
    }

    /// These are on disk now. What came since is not.
    pub fn keep(&mut self, kept: &[Kept]) {
        for Kept { device, at_ms, moved_ms, .. } in kept {
            let Some(at) = self.place(device) else { continue };
            let heard = &mut self.lines[at].heard;
            heard.kept_ms = *at_ms;
            if heard.moved_ms == *moved_ms {
                heard.moved_ms = None;
            }
        }
    }

    pub fn line(&self, device: &DeviceId, site_of: impl Fn(&str) -> String) -> Option<DeviceLine> {
        Some(self.shown(&self.lines[self.place(device)?], &site_of))
    }

    /// A page of what the filter holds for, of what `reach` covers: up to `limit` lines behind `after`.
    pub fn find(
        &self,
        filter: &Filter,
        reach: &Reach,
        site_of: impl Fn(&str) -> String,
        after: Option<&str>,
        limit: usize,
    ) -> Found {
        let mut found = Found { devices: Vec::new(), total: 0, next: None };
        let from = after.map_or(0, |after| self.lines.partition_point(|line| *line.id <= *after));
        let mut is_more = false;
        for (number, line) in self.matching(filter, reach, &site_of) {
            found.total += 1;
            if number < from {
                continue;
            }
            if found.devices.len() < limit {
                found.devices.push(self.shown(line, &site_of));
            } else {
                is_more = true;
            }
        }
        found.next = found.devices.last().filter(|_| is_more).map(|line| line.id.clone());
        found
    }

    pub fn count(
        &self,
        filter: &Filter,
        reach: &Reach,
        site_of: impl Fn(&str) -> String,
        now: Timestamp,
    ) -> Summary {
        let mut summary = Summary::default();
        let mut of_word = vec![Tally::default(); self.words.texts.len()];
        let mut standings = HashMap::new();
        let mut roles = HashMap::new();
        let mut seen = [0_u64; SEEN.len()];
        let now_ms = u64::try_from(now.as_us() / 1000).unwrap_or(0);
        for (_, line) in self.matching(filter, reach, &site_of) {
            summary.total += 1;
            of_word[line.zone.0 as usize].zones += 1;
            of_word[line.group.0 as usize].groups += 1;
            if let Some(software) = line.software {
                of_word[software.0 as usize].versions += 1;
            }
            if let Some(gateway) = line.heard.gateway {
                of_word[gateway.0 as usize].gateways += 1;
            }
            *standings.entry(line.standing).or_insert(0) += 1;
            *roles.entry(line.role).or_insert(0) += 1;
            seen[seen_class(line.heard.at_ms, now_ms)] += 1;
        }
        let named = |count: fn(&Tally) -> u64| {
            let counted = self.words.texts.iter().zip(&of_word);
            let counted = counted.filter_map(|(text, tally)| {
                let count = count(tally);
                (count > 0).then(|| (text.to_string(), count))
            });
            counted.collect::<Vec<_>>()
        };
        for (zone, count) in named(|tally| tally.zones) {
            *summary.sites.entry(site_of(&zone)).or_default() += count;
        }
        summary.zones = most(named(|tally| tally.zones));
        summary.groups = most(named(|tally| tally.groups));
        summary.versions = most(named(|tally| tally.versions));
        summary.gateways = most(named(|tally| tally.gateways));
        let words = |(standing, count): (Standing, u64)| (standing.as_str().to_owned(), count);
        summary.standings = standings.into_iter().map(words).collect();
        let words = |(role, count): (Role, u64)| (role.as_str().to_owned(), count);
        summary.roles = roles.into_iter().map(words).collect();
        let seen = SEEN.iter().zip(seen).filter(|(_, count)| *count > 0);
        summary.seen = seen.map(|((word, _), count)| (word.to_string(), count)).collect();
        summary
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn place(&self, device: &DeviceId) -> Option<usize> {
        self.lines.binary_search_by(|line| line.id.as_ref().cmp(device.as_str())).ok()
    }

    /// The lines that the filter holds for, each with its number.
    fn matching<'a>(
        &'a self,
        filter: &'a Filter,
        reach: &Reach,
        site_of: &impl Fn(&str) -> String,
    ) -> impl Iterator<Item = (usize, &'a Line)> {
        // A word that no line has is nobody's: then nothing is found.
        let one = |text: &Option<String>| text.as_ref().map(|text| self.words.number(text));
        let (zone, group, gateway) = (one(&filter.zone), one(&filter.group), one(&filter.gateway));
        let is_sited = !reach.is_everywhere() || filter.site.is_some();
        let in_site = is_sited.then(|| {
            self.words.each(|zone| {
                let site = site_of(zone);
                reach.covers(&site) && filter.site.as_ref().is_none_or(|wanted| *wanted == site)
            })
        });
        let runs = filter.version.as_ref().map(|wanted| {
            self.words.each(|text| {
                text == wanted || text.split_once(' ').is_some_and(|(_, version)| version == wanted)
            })
        });
        let search = (!filter.search.is_empty()).then(|| Finder::new(filter.search.as_bytes()));
        let holds = move |line: &Line| {
            zone.is_none_or(|zone| zone == Some(line.zone))
                && group.is_none_or(|group| group == Some(line.group))
                && gateway.is_none_or(|gateway| gateway.is_some() && gateway == line.heard.gateway)
                && filter.standing.is_none_or(|standing| standing == line.standing)
                && filter.role.is_none_or(|role| role == line.role)
                && filter.silent_since_ms.is_none_or(|since| line.heard.at_ms <= since)
                && in_site.as_ref().is_none_or(|in_site| in_site[line.zone.0 as usize])
                && runs
                    .as_ref()
                    .is_none_or(|runs| line.software.is_some_and(|word| runs[word.0 as usize]))
                && search.as_ref().is_none_or(|search| search.find(line.id.as_bytes()).is_some())
        };
        self.lines.iter().enumerate().filter(move |(_, line)| holds(line))
    }

    fn shown(&self, line: &Line, site_of: &impl Fn(&str) -> String) -> DeviceLine {
        let zone = self.words.text(line.zone);
        let software = line.software.and_then(|word| self.words.text(word).split_once(' '));
        DeviceLine {
            id: line.id.to_string(),
            role: line.role,
            site: site_of(zone),
            zone: zone.to_owned(),
            group: self.words.text(line.group).to_owned(),
            standing: line.standing,
            product: software.map(|(product, _)| product.to_owned()),
            version: software.map(|(_, version)| version.to_owned()),
            gateway: line.heard.gateway.map(|word| self.words.text(word).to_owned()),
            seen_at_ms: Some(line.heard.at_ms).filter(|at| *at > 0),
        }
    }
}

/// How long ago at the most, in milliseconds, by the word for it.
const SEEN: [(&str, u64); 5] = [
    ("5m", 5 * 60_000),
    ("1h", 3_600_000),
    ("1d", 24 * 3_600_000),
    ("longer", u64::MAX),
    ("never", u64::MAX),
];

fn seen_class(at_ms: u64, now_ms: u64) -> usize {
    if at_ms == 0 {
        return SEEN.len() - 1;
    }
    let ago = now_ms.saturating_sub(at_ms);
    SEEN.iter().position(|(_, most)| ago <= *most).expect("the fourth takes all")
}

/// How many lines have a word, by what it is to them: one word may be a zone and a group.
#[derive(Clone, Copy, Default)]
struct Tally {
    zones: u64,
    groups: u64,
    versions: u64,
    gateways: u64,
}

fn most(mut counted: Vec<(String, u64)>) -> BTreeMap<String, u64> {
    counted.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    counted.truncate(SUMMARY_NAMES_MAX);
    counted.into_iter().collect()
}

/// A text that lines share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u32);

/// Texts by number, each as long as somebody has it.
#[derive(Debug, Default)]
struct Words {
    /// The empty text is a number that is free.
    texts: Vec<Arc<str>>,
    held: Vec<u32>,
    numbers: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
}

impl Words {
    fn take(&mut self, text: &str) -> Word {
        if let Some(number) = self.numbers.get(text) {
            self.held[*number as usize] += 1;
            return Word(*number);
        }
        let text: Arc<str> = text.into();
        let number = match self.free.pop() {
            Some(number) => {
                self.texts[number as usize] = text.clone();
                self.held[number as usize] = 1;
                number
            }
            None => {
                self.texts.push(text.clone());
                self.held.push(1);
                u32::try_from(self.texts.len() - 1).expect("fewer texts than four billion lines")
            }
        };
        self.numbers.insert(text, number);
        Word(number)
    }

    fn give(&mut self, word: Word) {
        let held = &mut self.held[word.0 as usize];
        *held -= 1;
        if *held == 0 {
            let text = std::mem::replace(&mut self.texts[word.0 as usize], "".into());
            self.numbers.remove(&text);
            self.free.push(word.0);
        }
    }

    fn replace(&mut self, word: &mut Word, text: &str) {
        let next = self.take(text);
        self.give(std::mem::replace(word, next));
    }

    fn number(&self, text: &str) -> Option<Word> {
        self.numbers.get(text).map(|number| Word(*number))
    }

    fn text(&self, word: Word) -> &str {
        &self.texts[word.0 as usize]
    }

    fn is(&self, word: Word, text: &str) -> bool {
        self.text(word) == text
    }

    fn each(&self, holds: impl Fn(&str) -> bool) -> Vec<bool> {
        self.texts.iter().map(|text| !text.is_empty() && holds(text)).collect()
    }
}

#[cfg(test)]
mod tests;
