//! Approvals on disk, and the steps of the registry that ask, say yes and say no.
//!
//! ```text
//! two_people  what                                                       what needs two people
//! approvals   number → what, subject, sentence, sites, act, basis, secret, asked_…, until, state, decided_…, reason
//! ```
//!
//! `sites` is JSON, and NULL for every one. `act` is what is to be done, as JSON; `basis` what that rests on; `secret` a
//! password's hash. Act and secret go when it is decided.

use super::decide::{self, Person, Place, Question, State, decide};
use super::{
    ACT_BYTES_MAX, Act, ActError, ApprovalError, Asked, Both, DECIDED_MAX, OPEN_FOR, OPEN_MAX,
    OPEN_OF_ONE_MAX, SETTING, Word,
};
use crate::people::People;
use crate::people::secret::Hash;
use crate::principal::{Actor, Principal, Proof};
use crate::registry::{Done, Registry, RegistryError, Step, Work, said};
use api::UserRole;
use api::approval::Widening;
use api::user::Grant;
use model::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Refusals in the schema stand behind those in code: what gets here past the code is a broken invariant, counted as one.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS two_people (what TEXT PRIMARY KEY) STRICT;

CREATE TABLE IF NOT EXISTS approvals (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    sentence TEXT NOT NULL,
    sites TEXT,
    act TEXT,
    basis TEXT NOT NULL,
    secret TEXT,
    asked_by TEXT NOT NULL,
    asked_user TEXT NOT NULL REFERENCES users (name),
    asked_token TEXT,
    asked_as TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'approved', 'refused', 'failed', 'expired')),
    decided_by TEXT,
    decided_user TEXT,
    decided_at INTEGER,
    reason TEXT,
    CHECK (state = 'open' OR (act IS NULL AND secret IS NULL))
) STRICT;
CREATE INDEX IF NOT EXISTS approvals_by_state ON approvals (state, number);
CREATE TRIGGER IF NOT EXISTS what_is_decided_stays_decided BEFORE UPDATE ON approvals
WHEN OLD.state <> 'open'
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: what is decided stays decided'); END;
CREATE TRIGGER IF NOT EXISTS what_is_asked_stays_what_it_was BEFORE UPDATE ON approvals
WHEN NEW.what <> OLD.what OR NEW.subject <> OLD.subject OR NEW.basis <> OLD.basis OR NEW.until <> OLD.until
    OR NEW.asked_user <> OLD.asked_user OR NEW.asked_as <> OLD.asked_as OR NEW.act <> OLD.act
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: what is asked stays what it was'); END;
CREATE TRIGGER IF NOT EXISTS one_person_is_not_two BEFORE UPDATE OF state ON approvals
WHEN NEW.state = 'approved' AND (NEW.decided_user IS NULL OR NEW.decided_user = OLD.asked_user
    OR NEW.decided_at IS NULL OR NEW.decided_at >= OLD.until)
BEGIN SELECT RAISE(ABORT, 'INV-LEAST-1: what needs two is done by two, in time'); END;
";

/// What an approval comes to, with all events that tell of it.
pub type Changed<T> = Result<Done<T>, ApprovalError>;

/// How it was decided otherwise than by a yes.
#[derive(Clone, Debug)]
struct End {
    state: State,
    by: Actor,
    user: Option<String>,
    reason: Option<String>,
}

impl Registry {
    /// Keeps what one person cannot do alone, for a second. To ask for the same again while it is open asks nothing new.
    pub async fn ask(
        &self,
        act: Act,
        password: Option<Hash>,
        by: Arc<Principal>,
        now: Timestamp,
    ) -> Changed<Asked> {
        let step = self.step(move |step| -> Work<'_, Asked, ApprovalError> {
            Box::pin(async move { ask(step, act, password, &by, now).await })
        });
        step.await
    }

    /// The second person's yes, and what it does: both, or neither.
    pub async fn approve(&self, word: Word) -> Result<Done<()>, ActError> {
        self.step(move |step| -> Work<'_, (), ActError> {
            Box::pin(async move {
                let Given { by, act, password } = word.give(step).await?;
                act.carry_out(step, password, &by, word.at).await
            })
        })
        .await
    }

    /// One person says no, also whoever asked.
    pub async fn refuse(
        &self,
        number: u64,
        reason: String,
        by: Arc<Principal>,
        now: Timestamp,
    ) -> Changed<()> {
        let (actor, user) = (by.actor.clone(), by.user.clone());
        self.end(number, End { state: State::Refused, by: actor, user, reason: Some(reason) }, now)
            .await
    }

    /// It was approved, and could not be done.
    pub async fn fail_approval(&self, word: &Word, why: String, now: Timestamp) -> Changed<()> {
        let (by, user) = (word.by.actor.clone(), word.by.user.clone());
        let end = End { state: State::Failed, by, user, reason: Some(why) };
        self.end(word.number, end, now).await
    }

    async fn end(&self, number: u64, end: End, now: Timestamp) -> Changed<()> {
        self.step(move |step| -> Work<'_, (), ApprovalError> {
            Box::pin(async move {
                let asked = one(step.tx(), number).await?;
                match asked.state.at(asked.until, now) {
                    State::Open => write_end(step, &asked, &end, now).await,
                    state => Err(decide::No::NotOpen(state).into()),
                }
            })
        })
        .await
    }

    pub async fn approval(&self, number: u64) -> Result<Asked, ApprovalError> {
        self.read(move |tx| Box::pin(async move { one(tx, number).await })).await
    }

    /// Those below a number, newest first, without their acts.
    pub async fn approvals(&self, below: u64) -> Result<Vec<Asked>, ApprovalError> {
        let below = i64::try_from(below).unwrap_or(i64::MAX);
        self.read(move |tx| {
            Box::pin(async move {
                let sql = "SELECT * FROM approvals WHERE number < ? ORDER BY number DESC";
                let rows = sqlx::query(sql).bind(below).fetch_all(tx).await;
                let rows = rows.map_err(RegistryError::Read)?;
                rows.iter().map(|row| asked_of(row, None).map_err(ApprovalError::from)).collect()
            })
        })
        .await
    }

    /// Writes down what nobody has decided in time.
    pub(crate) async fn tidy_approvals(&self, now: Timestamp) -> Result<(), ApprovalError> {
        let is_any = self.read(move |tx| -> Work<'_, bool, ApprovalError> {
            Box::pin(async move { Ok(!overdue(tx, now).await?.is_empty()) })
        });
        if !is_any.await? {
            return Ok(());
        }
        let step = self.step(move |step| -> Work<'_, (), ApprovalError> {
            Box::pin(async move { expire(step, now).await })
        });
        step.await.map(drop)
    }

    /// Says what needs two people. Whether it was so already is no matter.
    pub async fn set_two_people(
        &self,
        needed_for: BTreeSet<Widening>,
        by: Actor,
        now: Timestamp,
    ) -> Changed<()> {
        self.step(move |step| -> Work<'_, (), ApprovalError> {
            Box::pin(async move { set_two_people(step, needed_for, &by, now).await })
        })
        .await
    }

    /// The way back for a site that has no second person any more: nothing needs two from now on. For who holds the file of a
    /// control plane that is stopped, and can do all else with it.
    pub async fn break_two_people(
        &self,
        now: Timestamp,
    ) -> Result<BTreeSet<Widening>, RegistryError> {
        let step = self.step(move |step| -> Work<'_, BTreeSet<Widening>, RegistryError> {
            Box::pin(async move {
                let before = step.people.two_people().clone();
                if !before.is_empty() {
                    let detail = json!({ "from": before, "to": [], "offline": true });
                    step.say(said(now, "token/site", "settings.two_people", SETTING, detail))
                        .await?;
                    write_two_people(step, BTreeSet::new()).await?;
                }
                Ok(before)
            })
        });
        step.await.map(|done| done.value)
    }
}

async fn ask(
    step: &mut Step<'_>,
    act: Act,
    password: Option<Hash>,
    by: &Arc<Principal>,
    now: Timestamp,
) -> Result<Asked, ApprovalError> {
    expire(step, now).await?;
    let what = act.what();
    let user = by.user.clone().ok_or(ApprovalError::NotAPerson { what })?;
    let people = step.people.clone();
    let place = act.place(step.directory(), &people);
    let grants: BTreeSet<Grant> = by.grants.iter().cloned().collect();
    let role = decide::role_for(&grants, act.scope(), &place);
    let role =
        role.ok_or_else(|| ApprovalError::NoRole { user: user.clone(), place: place.clone() })?;
    let kept = serde_json::to_string(&act).expect("an act has a JSON form");
    if kept.len() > ACT_BYTES_MAX {
        return Err(ApprovalError::TooLong { found: kept.len() });
    }
    let basis = act.basis(step.directory(), &people);
    let token = match &by.proof {
        Proof::Token(id) => Some(id.clone()),
        _ => None,
    };
    let (mut of_one, mut of_all) = (0, 0);
    for row in rows(step.tx(), "SELECT * FROM approvals WHERE state = 'open'").await? {
        let known = asked_of(&row, row.try_get("act").map_err(RegistryError::Read)?)?;
        let is_of_one = known.user == user;
        of_one += usize::from(is_of_one);
        of_all += 1;
        let known_basis: &str = row.try_get("basis").map_err(RegistryError::Read)?;
        let same = known.act.as_ref() == Some(&act) && known.role == role && known_basis == basis;
        // What has a password beside is another each time: it is not known which one is meant.
        if is_of_one && same && known.token == token && password.is_none() {
            return Ok(known);
        }
    }
    for (found, max, of) in
        [(of_one, OPEN_OF_ONE_MAX, user.as_str()), (of_all, OPEN_MAX, "all users")]
    {
        if found >= max {
            return Err(ApprovalError::TooMany { of: of.to_owned(), max });
        }
    }
    let (subject, sentence) = (act.subject(), act.sentence(&people));
    let until = later(now);
    let sites = match &place {
        Place::Everywhere => None,
        Place::Sites(sites) => Some(json!(sites).to_string()),
    };
    let insert = "INSERT INTO approvals (what, subject, sentence, sites, act, basis, secret, asked_by, asked_user,
                  asked_token, asked_as, asked_at, until, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')";
    let number = sqlx::query(insert)
        .bind(what.as_str())
        .bind(&subject)
        .bind(&sentence)
        .bind(sites)
        .bind(&kept)
        .bind(&basis)
        .bind(password.as_ref().map(Hash::as_str))
        .bind(&*by.actor)
        .bind(&user)
        .bind(&token)
        .bind(role.as_str())
        .bind(now.as_us())
        .bind(until.as_us())
        .execute(step.tx())
        .await
        .map_err(RegistryError::Write)?
        .last_insert_rowid();
    let number = u64::try_from(number).expect("SQLite counts them from 1");
    let detail = json!({
        "what": what.as_str(), "about": subject, "as": role.as_str(), "until_ms": until.as_ms(),
        "act_sha256": trust::digest(kept.as_bytes()).to_string(),
    });
    step.say(said(now, &by.actor, "approval.ask", named(number), detail)).await?;
    one(step.tx(), number).await
}

/// What a yes gives leave for.
pub(crate) struct Given {
    /// As events name who asked: it is done in that name.
    pub by: Actor,
    pub act: Act,
    pub password: Option<Hash>,
}

impl Word {
    /// Judges the yes on what holds now, and writes it. Whatever else this step does is done by two.
    pub(crate) async fn give(&self, step: &mut Step<'_>) -> Result<Given, ApprovalError> {
        let Self { number, by, idle, at } = self;
        let row = row(step.tx(), *number).await?;
        let read = RegistryError::Read;
        let asked = asked_of(&row, row.try_get("act").map_err(read)?)?;
        let state = asked.state.at(asked.until, *at);
        let act = asked.act.ok_or(decide::No::NotOpen(state))?;
        let people = step.people.clone();
        let place = act.place(step.directory(), &people);
        let none = BTreeSet::new();
        let grants = |user: Option<&str>| {
            user.and_then(|name| people.user(name)).map_or(&none, |user| &user.grants)
        };
        let first = Person {
            user: Some(&asked.user),
            grants: grants(Some(&asked.user)),
            counts: asker_counts(&people, &asked.user, asked.token.as_deref(), *at),
            in_person: asked.token.is_none(),
        };
        let question = Question {
            what: asked.what,
            scope: act.scope(),
            place: &place,
            first,
            role: asked.role,
            state: asked.state,
            until: asked.until,
        };
        let second = Person {
            user: by.user.as_deref(),
            grants: grants(by.user.as_deref()),
            counts: people.is_valid(by, *at, *idle),
            in_person: matches!(by.proof, Proof::Session(_)),
        };
        let role = decide(&question, &second, *at)?;
        let basis: String = row.try_get("basis").map_err(read)?;
        if act.basis(step.directory(), &people) != basis {
            return Err(ApprovalError::MovedOn(*number));
        }
        let secret: Option<String> = row.try_get("secret").map_err(read)?;
        let password = secret.map(|text| {
            Hash::read(&text).ok_or_else(|| {
                RegistryError::Unreadable("an approval's password that is no hash".into())
            })
        });
        let password = password.transpose()?;
        let who = Some((&*by.actor, by.user.as_deref()));
        write(step, *number, State::Approved, who, None, *at).await?;
        let both =
            Both { approval: *number, asked_by: asked.by.clone(), approved_by: by.actor.clone() };
        step.by_both(both);
        let detail =
            json!({ "what": asked.what.as_str(), "about": asked.subject, "as": role.as_str() });
        step.say(said(*at, &by.actor, "approval.approve", named(*number), detail)).await?;
        Ok(Given { by: asked.by, act, password })
    }
}

/// Whether what was asked by would still let its user in.
fn asker_counts(people: &People, user: &str, token: Option<&str>, now: Timestamp) -> bool {
    let enabled = people.user(user).is_some_and(|user| !user.disabled);
    let live = |id| people.token(id).is_some_and(|token| token.is_live(now));
    enabled && token.is_none_or(live)
}

async fn write(
    step: &mut Step<'_>,
    number: u64,
    state: State,
    by: Option<(&str, Option<&str>)>,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), RegistryError> {
    let sql = "UPDATE approvals SET state = ?, act = NULL, secret = NULL, decided_by = ?, decided_user = ?,
               decided_at = ?, reason = ? WHERE number = ?";
    sqlx::query(sql)
        .bind(state.as_str())
        .bind(by.map(|(actor, _)| actor))
        .bind(by.and_then(|(_, user)| user))
        .bind(now.as_us())
        .bind(reason)
        .bind(stored(number))
        .execute(step.tx())
        .await
        .map_err(RegistryError::Write)?;
    let sql = "DELETE FROM approvals WHERE number IN
               (SELECT number FROM approvals WHERE state <> 'open' ORDER BY number DESC LIMIT -1 OFFSET ?)";
    let beyond = sqlx::query(sql).bind(i64::try_from(DECIDED_MAX).expect("a small number"));
    beyond.execute(step.tx()).await.map_err(RegistryError::Write)?;
    Ok(())
}

async fn write_end(
    step: &mut Step<'_>,
    asked: &Asked,
    end: &End,
    now: Timestamp,
) -> Result<(), ApprovalError> {
    let End { state, by, user, reason } = end;
    let who = Some((&**by, user.as_deref()));
    write(step, asked.number, *state, who, reason.as_deref(), now).await?;
    let action = match state {
        State::Refused => "approval.refuse",
        _ => "approval.fail",
    };
    let reason: String = reason.iter().flat_map(|reason| reason.chars()).take(TOLD_CHARS).collect();
    let detail = json!({
        "what": asked.what.as_str(), "about": asked.subject, "asked_by": &*asked.by, "reason": reason,
    });
    step.say(said(now, by, action, named(asked.number), detail)).await?;
    Ok(())
}

/// Of a reason, so much stands in an event.
const TOLD_CHARS: usize = 1000;

async fn expire(step: &mut Step<'_>, now: Timestamp) -> Result<(), ApprovalError> {
    for asked in overdue(step.tx(), now).await? {
        write(step, asked.number, State::Expired, None, None, asked.until).await?;
        let detail = json!({
            "what": asked.what.as_str(), "about": asked.subject, "asked_by": &*asked.by,
        });
        step.say(said(now, "control", "approval.expire", named(asked.number), detail)).await?;
    }
    Ok(())
}

async fn overdue(tx: &mut SqliteConnection, now: Timestamp) -> Result<Vec<Asked>, RegistryError> {
    let open = rows(tx, "SELECT * FROM approvals WHERE state = 'open'").await?;
    let all: Result<Vec<Asked>, RegistryError> =
        open.iter().map(|row| asked_of(row, None)).collect();
    let is_over = |asked: &Asked| asked.state.at(asked.until, now) == State::Expired;
    Ok(all?.into_iter().filter(is_over).collect())
}

pub(crate) async fn set_two_people(
    step: &mut Step<'_>,
    to: BTreeSet<Widening>,
    by: &Actor,
    now: Timestamp,
) -> Result<(), ApprovalError> {
    let from = step.people.two_people().clone();
    if from == to {
        return Ok(());
    }
    if !to.is_empty() && !to.contains(&Widening::GrantRoles) {
        return Err(ApprovalError::NoGrantRoles);
    }
    if !from.is_subset(&to) {
        step.expect_two(Widening::GrantRoles)?;
    }
    if !to.is_empty() && !has_two(&step.people) {
        let expected =
            "an administrator and another user who is a security officer, both of every site"
                .into();
        return Err(ApprovalError::NobodyToAsk { what: Widening::GrantRoles, expected });
    }
    let detail = json!({ "from": from, "to": to });
    step.say(said(now, by, "settings.two_people", SETTING, detail)).await?;
    Ok(write_two_people(step, to).await?)
}

/// Whether some two could change the setting again: else it would lock itself.
fn has_two(people: &People) -> bool {
    let of = |role| {
        let has = move |user: &&Arc<crate::people::User>| {
            !user.disabled && decide::has(&user.grants, role, &Place::Everywhere)
        };
        people.users().filter(has).map(|user| user.name.as_str()).collect::<BTreeSet<_>>()
    };
    let mut seconds = BTreeSet::new();
    for role in decide::seconds(Widening::GrantRoles, UserRole::Administrator) {
        seconds.extend(of(role));
    }
    of(UserRole::Administrator).iter().any(|first| seconds.iter().any(|second| second != first))
}

async fn write_two_people(
    step: &mut Step<'_>,
    to: BTreeSet<Widening>,
) -> Result<(), RegistryError> {
    let write = RegistryError::Write;
    sqlx::query("DELETE FROM two_people").execute(step.tx()).await.map_err(write)?;
    for what in &to {
        let row = sqlx::query("INSERT INTO two_people VALUES (?)").bind(what.as_str());
        row.execute(step.tx()).await.map_err(write)?;
    }
    Arc::make_mut(&mut step.people).put_two_people(to);
    Ok(())
}

/// What needs two people, as the file has it.
pub(crate) async fn load_two_people(
    tx: &mut SqliteConnection,
) -> Result<BTreeSet<Widening>, RegistryError> {
    let words: Vec<String> = sqlx::query_scalar("SELECT what FROM two_people")
        .fetch_all(tx)
        .await
        .map_err(RegistryError::Read)?;
    let word = |word: String| {
        let unknown = || RegistryError::Unreadable(format!("two people for {word:?}"));
        Widening::from_word(&word).ok_or_else(unknown)
    };
    words.into_iter().map(word).collect()
}

async fn rows(
    tx: &mut SqliteConnection,
    sql: &'static str,
) -> Result<Vec<SqliteRow>, RegistryError> {
    sqlx::query(sql).fetch_all(tx).await.map_err(RegistryError::Read)
}

async fn row(tx: &mut SqliteConnection, number: u64) -> Result<SqliteRow, ApprovalError> {
    let sql = "SELECT * FROM approvals WHERE number = ?";
    let row = sqlx::query(sql).bind(stored(number)).fetch_optional(tx).await;
    row.map_err(RegistryError::Read)?.ok_or(ApprovalError::Unknown(number))
}

async fn one(tx: &mut SqliteConnection, number: u64) -> Result<Asked, ApprovalError> {
    let row = row(tx, number).await?;
    let act = row.try_get("act").map_err(RegistryError::Read)?;
    Ok(asked_of(&row, act)?)
}

fn asked_of(row: &SqliteRow, act: Option<&str>) -> Result<Asked, RegistryError> {
    fn get<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        row: &'r SqliteRow,
        column: &'static str,
    ) -> Result<T, RegistryError> {
        row.try_get(column).map_err(RegistryError::Read)
    }
    let unreadable = |what: &str| RegistryError::Unreadable(format!("an approval's {what}"));
    let sites: Option<&str> = get(row, "sites")?;
    let sites = sites.map(|text| serde_json::from_str(text).map(Place::Sites));
    let number: i64 = get(row, "number")?;
    Ok(Asked {
        number: u64::try_from(number).map_err(|_| unreadable("number"))?,
        what: Widening::from_word(get(row, "what")?).ok_or_else(|| unreadable("kind"))?,
        subject: get(row, "subject")?,
        sentence: get(row, "sentence")?,
        place: sites.transpose().map_err(|_| unreadable("sites"))?.unwrap_or(Place::Everywhere),
        act: act
            .map(serde_json::from_str)
            .transpose()
            .map_err(|_| unreadable("act, which is not readable"))?,
        by: get::<String>(row, "asked_by")?.into(),
        user: get(row, "asked_user")?,
        token: get(row, "asked_token")?,
        role: UserRole::from_word(get(row, "asked_as")?).ok_or_else(|| unreadable("role"))?,
        at: Timestamp(get(row, "asked_at")?),
        until: Timestamp(get(row, "until")?),
        state: State::from_word(get(row, "state")?).ok_or_else(|| unreadable("state"))?,
        decided_by: get(row, "decided_by")?,
        decided_at: get::<Option<i64>>(row, "decided_at")?.map(Timestamp),
        reason: get(row, "reason")?,
    })
}

/// As events name it.
fn named(number: u64) -> String {
    format!("approval/{number}")
}

fn later(now: Timestamp) -> Timestamp {
    let us = i64::try_from(OPEN_FOR.as_micros()).expect("a day");
    Timestamp(now.as_us().saturating_add(us))
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
