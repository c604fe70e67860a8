use super::*;

const IDLE: Duration = Duration::from_secs(1800);
const NOW: Timestamp = Timestamp(1_000_000_000);

fn after(seconds: i64) -> Timestamp {
    Timestamp(NOW.as_us() + seconds * 1_000_000)
}

fn grant(role: UserRole, site: Option<&str>) -> Grant {
    Grant { role, site: site.map(str::to_owned) }
}

fn user(name: &str, grants: &[Grant]) -> User {
    User {
        name: name.into(),
        password: secret::Hash::nobody(),
        grants: grants.iter().cloned().collect(),
        disabled: false,
        created_at: NOW,
        signed_in_at: None,
    }
}

fn token(user: &str, id: &str, secret: &str, scopes: &[Scope]) -> Token {
    Token {
        id: id.into(),
        user: user.into(),
        name: "ci".into(),
        secret_sha256: trust::digest(secret.as_bytes()),
        bounds: Bounds { scopes: scopes.iter().copied().collect(), sites: None, groups: None },
        created_at: NOW,
        until: after(3600),
        revoked_at: None,
        used: Used::default(),
    }
}

const COOKIE: Digest = Digest([7; 32]);

/// Anna, an administrator with a session and a token; Boris, an operator of the north.
fn people() -> People {
    let mut people = People::new("plant");
    people.put_user(user("anna", &[grant(UserRole::Administrator, None)]));
    people.put_user(user("boris", &[grant(UserRole::Operator, Some("north"))]));
    people.put_token(token("anna", "a1", "right", &[Scope::FleetRead]));
    let session = Session {
        user: "anna".into(),
        begun_at: NOW,
        until: after(12 * 3600),
        used: Used::at(NOW),
    };
    people.put_session(COOKIE, session);
    people.put_site("north", [ZoneId::new("hall").unwrap()].into());
    people
}

/// INV-AUTH-1.
#[test]
fn a_session_ends_when_nobody_uses_it_when_its_time_is_over_and_with_its_user() {
    let people = people();
    let at = |seconds| people.by_session(&COOKIE, after(seconds), IDLE);
    let anna = at(1799).unwrap();
    assert_eq!((&*anna.actor, anna.user.as_deref()), ("user/anna", Some("anna")));
    assert!(people.is_valid(&anna, after(1800 + 1798), IDLE));
    assert!(!people.is_valid(&anna, after(1800 + 1800), IDLE), "asking that is no use of it");
    assert_eq!(at(1799 + 1800), Err(Denied::SessionEnded));
    let mut used = 1799;
    while used < 12 * 3600 - 600 {
        used += 600;
        at(used).unwrap();
    }
    assert_eq!(at(12 * 3600), Err(Denied::SessionEnded));
    let mut disabled = people.clone();
    disabled.put_user(User { disabled: true, ..user("anna", &[]) });
    assert_eq!(disabled.by_session(&COOKIE, after(used), IDLE), Err(Denied::SessionEnded));
    assert!(!disabled.is_valid(&anna, after(used), IDLE));
    assert_eq!(people.by_session(&Digest([8; 32]), NOW, IDLE), Err(Denied::SessionEnded));
}

/// INV-AUTH-1: from a token that counts, each single change is refused with its reason.
#[test]
fn a_token_counts_with_its_secret_in_its_time_while_nobody_revoked_it() {
    let people = people();
    let shown = |people: &People, text: &str, at| people.by_token(text, at);
    let ci = shown(&people, "plm_a1_right", NOW).unwrap();
    assert_eq!((&*ci.actor, ci.proof.clone()), ("token/anna/ci", Proof::Token("a1".into())));
    assert!(ci.holds(Scope::FleetRead) && !ci.holds(Scope::UsersWrite), "not what it is for");
    assert_eq!(people.token("a1").unwrap().used.last(), Some(NOW));
    for wrong in ["plm_a1_wrong", "plm_a2_right", "plm_a1", "plm_a1_", "a1_right", ""] {
        assert_eq!(shown(&people, wrong, NOW), Err(Denied::BadToken), "{wrong:?}");
    }
    let id = || "a1".to_owned();
    assert_eq!(shown(&people, "plm_a1_right", after(3600)), Err(Denied::TokenExpired { id: id() }));
    let mut revoked = people.clone();
    revoked.put_token(people.token("a1").unwrap().revoked(after(1)));
    assert_eq!(shown(&revoked, "plm_a1_right", after(2)), Err(Denied::TokenRevoked { id: id() }));
    assert_eq!(shown(&revoked, "plm_a1_wrong", after(2)), Err(Denied::BadToken), "no oracle");
    let mut disabled = people.clone();
    disabled.put_user(User { disabled: true, ..user("anna", &[]) });
    assert_eq!(shown(&disabled, "plm_a1_right", NOW), Err(Denied::TokenRevoked { id: id() }));
    for people in [&revoked, &disabled] {
        assert!(!people.is_valid(&ci, after(2), IDLE));
    }
    assert!(people.is_valid(&ci, after(3599), IDLE) && !people.is_valid(&ci, after(3600), IDLE));
}

#[test]
fn what_was_let_in_with_other_rights_is_valid_no_more() {
    let mut people = people();
    let anna = people.by_session(&COOKIE, NOW, IDLE).unwrap();
    people.put_user(user("anna", &[grant(UserRole::Administrator, None)]));
    assert!(people.is_valid(&anna, NOW, IDLE));
    people.put_user(user("anna", &[grant(UserRole::Viewer, None)]));
    assert!(!people.is_valid(&anna, NOW, IDLE));
    assert!(people.is_valid(&Principal::site_token(), NOW, IDLE));
}

#[test]
fn the_last_enabled_administrator_of_every_site_stays_one() {
    let mut people = people();
    let anna = |people: &People| User::clone(people.user("anna").unwrap());
    let stripped = |people: &People| User { grants: BTreeSet::new(), ..anna(people) };
    let disabled = |people: &People| User { disabled: true, ..anna(people) };
    let bounded = |people: &People| User {
        grants: [grant(UserRole::Administrator, Some("north"))].into(),
        ..anna(people)
    };
    for next in [stripped(&people), disabled(&people), bounded(&people)] {
        let refused = people.check_administrators(&next);
        assert!(matches!(refused, Err(PeopleError::LastAdministrator(name)) if name == "anna"));
    }
    // One that is disabled, or of one site, does not count.
    people.put_user(User {
        disabled: true,
        ..user("clara", &[grant(UserRole::Administrator, None)])
    });
    assert!(people.check_administrators(&disabled(&people)).is_err());
    people.put_user(user("clara", &[grant(UserRole::Administrator, None)]));
    assert!(people.check_administrators(&disabled(&people)).is_ok());
    assert!(people.check_administrators(&user("boris", &[])).is_ok());
}

#[test]
fn a_zone_is_of_the_site_that_names_it_or_of_the_control_planes_own() {
    let mut people = people();
    let zone = |name: &str| ZoneId::new(name).unwrap();
    let north = Reach::Sites(["north".to_owned()].into());
    assert_eq!((people.site_of(&zone("hall")), people.site_of(&zone("yard"))), ("north", "plant"));
    assert!(people.reaches(&north, &zone("hall")) && !people.reaches(&north, &zone("yard")));
    people.put_site("south", [zone("hall"), zone("yard")].into());
    assert_eq!((people.site_of(&zone("hall")), people.site_of(&zone("yard"))), ("south", "south"));
    assert!(!people.reaches(&north, &zone("hall")) && people.has_site("north"));
    people.put_site("south", [].into());
    assert_eq!(people.site_of(&zone("hall")), "plant");
}

#[test]
fn a_token_is_bounded_by_what_its_maker_may() {
    let people = people();
    let mut boris = people.by_session(&COOKIE, NOW, IDLE).unwrap();
    boris.grants = vec![grant(UserRole::Operator, Some("north"))];
    let bounds = |scopes: &[Scope], sites: Option<Vec<String>>, groups: Option<Vec<String>>| {
        people.check_bounds(&boris, scopes, sites.as_ref(), groups.as_ref())
    };
    assert!(bounds(&[Scope::FleetNarrow], Some(vec!["north".into()]), None).is_ok());
    assert!(matches!(bounds(&[], None, None), Err(PeopleError::NoScope)));
    let beyond = bounds(&[Scope::FleetRead, Scope::UsersWrite], None, None);
    assert!(matches!(beyond, Err(PeopleError::BeyondUser { scope: Scope::UsersWrite, .. })));
    let nowhere = bounds(&[Scope::FleetRead], Some(vec!["west".into()]), None);
    assert!(matches!(nowhere, Err(PeopleError::UnknownSite(site)) if site == "west"));
    let groups = bounds(&[Scope::FleetRead], None, Some(vec!["not a group".into()]));
    assert!(matches!(groups, Err(PeopleError::BadName { what: "group", .. })));
    let many = bounds(&[Scope::FleetRead], Some(vec!["north".into(); 65]), None);
    assert!(matches!(many, Err(PeopleError::TooMany { what: "sites", max: 64 })));
}

#[test]
fn names_and_passwords_are_judged_and_a_refusal_holds_no_password() {
    for good in ["anna", "a", "0", "anna.b-c_d", &"a".repeat(64)] {
        assert!(check_name("user name", good).is_ok(), "{good}");
    }
    for bad in ["", "Anna", "-a", "a b", "a/b", "ä", &"a".repeat(65), "a\n"] {
        assert!(check_name("user name", bad).is_err(), "{bad:?}");
    }
    assert!(check_password("twelve chars").is_ok() && check_password(&"é".repeat(128)).is_ok());
    for bad in ["eleven char", "", &"a".repeat(257)] {
        let refused = check_password(bad).unwrap_err().to_string();
        assert!(bad.is_empty() || !refused.contains(bad), "{refused}");
    }
}
