//! What is made out of the command line itself: completions, manual pages, and the tables of `docs/cli.md`.

use crate::Arguments;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory as _};
use std::io::{self, Write as _};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

const NAME: &str = "plimsoll";

pub fn completions(shell: Shell) -> Result<()> {
    io::stdout().write_all(&completing(shell)).context("printing completions")
}

fn completing(shell: Shell) -> Vec<u8> {
    use clap_complete::shells;
    let (mut command, mut out) = (Arguments::command(), Vec::new());
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, NAME, &mut out),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, NAME, &mut out),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, NAME, &mut out),
    }
    out
}

/// A page a command: plimsoll(1), plimsoll-device(1), plimsoll-device-list(1).
pub fn pages(dir: Option<&Path>) -> Result<()> {
    let Some(dir) = dir else {
        let (_, first) = all_pages()?.swap_remove(0);
        return io::stdout().write_all(&first).context("printing the page");
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let pages = all_pages()?;
    for (name, page) in &pages {
        let path = dir.join(format!("{name}.1"));
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tell!("{} pages in {}", pages.len(), dir.display());
    Ok(())
}

fn all_pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut root = Arguments::command();
    root.build();
    let mut pages = Vec::new();
    page_of(&root, NAME.to_owned(), &mut pages)?;
    Ok(pages)
}

fn page_of(command: &Command, name: String, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    pages.push((name.clone(), page));
    for verb in seen(command) {
        page_of(verb, format!("{name}-{}", verb.get_name()), pages)?;
    }
    Ok(())
}

/// What is in the help: neither hidden words nor `help` itself.
fn seen(command: &Command) -> impl Iterator<Item = &Command> {
    let is_seen = |verb: &&Command| !verb.is_hide_set() && verb.get_name() != "help";
    command.get_subcommands().filter(is_seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::process::{Command as Process, Stdio};

    fn root() -> Command {
        let mut root = Arguments::command();
        root.build();
        root
    }

    /// Every command, hidden ones too, under its whole name.
    fn all(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
        found.push((name.to_owned(), command.clone()));
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            all(verb, &format!("{name} {}", verb.get_name()), found);
        }
    }

    fn commands() -> Vec<(String, Command)> {
        let mut found = Vec::new();
        all(&root(), NAME, &mut found);
        found
    }

    fn examples(command: &Command) -> Vec<String> {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, rest)) = text.split_once("Example:\n") else { return Vec::new() };
        rest.lines()
            .map_while(|line| line.strip_prefix("  plimsoll"))
            .map(|rest| format!("plimsoll{rest}"))
            .collect()
    }

    /// As a shell splits it, as far as the examples go: quotes, and a `>` that ends the command.
    fn split(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.split(" > ").next().unwrap_or_default().chars() {
            match c {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        words.push(word);
        words
    }

    #[test]
    fn the_command_line_has_no_two_meanings() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_has_an_example_that_is_taken() {
        for (name, command) in commands() {
            assert!(command.get_about().is_some(), "{name} does not say what it does");
            let examples = examples(&command);
            assert!(!examples.is_empty(), "{name} has no example");
            for example in examples {
                let words = split(&example);
                if let Err(error) = Arguments::try_parse_from(&words) {
                    panic!("{name}: its example is refused: {example}\n{error}");
                }
                assert!(
                    name == NAME || example.starts_with(&format!("{name} ")) || example == name,
                    "{name}: its example is of another command: {example}"
                );
            }
        }
    }

    /// A noun, a verb, what it is done to; but for what runs, asks or prints, which has no noun.
    #[test]
    fn the_grammar_is_one_noun_and_one_verb() {
        let alone = ["up", "control", "query", "metrics", "completions", "man"];
        for noun in seen(&root()) {
            let verbs: Vec<_> = seen(noun).map(Command::get_name).collect();
            assert_eq!(verbs.is_empty(), alone.contains(&noun.get_name()), "{}", noun.get_name());
            for verb in seen(noun) {
                assert_eq!(seen(verb).count(), 0, "{} {}", noun.get_name(), verb.get_name());
            }
        }
    }

    #[test]
    fn what_is_dangerous_has_a_dry_run() {
        let all = commands();
        for name in [
            "device revoke",
            "device quarantine",
            "device decommission",
            "device reenrol",
            "rollout create",
            "rollout start",
            "rollout halt",
            "rollout revert",
            "rollout abort",
            "user disable",
            "token revoke",
        ] {
            let (_, command) =
                all.iter().find(|(other, _)| *other == format!("{NAME} {name}")).expect(name);
            assert!(command.get_arguments().any(|a| a.get_id() == "dry_run"), "{name}");
        }
    }

    #[test]
    fn completions_know_every_noun() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(completing(shell)).unwrap();
            for noun in seen(&root()) {
                assert!(text.contains(noun.get_name()), "{shell:?}: {}", noun.get_name());
            }
        }
    }

    /// What bash itself says to them.
    #[test]
    fn completions_for_bash_are_bash() {
        let mut bash = Process::new("bash").args(["-n"]).stdin(Stdio::piped()).spawn().unwrap();
        bash.stdin.take().unwrap().write_all(&completing(Shell::Bash)).unwrap();
        assert!(bash.wait().unwrap().success());
    }

    #[test]
    fn every_command_has_a_page_that_man_can_show() {
        let pages = all_pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "plimsoll");
        assert!(names.contains(&"plimsoll-device-list"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("enroll")), "hidden words have no page");
        let dir = tempfile::tempdir().unwrap();
        for (name, page) in &pages {
            let text = String::from_utf8_lossy(page);
            assert!(text.contains("Example:"), "{name}");
            let path = dir.path().join(format!("{name}.1"));
            std::fs::write(&path, page).unwrap();
        }
        let shown = Process::new("man")
            .args(["--warnings", "-l", "plimsoll-device-list.1"])
            .current_dir(dir.path())
            .env("MANWIDTH", "100")
            .env("MAN_KEEP_FORMATTING", "")
            .output();
        let Ok(shown) = shown else {
            println!("SKIPPED: every_command_has_a_page_that_man_can_show: no man here");
            return;
        };
        let (out, error) =
            (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
        assert!(shown.status.success() && error.is_empty(), "{error}");
        assert!(out.contains("plimsoll device list --search pump"), "{out}");
    }

    /// `docs/cli.md`: what is generated there is what this build says.
    #[test]
    fn the_page_of_the_command_line_is_as_the_command_line_is() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = page.split_once(BEGIN).expect("docs/cli.md has a generated part");
        let (found, tail) = rest.split_once(END).expect("the generated part has an end");
        let expected = generated();
        if found.trim() != expected.trim() {
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&path, format!("{head}{BEGIN}\n\n{expected}\n{END}{tail}")).unwrap();
            }
            panic!("docs/cli.md is of another build: UPDATE_EXPECT=1 writes it anew");
        }
    }

    const BEGIN: &str = "<!-- generated -->";
    const END: &str = "<!-- end -->";

    fn generated() -> String {
        let mut text = "| code | meaning |\n| --- | --- |\n".to_owned();
        for exit in crate::exit::Exit::ALL {
            text += &format!("| {} | {} |\n", exit.code(), exit.meaning());
        }
        text += "\n| command | does |\n| --- | --- |\n";
        for noun in seen(&root()) {
            let verbs: Vec<_> = seen(noun).collect();
            let rows = if verbs.is_empty() {
                vec![(noun.get_name().to_owned(), noun)]
            } else {
                verbs
                    .into_iter()
                    .map(|verb| (format!("{} {}", noun.get_name(), verb.get_name()), verb))
                    .collect()
            };
            for (name, command) in rows {
                let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                text += &format!("| `{name}` | {} |\n", about.replace('|', "\\|"));
            }
        }
        text
    }
}
