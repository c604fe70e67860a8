//! docs/traces.md, over a whole site: real devices, a gateway, control and a store, and a collector of this test's own.

use crate::collector::{Collector, Told};
use crate::{Desk, FIRST_READING, Site, Up, commands};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// A trace that has all these, in this order.
fn whole<const N: usize>(spans: &[Told], names: [&str; N]) -> Option<[Told; N]> {
    let ends = spans.iter().filter(|told| told.span.name == names[N - 1]);
    ends.filter_map(|end| {
        let of = |name: &&str| {
            let mut own = spans.iter().filter(|told| told.span.trace_id == end.span.trace_id);
            own.find(|told| told.span.name == **name).cloned()
        };
        let found: Option<Vec<Told>> = names.iter().map(of).collect();
        found?.try_into().ok()
    })
    .next()
}

#[test]
fn one_reading_is_one_trace_from_the_device_to_the_store() {
    let site = Site::new("reading-trace");
    let mut collector = Collector::start();
    let url = collector.url.clone();
    let mut up = Up::start_with(&site, &["--otlp-endpoint", &url, "--otlp-ratio", "1"], &[]);
    up.until(FIRST_READING);
    let names = [
        "seal readings",
        "admit readings",
        "hand up readings",
        "append readings",
        "ingest readings",
    ];
    let trace = collector.until("a whole trace", |spans| whole(spans, names));
    let [seal, admit, hand_up, append, ingest] = &trace;
    let services = trace.each_ref().map(|told| told.service.as_str());
    let [device, gateway, control, store] =
        ["plimsoll-device", "plimsoll-gateway", "plimsoll-control", "plimsoll-store"];
    assert_eq!(services, [device, gateway, gateway, control, store]);

    // Each follows the one before, and nothing else is in the trace.
    assert!(seal.span.parent_span_id.is_none(), "{seal:?}");
    assert!(trace.windows(2).all(|pair| pair[1].follows(&pair[0])), "{trace:#?}");
    let of_it = |told: &&Told| told.span.trace_id == seal.span.trace_id;
    assert_eq!(collector.spans.iter().filter(of_it).count(), names.len());

    // As OpenTelemetry has kinds, and flags of who is sampled and whose parent is elsewhere.
    assert_eq!(trace.each_ref().map(|told| told.span.kind), [4, 5, 4, 5, 5]);
    assert_eq!(trace.each_ref().map(|told| told.span.flags), [3, 0x303, 0x303, 0x303, 0x303]);
    assert!(trace.iter().all(|told| told.span.trace_state.as_deref() == Some("ot=th:0")));

    // On one machine the times have an order too.
    assert!(trace.windows(2).all(|pair| pair[0].from() <= pair[1].from()), "{trace:#?}");
    assert!(trace.iter().all(|told| told.from() <= told.to()), "{trace:#?}");
    assert!(append.to() <= hand_up.to(), "a verdict comes after the sync");
    assert_eq!(seal.to(), admit.from(), "it arrives");

    // It is the reading that SQL finds.
    let device = seal.text("device.id").unwrap();
    assert!(trace.iter().all(|told| told.text("device.id") == Some(device)));
    let (epoch, sequence) = (seal.number("plimsoll.epoch"), seal.number("plimsoll.sequence"));
    let sql = format!(
        "select count(*) from readings where device = '{device}' and epoch = {epoch} and sequence = {sequence}"
    );
    let counted =
        Desk::of(&site).run(&format!("target/debug/plimsoll query --format csv \"{sql}\""));
    let counted: i64 = counted.lines().last().unwrap().parse().unwrap();
    assert_eq!(counted, ingest.number("plimsoll.readings"));
    up.signal(Signal::TERM);
    assert!(up.wait().success());
}

#[test]
fn one_update_is_one_trace_from_the_permit_to_the_report() {
    let site = Site::new("update-trace");
    let mut collector = Collector::start();
    let url = collector.url.clone();
    // No reading is traced; updates are, whatever the ratio.
    let mut up = Up::start_with(&site, &["--otlp-endpoint", &url, "--otlp-ratio", "0"], &[]);
    up.until(FIRST_READING);
    let [update, _] = &commands("## The first update")[..] else { panic!("two blocks in README") };
    Desk::of(&site).run(update);
    let proven = |told: &&Told| told.text("plimsoll.permit") == Some("proven");
    let both = |spans: &[Told]| (spans.iter().filter(proven).count() == 2).then_some(());
    collector.until("both devices' reports", both);
    up.signal(Signal::TERM);
    assert!(up.wait().success());
    collector.drain();
    assert!(collector.spans.iter().all(|told| told.text("plimsoll.rollout") == Some("pump-1.1")));
    for device in ["host-1", "replay-1"] {
        let own: Vec<&Told> =
            collector.spans.iter().filter(|told| told.text("device.id") == Some(device)).collect();
        let trace = &own[0].span.trace_id;
        assert!(own.iter().all(|told| told.span.trace_id == *trace), "one trace: {own:#?}");
        let one = |name: &str, end: Option<&str>| {
            let mut found = own
                .iter()
                .filter(|told| told.span.name == name && told.text("plimsoll.install.end") == end);
            let one = *found.next().unwrap_or_else(|| panic!("no {name} {end:?} in {own:#?}"));
            assert!(found.next().is_none(), "{name} {end:?} twice in {own:#?}");
            one
        };
        let permit = one("issue permit", None);
        let image = one("serve image", None);
        let check_in = one("check in", Some("confirmed"));
        let report = one("take report", Some("confirmed"));
        assert!(permit.span.parent_span_id.is_none());
        assert!(own.iter().all(|told| told.span.trace_state.as_deref() == Some("ot=th:0")));
        assert!(image.follows(permit) && check_in.follows(permit), "{own:#?}");
        assert!(report.follows(check_in), "{own:#?}");
        assert_eq!(report.text("plimsoll.permit"), Some("proven"));
        assert_eq!(
            [permit, image, check_in, report].map(|told| told.service.as_str()),
            ["plimsoll-control", "plimsoll-gateway", "plimsoll-gateway", "plimsoll-control",]
        );
        // The leave, then the image, then the word of it, which control hears within its gateway's call.
        assert!(permit.to() <= image.from() && image.to() <= check_in.from(), "{own:#?}");
        assert!(check_in.from() <= report.from() && report.to() <= check_in.to(), "{own:#?}");
        assert!(image.number("http.response.body.size") > 100_000, "{image:?}");
        // What is told on the way follows in the same form.
        let known = [permit, image, check_in, report].map(|told| &told.span.span_id);
        for other in own.iter().filter(|told| !known.contains(&&told.span.span_id)) {
            assert_eq!(other.text("plimsoll.install.end"), Some("underway"), "{other:#?}");
        }
    }
}

/// What `/metrics` of the gateway says, at the third port.
fn counted(site: &Site, metric: &str) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", site.port_base + 2)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(metric));
    line.unwrap_or_else(|| panic!("no {metric} in {page}")).trim().parse().unwrap()
}

#[test]
fn a_collector_that_is_away_or_hangs_costs_its_traces_and_nothing_else() {
    let site = Site::new("no-collector");
    // It lets connect and never answers.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let url_of = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let (hangs_at, away_at) = (url_of(&hangs), url_of(&away));
    drop(away);
    for url in [hangs_at, away_at] {
        let mut up = Up::start_with(&site, &["--otlp-endpoint", &url, "--otlp-ratio", "1"], &[]);
        // Every reading is traced: one that waited for the collector would not come.
        up.until(FIRST_READING);
        let dropped = r#"plimsoll_traces_dropped_total{reason="collector"}"#;
        let start = std::time::Instant::now();
        while counted(&site, dropped) == 0.0 {
            assert!(start.elapsed() < crate::PATIENCE, "{url}: nothing is dropped");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(counted(&site, "plimsoll_traces_sent_total"), 0.0);
        assert_eq!(counted(&site, "plimsoll_gateway_uplink_retries_total"), 0.0);
        up.signal(Signal::TERM);
        let ending = std::time::Instant::now();
        assert!(up.wait().success());
        assert!(ending.elapsed().as_secs() < 20, "{:?}", ending.elapsed());
    }
}
