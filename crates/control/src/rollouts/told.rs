//! Rollouts as people and the evidence log are told of them.

use super::Mover;
use super::book::{Live, Moved, Unfit};
use super::next::{commands, next};
use super::table::word;
use crate::principal::Actor;
use crate::registry::said;
use api::rollout::{Rollout, RolloutCommand, RolloutCounts};
use evidence::event::Said;
use model::{DeviceId, Timestamp};
use rollout::{Command, Happened, Known, Permit, Phase, Stage, State, Why};
use serde_json::{Value, json};

pub fn command(word: RolloutCommand) -> Command {
    match word {
        RolloutCommand::Start => Command::Start,
        RolloutCommand::Pause => Command::Pause,
        RolloutCommand::Resume => Command::Resume,
        RolloutCommand::Halt => Command::Halt,
        RolloutCommand::Revert => Command::Revert,
        RolloutCommand::Abort => Command::Abort,
    }
}

fn command_word(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Pause => "pause",
        Command::Resume => "resume",
        Command::Halt => "halt",
        Command::Revert => "revert",
        Command::Abort => "abort",
    }
}

/// That it was made, with the digest of what was ordered: the order itself may be longer than an event.
pub fn created(live: &Live, actor: &Actor, at: Timestamp) -> Said {
    let plan = live.plan();
    let order = serde_json::to_string(&live.order).expect("it came as JSON");
    let detail = json!({
        "product": plan.product.as_str(),
        "version": plan.version.to_string(),
        "sha256": plan.digest.to_string(),
        "cohort": plan.cohort,
        "bound": plan.bound.min(evidence::event::NUMBER_MAX),
        "waves": plan.waves.len(),
        "order_sha256": trust::digest(order.as_bytes()).to_string(),
    });
    said(at, actor, "rollout.create", subject(live), detail)
}

/// That it was not moved, since another one stands in its way.
pub fn refused(
    live: &Live,
    word: RolloutCommand,
    why: &Unfit,
    actor: &Actor,
    at: Timestamp,
) -> Said {
    let detail = json!({ "command": word.as_str(), "why": why.to_string() });
    said(at, actor, "rollout.refused", subject(live), detail)
}

/// What a move is to the evidence log: what happened to the rollout, and what became of each device.
pub fn moved(live: &Live, moved: &Moved, mover: &Mover, at: Timestamp) -> Vec<Said> {
    let happened = moved.happened.iter().filter_map(|what| {
        let (action, detail) = happened(what)?;
        let actor = match mover {
            Mover::Person(actor) => actor,
            Mover::Site => "control",
        };
        Some(said(at, actor, &action, subject(live), detail))
    });
    let permits = moved.permits.iter().map(|(device, permit)| {
        let before = live.permits.get(device);
        permit_said(live, device, before, permit, at)
    });
    happened.chain(permits).collect()
}

fn subject(live: &Live) -> String {
    format!("rollout/{}", live.id())
}

/// Numbers of an event are whole: what may not be is written as text.
fn happened(what: &Happened) -> Option<(String, Value)> {
    let wave = |wave: &usize| wave + 1;
    let (action, detail) = match what {
        // They are told by what they lead to.
        Happened::Did { command: Command::Halt | Command::Revert } => return None,
        Happened::Did { command } => {
            return Some((format!("rollout.{}", command_word(*command)), json!({})));
        }
        Happened::Held => ("hold", json!({ "why": HELD })),
        Happened::Refused { command, phase } => {
            ("refused", json!({ "command": command_word(*command), "phase": phase.to_string() }))
        }
        Happened::WaveOpened { wave: at, members } => {
            ("wave_opened", json!({ "wave": wave(at), "members": members }))
        }
        Happened::WaveInstalled { wave: at, good, failed, silent, absent } => (
            "wave_installed",
            json!({ "wave": wave(at), "good": good, "failed": failed, "silent": silent, "absent": absent }),
        ),
        Happened::GatePassed { wave: at } => ("gate_passed", json!({ "wave": wave(at) })),
        Happened::GateHeld { wave: at, signal } => {
            ("gate_held", json!({ "wave": wave(at), "signal": signal }))
        }
        Happened::SignalBeyond { wave: at, signal, found } => (
            "signal_beyond",
            json!({ "wave": wave(at), "signal": signal, "found": found.to_string() }),
        ),
        Happened::Halted { why } => ("halt", json!({ "why": told_why(why) })),
        Happened::RevertBegan { devices } => ("revert", json!({ "devices": devices })),
        Happened::BackWaveOpened { wave: at } => ("back_wave_opened", json!({ "wave": wave(at) })),
        Happened::Reverted { left } => ("reverted", json!({ "left": left })),
        Happened::Completed => ("complete", json!({})),
    };
    Some((format!("rollout.{action}"), detail))
}

fn permit_said(
    live: &Live,
    device: &DeviceId,
    before: Option<&Permit>,
    permit: &Permit,
    at: Timestamp,
) -> Said {
    let own_word = || format!("device/{device}");
    let (actor, action) = match permit.known {
        Known::Issued { .. } => ("control".to_owned(), "permit.issue"),
        Known::Silent => ("control".to_owned(), "device.silent"),
        Known::Back { .. } => ("control".to_owned(), "device.back"),
        Known::BackSilent => ("control".to_owned(), "device.back_silent"),
        Known::Proven => (own_word(), "device.proven"),
        Known::Had => (own_word(), "device.had"),
        Known::Failed => (own_word(), "device.failed"),
        Known::Stuck => (own_word(), "device.stuck"),
        Known::WentBack => (own_word(), "device.went_back"),
    };
    let detail = json!({
        "device": device.as_str(),
        "before": before.map(|before| word(before.known)),
        "was_sha256": permit.was.to_string(),
        "number": permit.heard,
    });
    said(at, actor, action, subject(live), detail)
}

fn told_why(why: &Why) -> String {
    match why {
        Why::Person => "an operator said so".to_owned(),
        Why::Failures { failed, silent, of } => {
            format!("{failed} failed and {silent} fell silent of {of} devices")
        }
        Why::Signal { name } => format!("signal {name:?} is beyond its limit"),
    }
}

/// As `GET /v1/rollouts/{id}` shows it.
pub fn shown(live: &Live) -> Rollout {
    let (plan, state) = (live.plan(), live.state());
    let next = next(plan, state);
    Rollout {
        id: plan.rollout.to_string(),
        order: live.order.clone(),
        sha256: plan.digest.to_string(),
        created_at_ms: live.created_at.as_ms(),
        revision: state.revision,
        phase: state.phase.name().to_string(),
        stage: state.phase.stage().map(|stage| stage_word(stage).to_owned()),
        why: why(live, state),
        wave: state.wave + 1,
        waves: plan.waves.len(),
        cohort: plan.cohort,
        members: state.opened.last().map_or(0, |opened| opened.members),
        counts: counts(state),
        next: next.sentence,
        next_at_ms: next.at_ms,
        commands: commands(state),
    }
}

fn stage_word(stage: &Stage) -> &'static str {
    match stage {
        Stage::Opening => "opening",
        Stage::Installing => "installing",
        Stage::Soaking { .. } => "soaking",
        Stage::Asking { .. } => "asking",
    }
}

/// Why a rollout waits for a person. Who has shown it, and what, is the event `generation.raised` of the same step.
const HELD: &str = "a device has seen a newer word of this site than the registry knows of: it may have gone on since. Nobody \
     is told anything until somebody resumes, halts, reverts or aborts this rollout";

fn why(live: &Live, state: &State) -> Option<String> {
    match &state.phase {
        _ if state.held => Some(HELD.to_owned()),
        Phase::Halted { why } => Some(told_why(why)),
        Phase::Running { stage: Stage::Asking { .. } } => {
            live.held.as_ref().map(|held| held.why.clone())
        }
        Phase::Reverted if state.counts.to_go_back() > 0 => {
            let left = state.counts.to_go_back();
            Some(format!("{left} devices have the release still, or might have it"))
        }
        _ => None,
    }
}

fn counts(state: &State) -> RolloutCounts {
    let counts = &state.counts;
    RolloutCounts {
        issued: counts.issued,
        silent: counts.silent,
        proven: counts.proven,
        had: counts.had,
        failed: counts.failed,
        back: counts.back,
        back_silent: counts.back_silent,
        stuck: counts.stuck,
        went_back: counts.went_back,
    }
}
