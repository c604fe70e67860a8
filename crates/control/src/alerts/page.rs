//! The weekly report as people read it: text for mail, and one page of HTML that a browser, a mail program and a printer
//! show alike. It has no scripts and fetches nothing.

use api::alert::WeeklyReport;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Devices, acts and versions of a table. The rest is counted.
const ROWS_MAX: usize = 40;

/// As people and sorting programs read it: UTC, to the minute.
pub fn time(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| ms.to_string(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// In the two largest units that it has.
pub fn duration(ms: u64) -> String {
    let minutes = ms / 60_000;
    let (days, hours) = (minutes / 1440, minutes / 60 % 24);
    match (days, hours, minutes % 60) {
        (0, 0, 0) => format!("{} s", ms / 1000),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// With a thin space between thousands, as tables of figures have it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

pub fn text(report: &WeeklyReport) -> String {
    let mut out = format!(
        "{}: the fleet's week\n{} to {}\n\n",
        report.site,
        time(report.from_ms),
        time(report.until_ms)
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<28}{value}");
    };
    line("devices", report.devices.to_string());
    line("  enrolled", report.enrolled.to_string());
    line("  heard this week", report.heard.to_string());
    line("  quarantined", report.quarantined.to_string());
    line("  revoked", report.revoked.to_string());
    line("readings", report.readings.to_string());
    line("gaps open now", report.gaps.to_string());
    line("messages in quarantine", report.quarantined_messages.to_string());
    for (priority, count) in &report.alerts_by_priority {
        line(&format!("alerts, {priority}"), count.to_string());
    }
    if let Some(after) = report.acknowledged_after_ms {
        line("acknowledged after (median)", duration(after));
    }
    for (invariant, count) in &report.violations {
        line(&format!("violations of {invariant}"), count.to_string());
    }
    let mut list = |head: &str, rows: Vec<String>| {
        if !rows.is_empty() {
            let _ = writeln!(out, "\n{head}");
        }
        for row in rows {
            let _ = writeln!(out, "  {row}");
        }
    };
    let counted = |counts: &BTreeMap<String, u64>| {
        let rows = most(counts).0;
        rows.into_iter().map(|(name, count)| format!("{count:>8}  {name}")).collect()
    };
    list("Software", counted(&report.versions));
    let rollout = |rollout: &api::alert::ReportedRollout| {
        let api::alert::ReportedRollout { id, phase, proven, failed, went_back, cohort } = rollout;
        format!(
            "{id}: {phase}, {proven} of {cohort} proven, {failed} failed, {went_back} went back"
        )
    };
    list("Rollouts", report.rollouts.iter().map(rollout).collect());
    list("Not heard", report.silent.iter().take(ROWS_MAX).cloned().collect());
    list("What was done", counted(&report.acts));
    list("Not known", report.notes.clone());
    out
}

/// The largest counts, and how many there are beyond.
fn most(counts: &BTreeMap<String, u64>) -> (Vec<(&String, &u64)>, usize) {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let beyond = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    (rows, beyond)
}

const STYLE: &str = "
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 800px; color: #1b2430; background: #fff;
  font: 14px/1.45 system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
header { border-bottom: 2px solid #14532d; padding-bottom: 10px; margin-bottom: 18px; }
h1 { font-size: 22px; margin: 0 0 2px; }
h2 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 4px 0; color: #4a5565; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
.tile { border: 1px solid #d5dbe3; border-radius: 6px; padding: 8px 10px; }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { color: #4a5565; font-size: 12px; }
.bad { border-color: #b42318; } .bad b { color: #b42318; }
table { width: 100%; border-collapse: collapse; }
th, td { text-align: left; padding: 4px 8px 4px 0; border-bottom: 1px solid #e4e8ee; vertical-align: top; }
th { color: #4a5565; font-weight: 600; font-size: 12px; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; width: 7em; }
ul { margin: 0; padding-left: 18px; } .names { columns: 3; }
footer { margin-top: 26px; padding-top: 8px; border-top: 1px solid #d5dbe3; color: #4a5565; font-size: 12px; }
@media (max-width: 480px) { body { padding: 14px; } .tiles { grid-template-columns: repeat(2, 1fr); } .names { columns: 1; } }
@media print { @page { size: A4; margin: 16mm 15mm; } body { padding: 0; max-width: none; font-size: 10.5pt; }
  table, ul, .tiles { break-inside: auto; } tr, li, .tile { break-inside: avoid; } h2 { break-after: avoid; } }
";

pub fn html(report: &WeeklyReport) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let site = escaped(&report.site);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{site}: the fleet's week</title><style>{STYLE}</style></head><body>\
         <header><h1>{site}: the fleet's week</h1><p>{} to {}</p></header><main>",
        time(report.from_ms),
        time(report.until_ms)
    );
    tiles(&mut out, report);
    counts(&mut out, "Software", "product and version", "devices", &report.versions);
    rollouts(&mut out, report);
    counts(&mut out, "Alerts raised", "priority", "alerts", &report.alerts_by_priority);
    if let Some(after) = report.acknowledged_after_ms {
        let _ = write!(out, "<p>Acknowledged after {} (median).</p>", duration(after));
    }
    counts(&mut out, "Invariants found broken", "invariant", "times", &report.violations);
    names(&mut out, "Enrolled and not heard this week", "names", &report.silent);
    counts(&mut out, "What was done", "act", "times", &report.acts);
    names(&mut out, "Not known", "", &report.notes);
    let _ = writeln!(
        out,
        "</main><footer>Made {} by the site's control plane. Where each number comes from: docs/alerts.md.</footer>\
         </body></html>",
        time(report.made_at_ms)
    );
    out
}

fn tiles(out: &mut String, report: &WeeklyReport) {
    let broken: u64 = report.violations.values().sum();
    let unheard = report.enrolled.saturating_sub(report.heard);
    let tiles = [
        ("devices", report.devices, false),
        ("enrolled", report.enrolled, false),
        ("heard this week", report.heard, unheard > 0),
        ("quarantined", report.quarantined, report.quarantined > 0),
        ("revoked", report.revoked, false),
        ("readings", report.readings, false),
        ("gaps open now", report.gaps, report.gaps > 0),
        ("messages in quarantine", report.quarantined_messages, report.quarantined_messages > 0),
        ("invariants broken", broken, broken > 0),
    ];
    out.push_str("<section class=\"tiles\" aria-label=\"In numbers\">");
    for (name, count, is_bad) in tiles {
        let class = if is_bad { "tile bad" } else { "tile" };
        let _ = write!(
            out,
            "<div class=\"{class}\"><b>{}</b><span>{name}</span></div>",
            grouped(count)
        );
    }
    out.push_str("</section>");
}

fn counts(out: &mut String, head: &str, of: &str, what: &str, counts: &BTreeMap<String, u64>) {
    if counts.is_empty() {
        return;
    }
    let (rows, beyond) = most(counts);
    let _ = write!(
        out,
        "<h2>{head}</h2><table><thead><tr><th>{of}</th><th class=\"n\">{what}</th></tr></thead><tbody>"
    );
    for (name, count) in rows {
        let (name, count) = (escaped(name), grouped(*count));
        let _ = write!(out, "<tr><td>{name}</td><td class=\"n\">{count}</td></tr>");
    }
    out.push_str("</tbody></table>");
    if beyond > 0 {
        let _ = write!(out, "<p>And {beyond} more.</p>");
    }
}

fn rollouts(out: &mut String, report: &WeeklyReport) {
    if report.rollouts.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Rollouts</h2><table><thead><tr><th>rollout</th><th>phase</th><th class=\"n\">proven</th>\
         <th class=\"n\">failed</th><th class=\"n\">went back</th><th class=\"n\">of</th></tr></thead><tbody>",
    );
    for rollout in &report.rollouts {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td>",
            escaped(&rollout.id),
            escaped(&rollout.phase)
        );
        for count in [rollout.proven, rollout.failed, rollout.went_back, rollout.cohort] {
            let _ = write!(out, "<td class=\"n\">{}</td>", grouped(count));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
}

fn names(out: &mut String, head: &str, class: &str, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let _ = write!(out, "<h2>{head}</h2><ul class=\"{class}\">");
    for name in names {
        let _ = write!(out, "<li>{}</li>", escaped(name));
    }
    out.push_str("</ul>");
}

/// What devices and people name things stands in a page as text, whatever it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> WeeklyReport {
        WeeklyReport {
            site: "hall <1>".into(),
            from_ms: 1_795_000_000_000,
            until_ms: 1_795_604_800_000,
            made_at_ms: 1_795_604_800_000,
            devices: 1_234_567,
            enrolled: 10,
            quarantined: 1,
            revoked: 0,
            heard: 9,
            silent: vec!["pump-<b>1".into()],
            versions: BTreeMap::from([("pump 1.0.0".into(), 4), ("pump 1.1.0".into(), 6)]),
            rollouts: vec![],
            alerts_by_priority: BTreeMap::from([("critical".into(), 2)]),
            acknowledged_after_ms: Some(5_400_000),
            readings: 1_000_000,
            gaps: 0,
            quarantined_messages: 0,
            acts: (0..60).map(|number| (format!("act.{number}"), number)).collect(),
            violations: BTreeMap::new(),
            notes: vec!["readings: no store & no answer".into()],
        }
    }

    #[test]
    fn a_page_shows_what_things_are_named_as_text_fetches_nothing_and_runs_nothing() {
        let page = html(&report());
        assert!(page.contains("hall &lt;1&gt;") && page.contains("pump-&lt;b&gt;1"), "{page}");
        assert!(page.contains("no store &amp; no answer"));
        for foreign in ["pump-<b>", "<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("1\u{2009}234\u{2009}567"));
        assert!(page.contains("And 20 more."));
        assert!(page.find("pump 1.1.0").unwrap() < page.find("pump 1.0.0").unwrap());
        assert!(text(&report()).contains("acknowledged after (median) 1 h 30 min"));
    }

    #[test]
    fn times_and_spans_are_those_of_people() {
        assert_eq!(time(0), "1970-01-01 00:00 UTC");
        assert_eq!(time(1_795_604_800_000), "2026-11-25 11:06 UTC");
        let spans = [(0, "0 s"), (59_999, "59 s"), (61_000, "1 min"), (90_000_000, "1 d 1 h")];
        for (ms, expected) in spans {
            assert_eq!(duration(ms), expected);
        }
    }
}
