//! The console's files, as a table that is compiled in: what `make console` left in `console/dist/site`, or one page that
//! says how to build it. The folder `console/dist` is always there, so that cargo notices when it fills.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const NOT_BUILT: &str = "src/console/not-built.html";

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let dist = here.join("../../console/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed={}", here.join(NOT_BUILT).display());

    let site = dist.join("site");
    let mut files = Vec::new();
    if site.join("index.html").exists() {
        files.push(("index.html".to_owned(), site.join("index.html")));
        for entry in fs::read_dir(site.join("assets"))? {
            let path = entry?.path();
            let name =
                path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if !name.ends_with(".br") {
                files.push((name, path));
            }
        }
    } else {
        files.push(("index.html".to_owned(), here.join(NOT_BUILT)));
    }
    files.sort();

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("console.rs");
    fs::write(out, table(&files))
}

fn table(files: &[(String, PathBuf)]) -> String {
    let mut text = String::from("const FILES: &[File] = &[\n");
    for (name, path) in files {
        let brotli = PathBuf::from(format!("{}.br", path.display()));
        let brotli =
            if brotli.exists() { format!("Some({})", bytes(&brotli)) } else { "None".into() };
        let (kind, plain) = (kind(path), bytes(path));
        writeln!(
            text,
            "File {{ name: {name:?}, kind: {kind:?}, plain: {plain}, brotli: {brotli} }},"
        )
        .expect("a string takes what is written");
    }
    text + "];\n"
}

fn bytes(path: &Path) -> String {
    format!("include_bytes!({:?})", path.display().to_string())
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        other => {
            panic!("the console has a file of a kind that browsers would not be told: {other:?}")
        }
    }
}
