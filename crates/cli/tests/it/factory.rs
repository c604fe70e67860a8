//! docs/factory.md: from a CSV to devices that may enrol.

use crate::words::{Control, Said, bare, feed, said};
use serde_json::Value;
use std::path::Path;

const PASSPHRASE: &str = "correct horse battery\n";

fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{}{}", said.out, said.error);
    said.out
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_batch_is_prepared_opened_on_the_line_and_admitted_at_once() {
    let control = Control::start("factory", &[]);
    let dir = &control.site.dir;
    let at = |name: &str| dir.join(name);
    let factory = at("line-3");
    done(control.run(&["factory", "init", "--factory", text(&factory)]));
    let again = control.run(&["factory", "init", "--factory", text(&factory)]);
    assert_eq!(again.code, 1, "a key is not overwritten: {}", again.out);

    std::fs::write(
        at("w12.csv"),
        "serial,role,zone,group\nPUMP-1,,,\nPUMP-2,,yard,pilot\nGW-7,gateway,,\n",
    )
    .unwrap();
    let root = at("director/1.root.json");
    let (batches, ca) = (at("batches"), control.ca());
    let csv = at("w12.csv");
    let words = [
        "factory",
        "prepare",
        "--factory",
        text(&factory),
        "--csv",
        text(&csv),
        "--batch",
        "w12",
        "--est",
        "https://control.site.internal:18800",
        "--gateway",
        "gw-1@gw-1.plant:8883",
        "--site-ca",
        text(&ca),
        "--director-root",
        text(&root),
        "--image-root",
        text(&root),
        "--out",
        text(&batches),
    ];
    done(control.run_with(&words, PASSPHRASE));
    let twice = control.run_with(&words, PASSPHRASE);
    assert!(twice.code == 1 && twice.error.contains("a batch is made once"), "{}", twice.error);

    // On the line: one device's files, and no private key among them.
    let (bundles, image) = (batches.join("w12.bundles"), at("image"));
    let open = ["factory", "open", text(&bundles), "--out", text(&image), "--serial"];
    let opened = |serial: &'static str, passphrase: &str| {
        control.run_with(&[&open[..], &[serial]].concat(), passphrase)
    };
    assert_eq!(opened("PUMP-1", "another horse\n").code, 1);
    assert_eq!(opened("PUMP-9", PASSPHRASE).code, 4);
    done(opened("PUMP-1", PASSPHRASE));
    let env = std::fs::read_to_string(image.join("agent.env")).unwrap();
    assert!(env.contains("PLIMSOLL_EST=\"https://control.site.internal:18800\""), "{env}");
    assert!(env.contains("--gateway gw-1@gw-1.plant:8883 --director-root /etc/plimsoll/"), "{env}");
    assert_eq!(std::fs::read(image.join("site-ca.pem")).unwrap(), std::fs::read(&ca).unwrap());
    for file in std::fs::read_dir(&image).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE"), "{}", file.display());
    }

    // At the site: believed, dry, done, done again.
    let (list, key) = (batches.join("w12.admission"), factory.join("factory.pub"));
    let allow = ["device", "allow", "--list", text(&list), "--key", text(&key), "--json"];
    let dry: Value = read(control.run(&[&allow[..], &["--dry-run"]].concat()));
    assert_eq!(dry["reaches"], 3);
    let fleet = || read(control.run(&["device", "list", "--json"]))["total"].as_u64().unwrap();
    assert_eq!(fleet(), 0, "a dry run lists nobody");
    let first = read(control.run(&allow));
    assert_eq!((&first["admitted"], &first["were_listed"]), (&3.into(), &0.into()), "{first}");
    let second = read(control.run(&allow));
    assert_eq!((&second["admitted"], &second["were_listed"]), (&0.into(), &3.into()), "{second}");
    let pump = read(control.run(&["device", "show", "pump-2", "--json"]));
    assert_eq!((&pump["line"]["zone"], &pump["line"]["group"]), (&"yard".into(), &"pilot".into()));

    // One that is listed otherwise is told, and the others are admitted.
    std::fs::write(at("w13.csv"), "serial,zone\nPUMP-1,yard\nPUMP-3,yard\n").unwrap();
    let csv = at("w13.csv");
    let mut other = words;
    (other[5], other[7]) = (text(&csv), "w13");
    done(control.run_with(&other, PASSPHRASE));
    let list = batches.join("w13.admission");
    let allow = ["device", "allow", "--list", text(&list), "--key", text(&key), "--json"];
    let part = control.run(&allow);
    assert_eq!(part.code, 5, "{}{}", part.out, part.error);
    let told: Value = serde_json::from_str(&part.out).unwrap();
    assert_eq!(told["admitted"], 1);
    assert_eq!(told["refused"][0]["serial"], "PUMP-1");
    assert!(told["refused"][0]["why"].as_str().unwrap().contains("zone yard"), "{told}");

    // Another factory's list is not looked at.
    let stranger = at("line-4");
    done(control.run(&["factory", "init", "--factory", text(&stranger)]));
    let key = stranger.join("factory.pub");
    let refused = control.run(&["device", "allow", "--list", text(&list), "--key", text(&key)]);
    assert_eq!(refused.code, 1);
    assert!(refused.error.contains("not signed by this factory's key"), "{}", refused.error);
}

fn read(said: Said) -> Value {
    let out = done(said);
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"))
}

/// A factory has no site, no data directory and no network.
#[test]
fn a_factory_needs_no_site() {
    let site = crate::Site::new("line");
    let factory = site.dir.join("line-3");
    let mut init = bare(&site);
    done(said(init.args(["factory", "init", "--factory", text(&factory)]).output().unwrap()));
    let mut prepare = bare(&site);
    prepare.args(["factory", "prepare", "--factory", text(&factory), "--csv", "none.csv"]);
    prepare.args([
        "--batch",
        "w1",
        "--est",
        "https://c",
        "--gateway",
        "gw-1@g:1",
        "--site-ca",
        "none",
    ]);
    prepare.args(["--director-root", "none", "--image-root", "none", "--out", text(&factory)]);
    let refused = feed(prepare, "");
    assert_eq!(refused.code, 1);
    assert!(refused.error.contains("cannot read none.csv"), "{}", refused.error);
}
