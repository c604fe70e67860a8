use super::*;
use api::user::Grant;

const NOW: Timestamp = Timestamp(1_000);

fn grant(role: UserRole, site: Option<&str>) -> Grant {
    Grant { role, site: site.map(str::to_owned) }
}

/// Nothing, and one role or two, each at one site, at both or at every one.
fn rights() -> Vec<BTreeSet<Grant>> {
    let mut all = vec![BTreeSet::new()];
    for (n, one) in UserRole::ALL.iter().enumerate() {
        for sites in [&[None][..], &[Some("north")], &[Some("north"), Some("south")]] {
            let of = |role: UserRole| sites.iter().map(move |site| grant(role, *site));
            all.push(of(*one).collect());
            all.extend(UserRole::ALL[n + 1..].iter().map(|two| of(*one).chain(of(*two)).collect()));
        }
    }
    all
}

/// Said once more, without the code that it judges: whether one has a role wherever it is.
fn reaches(rights: &BTreeSet<Grant>, role: UserRole, place: &Place) -> bool {
    let sites: Vec<&str> = match place {
        // A site of tomorrow: of all sites is who is of that, too.
        Place::Everywhere => vec!["north", "south", "tomorrow"],
        Place::Sites(sites) => sites.iter().map(String::as_str).collect(),
    };
    let is_of = |site: &str| {
        rights
            .iter()
            .any(|grant| grant.role == role && grant.site.as_deref().is_none_or(|own| own == site))
    };
    sites.into_iter().all(is_of)
}

/// INV-LEAST-1, over every world of two people with up to two roles each at up to two sites.
#[test]
fn nothing_that_needs_two_is_done_by_one() {
    let scopes = |what| match what {
        Widening::EmergencyRollout => vec![Scope::RolloutsWrite],
        Widening::QuarantineRelease => vec![Scope::FleetWiden],
        Widening::GrantRoles => vec![Scope::UsersWrite, Scope::SettingsWrite],
    };
    let sites = |names: &[&str]| Place::Sites(names.iter().map(|name| name.to_string()).collect());
    let places = [Place::Everywhere, sites(&["north"]), sites(&["north", "south"])];
    let names = [Some("anna"), Some("boris"), None];
    let until = [Timestamp(999), NOW, Timestamp(1_001)];
    let rights = rights();
    let (mut worlds, mut done, mut wrong) = (0_u64, 0_u64, Vec::new());
    for what in Widening::ALL {
        for scope in scopes(what) {
            for place in &places {
                for role in UserRole::ALL.iter().copied() {
                    for (first_grants, second_grants) in
                        rights.iter().flat_map(|one| rights.iter().map(move |other| (one, other)))
                    {
                        // All that is not of rights, one at a time beside what would do.
                        let good = (0, 0, true, true, true, State::Open, 2);
                        let mut others = vec![good];
                        others
                            .extend([1, 2].map(|who| (who, who, true, true, true, State::Open, 2)));
                        others.push((2, 0, true, true, true, State::Open, 2));
                        others.push((0, 1, true, true, true, State::Open, 2));
                        others.push((0, 2, true, true, true, State::Open, 2));
                        for bits in 0..7_u8 {
                            let bit = |n: u8| bits >> n & 1 == 1;
                            others.push((0, 1, bit(0), bit(1), bit(2), State::Open, 2));
                        }
                        others.extend(State::ALL.map(|state| (0, 1, true, true, true, state, 2)));
                        others
                            .extend([0, 1].map(|late| (0, 1, true, true, true, State::Open, late)));
                        for (one, other, first_counts, counts, in_person, state, late) in others {
                            worlds += 1;
                            let first = Person {
                                user: names[one],
                                grants: first_grants,
                                counts: first_counts,
                                in_person: true,
                            };
                            let second = Person {
                                user: names[other],
                                grants: second_grants,
                                counts,
                                in_person,
                            };
                            let question = Question {
                                what,
                                scope,
                                place,
                                first,
                                role,
                                state,
                                until: until[late],
                            };
                            let found = decide(&question, &second, NOW);
                            let two =
                                matches!((names[one], names[other]), (Some(a), Some(b)) if a != b);
                            let by = what.seconds().iter().copied().filter(|second| {
                                *second != role && reaches(second_grants, *second, place)
                            });
                            let by: Vec<UserRole> = by.collect();
                            let first_may = role.holds(scope) && reaches(first_grants, role, place);
                            let may = two
                                && first_counts
                                && counts
                                && in_person
                                && first_may
                                && !by.is_empty()
                                && state == State::Open
                                && NOW < until[late];
                            done += u64::from(found.is_ok());
                            let is_right = match &found {
                                Ok(role) => may && by.contains(role),
                                Err(_) => !may,
                            };
                            if !is_right && wrong.len() < 5 {
                                wrong.push(format!(
                                    "{question:?} by {second:?}: may {may}, {found:?}"
                                ));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{worlds} worlds, {done} of them with two people who may");
    assert!(done > 1_000 && worlds > 1_000_000);
}

#[test]
fn a_yes_counts_until_the_last_moment_and_not_at_the_end() {
    let (first, second) =
        ([grant(UserRole::SecurityOfficer, None)].into(), [grant(UserRole::Operator, None)].into());
    let person = |user, grants| Person { user: Some(user), grants, counts: true, in_person: true };
    let question = Question {
        what: Widening::QuarantineRelease,
        scope: Scope::FleetWiden,
        place: &Place::Everywhere,
        first: person("anna", &first),
        role: UserRole::SecurityOfficer,
        state: State::Open,
        until: Timestamp(1_000),
    };
    let at = |us| decide(&question, &person("boris", &second), Timestamp(us));
    assert_eq!(at(999), Ok(UserRole::Operator));
    assert_eq!(at(1_000), Err(No::NotOpen(State::Expired)));
    assert_eq!(at(1_001), Err(No::NotOpen(State::Expired)));
}

/// Who says yes to something is never who does such things: else two of one trade would do.
#[test]
fn a_second_person_has_another_role_than_who_asks_and_a_way_to_say_it() {
    for what in Widening::ALL {
        assert!(!what.seconds().is_empty());
        let scopes = match what {
            Widening::EmergencyRollout => [Scope::RolloutsWrite].as_slice(),
            Widening::QuarantineRelease => &[Scope::FleetWiden],
            Widening::GrantRoles => &[Scope::UsersWrite, Scope::SettingsWrite],
        };
        for role in what.seconds() {
            assert!(role.holds(Scope::ApprovalsWrite), "{what} by {role}");
            assert!(!scopes.iter().any(|scope| role.holds(*scope)), "{what} by {role}");
        }
    }
}
