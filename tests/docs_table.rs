//! What `docs/users.md` says in tables, for the tests of several crates that hold the code to it.

const DOCS: &str = include_str!("../docs/users.md");

/// The rows of the table under a heading, without its head: cells, trimmed.
pub fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let from = DOCS.find(&format!("## {heading}\n")).expect("docs/users.md has the heading");
    let lines = DOCS[from..].lines().skip(1).take_while(|line| !line.starts_with("## "));
    let rows =
        lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &'static str| -> Vec<&'static str> {
        let inside = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
        inside.split('|').map(|cell| cell.trim().trim_matches('`')).collect()
    };
    rows.skip(2).map(cells).collect()
}
