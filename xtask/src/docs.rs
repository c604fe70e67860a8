//! Pages that speak of the code, held to it both ways: invariants, threat register, links.

use crate::Finding;
use crate::markdown::{anchors, code_spans, links, table};
use crate::tree::{self, Page};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const INVARIANTS: &str = "docs/invariants.md";
const INVARIANTS_HEADER: [&str; 6] =
    ["id", "sentence", "held by", "attacked by", "explored by", "counter"];

const BOARDS: &str = "docs/grafana";

const THREATS: &str = "docs/threats/register.md";
const THREATS_HEADER: [&str; 8] = [
    "id",
    "assumption or failure mode",
    "mitigation",
    "invariant",
    "test",
    "monitor",
    "playbook",
    "reviewed",
];

pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let code = Code::read(root)?;
    let invariants = read(INVARIANTS)?;
    let threats = read(THREATS)?;
    let runbooks = tree::pages(root, "docs/runbooks", "md")?;
    let pages = tree::pages(root, "", "md")?;

    let mut findings = invariants_and_code(&invariants, &code);
    findings.extend(counters_and_code(&code));
    findings.extend(threats_and_code(&threats, &invariants, &runbooks, &code));
    findings.extend(labels(&pages, &invariants));
    let mut boards = tree::pages(root, BOARDS, "json")?;
    boards.extend(tree::pages(root, BOARDS, "yml")?);
    findings.extend(boards_and_code(&boards, &code));
    findings.extend(broken_links(&pages, |path| root.join(path).exists()));
    Ok(findings)
}

/// Our Rust sources: what ships, what tests see, and which functions there are.
struct Code {
    /// Text that ships, by path.
    ships: BTreeMap<String, String>,
    tests: BTreeMap<String, String>,
    functions: BTreeSet<String>,
}

impl Code {
    fn read(root: &Path) -> Result<Self> {
        let mut pages = tree::pages(root, "crates", "rs")?;
        pages.extend(tree::pages(root, "fuzz", "rs")?);
        Ok(Self::of(&pages))
    }

    fn of(pages: &[Page]) -> Self {
        let mut code =
            Self { ships: BTreeMap::new(), tests: BTreeMap::new(), functions: BTreeSet::new() };
        for page in pages {
            let (ships, tests) = tree::split_tests(page);
            code.ships.insert(page.name(), ships.to_owned());
            code.tests.insert(page.name(), tests.to_owned());
            code.functions.extend(functions(&page.text));
        }
        code
    }

    /// Whether code that ships has exactly this name for a metric.
    fn registers(&self, name: &str) -> bool {
        let whole = format!("\"{name}\"");
        self.ships.values().any(|text| text.contains(&whole)) || self.has_part(name)
    }

    /// Whether code that ships names this metric: whole, or as the part that a station puts behind its own name.
    fn has_metric(&self, name: &str) -> bool {
        if self.ships.values().any(|text| text.contains(name)) {
            return true;
        }
        self.has_part(name)
    }

    /// Whether a station names what it puts behind its own name.
    fn has_part(&self, name: &str) -> bool {
        let parts = name.strip_prefix("plimsoll_").and_then(|rest| rest.split_once('_'));
        parts.is_some_and(|(station, rest)| {
            let (dir, literal) = (format!("crates/{station}/"), format!("\"{rest}\""));
            self.ships.iter().any(|(path, text)| path.starts_with(&dir) && text.contains(&literal))
        })
    }
}

/// Dashboards and alert rules for Prometheus: a figure that nothing counts is a line that stays empty, and an alert that never
/// comes.
fn boards_and_code(boards: &[Page], code: &Code) -> Vec<Finding> {
    let mut findings = Vec::new();
    if boards.is_empty() {
        findings.push(format!("{BOARDS}: expected a dashboard, found none"));
    }
    for board in boards {
        for name in metrics(&board.text) {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_there = code.registers(name) || plain.is_some_and(|name| code.registers(name));
            if !is_there {
                let board = board.name();
                findings.push(format!("{board}: no code that ships names the metric `{name}`"));
            }
        }
    }
    findings
}

/// Every name of a metric of ours in a text, once.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let name = |(at, _): (usize, &str)| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())]
    };
    text.match_indices("plimsoll_").map(name).collect()
}

/// Names after `fn `, also those that a macro of tests makes functions of.
fn functions(text: &str) -> impl Iterator<Item = String> {
    let after = text.split("fn ").skip(1);
    after.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

/// Whether a source has an item of this name: a function, a type, a constant, or a variant on a line of its own.
fn defines(text: &str, item: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let keywords = ["fn ", "struct ", "enum ", "trait ", "type ", "const "];
    let after = |lead: &str| {
        text.match_indices(lead).any(|(at, _)| {
            let rest = text[at + lead.len()..].strip_prefix(item);
            rest.is_some_and(ends)
        })
    };
    let is_variant = |line: &str| line.trim_start().strip_prefix(item).is_some_and(ends);
    keywords.into_iter().any(after) || text.lines().any(is_variant)
}

/// Ids like `INV-ACK-1`, without their prefix.
fn ids(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in text.split("INV-").skip(1) {
        let words = rest.chars().take_while(char::is_ascii_uppercase).count();
        let Some(number) = rest[words..].strip_prefix('-') else { continue };
        let digits = number.chars().take_while(char::is_ascii_digit).count();
        if words > 0 && digits > 0 {
            found.insert(rest[..words + 1 + digits].to_owned());
        }
    }
    found
}

fn invariants_and_code(page: &str, code: &Code) -> Vec<Finding> {
    let Some(rows) = table(page, &INVARIANTS_HEADER) else {
        return vec![format!("{INVARIANTS}: expected a table `{}`", INVARIANTS_HEADER.join(" | "))];
    };
    let in_code: BTreeSet<String> = code.ships.values().flat_map(|text| ids(text)).collect();
    let in_tests: BTreeSet<String> = code.tests.values().flat_map(|text| ids(text)).collect();
    let mut findings = Vec::new();
    let mut in_table = BTreeSet::new();
    for row in &rows {
        let [id, sentence, held, attacked, explored, counter] = row.as_slice() else {
            findings.push(format!("{INVARIANTS}: expected 6 cells, found {}: {row:?}", row.len()));
            continue;
        };
        let mut find = |what: String| findings.push(format!("{INVARIANTS}, {id}: {what}"));
        if !in_table.insert(id.clone()) {
            find("stands in the table twice".to_owned());
        }
        if sentence.is_empty() {
            find("expected its sentence, found none".to_owned());
        }
        if !in_code.contains(id) {
            find(format!("no code that ships names INV-{id}"));
        }
        if !in_tests.contains(id) {
            find(format!("no test names INV-{id}"));
        }
        // Counters of several stations are added up by their label, so all must write it alike.
        let bare = format!("\"{id}\"");
        for (file, _) in code.ships.iter().filter(|(_, text)| text.contains(&bare)) {
            find(format!("`{file}` calls it {bare}, expected \"INV-{id}\""));
        }
        if code_spans(held).is_empty() {
            find("held by nothing".to_owned());
        }
        for place in code_spans(held) {
            let (file, item) = place.split_once(':').unwrap_or((place, ""));
            match code.ships.get(file) {
                None => find(format!("held by `{file}`, which is not a source of ours")),
                Some(text) if !defines(text, item) => {
                    find(format!("held by `{item}`, which `{file}` does not have"));
                }
                Some(_) => (),
            }
        }
        if code_spans(attacked).is_empty() {
            find("attacked by no test".to_owned());
        }
        for test in code_spans(attacked).into_iter().chain(code_spans(explored)) {
            if !code.functions.contains(test) {
                find(format!("no `fn {test}` in the code"));
            }
        }
        for metric in code_spans(counter) {
            let name = metric.split('{').next().unwrap_or_default();
            if !code.has_metric(name) {
                find(format!("no code that ships names the metric `{name}`"));
            }
        }
        if code_spans(counter).is_empty() {
            find("expected its counter, found none".to_owned());
        }
    }
    for id in in_code.union(&in_tests).filter(|id| !in_table.contains(*id)) {
        findings.push(format!("the code names INV-{id}, which {INVARIANTS} does not have"));
    }
    findings
}

/// A station's list `INVARIANTS` is of counters that it shows with 0: each must be raised somewhere, or the 0 says nothing.
fn counters_and_code(code: &Code) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in &code.ships {
        let Some((before, rest)) = text.split_once("const INVARIANTS:") else { continue };
        let Some((list, after)) = rest.split_once("];") else { continue };
        let dir = file.split_inclusive('/').take(2).collect::<String>();
        let others = code.ships.iter().filter(|(path, _)| path.starts_with(&dir) && *path != file);
        let elsewhere: Vec<&str> =
            others.map(|(_, text)| text.as_str()).chain([before, after]).collect();
        for id in ids(list) {
            let label = format!("\"INV-{id}\"");
            if !elsewhere.iter().any(|text| text.contains(&label)) {
                findings.push(format!("{file}: nothing in {dir} raises the counter of INV-{id}"));
            }
        }
    }
    findings
}

/// A page that tells which label to look for must write it as the counters do: `invariant="INV-ACK-1"`.
fn labels(pages: &[Page], invariants: &str) -> Vec<Finding> {
    let known = invariant_ids(invariants);
    let mut findings = Vec::new();
    for page in pages {
        for rest in page.text.split("invariant=\"").skip(1) {
            let label = rest.split('"').next().unwrap_or_default();
            let is_known = label.strip_prefix("INV-").is_some_and(|id| known.contains(id));
            if !is_known && label != "…" {
                findings.push(format!(
                    "{}: the label `{label}` is none: expected `INV-` and an id of {INVARIANTS}",
                    page.name()
                ));
            }
        }
    }
    findings
}

fn invariant_ids(page: &str) -> BTreeSet<String> {
    let rows = table(page, &INVARIANTS_HEADER).into_iter().flatten();
    rows.filter_map(|row| row.first().cloned()).collect()
}

fn threats_and_code(page: &str, invariants: &str, runbooks: &[Page], code: &Code) -> Vec<Finding> {
    let Some(rows) = table(page, &THREATS_HEADER) else {
        return vec![format!("{THREATS}: expected a table `{}`", THREATS_HEADER.join(" | "))];
    };
    let known = invariant_ids(invariants);
    let mut findings = Vec::new();
    let (mut seen, mut named, mut played) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for row in &rows {
        let [id, mode, mitigation, invariant, test, monitor, playbook, reviewed] = row.as_slice()
        else {
            findings.push(format!("{THREATS}: expected 8 cells, found {}: {row:?}", row.len()));
            continue;
        };
        let mut find = |what: String| findings.push(format!("{THREATS}, {id}: {what}"));
        if !seen.insert(id.clone()) {
            find("stands in the register twice".to_owned());
        }
        if mode.is_empty() || mitigation.is_empty() {
            find("expected what fails and what is done about it".to_owned());
        }
        for word in invariant.split([',', ' ']).filter(|w| !w.is_empty() && *w != "none") {
            match known.contains(word) {
                true => _ = named.insert(word.to_owned()),
                false => find(format!("{INVARIANTS} does not have {word}")),
            }
        }
        if invariant.is_empty() {
            find("expected an invariant or `none`".to_owned());
        }
        if code_spans(test).is_empty() {
            find("expected a test, found none".to_owned());
        }
        for name in code_spans(test).into_iter().filter(|name| !code.functions.contains(*name)) {
            find(format!("no `fn {name}` in the code"));
        }
        if code_spans(monitor).is_empty() {
            find("expected a metric, found none".to_owned());
        }
        for metric in code_spans(monitor) {
            let name = metric.split('{').next().unwrap_or_default();
            if !code.has_metric(name) {
                find(format!("no code that ships names the metric `{name}`"));
            }
        }
        let links = links(playbook);
        if links.is_empty() {
            find("expected a link to its playbook, found none".to_owned());
        }
        played.extend(links.into_iter().filter_map(|link| resolve(Path::new(THREATS), &link)));
        if !is_date(reviewed) {
            find(format!("expected the date of its last review, found `{reviewed}`"));
        }
    }
    for id in known.difference(&named) {
        findings.push(format!("{THREATS}: no row is held by {id}"));
    }
    for runbook in runbooks.iter().filter(|page| !played.contains(&page.path)) {
        findings.push(format!("{}: no row of {THREATS} links to it", runbook.name()));
    }
    findings
}

/// `2026-11-21`.
fn is_date(text: &str) -> bool {
    let parts: Vec<Option<u32>> = text.split('-').map(|part| part.parse().ok()).collect();
    match parts.as_slice() {
        [Some(2020..), Some(1..=12), Some(1..=31)] => text.len() == "2026-11-21".len(),
        _ => false,
    }
}

/// Relative links of all pages; what lies elsewhere in the world is not ours to hold.
fn broken_links(pages: &[Page], exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in pages {
        for link in links(&page.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let Some(target) = resolve(&page.path, &link) else {
                findings.push(format!("{}: `{link}` leads out of the repository", page.name()));
                continue;
            };
            if !exists(&target) {
                findings.push(format!("{}: `{link}` leads nowhere", page.name()));
                continue;
            }
            let Some((_, anchor)) = link.split_once('#') else { continue };
            let to = pages.iter().find(|page| page.path == target);
            if to.is_some_and(|to| !anchors(&to.text).iter().any(|a| a == anchor)) {
                findings.push(format!("{}: `{link}`: no such heading", page.name()));
            }
        }
    }
    findings
}

/// Where a link of `page` leads, from the workspace's root.
fn resolve(page: &Path, link: &str) -> Option<PathBuf> {
    let file = link.split('#').next().unwrap_or_default();
    if file.is_empty() {
        return Some(page.to_owned());
    }
    let mut resolved = page.parent()?.to_owned();
    for component in Path::new(file).components() {
        match component {
            Component::CurDir => (),
            Component::ParentDir if !resolved.pop() => return None,
            Component::ParentDir => (),
            Component::Normal(name) => resolved.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::page;

    const GOOD_INVARIANT: [&str; 6] = [
        "ACK-1",
        "What was acknowledged is found",
        "`crates/bus/src/lib.rs:Writer`",
        "`nothing_is_lost`",
        "`nothing_is_lost`",
        "`plimsoll_invariant_violations_total{invariant=\"INV-ACK-1\"}`",
    ];

    const GOOD_THREAT: [&str; 8] = [
        "power-cut",
        "power goes",
        "fsync first",
        "ACK-1",
        "`nothing_is_lost`",
        "`plimsoll_invariant_violations_total`",
        "[go](../runbooks/power.md)",
        "2026-11-21",
    ];

    fn code() -> Code {
        Code::of(&[
            page(
                "crates/bus/src/lib.rs",
                "/// Acknowledges late (INV-ACK-1).\nstruct Writer;\n\
                 const M: &str = \"plimsoll_invariant_violations_total\";\n\
                 #[cfg(test)]\nmod tests { /* INV-ACK-1 */ fn nothing_is_lost() {} }",
            ),
            page("crates/bus/tests/it/main.rs", ""),
        ])
    }

    fn drawn<const N: usize>(header: [&str; N], row: [&str; N]) -> String {
        let rule = vec!["---"; N].join("|");
        format!("# Page\n\n| {} |\n|{rule}|\n| {} |\n", header.join(" | "), row.join(" | "))
    }

    /// One cell of a good row is changed; what is found then.
    fn invariant(cell: usize, text: &str) -> Vec<Finding> {
        let mut row = GOOD_INVARIANT;
        row[cell] = text;
        invariants_and_code(&drawn(INVARIANTS_HEADER, row), &code())
    }

    fn threat(cell: usize, text: &str) -> Vec<Finding> {
        let mut row = GOOD_THREAT;
        row[cell] = text;
        let invariants = drawn(INVARIANTS_HEADER, GOOD_INVARIANT);
        let runbooks = [page("docs/runbooks/power.md", "")];
        threats_and_code(&drawn(THREATS_HEADER, row), &invariants, &runbooks, &code())
    }

    #[test]
    fn a_good_row_passes() {
        assert_eq!(invariant(0, "ACK-1"), [""; 0]);
        assert_eq!(threat(0, "power-cut"), [""; 0]);
    }

    #[test]
    fn an_invariant_without_its_code_is_found_and_the_other_way_round() {
        assert_eq!(
            invariant(0, "ACK-2"),
            [
                "docs/invariants.md, ACK-2: no code that ships names INV-ACK-2",
                "docs/invariants.md, ACK-2: no test names INV-ACK-2",
                "the code names INV-ACK-1, which docs/invariants.md does not have",
            ]
        );
    }

    #[test]
    fn an_invariant_that_no_test_names_is_found() {
        let code = Code::of(&[page(
            "crates/bus/src/lib.rs",
            "/// INV-ACK-1\nstruct Writer;\nfn nothing_is_lost() {}\n\
             const M: &str = \"plimsoll_invariant_violations_total\";",
        )]);
        assert_eq!(
            invariants_and_code(&drawn(INVARIANTS_HEADER, GOOD_INVARIANT), &code),
            ["docs/invariants.md, ACK-1: no test names INV-ACK-1"]
        );
    }

    #[test]
    fn a_counter_that_calls_an_invariant_otherwise_is_found() {
        let mut code = code();
        let bus = code.ships.get_mut("crates/bus/src/lib.rs").unwrap();
        bus.push_str("fn late() { violated(\"ACK-1\") }");
        assert_eq!(
            invariants_and_code(&drawn(INVARIANTS_HEADER, GOOD_INVARIANT), &code),
            [
                "docs/invariants.md, ACK-1: `crates/bus/src/lib.rs` calls it \"ACK-1\", expected \"INV-ACK-1\""
            ]
        );
    }

    #[test]
    fn a_counter_that_nobody_can_raise_is_found() {
        let list = "const INVARIANTS: [&str; 2] = [\"INV-ACK-1\", \"INV-AUTH-1\"];\n";
        let raised = "fn late() { violated(\"INV-ACK-1\") }";
        let elsewhere = "fn revoked() { violated(\"INV-AUTH-1\") }";
        let found = |spool: &str, other_station: &str| {
            counters_and_code(&Code::of(&[
                page("crates/bus/src/metrics.rs", &format!("{list}{raised}")),
                page("crates/bus/src/spool.rs", spool),
                page("crates/store/src/shard.rs", other_station),
            ]))
        };
        assert_eq!(found(elsewhere, ""), [""; 0]);
        assert_eq!(
            found("/// Holds INV-AUTH-1.", elsewhere),
            ["crates/bus/src/metrics.rs: nothing in crates/bus/ raises the counter of INV-AUTH-1"]
        );
    }

    #[test]
    fn an_invariant_held_by_what_is_not_there_is_found() {
        let one = |found: &str| vec![format!("docs/invariants.md, ACK-1: {found}")];
        assert_eq!(invariant(2, "the disk"), one("held by nothing"));
        assert_eq!(
            invariant(2, "`crates/bus/src/gone.rs:Writer`"),
            one("held by `crates/bus/src/gone.rs`, which is not a source of ours")
        );
        assert_eq!(
            invariant(2, "`crates/bus/src/lib.rs:Reader`"),
            one("held by `Reader`, which `crates/bus/src/lib.rs` does not have")
        );
        // A word in a comment, or the beginning of another name, is no item.
        for item in ["Acknowledges", "Write"] {
            let found = format!("held by `{item}`, which `crates/bus/src/lib.rs` does not have");
            assert_eq!(invariant(2, &format!("`crates/bus/src/lib.rs:{item}`")), one(&found));
        }
        assert_eq!(invariant(3, "a test"), one("attacked by no test"));
        assert_eq!(invariant(3, "`gone`"), one("no `fn gone` in the code"));
        assert_eq!(invariant(4, "`gone`"), one("no `fn gone` in the code"));
        assert_eq!(invariant(5, ""), one("expected its counter, found none"));
        assert_eq!(
            invariant(5, "`plimsoll_gone_total`"),
            one("no code that ships names the metric `plimsoll_gone_total`")
        );
    }

    #[test]
    fn a_metric_is_found_whole_or_behind_its_stations_name() {
        let code =
            Code::of(&[page("crates/gateway/src/metrics.rs", "counter(r, \"spool_bytes\")")]);
        assert!(code.has_metric("plimsoll_gateway_spool_bytes"));
        assert!(!code.has_metric("plimsoll_gateway_spool"));
        assert!(!code.has_metric("plimsoll_control_spool_bytes"));
    }

    #[test]
    fn a_dashboard_that_shows_what_nothing_counts_is_found() {
        let code = Code::of(&[
            page("crates/gateway/src/metrics.rs", "counter(r, \"spool_bytes\")"),
            page("crates/store/src/metrics.rs", "h(r, \"plimsoll_query_seconds\")"),
        ]);
        let found = |text: &str| {
            let found = boards_and_code(&[page("docs/grafana/plimsoll.json", text)], &code);
            found.len()
        };
        assert_eq!(found("sum(plimsoll_gateway_spool_bytes{a=\"b\"})"), 0);
        assert_eq!(
            found("rate(plimsoll_query_seconds_bucket[5m]) + plimsoll_query_seconds_sum"),
            0
        );
        assert_eq!(found("sum(plimsoll_gateway_spool)"), 1, "a part of a name is another name");
        assert_eq!(found("sum(plimsoll_query)"), 1);
        assert_eq!(found("sum(plimsoll_query_minutes_bucket)"), 1);
        assert_eq!(boards_and_code(&[], &code).len(), 1);
    }

    #[test]
    fn a_page_without_its_table_is_found() {
        assert_eq!(invariants_and_code("# Page", &code()).len(), 1);
        assert_eq!(threats_and_code("# Page", "", &[], &code()).len(), 1);
    }

    #[test]
    fn a_threat_with_a_broken_cell_is_found() {
        let one = |found: &str| vec![format!("docs/threats/register.md, power-cut: {found}")];
        assert_eq!(threat(2, ""), one("expected what fails and what is done about it"));
        assert_eq!(threat(4, "by hand"), one("expected a test, found none"));
        assert_eq!(threat(4, "`gone`"), one("no `fn gone` in the code"));
        assert_eq!(threat(5, ""), one("expected a metric, found none"));
        assert_eq!(
            threat(5, "`plimsoll_gone_total`"),
            one("no code that ships names the metric `plimsoll_gone_total`")
        );
        for text in ["", "soon", "2026-13-01", "2026-1-1"] {
            let expected = format!("expected the date of its last review, found `{text}`");
            assert_eq!(threat(7, text), one(&expected));
        }
    }

    #[test]
    fn a_threat_and_its_invariant_are_held_both_ways() {
        assert_eq!(
            threat(3, "ACK-9"),
            [
                "docs/threats/register.md, power-cut: docs/invariants.md does not have ACK-9",
                "docs/threats/register.md: no row is held by ACK-1",
            ]
        );
        assert_eq!(threat(3, "none"), ["docs/threats/register.md: no row is held by ACK-1"]);
    }

    #[test]
    fn a_runbook_that_no_threat_links_to_is_found() {
        assert_eq!(
            threat(6, "call somebody"),
            [
                "docs/threats/register.md, power-cut: expected a link to its playbook, found none",
                "docs/runbooks/power.md: no row of docs/threats/register.md links to it",
            ]
        );
    }

    #[test]
    fn a_page_that_calls_a_counters_label_otherwise_is_found() {
        let invariants = drawn(INVARIANTS_HEADER, GOOD_INVARIANT);
        let found = |text: &str| labels(&[page("docs/a.md", text)], &invariants);
        for good in ["`v{invariant=\"INV-ACK-1\"}`", "`v{invariant=\"…\"}`", "`v{invariant}`"] {
            assert_eq!(found(good), [""; 0], "{good}");
        }
        for label in ["ACK-1", "INV-ACK-9", ""] {
            let expected = format!(
                "docs/a.md: the label `{label}` is none: expected `INV-` and an id of docs/invariants.md"
            );
            assert_eq!(found(&format!("`v{{invariant=\"{label}\"}}` is above 0")), [expected]);
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let pages = [
            page("docs/a.md", "[b](b.md) [c](../c.md#here) [d](gone.md) [e](../../out.md)"),
            page("docs/b.md", "[up](a.md) [self](#nothing) [web](https://example.org/gone)"),
            page("c.md", "# Here"),
        ];
        let exists = |path: &Path| pages.iter().any(|page| page.path == path);
        assert_eq!(
            broken_links(&pages, exists),
            [
                "docs/a.md: `gone.md` leads nowhere",
                "docs/a.md: `../../out.md` leads out of the repository",
                "docs/b.md: `#nothing`: no such heading",
            ]
        );
    }

    #[test]
    fn the_repository_keeps_its_documents() {
        let findings = super::check(&crate::root()).expect("the pages can be read");
        assert_eq!(findings, [""; 0]);
    }
}
