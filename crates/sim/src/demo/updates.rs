//! The demo's second half: releases go out in waves, prove themselves, or come back.

use super::Demo;
use crate::fleet::{Source, path};
use crate::process::{run_to_end, until};
use crate::rollouts::{
    BOX, COME_AND_PROVE_MS, FIRST, GATEWAY, LEAK_SHOWS_MS, PUMP, RSS_MAX, leak_signal,
};
use crate::running::{self, Running};
use crate::vendor::{self, Named};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// How many devices lose their power while they load.
const CUTS: usize = 3;

/// Long enough that somebody who looks every 50 ms, by a command of its own, sees a wave that is over before the next one opens: on
/// two idle cores it takes him 0.1 s.
const PAUSE_MS: u64 = 4000;

/// A process that was told to start does so in a moment, also on a loaded machine.
const SETTLE: Duration = Duration::from_secs(20);

impl Demo {
    pub(super) fn releases_go_out(&mut self) -> Result<()> {
        self.a_good_release_goes_to_everybody()?;
        self.a_release_that_never_gets_well_halts_at_the_canary()?;
        self.a_release_that_makes_a_fault_is_taken_back()?;
        self.a_gateway_is_updated_and_taken_back()?;
        self.the_evidence_is_verified()
    }

    /// 10 % → 50 % → 100 %, with the power of some devices cut while they load the image.
    fn a_good_release_goes_to_everybody(&mut self) -> Result<()> {
        let (id, version) = ("pump-1.1", "1.1.0");
        self.say("1.1.0 is published and goes out: 10 %, 50 %, 100 %");
        self.releases.release(&self.fleet, PUMP, version)?;
        let before = self.run_all()?;
        self.fleet.create(json!({
            "id": id, "product": PUMP, "version": version,
            "waves": [
                {"percent": 10.0, "soak_ms": PAUSE_MS},
                {"percent": 50.0, "soak_ms": PAUSE_MS},
                {"percent": 100.0}
            ],
            "prove_within_ms": COME_AND_PROVE_MS, "come_within_ms": COME_AND_PROVE_MS,
            "success_min_percent": 100.0, "quorum_percent": 100.0,
            "signals": [leak_signal(RSS_MAX)], "ask_again_ms": 500,
            "start": true
        }))?;
        let all = self.names.len() as u64;
        let counts = [all.div_ceil(10), all.div_ceil(2), all];
        let mut looks = Vec::new();
        let mut cut = BTreeMap::new();
        for (wave, expected) in (1..).zip(counts) {
            let is_last = expected == all;
            until(&format!("wave {wave} of {id} is proven"), self.fleet.patience(), || {
                if is_last {
                    self.cut_power_of_those_that_load(&mut cut)?;
                }
                let seen = self.fleet.seen(id)?;
                ensure!(matches!(seen.phase(), "running" | "completed"), "{}", seen.0);
                Ok(seen.wave() == wave && seen.count("proven") >= expected)
            })?;
            // Nothing moves on while it is looked at. Behind the last wave there is nothing to move on to.
            if !is_last {
                self.fleet.rollout("pause", id)?;
            }
            let members = self.fleet.known(id, "proven")?;
            let mut look = self.look(&members, [version, FIRST], &before)?;
            look.wrong.extend(self.not_named_by_their_directors(&members, version)?);
            looks.push(look);
            if !is_last {
                self.fleet.rollout("resume", id)?;
            }
        }
        until(&format!("{id} is completed"), self.fleet.patience(), || {
            Ok(self.fleet.seen(id)?.phase() == "completed")
        })?;
        let wrong: Vec<_> = looks.iter().flat_map(|look| look.wrong.clone()).collect();
        let as_counted = looks.iter().map(|look| look.changed.len() as u64).eq(counts);
        let of_waves: Vec<_> = looks.iter().map(|look| look.changed.len().to_string()).collect();
        let held = wrong.is_empty() && as_counted;
        let figures = format!(
            "{} devices run {version} after each wave, out of a slot, with another PID and no predecessor, \
             by the digest that both repositories name; the others what they ran\
             \n      {}{}",
            of_waves.join(", "),
            self.fleet.first_journey(id, version)?,
            shown(&wrong)
        );
        self.promise(
            "a good release reaches the whole fleet, in waves of exact counts",
            held,
            figures,
        );
        let halfway: Vec<_> =
            cut.iter().map(|(name, had)| format!("{name} at {had} bytes")).collect();
        let run_it = &looks.last().context("there was a wave")?.changed;
        let held = cut.len() == CUTS && cut.keys().all(|name| run_it.contains(name));
        self.promise("a power cut in mid-install costs no device", held, halfway.join(", "));
        Ok(())
    }

    /// Kills the whole software of devices while their other slot is half written, until that were enough.
    fn cut_power_of_those_that_load(&mut self, cut: &mut BTreeMap<String, u64>) -> Result<()> {
        let whole = self.releases.image_len(PUMP, "1.1.0")?;
        for name in self.names.clone() {
            if cut.len() == CUTS {
                break;
            }
            let dir = self.fleet.device_dir(&name);
            let slot = dir.join(format!("update/{PUMP}/slot-b"));
            let has = || std::fs::metadata(&slot).map_or(0, |file| file.len());
            if has() == 0 || has() >= whole || cut.contains_key(&name) {
                continue;
            }
            self.fleet.device(&name).kill()?;
            until(&format!("nothing of {name} runs"), self.fleet.patience(), || {
                Ok(running::under(&dir)?.is_empty())
            })?;
            // All of it may have come in that moment.
            if has() < whole {
                self.say(&format!("{name} loses its power with {} of {whole} bytes loaded", has()));
                cut.insert(name.clone(), has());
            }
            self.fleet.device(&name).start_again()?;
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
            "prove_within_ms": COME_AND_PROVE_MS, "come_within_ms": COME_AND_PROVE_MS,
            // One that runs it would be enough to go on: so it halts when the last of the canaries has failed, and not before.
            "success_min_percent": 1.0, "quorum_percent": 1.0, "start": true
        }))?;
        let canaries = (self.names.len() as u64).div_ceil(10);
        until(&format!("{id} halts"), self.fleet.patience(), || {
            let seen = self.fleet.seen(id)?;
            ensure!(seen.phase() != "completed", "{}", seen.0);
            Ok(seen.phase() == "halted")
        })?;
        let (seen, failed) = (self.fleet.seen(id)?, self.fleet.known(id, "failed")?);
        let tried = self.fleet.permits(id)?.len();
        let look = self.look_when_settled(&failed, ["1.1.0", "1.1.0"], &before)?;
        let canaries_held = tried as u64 == canaries && failed.len() as u64 == canaries;
        let held = canaries_held && look.wrong.is_empty();
        let figures = format!(
            "{tried} devices tried it, {} went back by themselves, {} of {} run 1.1.0; {}{}",
            look.changed.len(),
            look.right,
            self.names.len(),
            seen.why(),
            shown(&look.wrong)
        );
        self.promise("a release that never gets well halts at exactly the canaries", held, figures);
        self.fleet.abort(id)
    }

    fn a_release_that_makes_a_fault_is_taken_back(&mut self) -> Result<()> {
        let (id, version) = ("pump-1.3", "1.3.0");
        self.say("1.3.0 passes its health check, and leaks: what SQL sees halts it, and the fleet takes it back");
        self.releases.release(&self.fleet, PUMP, version)?;
        let before = self.run_all()?;
        self.fleet.create(json!({
            "id": id, "product": PUMP, "version": version,
            "waves": [{"percent": 10.0, "soak_ms": LEAK_SHOWS_MS}, {"percent": 100.0}],
            "prove_within_ms": COME_AND_PROVE_MS, "come_within_ms": COME_AND_PROVE_MS,
            "success_min_percent": 50.0, "quorum_percent": 100.0,
            "signals": [leak_signal(RSS_MAX)], "ask_again_ms": 500,
            "back": {"by_itself": true, "percents": [50.0, 100.0]},
            "start": true
        }))?;
        until(&format!("{id} is reverted"), self.fleet.patience(), || {
            let seen = self.fleet.seen(id)?;
            ensure!(seen.phase() != "completed", "{}", seen.0);
            Ok(seen.phase() == "reverted")
        })?;
        let events = self.fleet.events(id)?;
        let of = |action: &'static str| events.iter().filter(move |event| event.action == action);
        let had_it: BTreeSet<String> =
            of("device.proven").map(|event| event.of("device").to_owned()).collect();
        let beyond = of("rollout.signal_beyond").find(|event| event.of("signal") == "memory");
        let found = beyond.and_then(|event| event.of("found").parse::<f64>().ok());
        let went_back = self.fleet.known(id, "went_back")?;
        let look = self.look_when_settled(&went_back, ["1.1.0", "1.1.0"], &before)?;
        let canaries = self.names.len().div_ceil(10);
        let by_the_gate = found.is_some_and(|found| found > RSS_MAX);
        let all_back = had_it.len() == canaries && went_back == had_it;
        let held = by_the_gate && all_back && look.wrong.is_empty();
        let figures = format!(
            "SQL found {} bytes where at most {RSS_MAX} may be\
             \n      {} devices ran 1.3.0, {} were taken back, {} of {} run 1.1.0{}",
            found.map_or("no".to_owned(), |found| found.to_string()),
            had_it.len(),
            look.changed.len(),
            look.right,
            self.names.len(),
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
                "prove_within_ms": COME_AND_PROVE_MS, "come_within_ms": COME_AND_PROVE_MS,
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
        let told = [
            "rollout.create",
            "permit.issue",
            "device.proven",
            "rollout.signal_beyond",
            "rollout.halt",
            "device.back",
            "device.went_back",
        ];
        let missing: Vec<_> = told
            .iter()
            .filter(|word| !printed.contains(&format!("\"{word}\"")))
            .map(|word| format!("no {word} among them"))
            .collect();
        let figures =
            format!("{} events proven offline{}", printed.lines().count(), shown(&missing));
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

    /// Every device of the fleet: one process, out of a slot, of the bytes that the vendor names under the version that it
    /// should run. `versions`: of those that have changed since `before`, and of all others.
    fn look(
        &self,
        changed: &BTreeSet<String>,
        versions: [&str; 2],
        before: &BTreeMap<String, Running>,
    ) -> Result<Look> {
        let digests = [
            self.releases.vendor.digest(PUMP, versions[0])?,
            self.releases.vendor.digest(PUMP, versions[1])?,
        ];
        let mut look = Look::default();
        for name in &self.names {
            let has_changed = changed.contains(name);
            let now = match self.fleet.runs(name, PUMP) {
                Ok(now) => now,
                Err(wrong) => {
                    look.wrong.push(format!("{wrong:#}"));
                    continue;
                }
            };
            let then = before.get(name).with_context(|| format!("{name} ran nothing before"))?;
            let slots =
                self.fleet.device_dir(name).join(format!("update/{PUMP}")).canonicalize()?;
            let expected = &digests[usize::from(!has_changed)];
            let faults = [
                (now.sha256 != *expected, "runs other bytes than the vendor names"),
                (now.exe.parent() != Some(&slots), "runs what lies in no slot"),
                // Whose power was cut has another PID, and has not changed.
                (has_changed && now.pid == then.pid, "has the PID that it had"),
                (has_changed && then.is_there(), "has its predecessor running"),
            ];
            let found: Vec<_> =
                faults.iter().filter(|(fault, _)| *fault).map(|(_, what)| *what).collect();
            look.wrong.extend(found.iter().map(|what| format!("{name} {what}")));
            if found.is_empty() {
                look.right += 1;
                look.changed.extend(has_changed.then(|| name.clone()));
            }
        }
        Ok(look)
    }

    /// Who has told that it went back may be about to start what it went back to.
    fn look_when_settled(
        &self,
        changed: &BTreeSet<String>,
        versions: [&str; 2],
        before: &BTreeMap<String, Running>,
    ) -> Result<Look> {
        let mut look = self.look(changed, versions, before)?;
        let end = Instant::now() + SETTLE.min(self.fleet.patience());
        while !look.wrong.is_empty() && Instant::now() < end {
            look = self.look(changed, versions, before)?;
        }
        Ok(look)
    }

    /// By what each device keeps of its Director.
    fn not_named_by_their_directors(
        &self,
        devices: &BTreeSet<String>,
        version: &str,
    ) -> Result<Vec<String>> {
        let expected = self.releases.vendor.digest(PUMP, version)?;
        let is_named = |named: &Named| named.product == PUMP && named.sha256 == expected;
        let mut wrong = Vec::new();
        for name in devices {
            let director = self.fleet.device_dir(name).join("trust/director/targets.json");
            if !vendor::named(&director)?.iter().any(is_named) {
                wrong.push(format!("{name} runs what its Director does not name"));
            }
        }
        Ok(wrong)
    }
}

/// What was found when every device was looked at.
#[derive(Default)]
struct Look {
    /// With nothing wrong.
    right: usize,
    /// Of these, those that run something else than before, or the same started anew.
    changed: BTreeSet<String>,
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
