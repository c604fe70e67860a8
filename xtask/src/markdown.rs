//! As much of Markdown as our own pages use: tables, links, headings.

/// The rows of the first table whose header has exactly these cells (compared without case).
pub fn table(text: &str, header: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut lines = text.lines().skip_while(|line| {
        let cells = cells(line);
        cells.len() != header.len()
            || !cells.iter().zip(header).all(|(a, b)| a.eq_ignore_ascii_case(b))
    });
    lines.next()?;
    lines.next()?; // | --- | --- |
    Some(lines.take_while(|line| line.trim_start().starts_with('|')).map(cells).collect())
}

fn cells(line: &str) -> Vec<String> {
    let Some(line) = line.trim().strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
        return Vec::new();
    };
    let mut cells = vec![String::new()];
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = cells.last_mut().expect("it begins with one cell");
        match c {
            '\\' if chars.peek() == Some(&'|') => {
                last.push('|');
                chars.next();
            }
            '|' => cells.push(String::new()),
            c => last.push(c),
        }
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// What stands `between backticks`.
pub fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Targets of `[text](target)`, outside code.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let without_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
        for (at, _) in without_code.match_indices("](") {
            let target = &without_code[at + 2..];
            if let Some(end) = target.find(')') {
                found.push(target[..end].trim().to_owned());
            }
        }
    }
    found
}

/// The anchors that a page's headings make, as GitHub makes them.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_by_its_header() {
        let text = "| x | y |\n|---|---|\n| 0 | 0 |\n\n| Id | Words |\n| --- | --- |\n| A-1 | a \\| b |\nend";
        let rows = table(text, &["id", "words"]).expect("the table is there");
        assert_eq!(rows, [["A-1", "a | b"]]);
        assert_eq!(table(text, &["id"]), None);
    }

    #[test]
    fn links_in_code_are_not_links() {
        let text = "[a](b.md) and `[c](d.md)`\n```\n[e](f.md)\n```\n[g](h.md#i)";
        assert_eq!(links(text), ["b.md", "h.md#i"]);
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(anchors("# A first `word`, twice\n## B"), ["a-first-word-twice", "b"]);
    }
}
