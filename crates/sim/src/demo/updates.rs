//! The demo's second half: releases go out in waves, prove themselves, or come back.

use super::Demo;
use crate::fleet::{HARDWARE, Source, path};
use crate::process::{run_to_end, until};
use crate::rollouts::{BOX, GATEWAY, PUMP, RSS_MAX, leak_signal};
use crate::running::{self, Running};
use crate::vendor::{self, Named};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

impl Demo {
    pub(super) fn releases_go_out(&mut self) -> Result<()> {
        self.a_good_release_goes_to_everybody()?;
        self.a_release_that_never_gets_well_halts_at_the_canary()?;
        self.a_release_that_makes_a_fault_is_taken_back()?;
        self.a_gateway_is_updated_and_taken_back()?;
        self.the_evidence_is_verified()
    }

    /// 10 % → 50 % → 100 %, with the power of three devices cut while they load the image.
    fn a_good_release_goes_to_everybody(&mut self) -> Result<()> {
        let (id, version) = ("pump-1.1", "1.1.0");
        self.say("1.1.0 is published and goes out: 10 %, 50 %, 100 %");
        self.releases.release(&self.fleet, PUMP, version)?;
        let before = self.run_all()?;
        self.fleet.create(json!({
            "id": id, "product": PUMP, "version": version,
            "waves": [
                {"percent": 10.0, "soak_ms": 1500},
                {"percent": 50.0, "soak_ms": 1500},
                {"percent": 100.0, "soak_ms": 1500}
            ],
            "prove_within_ms": 60000, "come_within_ms": 60000,
            "success_min_percent": 100.0, "quorum_percent": 100.0,
            "signals": [leak_signal(RSS_MAX)], "ask_again_ms": 500,
            "start": true
        }))?;
        let all = self.names.len() as u64;
        let counts = [all.div_ceil(10), all.div_ceil(2), all];
        let mut looks = Vec::new();
        let mut cut = BTreeMap::new();
        for (wave, expected) in (1..).zip(counts) {
            until(&format!("wave {wave} of {id} is proven"), self.fleet.patience(), || {
                if wave == 3 && cut.len() < 3 {
                    self.cut_power_of_one_that_loads(&mut cut)?;
                }
                let seen = self.fleet.seen(id)?;
                ensure!(matches!(seen.phase(), "running" | "completed"), "{}", seen.0);
                Ok(seen.is("running", "soaking", wave) && seen.count("proven") == expected)
            })?;
            // Nothing moves on while it is looked at.
            self.fleet.rollout("pause", id)?;
            let members = self.fleet.known(id, "proven")?;
            looks.push(self.look(&members, version, &before)?);
            self.fleet.rollout("resume", id)?;
        }
        until(&format!("{id} is completed"), self.fleet.patience(), || {
            Ok(self.fleet.seen(id)?.phase() == "completed")
        })?;
        let wrong: Vec<_> = looks.iter().flat_map(|look| look.wrong.clone()).collect();
        let as_counted = looks.iter().map(|look| look.updated as u64).eq(counts);
        let of_waves: Vec<_> = looks.iter().map(|look| look.updated.to_string()).collect();
        let held = wrong.is_empty() && as_counted;
        let figures = format!(
            "{} devices run 1.1.0 after each wave; {} times executable, digest, two repositories, PID and predecessor were looked at{}",
            of_waves.join(", "),
            looks.len() * self.names.len(),
            shown(&wrong)
        );
        self.promise(
            "a good release reaches the whole fleet, in waves of exact counts",
            held,
            figures,
        );
        let halfway: Vec<_> =
            cut.iter().map(|(name, had)| format!("{name} at {had} bytes")).collect();
        let held = cut.len() == 3;
        self.promise("a power cut in mid-install costs no device", held, halfway.join(", "));
        Ok(())
    }

    /// Kills a device's whole software while its other slot is half written.
    fn cut_power_of_one_that_loads(&mut self, cut: &mut BTreeMap<String, u64>) -> Result<()> {
        let full = self.releases.vendor.repository();
        let digest = self.releases.vendor.digest(PUMP, "1.1.0")?;
        let image = full.join(format!("targets/{PUMP}/1.1.0/{digest}.{}.bin", HARDWARE));
        let whole = std::fs::metadata(&image).with_context(|| image.display().to_string())?.len();
        for name in self.names.clone() {
            let slot = self.fleet.device_dir(&name).join(format!("update/{PUMP}/slot-b"));
            let has = std::fs::metadata(slot).map_or(0, |file| file.len());
            if has == 0 || has >= whole || cut.contains_key(&name) {
                continue;
            }
            self.fleet.device(&name).kill()?;
            self.say(&format!("{name} loses its power with {has} of {whole} bytes loaded"));
            let dir = self.fleet.device_dir(&name);
            until("nothing of it runs", self.fleet.patience(), || {
                Ok(running::under(&dir)?.is_empty())
            })?;
            self.fleet.device(&name).start_again()?;
            cut.insert(name, has);
            return Ok(());
        }
        Ok(())
    }

    fn a_release_that_never_gets_well_halts_at_the_canary(&mut self) -> Result<()> {
        let (id, version) = ("pump-1.2", "1.2.0");
        self.say("1.2.0 starts and fails its health check");
        self.releases.release(&self.fleet, PUMP, version)?;
        let before = self.run_all()?;
        self.fleet.create(json!({
            "id": id, "product": PUMP, "version": version,
            "waves": [{"percent": 10.0}, {"percent": 100.0}],
            "prove_within_ms": 60000, "come_within_ms": 60000,
            // All of the canaries are let try before their failures are weighed.
            "success_min_percent": 50.0, "quorum_percent": 1.0, "start": true
        }))?;
        let canaries = (self.names.len() as u64).div_ceil(10);
        until(&format!("{id} halts"), self.fleet.patience(), || {
            let seen = self.fleet.seen(id)?;
            ensure!(seen.phase() != "completed", "{}", seen.0);
            Ok(seen.phase() == "halted")
        })?;
        until("each canary has told that it went back", self.fleet.patience(), || {
            let seen = self.fleet.seen(id)?;
            Ok(seen.count("issued") == 0 || seen.count("failed") == canaries)
        })?;
        let (seen, failed) = (self.fleet.seen(id)?, self.fleet.known(id, "failed")?);
        let tried = self.fleet.permits(id)?.len();
        let look = self.look_back(&self.names.iter().cloned().collect(), "1.1.0", &before)?;
        let canaries_held = tried as u64 == canaries && failed.len() as u64 == canaries;
        let held = canaries_held && look.wrong.is_empty();
        let figures = format!(
            "{tried} devices tried it, {} went back by themselves, {} run 1.1.0; {}{}",
            failed.len(),
            look.updated,
            seen.why(),
            shown(&look.wrong)
        );
        self.promise("a release that never gets well halts at exactly the canaries", held, figures);
        self.fleet.rollout("abort", id)
    }

    fn a_release_that_makes_a_fault_is_taken_back(&mut self) -> Result<()> {
        let (id, version) = ("pump-1.3", "1.3.0");
        self.say("1.3.0 passes its health check, and leaks: what SQL sees halts it, and the fleet takes it back");
        self.releases.release(&self.fleet, PUMP, version)?;
        let before = self.run_all()?;
        self.fleet.create(json!({
            "id": id, "product": PUMP, "version": version,
            "waves": [{"percent": 10.0, "soak_ms": 8000}, {"percent": 100.0, "soak_ms": 8000}],
            "prove_within_ms": 60000, "come_within_ms": 60000,
            "success_min_percent": 50.0, "quorum_percent": 100.0,
            "signals": [leak_signal(RSS_MAX)], "ask_again_ms": 500,
            "back": {"by_itself": true, "percents": [50.0, 100.0]},
            "start": true
        }))?;
        let mut had_it = BTreeSet::new();
        let mut why = String::new();
        until(&format!("{id} is reverted"), self.fleet.patience(), || {
            let seen = self.fleet.seen(id)?;
            ensure!(seen.phase() != "completed", "{}", seen.0);
            had_it.extend(self.fleet.known(id, "proven")?);
            if matches!(seen.phase(), "halted" | "reverting" | "reverted") && why.is_empty() {
                why = seen.why().to_owned();
            }
            Ok(seen.phase() == "reverted")
        })?;
        let went_back = self.fleet.known(id, "went_back")?;
        let look = self.look_back(&self.names.iter().cloned().collect(), "1.1.0", &before)?;
        let canaries = self.names.len().div_ceil(10);
        let held = had_it.len() == canaries && went_back == had_it && look.wrong.is_empty();
        let figures = format!(
            "{} devices ran 1.3.0, {} were taken back, {} run 1.1.0; {why}{}",
            had_it.len(),
            went_back.len(),
            look.updated,
            shown(&look.wrong)
        );
        self.promise(
            "a fault in telemetry halts a release, and the fleet is reverted",
            held,
            figures,
        );
        Ok(())
    }

    /// A gateway is a device too, and its spool outlives its software.
    fn a_gateway_is_updated_and_taken_back(&mut self) -> Result<()> {
        self.say("gw-2 is cut off from the control plane, and updated with a full spool: its box speaks through gw-1");
        let mover = self.names[2].clone();
        self.links[1].cut();
        self.fleet.move_to(&mover, 1, 3)?;
        until("messages wait in gw-2", self.fleet.patience(), || {
            Ok(self.fleet.gateway_metric(1, "plimsoll_gateway_spool_records")? >= 5.0)
        })?;
        let waited = self.fleet.gateway_metric(1, "plimsoll_gateway_spool_records")?;
        let mut wrong = Vec::new();
        let old = self.fleet.runs(BOX, GATEWAY)?;
        for (id, version, expected) in
            [("gateway-1.1", "1.1.0", "1.1.0"), ("gateway-1.2", "1.2.0", "1.1.0")]
        {
            self.releases.release(&self.fleet, GATEWAY, version)?;
            self.fleet.keep_count_of_gateway(1)?;
            self.fleet.create(json!({
                "id": id, "product": GATEWAY, "version": version,
                "waves": [{"percent": 100.0}], "bound": 1,
                "prove_within_ms": 60000, "come_within_ms": 60000,
                "success_min_percent": 50.0, "quorum_percent": 100.0, "start": true
            }))?;
            let end = if version == expected { "completed" } else { "halted" };
            until(&format!("{id} is {end}"), self.fleet.patience(), || {
                Ok(self.fleet.seen(id)?.phase() == end)
            })?;
            self.fleet.wait_for_gateway(1)?;
            let runs = self.fleet.runs(BOX, GATEWAY)?;
            let digest = self.releases.vendor.digest(GATEWAY, expected)?;
            if runs.sha256 != digest {
                wrong.push(format!("after {id} gw-2 runs {}, expected {digest}", runs.sha256));
            }
            let spool = self.fleet.gateway_metric(1, "plimsoll_gateway_spool_records")?;
            if spool < waited {
                wrong.push(format!("after {id} {spool} of {waited} messages are in the spool"));
            }
        }
        let new = self.fleet.runs(BOX, GATEWAY)?;
        if new.pid == old.pid {
            wrong.push(format!("gw-2 still has PID {}", old.pid));
        }
        self.links[1].mend();
        self.fleet.wait_for_empty_spool(1)?;
        let figures = format!(
            "{waited} messages waited in its spool from before the first to after the second{}",
            shown(&wrong)
        );
        self.promise(
            "a gateway is updated and reverted, and its spool outlives both",
            wrong.is_empty(),
            figures,
        );
        Ok(())
    }

    /// What an outsider can check, with nothing but the log's public key.
    fn the_evidence_is_verified(&mut self) -> Result<()> {
        let export = self.fleet.data.join("evidence-of-1.3.json");
        self.fleet.cli(&[
            "evidence",
            "export",
            "--subject",
            "rollout/pump-1.3",
            "--out",
            path(&export)?,
        ])?;
        let key = self.fleet.data.join("site/evidence.pub");
        let words = ["evidence", "verify", path(&export)?, "--key", path(&key)?, "--print"];
        let printed = run_to_end("plimsoll", &words, self.fleet.patience())?;
        let told = ["rollout.create", "rollout.halt", "permit.issue", "device.back"];
        let missing: Vec<_> = told
            .iter()
            .filter(|word| !printed.contains(**word))
            .map(|word| (*word).to_owned())
            .collect();
        let figures =
            format!("{} lines proven offline{}", printed.lines().count(), shown(&missing));
        self.promise(
            "what a rollout did is proven offline, to who has the key",
            missing.is_empty(),
            figures,
        );
        Ok(())
    }

    /// Which process each device runs now.
    fn run_all(&self) -> Result<BTreeMap<String, Running>> {
        let all = running::under(&self.fleet.data.join("devices"))?;
        let dir = self.fleet.data.join("devices").canonicalize()?;
        let device = |running: Running| {
            let below = running.exe.strip_prefix(&dir).ok()?;
            Some((below.iter().next()?.to_str()?.to_owned(), running))
        };
        Ok(all.into_iter().filter_map(device).collect())
    }

    /// Every device of the fleet, after a wave: members run the release, others what they ran.
    fn look(
        &self,
        members: &BTreeSet<String>,
        version: &str,
        before: &BTreeMap<String, Running>,
    ) -> Result<Look> {
        let expected = self.releases.vendor.digest(PUMP, version)?;
        let mut look = Look::default();
        for name in &self.names {
            let now = match self.fleet.runs(name, PUMP) {
                Ok(now) => now,
                Err(wrong) => {
                    look.wrong.push(format!("{wrong:#}"));
                    continue;
                }
            };
            let then = before.get(name).with_context(|| format!("{name} ran nothing before"))?;
            if !members.contains(name) {
                // One whose power was cut has another PID, and the same bytes.
                if now.sha256 != then.sha256 {
                    look.wrong.push(format!("{name} is in no wave and runs {}", now.sha256));
                }
                continue;
            }
            let director = self.fleet.device_dir(name).join("trust/director/targets.json");
            let named = vendor::named(&director)?;
            let is_named = |named: &Named| named.product == PUMP && named.sha256 == expected;
            let slots =
                self.fleet.device_dir(name).join(format!("update/{PUMP}")).canonicalize()?;
            let faults = [
                (now.sha256 != expected, "runs other bytes than the vendor names"),
                (!named.iter().any(is_named), "runs what its Director does not name"),
                (now.pid == then.pid, "has the PID that it had"),
                (now.exe.parent() != Some(&slots), "runs what lies in no slot"),
                (Path::new(&format!("/proc/{}", then.pid)).exists(), "has its predecessor running"),
            ];
            let found =
                faults.iter().filter(|(fault, _)| *fault).map(|(_, what)| format!("{name} {what}"));
            let count = look.wrong.len();
            look.wrong.extend(found);
            look.updated += usize::from(look.wrong.len() == count);
        }
        Ok(look)
    }

    /// Every device runs this release again, and nothing else.
    fn look_back(
        &self,
        names: &BTreeSet<String>,
        version: &str,
        before: &BTreeMap<String, Running>,
    ) -> Result<Look> {
        let expected = self.releases.vendor.digest(PUMP, version)?;
        let mut look = Look::default();
        for name in names {
            match self.fleet.runs(name, PUMP) {
                Ok(now) if now.sha256 == expected => look.updated += 1,
                Ok(now) => look.wrong.push(format!("{name} runs {}", now.sha256)),
                Err(wrong) => look.wrong.push(format!("{wrong:#}")),
            }
            ensure!(before.contains_key(name), "{name} ran nothing before");
        }
        Ok(look)
    }
}

/// What was found when every device was looked at.
#[derive(Default)]
struct Look {
    updated: usize,
    wrong: Vec<String>,
}

fn shown(wrong: &[String]) -> String {
    wrong.iter().take(3).map(|wrong| format!("\n      {wrong}")).collect()
}

/// A device of the demo's fleet.
pub fn source(number: usize, recording: &Path) -> Source {
    match number % 2 {
        0 => Source::Host,
        _ => Source::Replay { file: recording.to_owned(), speed: 2 },
    }
}
