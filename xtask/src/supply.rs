//! What we build on: licences, sources, floor versions, what is never linked, known advisories.
//!
//! The rules are held here, over Cargo.lock and what cargo says, so that they hold on a machine that has nothing but
//! cargo. deny.toml says the same for those who have cargo-deny; advisories need it and a database that can be reached.

use crate::Finding;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What we build for; dependencies of other platforms are in Cargo.lock and never fetched.
const PLATFORMS: [&str; 3] =
    ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"];

/// Licences that allow shipping under Apache-2.0 with nothing but a notice. The same list stands in deny.toml.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BlueOak-1.0.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Never below, in any copy, and why.
const FLOORS: [(&str, [u64; 3], &str); 1] =
    [("rustls-webpki", [0, 103, 12], "three advisories of 2026 hit CRLs and name constraints")];

/// Never linked, and what does its work.
const NEVER_LINKED: [(&str, &str); 5] = [
    ("ring", "aws-lc-rs"),
    ("openssl", "rustls with aws-lc-rs"),
    ("openssl-sys", "rustls with aws-lc-rs"),
    ("native-tls", "rustls with aws-lc-rs"),
    ("rumqttd", "our gateway: it acknowledges before it stores"),
];

/// Families of which one major version may exist: a second compiles an Arrow that does not fit the first.
const ONE_MAJOR: [&str; 3] = ["arrow", "parquet", "datafusion"];

/// What the Makefile builds, besides what tests build.
const BUILT_FOR: [(&str, &[&str]); 2] =
    [("make up", &["-p", "cli", "-p", "agent", "-p", "gateway"]), ("make build", &["--workspace"])];

pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let locked = locked(&lock);
    let mut findings = sources(&locked);
    findings.extend(floors(&locked));
    findings.extend(majors(&locked));

    let mut platforms = Vec::new();
    for platform in PLATFORMS {
        platforms.extend(["--filter-platform", platform]);
    }
    let metadata = metadata(root, &platforms)?;
    findings.extend(licences(metadata["packages"].as_array().into_iter().flatten()));

    let all = ["--workspace", "-e", "normal,build,dev"];
    findings.extend(linked(&features(root, &all)?));
    findings.extend(advisories(root)?);
    Ok(findings)
}

/// Dependencies that a target builds with other features than `make test`: each costs its compile time again, and that
/// of everything above it.
pub fn compiled_twice(root: &Path) -> Result<Vec<Finding>> {
    let test = features(root, &["--workspace", "-e", "normal,build,dev"])?;
    let mut findings = Vec::new();
    for (target, selection) in BUILT_FOR {
        let built = features(root, &[selection, &["-e", "normal,build"]].concat())?;
        findings.extend(differing(target, &built, &test));
    }
    Ok(findings)
}

/// `cargo metadata`, with the lock file as it is.
pub fn metadata(root: &Path, args: &[&str]) -> Result<Value> {
    let text = cargo(root, &[&["metadata", "--format-version", "1", "--locked"], args].concat())?;
    serde_json::from_str(&text).context("reading what `cargo metadata` says")
}

/// What a build selection links: the package as `name vX.Y.Z` and the sets of features that it is built with. Asked of
/// `cargo tree`, since `cargo metadata` lists optional dependencies that nothing switches on.
fn features(root: &Path, selection: &[&str]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let fixed = ["tree", "--locked", "--prefix", "none", "-f", "{p}|{f}"];
    let mut platforms = Vec::new();
    for platform in PLATFORMS {
        platforms.extend(["--target", platform]);
    }
    let text = cargo(root, &[&fixed, &platforms[..], selection].concat())?;
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().map(|line| line.trim_end_matches(" (*)")) {
        if let Some((package, features)) = line.split_once('|') {
            let package = package.trim_end_matches(" (proc-macro)").to_owned();
            found.entry(package).or_default().insert(features.to_owned());
        }
    }
    Ok(found)
}

fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(args).current_dir(root).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting `cargo {}`", args.join(" ")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`cargo {}` failed: {}", args.join(" "), said.trim());
    }
    String::from_utf8(output.stdout).context("cargo speaks UTF-8")
}

/// One `[[package]]` of Cargo.lock.
#[derive(Debug, Default, PartialEq, Eq)]
struct Locked {
    name: String,
    version: String,
    /// None: our own.
    source: Option<String>,
    has_checksum: bool,
}

fn locked(lock: &str) -> Vec<Locked> {
    let packages = lock.split("[[package]]").skip(1);
    packages
        .map(|text| {
            let field = |key: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
                let (_, value) = lines.find(|(k, _)| *k == key)?;
                Some(value.trim_matches('"').to_owned())
            };
            Locked {
                name: field("name").unwrap_or_default(),
                version: field("version").unwrap_or_default(),
                source: field("source"),
                has_checksum: field("checksum").is_some(),
            }
        })
        .collect()
}

fn sources(locked: &[Locked]) -> Vec<Finding> {
    let foreign = locked.iter().filter(|p| p.source.is_some());
    foreign
        .filter(|p| p.source.as_deref() != Some(REGISTRY) || !p.has_checksum)
        .map(|p| {
            let source = p.source.as_deref().unwrap_or_default();
            let sum = if p.has_checksum { "a checksum" } else { "no checksum" };
            format!(
                "{} {}: expected crates.io and a checksum, found `{source}` and {sum}",
                p.name, p.version
            )
        })
        .collect()
}

fn floors(locked: &[Locked]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, floor, why) in FLOORS {
        for package in locked.iter().filter(|p| p.name == name) {
            if numbers(&package.version) < floor {
                let [a, b, c] = floor;
                let version = &package.version;
                findings.push(format!("{name} {version}: expected {a}.{b}.{c} or later ({why})"));
            }
        }
    }
    findings
}

fn majors(locked: &[Locked]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for family in ONE_MAJOR {
        let mut seen: BTreeMap<u64, &Locked> = BTreeMap::new();
        for package in locked {
            let rest = package.name.strip_prefix(family);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
                seen.entry(numbers(&package.version)[0]).or_insert(package);
            }
        }
        if seen.len() > 1 {
            let named: Vec<_> =
                seen.values().map(|p| format!("{} {}", p.name, p.version)).collect();
            findings
                .push(format!("{family}: expected one major version, found {}", named.join(", ")));
        }
    }
    findings
}

/// The three numbers of a version; what follows them does not count.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

fn linked(packages: &BTreeMap<String, BTreeSet<String>>) -> Vec<Finding> {
    let names: BTreeSet<&str> = packages.keys().filter_map(|p| p.split(' ').next()).collect();
    let never = NEVER_LINKED.iter().filter(|(name, _)| names.contains(name));
    never.map(|(name, instead)| format!("`{name}` is linked: use {instead}")).collect()
}

fn differing(
    target: &str,
    built: &BTreeMap<String, BTreeSet<String>>,
    test: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<Finding> {
    let none = BTreeSet::new();
    let mut findings = Vec::new();
    for (package, sets) in built {
        for features in sets.difference(test.get(package).unwrap_or(&none)) {
            findings.push(format!(
                "{package} is compiled twice: `{target}` builds it with [{features}], `make test` \
                 does not"
            ));
        }
    }
    findings
}

fn licences<'a>(packages: impl Iterator<Item = &'a Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let version = package["version"].as_str().unwrap_or_default();
        match package["license"].as_str() {
            None => {
                findings.push(format!("{name} {version}: expected a licence, found none named"))
            }
            Some(licence) => match allowed(licence) {
                Ok(true) => (),
                Ok(false) => findings.push(format!("{name} {version}: `{licence}` is not allowed")),
                Err(why) => findings.push(format!("{name} {version}: `{licence}`: {why}")),
            },
        }
    }
    findings
}

/// Whether an SPDX expression can be satisfied by allowed licences alone. `/` is crates.io's old way to say OR.
fn allowed(expression: &str) -> Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    let allowed = any_of(&mut tokens)?;
    match tokens.next() {
        None => Ok(allowed),
        Some(token) => bail!("expected its end, found `{token}`"),
    }
}

type Tokens<'a, I> = std::iter::Peekable<I>;

fn any_of<'a, I: Iterator<Item = &'a str>>(tokens: &mut Tokens<'a, I>) -> Result<bool> {
    let mut allowed = all_of(tokens)?;
    while tokens.next_if_eq(&"OR").is_some() {
        allowed |= all_of(tokens)?;
    }
    Ok(allowed)
}

fn all_of<'a, I: Iterator<Item = &'a str>>(tokens: &mut Tokens<'a, I>) -> Result<bool> {
    let mut allowed = one(tokens)?;
    while tokens.next_if_eq(&"AND").is_some() {
        allowed &= one(tokens)?;
    }
    Ok(allowed)
}

fn one<'a, I: Iterator<Item = &'a str>>(tokens: &mut Tokens<'a, I>) -> Result<bool> {
    match tokens.next() {
        Some("(") => {
            let allowed = any_of(tokens)?;
            match tokens.next() {
                Some(")") => Ok(allowed),
                found => bail!("expected `)`, found {found:?}"),
            }
        }
        Some(word) if !["AND", "OR", "WITH", ")"].contains(&word) => {
            if tokens.next_if_eq(&"WITH").is_none() {
                return Ok(LICENCES.contains(&word));
            }
            let exception = tokens.next().context("expected an exception after WITH")?;
            Ok(LICENCES.contains(&&*format!("{word} WITH {exception}")))
        }
        found => bail!("expected a licence, found {found:?}"),
    }
}

/// cargo-deny, where it is installed and its database can be had; else one line that says so. A skipped check is never
/// shown as a passed one.
fn advisories(root: &Path) -> Result<Vec<Finding>> {
    let deny = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.arg("deny").args(args).current_dir(root).stdin(Stdio::null()).output()
    };
    if !deny(&["--version"]).is_ok_and(|out| out.status.success()) {
        println!("advisories: NOT CHECKED (cargo-deny is not installed)");
        return Ok(Vec::new());
    }
    if !deny(&["fetch", "db"])?.status.success() {
        println!("advisories: NOT CHECKED (the advisory database cannot be reached)");
        return Ok(Vec::new());
    }
    let output = deny(&["check", "advisories", "licenses", "bans", "sources"])?;
    if output.status.success() {
        println!("advisories: checked by cargo-deny");
        return Ok(Vec::new());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(vec![format!("cargo deny: {}", said.trim())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str, version: &str, rest: &str) -> Vec<Locked> {
        let good = "[[package]]\nname = \"model\"\nversion = \"0.1.0\"\n\n";
        let bad = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{rest}\n");
        locked(&format!("version = 4\n\n{good}{bad}"))
    }

    fn built(packages: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
        let sets = packages.iter();
        sets.map(|(name, f)| ((*name).to_owned(), BTreeSet::from([(*f).to_owned()]))).collect()
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        let good = format!("source = \"{REGISTRY}\"\nchecksum = \"00\"");
        assert_eq!(sources(&lock("a", "1.0.0", &good)), [""; 0]);
        let git = "source = \"git+https://example.org/a\"\nchecksum = \"00\"";
        assert_eq!(
            sources(&lock("a", "1.0.0", git)),
            [
                "a 1.0.0: expected crates.io and a checksum, found `git+https://example.org/a` and a \
              checksum"
            ]
        );
    }

    #[test]
    fn a_package_without_its_checksum_is_found() {
        let rest = format!("source = \"{REGISTRY}\"");
        assert_eq!(
            sources(&lock("a", "1.0.0", &rest)),
            [format!(
                "a 1.0.0: expected crates.io and a checksum, found `{REGISTRY}` and no checksum"
            )]
        );
    }

    #[test]
    fn a_version_below_its_floor_is_found() {
        assert_eq!(floors(&lock("rustls-webpki", "0.103.12", "")), [""; 0]);
        assert_eq!(floors(&lock("rustls-webpki", "0.104.0", "")), [""; 0]);
        assert_eq!(
            floors(&lock("rustls-webpki", "0.102.8", "")),
            [
                "rustls-webpki 0.102.8: expected 0.103.12 or later (three advisories of 2026 hit CRLs \
              and name constraints)"
            ]
        );
    }

    #[test]
    fn a_second_arrow_is_found() {
        let mut locked = lock("arrow", "59.3.2", "");
        assert_eq!(majors(&locked), [""; 0]);
        locked.extend(lock("arrow-array", "60.0.0", ""));
        let expected = "arrow: expected one major version, found arrow 59.3.2, arrow-array 60.0.0";
        assert_eq!(majors(&locked), [expected]);
    }

    #[test]
    fn a_library_that_is_never_linked_is_found() {
        assert_eq!(linked(&built(&[("ring-like v0.17.14", "")])), [""; 0]);
        let found = linked(&built(&[("ring v0.17.14", "std")]));
        assert_eq!(found, ["`ring` is linked: use aws-lc-rs"]);
    }

    #[test]
    fn a_dependency_that_is_compiled_twice_is_found() {
        let up = built(&[("tokio v1.0.0", "net"), ("hex v0.4.3", "std")]);
        assert_eq!(differing("make up", &up, &up), [""; 0]);
        let test = built(&[("tokio v1.0.0", "net,test-util"), ("hex v0.4.3", "std")]);
        assert_eq!(
            differing("make up", &up, &test),
            [
                "tokio v1.0.0 is compiled twice: `make up` builds it with [net], `make test` does not"
            ]
        );
    }

    #[test]
    fn a_licence_outside_the_list_is_found() {
        let check = |licence: Value| {
            let package =
                serde_json::json!({ "name": "a", "version": "1.0.0", "license": licence });
            licences([&package].into_iter())
        };
        assert_eq!(check("MIT OR GPL-3.0-only".into()), [""; 0]);
        assert_eq!(check("GPL-3.0-only".into()), ["a 1.0.0: `GPL-3.0-only` is not allowed"]);
        assert_eq!(check(Value::Null), ["a 1.0.0: expected a licence, found none named"]);
        let broken = "a 1.0.0: `MIT OR`: expected a licence, found None";
        assert_eq!(check("MIT OR".into()), [broken]);
    }

    #[test]
    fn licence_expressions_are_read_as_spdx_means_them() {
        for (expression, expected) in [
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH Other-exception", false),
            ("ISC AND (Apache-2.0 OR GPL-2.0-only)", true),
            ("MIT AND GPL-2.0-only", false),
            ("GPL-2.0-only OR MIT AND AGPL-3.0-only", false),
            ("(MIT OR GPL-2.0-only) AND Unicode-3.0", true),
        ] {
            assert_eq!(allowed(expression).expect(expression), expected, "{expression}");
        }
    }
}
