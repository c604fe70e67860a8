//! Which crate imports which: the tiers of ARCHITECTURE.md, held by a golden file.
//!
//! Arrows point to a lower tier only, tests' arrows too. Stations never import each other. The two lowest tiers name no
//! async runtime, no socket and no clock, and only `store` and `cli` link the query engine.

use crate::tree::{self, Page};
use crate::{Finding, supply};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const GOLDEN: &str = "docs/crate-graph.golden";

/// Lowest first. A crate that stands in no tier is a finding: where it belongs is decided before it is built.
const TIERS: [(&str, &[&str]); 7] = [
    ("words", &["model", "api"]),
    ("pure cores", &["trust", "boot", "policy", "rollout"]),
    ("disk", &["disk", "traces"]),
    ("engines", &["keys", "bus", "evidence", "store"]),
    ("stations", &["agent", "gateway", "control"]),
    ("edges", &["cli", "sim", "app"]),
    ("tools", &["bench", "fuzz", "xtask"]),
];

/// The arrows inside a tier that are meant. `store` reads the bus by its own type: a trait between the two would have
/// one form today (docs/decisions/0003-store-reads-the-bus.md).
const INSIDE_A_TIER: [(&str, &str); 2] = [("api", "model"), ("store", "bus")];

/// The tiers, counted from the lowest, that stay pure.
const PURE_TIERS: usize = 2;

/// What a pure crate may not name in its manifest: async runtimes, sockets, clocks.
const IMPURE_CRATES: [&str; 17] = [
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "mio",
    "async-std",
    "smol",
    "futures",
    "socket2",
    "rustix",
    "hyper",
    "axum",
    "reqwest",
    "rustls",
    "mqtt-protocol-core",
    "jiff",
    "chrono",
    "time",
];

/// What a pure crate's sources may not name.
const IMPURE_WORDS: [&str; 5] =
    ["SystemTime::now", "Instant::now", "std::net::Tcp", "std::net::Udp", "std::fs"];

/// The query engine and who may link it.
const QUERY_ENGINE: &str = "datafusion";
const QUERY_ENGINE_IN: [&str; 2] = ["store", "cli"];

/// One of our crates and what its manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crate {
    pub name: String,
    /// Names of dependencies that ship, ours and others'.
    pub uses: BTreeSet<String>,
    /// Names of dependencies that only tests see.
    pub tests_use: BTreeSet<String>,
}

pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let crates = read(root)?;
    let mut findings = rules(&crates);
    for name in TIERS[..PURE_TIERS].iter().flat_map(|(_, names)| *names) {
        findings.extend(impure_sources(&tree::pages(root, &format!("crates/{name}/src"), "rs")?));
    }
    let golden = fs::read_to_string(root.join(GOLDEN)).unwrap_or_default();
    findings.extend(differences(&golden, &draw(&crates)));
    Ok(findings)
}

pub fn bless(root: &Path) -> Result<()> {
    let path = root.join(GOLDEN);
    fs::write(&path, draw(&read(root)?)).with_context(|| format!("writing {path:?}"))?;
    println!("wrote {GOLDEN}: read the difference before it is committed");
    Ok(())
}

fn read(root: &Path) -> Result<Vec<Crate>> {
    let metadata = supply::metadata(root, &["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata names packages")?;
    Ok(packages.iter().map(read_crate).collect())
}

fn read_crate(package: &Value) -> Crate {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Crate { name: text(&package["name"]), ..Crate::default() };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = match dependency["kind"].as_str() {
            Some("dev") => &mut found.tests_use,
            _ => &mut found.uses,
        };
        to.insert(text(&dependency["name"]));
    }
    found
}

fn tier_of(name: &str) -> Option<usize> {
    TIERS.iter().position(|(_, names)| names.contains(&name))
}

fn rules(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for a_crate in crates {
        let Some(tier) = tier_of(&a_crate.name) else {
            findings.push(format!("crate `{}` stands in no tier", a_crate.name));
            continue;
        };
        for used in a_crate.uses.union(&a_crate.tests_use) {
            findings.extend(arrow(&a_crate.name, tier, used));
        }
        for used in a_crate.uses.iter().filter(|used| IMPURE_CRATES.contains(&used.as_str())) {
            if tier < PURE_TIERS {
                let Crate { name, .. } = a_crate;
                findings.push(format!("`{name}` must stay pure, and names `{used}`"));
            }
        }
    }
    for name in linking(crates, QUERY_ENGINE) {
        if !QUERY_ENGINE_IN.contains(&name.as_str()) {
            findings.push(format!(
                "`{name}` links the query engine, which only {} may",
                QUERY_ENGINE_IN.map(|n| format!("`{n}`")).join(" and ")
            ));
        }
    }
    findings
}

fn arrow(from: &str, from_tier: usize, to: &str) -> Option<Finding> {
    let to_tier = tier_of(to)?;
    let meant = INSIDE_A_TIER.contains(&(from, to));
    let (from_words, to_words) = (TIERS[from_tier].0, TIERS[to_tier].0);
    match to_tier.cmp(&from_tier) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal if meant => None,
        std::cmp::Ordering::Equal if from_words == "stations" => {
            Some(format!("station `{from}` imports station `{to}`: they meet as bytes only"))
        }
        _ => Some(format!(
            "`{from}` ({from_words}) imports `{to}` ({to_words}): arrows point to a lower tier only"
        )),
    }
}

/// Which of our crates reach `target` through what ships.
fn linking(crates: &[Crate], target: &str) -> BTreeSet<String> {
    let uses: BTreeMap<&str, &BTreeSet<String>> =
        crates.iter().map(|c| (c.name.as_str(), &c.uses)).collect();
    let mut reaching = BTreeSet::from([target.to_owned()]);
    loop {
        let before = reaching.len();
        for (name, used) in &uses {
            if !reaching.is_disjoint(used) {
                reaching.insert((*name).to_owned());
            }
        }
        if reaching.len() == before {
            reaching.remove(target);
            return reaching;
        }
    }
}

fn impure_sources(pages: &[Page]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in pages {
        let (ships, _) = tree::split_tests(page);
        for (number, line) in ships.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = IMPURE_WORDS.iter().find(|word| code.contains(**word)) {
                let at = format!("{}:{}", page.name(), number + 1);
                findings.push(format!("{at}: `{word}` in a crate that stays pure"));
            }
        }
    }
    findings
}

/// The golden file: our own arrows, lowest tier first.
fn draw(crates: &[Crate]) -> String {
    let mut drawn =
        "# Which crate imports which, lowest tier first; after `tests:`, what only tests import.\n\
                     # Held by `cargo xtask graph`, written by `cargo xtask graph --bless`.\n"
            .to_owned();
    for (tier, (words, names)) in TIERS.iter().enumerate() {
        drawn.push_str(&format!("\ntier {tier}: {words}\n"));
        for name in *names {
            let Some(a_crate) = crates.iter().find(|c| c.name == *name) else { continue };
            let ours = |of: &BTreeSet<String>| {
                let ours = of.iter().filter(|used| tier_of(used).is_some());
                ours.cloned().collect::<Vec<_>>().join(" ")
            };
            drawn.push_str(format!("  {name} -> {}", ours(&a_crate.uses)).trim_end());
            let only_tests = a_crate.tests_use.difference(&a_crate.uses).cloned().collect();
            match ours(&only_tests) {
                tests if tests.is_empty() => drawn.push('\n'),
                tests => drawn.push_str(&format!("   tests: {tests}\n")),
            }
        }
    }
    drawn
}

fn differences(golden: &str, drawn: &str) -> Vec<Finding> {
    let lines =
        |text: &'_ str| text.lines().map(str::trim).map(str::to_owned).collect::<BTreeSet<_>>();
    let (golden, drawn) = (lines(golden), lines(drawn));
    let gone =
        golden.difference(&drawn).map(|l| format!("{GOLDEN} has `{l}`, the manifests do not"));
    let new =
        drawn.difference(&golden).map(|l| format!("the manifests have `{l}`, {GOLDEN} does not"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_crate(name: &str, uses: &[&str]) -> Crate {
        let uses = uses.iter().map(|u| (*u).to_owned()).collect();
        Crate { name: name.to_owned(), uses, ..Crate::default() }
    }

    fn check(crates: &[(&str, &[&str])], expected: &str) {
        let crates: Vec<_> = crates.iter().map(|(name, uses)| a_crate(name, uses)).collect();
        assert_eq!(rules(&crates).join("\n"), expected);
    }

    #[test]
    fn arrows_to_lower_tiers_are_free() {
        check(&[("model", &["minicbor"]), ("api", &["model"]), ("cli", &["store", "control"])], "");
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        let expected =
            "`bus` (engines) imports `gateway` (stations): arrows point to a lower tier only";
        check(&[("bus", &["gateway"])], expected);
    }

    #[test]
    fn an_arrow_inside_a_tier_is_found_unless_meant() {
        let expected = "`model` (words) imports `api` (words): arrows point to a lower tier only";
        check(&[("model", &["api"])], expected);
    }

    #[test]
    fn a_station_that_imports_a_station_is_found_in_tests_too() {
        let tests_use = BTreeSet::from(["control".to_owned()]);
        let gateway = Crate { name: "gateway".to_owned(), tests_use, ..Crate::default() };
        let expected = ["station `gateway` imports station `control`: they meet as bytes only"];
        assert_eq!(rules(&[gateway]), expected);
    }

    #[test]
    fn a_runtime_in_a_pure_core_is_found() {
        check(&[("policy", &["tokio"])], "`policy` must stay pure, and names `tokio`");
    }

    #[test]
    fn a_crate_without_a_tier_is_found() {
        check(&[("helpers", &[])], "crate `helpers` stands in no tier");
    }

    #[test]
    fn the_query_engine_is_found_behind_another_crate() {
        check(
            &[("store", &["datafusion"]), ("cli", &["store"]), ("control", &["store"])],
            "`control` links the query engine, which only `store` and `cli` may",
        );
    }

    #[test]
    fn a_clock_in_a_pure_source_is_found_unless_a_test_reads_it() {
        let text = "// Instant::now is the caller's\nlet now = Instant::now();\n\
                    #[cfg(test)]\nmod tests { fn f() { SystemTime::now(); } }";
        let findings = impure_sources(&[tree::page("crates/trust/src/x.rs", text)]);
        assert_eq!(
            findings,
            ["crates/trust/src/x.rs:2: `Instant::now` in a crate that stays pure"]
        );
    }

    #[test]
    fn an_arrow_that_comes_or_goes_differs_from_the_golden_file() {
        let before = draw(&[a_crate("bus", &["disk", "tokio"])]);
        let after = draw(&[a_crate("bus", &["disk", "model"])]);
        assert_eq!(differences(&before, &before), [""; 0]);
        assert_eq!(
            differences(&before, &after),
            [
                "docs/crate-graph.golden has `bus -> disk`, the manifests do not",
                "the manifests have `bus -> disk model`, docs/crate-graph.golden does not",
            ]
        );
    }

    #[test]
    fn the_workspace_keeps_its_graph() {
        let findings = super::check(&crate::root()).expect("cargo metadata runs");
        assert_eq!(findings, [""; 0]);
    }
}
