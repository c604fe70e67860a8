use super::*;
use crate::directory::default_group;
use model::{GroupId, ZoneId};

fn device(id: &str, zone: &str) -> Device {
    Device {
        id: DeviceId::new(id).unwrap(),
        serial: id.to_uppercase(),
        role: Role::Device,
        zone: ZoneId::new(zone).unwrap(),
        group: default_group(),
        grouped_at: Timestamp(0),
        standing: Standing::Enrolled,
        listed_at: Timestamp(0),
        enrolled_at: None,
        changed_at: Timestamp(0),
        keys: Vec::new(),
    }
}

fn id(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

/// Zones of the yard are of another site.
fn site_of(zone: &str) -> String {
    if zone.starts_with("yard") { "south".into() } else { "north".into() }
}

/// Four devices: pump-1 and pump-2 in the hall, fan-1 in the yard, and a gateway. It is 1,000,000 ms since 1970.
fn fleet() -> Index {
    let mut gateway = device("gw-1", "hall");
    gateway.role = Role::Gateway;
    let mut quarantined = device("pump-2", "hall");
    quarantined.standing = Standing::Quarantined;
    quarantined.group = GroupId::new("pilot").unwrap();
    let devices = [device("pump-1", "hall"), quarantined, device("fan-1", "yard"), gateway];
    let mut index = Index::default();
    index.follow(&Directory::new(1, devices));
    index.runs(&id("pump-1"), Some(("pump-app", "1.0.0")));
    index.runs(&id("pump-2"), Some(("pump-app", "1.1.0")));
    index.runs(&id("fan-1"), Some(("fan-app", "1.0.0")));
    index.hear(&id("pump-1"), Some("gw-1"), 900_000);
    index.hear(&id("fan-1"), Some("gw-2"), 400_000);
    index
}

fn found(index: &Index, filter: &Filter, reach: &Reach) -> Vec<String> {
    let found = index.find(filter, reach, site_of, None, 100);
    assert_eq!(found.total as usize, found.devices.len());
    assert_eq!(index.count(filter, reach, site_of, Timestamp(0)).total, found.total);
    found.devices.into_iter().map(|line| line.id).collect()
}

#[test]
fn each_word_of_a_filter_narrows_what_is_found_and_all_of_them_hold_together() {
    let index = fleet();
    let text = |text: &str| Some(text.to_owned());
    let of = |change: &dyn Fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        found(&index, &filter, &Reach::Everywhere).join(" ")
    };
    type Change<'a> = &'a dyn Fn(&mut Filter);
    let table: [(&str, Change<'_>, &str); 16] = [
        ("all", &|_| (), "fan-1 gw-1 pump-1 pump-2"),
        ("search", &|f| f.search = "mp-".into(), "pump-1 pump-2"),
        ("site", &|f| f.site = text("south"), "fan-1"),
        ("zone", &|f| f.zone = text("hall"), "gw-1 pump-1 pump-2"),
        ("group", &|f| f.group = text("pilot"), "pump-2"),
        ("standing", &|f| f.standing = Some(Standing::Quarantined), "pump-2"),
        ("role", &|f| f.role = Some(Role::Gateway), "gw-1"),
        ("version", &|f| f.version = text("1.0.0"), "fan-1 pump-1"),
        ("product and version", &|f| f.version = text("pump-app 1.0.0"), "pump-1"),
        ("gateway", &|f| f.gateway = text("gw-2"), "fan-1"),
        ("silent", &|f| f.silent_since_ms = Some(400_000), "fan-1 gw-1 pump-2"),
        ("unknown zone", &|f| f.zone = text("cellar"), ""),
        ("unknown gateway", &|f| f.gateway = text("gw-9"), ""),
        ("a zone's name is no group", &|f| f.group = text("hall"), ""),
        ("a product is no version", &|f| f.version = text("pump-app"), ""),
        (
            "together",
            &|f| (f.search, f.zone, f.version) = ("pump".into(), text("hall"), text("1.1.0")),
            "pump-2",
        ),
    ];
    for (what, change, expected) in table {
        assert_eq!(of(change), expected, "{what}");
    }
}

/// INV-LEAST-1.
#[test]
fn who_reaches_one_site_finds_and_counts_that_sites_devices_only() {
    let index = fleet();
    let south = Reach::Sites(["south".to_owned()].into());
    assert_eq!(found(&index, &Filter::default(), &south), ["fan-1"]);
    let north = Filter { site: Some("north".into()), ..Filter::default() };
    assert!(found(&index, &north, &south).is_empty());
    let summary = index.count(&Filter::default(), &south, site_of, Timestamp(0));
    assert_eq!(summary.zones, BTreeMap::from([("yard".into(), 1)]));
    assert_eq!(summary.gateways, BTreeMap::from([("gw-2".into(), 1)]));
    assert!(found(&index, &Filter::default(), &Reach::Sites([].into())).is_empty());
}

#[test]
fn pages_hold_each_device_once_and_every_page_says_how_many_there_are() {
    let index = fleet();
    let (mut ids, mut after) = (Vec::new(), None::<String>);
    loop {
        let (filter, reach) = (Filter::default(), Reach::Everywhere);
        let page = index.find(&filter, &reach, site_of, after.as_deref(), 3);
        assert_eq!(page.total, 4);
        ids.extend(page.devices.into_iter().map(|line| line.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(ids, ["fan-1", "gw-1", "pump-1", "pump-2"]);
}

#[test]
fn a_summary_counts_each_word_and_how_long_ago_devices_were_heard() {
    let index = fleet();
    let now = Timestamp(1_000_000_000);
    let summary = index.count(&Filter::default(), &Reach::Everywhere, site_of, now);
    let counts = |counts: &BTreeMap<String, u64>| {
        let counts = counts.iter().map(|(word, count)| format!("{word}={count}"));
        counts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(counts(&summary.sites), "north=3 south=1");
    assert_eq!(counts(&summary.zones), "hall=3 yard=1");
    assert_eq!(counts(&summary.groups), "pilot=1 production=3");
    assert_eq!(counts(&summary.standings), "enrolled=3 quarantined=1");
    assert_eq!(counts(&summary.roles), "device=3 gateway=1");
    assert_eq!(counts(&summary.versions), "fan-app 1.0.0=1 pump-app 1.0.0=1 pump-app 1.1.0=1");
    assert_eq!(counts(&summary.gateways), "gw-1=1 gw-2=1");
    assert_eq!(counts(&summary.seen), "1h=1 5m=1 never=2");
}

#[test]
fn a_change_of_the_directory_changes_its_own_line_and_forgets_nothing_else() {
    let mut index = fleet();
    let mut moved = device("pump-1", "yard");
    moved.standing = Standing::Revoked;
    let devices = [moved, device("pump-2", "hall"), device("fan-1", "yard"), device("a", "hall")];
    index.follow(&Directory::new(2, devices.clone().into_iter().chain([device("gw-1", "hall")])));
    let line = index.line(&id("pump-1"), site_of).unwrap();
    assert_eq!((line.zone.as_str(), line.standing), ("yard", Standing::Revoked));
    assert_eq!((line.version.as_deref(), line.seen_at_ms), (Some("1.0.0"), Some(900_000)));
    assert_eq!(index.line(&id("a"), site_of).unwrap().seen_at_ms, None);
    assert_eq!(index.len(), 5);
    // An older directory comes too late.
    index.follow(&Directory::new(1, []));
    assert_eq!(index.len(), 5);
}

#[test]
fn what_was_heard_is_handed_out_to_be_kept_until_it_is() {
    let mut index = fleet();
    let (unkept, more) = index.unkept(0, 100);
    let named: Vec<_> = unkept.iter().map(|kept| (kept.device.as_str(), kept.moved_ms)).collect();
    assert_eq!(named, [("fan-1", Some(400_000)), ("pump-1", Some(900_000))]);
    assert_eq!(more, None);
    let (first, more) = index.unkept(0, 1);
    assert_eq!((first.len(), more), (1, Some(1)));

    // Heard again by another gateway while it was being written: that is still to be kept.
    index.hear(&id("pump-1"), Some("gw-3"), 950_000);
    index.keep(&unkept);
    let (unkept, _) = index.unkept(0, 100);
    let expected = Kept {
        device: id("pump-1"),
        at_ms: 950_000,
        gateway: Some("gw-3".into()),
        moved_ms: Some(950_000),
    };
    assert_eq!(unkept, [expected]);
    index.keep(&unkept);
    assert_eq!(index.unkept(0, 100), (vec![], None));
    index.hear(&id("pump-1"), None, 940_000);
    assert_eq!(index.unkept(0, 100), (vec![], None), "nobody is heard backwards in time");
    index.recall(&id("pump-2"), Some("gw-1"), 800_000);
    assert_eq!(index.unkept(0, 100), (vec![], None), "it came from where it would be kept");
}

/// INV-COST-1: a device that reports another version each time costs as much as one that does not.
#[test]
fn a_word_that_nobody_has_any_more_is_forgotten() {
    let mut index = fleet();
    let before = index.words.texts.len();
    for n in 0..1000 {
        index.runs(&id("pump-1"), Some(("pump-app", &format!("{n}.0.0"))));
        index.hear(&id("pump-1"), Some(&format!("gw-{n}")), 1_000_000 + n);
    }
    assert!(index.words.texts.len() <= before + 2, "{} of {before}", index.words.texts.len());
    index.runs(&id("pump-1"), None);
    assert_eq!(index.line(&id("pump-1"), site_of).unwrap().version, None);
}
