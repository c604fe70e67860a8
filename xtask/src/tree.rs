//! The working tree as the document rules see it: our Rust sources and Markdown pages, read once.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A file with its path from the workspace's root.
pub struct Page {
    pub path: PathBuf,
    pub text: String,
}

impl Page {
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Every file under `root/under` whose name ends in `.ext`, in order of path.
pub fn pages(root: &Path, under: &str, ext: &str) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut folders = vec![root.join(under)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("listing {folder:?}"))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                // What is built, fetched or recorded at run time is not part of the project's pages.
                if !name.starts_with('.') && !["target", "data", "node_modules"].contains(&&*name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == ext) {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("reading {path:?}"))?;
                let path = path.strip_prefix(root).expect("it was found below the root").into();
                pages.push(Page { path, text });
            }
        }
    }
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pages)
}

/// Splits a Rust source into what ships and what only tests see. Tests stand last in our files, behind the first
/// `#[cfg(test)]`; a file named for tests, or below a folder of tests, is all test.
pub fn split_tests(page: &Page) -> (&str, &str) {
    let is_test_file = page.path.components().any(|c| c.as_os_str() == "tests")
        || page.path.file_stem().is_some_and(|stem| stem == "tests");
    if is_test_file {
        return ("", &page.text);
    }
    // A module that stands in a file of its own (`mod tree;`) has its tests there, and this file goes on behind it.
    let inline = page.text.match_indices("#[cfg(test)]\nmod ").find(|(at, _)| {
        let declared = page.text[*at..].lines().nth(1).unwrap_or_default();
        declared.trim_end().ends_with('{') || declared.trim_end().ends_with('}')
    });
    match inline {
        Some((at, _)) => page.text.split_at(at),
        None => (&page.text, ""),
    }
}

#[cfg(test)]
pub(crate) fn page(path: &str, text: &str) -> Page {
    Page { path: path.into(), text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_what_ships() {
        let inline =
            page("crates/a/src/lib.rs", "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }");
        assert_eq!(split_tests(&inline).0, "fn a() {}\n");
        assert!(split_tests(&inline).1.contains("fn b"));
        let declared = page("crates/a/src/lib.rs", "#[cfg(test)]\nmod tests;\nfn a() {}");
        assert_eq!(split_tests(&declared), (&*declared.text, ""));
        for path in ["crates/a/src/x/tests.rs", "crates/a/tests/it/main.rs"] {
            let page = page(path, "fn c() {}");
            assert_eq!(split_tests(&page), ("", "fn c() {}"));
        }
    }
}
