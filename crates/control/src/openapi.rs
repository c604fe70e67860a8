//! The API, described: OpenAPI 3.1, made of the table of endpoints, of the types that bodies are read into and written from,
//! and of what is said here of each call.
//!
//! `docs/openapi.json` is this document, held to the code by a test; the tests of the listener hold every answer that they see
//! to it. To add an endpoint is to say here what it takes, gives and refuses: [`describe`] has an arm for each, or does not
//! compile.

use crate::endpoint::{Access, Endpoint, Method};
use crate::idempotency::{Kept, REPLAYED, kept};
use crate::request::REQUEST_ID;
use crate::{alerts, approvals, audit, fleet, gateway, inventory, rollouts};
use api::stream::LAST_EVENT_ID;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A status and the word of a problem.
type Refusal = (u16, &'static str);

/// A name in the path that cannot be one.
const BAD_NAME: Refusal = (400, "bad_name");
const BAD_QUERY: Refusal = (400, "bad_query_string");
const FAILED: Refusal = (500, "failed");
const BUSY: Refusal = (503, "busy");
const UNKNOWN_DEVICE: Refusal = (404, "unknown_device");
const UNKNOWN_ROLLOUT: Refusal = (404, "unknown_rollout");
/// A token or session that does not count (any more), or that another site's page would use.
const BAD_PROOF: [Refusal; 5] = [
    (401, "bad_token"),
    (401, "token_expired"),
    (401, "token_revoked"),
    (401, "session_ended"),
    (403, "cross_site"),
];
/// What widens, while the evidence log takes nothing.
const UNPROVEN: [Refusal; 2] = [(503, "evidence_unavailable"), (503, "evidence_behind")];
/// A caller whose certificate does not count (any more).
const BAD_CERTIFICATE: [Refusal; 5] = [
    (403, "unrecognised_certificate"),
    (403, "unknown_caller"),
    (403, "other_role"),
    (403, "not_its_key"),
    (403, "revoked"),
];

/// The document, as it is served.
pub fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&made()).expect("it is JSON");
        text.push('\n');
        text
    })
}

/// What one call takes, gives and refuses.
struct Operation {
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Answer>,
    refusals: Vec<Refusal>,
    /// A parser's reasons are problems of it, too: `docs/formats`.
    has_parser: bool,
    bounded: Option<&'static str>,
}

#[derive(Default)]
struct Answer {
    description: &'static str,
    content: Map<String, Value>,
    headers: Map<String, Value>,
}

fn op(summary: &'static str) -> Operation {
    Operation {
        summary,
        parameters: Vec::new(),
        body: None,
        answers: BTreeMap::new(),
        refusals: Vec::new(),
        has_parser: false,
        bounded: None,
    }
}

impl Operation {
    /// Its query string, by the type that it is read into.
    fn query<T: JsonSchema>(mut self, of: &mut SchemaGenerator) -> Self {
        let schema = T::json_schema(of).to_value();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let mut schema = schema.clone();
            let description = schema.as_object_mut().and_then(|s| s.remove("description"));
            present(&mut schema);
            let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
            if required.contains(&json!(name)) {
                parameter["required"] = json!(true);
            }
            if let Some(description) = description {
                parameter["description"] = description;
            }
            self.parameters.push(parameter);
        }
        self.refuses(&[BAD_QUERY])
    }

    /// What it is asked is asked of all pages together.
    fn of_all(mut self) -> Self {
        self.parameters
            .retain(|parameter| parameter["name"] != "after" && parameter["name"] != "limit");
        self
    }

    fn header(mut self, name: &str, description: &str, schema: Value) -> Self {
        let header =
            json!({ "name": name, "in": "header", "description": description, "schema": schema });
        self.parameters.push(header);
        self
    }

    /// A JSON body of a type.
    fn takes<T: JsonSchema>(mut self, of: &mut SchemaGenerator) -> Self {
        let schema = of.subschema_for::<T>().to_value();
        self.body = Some(json!({
            "required": true, "content": { "application/json": { "schema": schema } },
        }));
        self.reads(&[(400, "bad_json"), (415, "unsupported_media_type")])
    }

    /// A body of another kind.
    fn takes_media(mut self, media: &str, description: &str) -> Self {
        self.body = Some(json!({
            "required": true, "description": description,
            "content": { media: { "schema": { "type": "string" } } },
        }));
        self.reads(&[(415, "unsupported_media_type")])
    }

    fn reads(self, refusals: &[Refusal]) -> Self {
        self.refuses(&[(400, "broken_body"), (413, "oversize")]).refuses(refusals)
    }

    /// 200 with a JSON body of a type.
    fn gives<T: JsonSchema>(self, of: &mut SchemaGenerator) -> Self {
        self.gives_at::<T>(200, "It is so.", of)
    }

    /// 201 with a JSON body of a type.
    fn makes<T: JsonSchema>(self, of: &mut SchemaGenerator) -> Self {
        self.gives_at::<T>(201, "It was made.", of)
    }

    fn gives_at<T: JsonSchema>(
        self,
        status: u16,
        description: &'static str,
        of: &mut SchemaGenerator,
    ) -> Self {
        let schema = of.subschema_for::<T>().to_value();
        self.content(status, description, "application/json", schema)
    }

    /// A body of another kind.
    fn gives_media(self, status: u16, description: &'static str, media: &str) -> Self {
        self.content(status, description, media, json!({ "type": "string" }))
    }

    fn gives_nothing(mut self, status: u16, description: &'static str) -> Self {
        self.answers.entry(status).or_default().description = description;
        self
    }

    fn content(
        mut self,
        status: u16,
        description: &'static str,
        media: &str,
        schema: Value,
    ) -> Self {
        let answer = self.answers.entry(status).or_default();
        answer.description = description;
        answer.content.insert(media.to_owned(), json!({ "schema": schema }));
        self
    }

    fn gives_header(mut self, status: u16, name: &str, description: &str) -> Self {
        let header = json!({ "description": description, "schema": { "type": "string" } });
        self.answers.entry(status).or_default().headers.insert(name.to_owned(), header);
        self
    }

    fn refuses(mut self, refusals: &[Refusal]) -> Self {
        self.refusals.extend(refusals);
        self
    }

    fn has_parser(mut self) -> Self {
        self.has_parser = true;
        self
    }

    /// Why a list that it gives needs no pages.
    fn bounded(mut self, why: &'static str) -> Self {
        self.bounded = Some(why);
        self
    }
}

fn describe(endpoint: Endpoint, of: &mut SchemaGenerator) -> Operation {
    use Endpoint as E;
    const PKCS7: &str = "application/pkcs7-mime";
    const COSE: &str = "application/cose";
    match endpoint {
        E::CaCerts | E::SealCaCerts => op("The site's authorities (RFC 7030 §4.1)").gives_media(
            200,
            "Certificates in base64, on one line.",
            PKCS7,
        ),
        E::Enroll | E::Reenroll => enrols(op("A certificate for a TLS key (RFC 7030 §4.2)")),
        E::SealEnroll | E::SealReenroll => {
            enrols(op("A certificate for a key that seals (RFC 7030 §4.2)"))
        }
        E::Bundle => op("The gateway's bundle, as soon as there is a newer one")
            .query::<gateway::Poll>(of)
            .gives::<api::Bundle>(of)
            .gives_nothing(204, "There was no newer one in that time.")
            .refuses(&[(409, "generation_ahead")])
            .bounded("one gateway's zone"),
        E::Uplink => op("Hands up what devices sealed")
            .takes_media(COSE, "A message of kind uplink batch, with Content-Encoding: zstd.")
            .gives_media(200, "One verdict a record, each durable.", "application/cbor")
            .refuses(&[(400, "not_zstd"), (400, "wrong_kind"), BUSY, FAILED])
            .refuses(&[(403, "unknown_key"), (403, "foreign_key"), (403, "key_retired")])
            .refuses(&[(403, "bad_signature"), (403, "wrong_gateway"), (403, "wrong_zone")])
            .refuses(&[(503, "bus_full"), (503, "bus_failed")])
            .has_parser(),
        E::CheckIn => op("Forwards what a device says that it runs")
            .query::<rollouts::call::Of>(of)
            .takes_media(COSE, "A message of kind manifest, under the device's own key.")
            .gives::<api::update::CheckIn>(of)
            .refuses(&[BAD_NAME, (400, "other_kind"), (400, "counter_too_high"), BUSY, FAILED])
            .refuses(&[(403, "unknown_key"), (403, "wrong_device"), (403, "wrong_zone")])
            .refuses(&[(403, "not_enrolled"), (403, "key_retired"), (403, "bad_signature")])
            .refuses(&[(403, "other_device"), (409, "replayed"), (409, "key_overtaken")])
            .refuses(&[(429, "too_often"), (503, "no_answer"), (503, "evidence_behind")])
            .bounded("one device's roots")
            .has_parser(),
        E::Images => op("A metadata file of the vendor's repository, as it was verified")
            .content(200, "The file.", "application/json", json!({ "type": "object" }))
            .refuses(&[BAD_NAME, (404, "no_such_metadata")]),
        E::Blob => op("An image that the vendor's targets name")
            .header("Range", "One range of bytes.", json!({ "type": "string" }))
            .gives_media(200, "The image.", "application/octet-stream")
            .gives_media(206, "The bytes that were asked for.", "application/octet-stream")
            .refuses(&[BAD_NAME, (400, "bad_digest"), (404, "no_such_image"), (416, "range")])
            .refuses(&[BUSY, (503, "image_away"), (503, "image_damaged")]),
        E::Me => op("Who calls, and what it may do")
            .gives::<api::user::Me>(of)
            .bounded("the grants of one person and the scopes that there are"),
        E::SignIn => op("Signs a person in")
            .takes::<api::user::SignIn>(of)
            .gives::<api::user::Me>(of)
            .gives_header(200, "Set-Cookie", "The session: HttpOnly, of this host only.")
            .refuses(&[(401, "bad_sign_in"), (403, "cross_site"), (429, "too_many_attempts")])
            .refuses(&[BUSY, FAILED])
            .bounded("the grants of one person and the scopes that there are"),
        E::SignOut => op("Ends the session that calls")
            .gives_nothing(204, "It is over.")
            .refuses(&[(409, "not_a_session"), BUSY, FAILED]),
        E::Users => op("Who may sign in, sorted by name")
            .gives::<api::user::Users>(of)
            .bounded("the users that a site may have"),
        E::NewUser => op("Makes a user")
            .takes::<api::user::NewUser>(of)
            .makes::<api::user::User>(of)
            .refuses(&[BAD_NAME, (400, "bad_password"), (404, "unknown_site"), (409, "id_taken")])
            .refuses(&[(409, "too_many"), BUSY, FAILED])
            .refuses(&UNPROVEN)
            .asks(of)
            .bounded("the grants of one person"),
        E::UserGrants => user(op("Says what a user may do, instead of what it might before"), of)
            .takes::<api::user::Grants>(of)
            .refuses(&[(404, "unknown_site"), (409, "last_administrator"), (409, "too_many")])
            .refuses(&UNPROVEN)
            .asks(of),
        E::UserPassword => user(op("Gives a user another password, and ends its sessions"), of)
            .takes::<api::user::NewPassword>(of)
            .refuses(&[(400, "bad_password"), (403, "other_password"), (429, "too_many_attempts")])
            .refuses(&UNPROVEN)
            .asks(of),
        E::UserDisable => user(op("Disables a user: its sessions and tokens count no more"), of)
            .refuses(&[(409, "last_administrator")]),
        E::UserEnable => user(op("Lets a disabled user in again"), of).refuses(&UNPROVEN).asks(of),
        E::UserSessionsEnd => op("Ends all sessions of a user")
            .gives_nothing(204, "They are over.")
            .refuses(&[BAD_NAME, (404, "unknown_user"), BUSY, FAILED]),
        E::Tokens => op("Tokens: one's own; everybody's to who reads users")
            .gives::<api::user::Tokens>(of)
            .bounded("the tokens that a site's users may have"),
        E::NewToken => op("Makes a token, by a session only")
            .takes::<api::user::NewToken>(of)
            .makes::<api::user::MadeToken>(of)
            .refuses(&[BAD_NAME, (400, "bad_days"), (400, "no_scope"), (403, "beyond_user")])
            .refuses(&[(403, "not_a_session"), (404, "unknown_site"), (404, "unknown_user")])
            .refuses(&[(409, "id_taken"), (409, "too_many"), (409, "user_disabled")])
            .refuses(&[BUSY, FAILED])
            .refuses(&UNPROVEN)
            .bounded("the scopes, sites and groups of one token"),
        E::TokenRevoke => op("Revokes a token: one's own; anybody's by who narrows users")
            .gives::<api::user::Token>(of)
            .refuses(&[BAD_NAME, (404, "unknown_token"), BUSY, FAILED])
            .bounded("the scopes, sites and groups of one token"),
        E::Sites => op("Sites, and which zones are of them")
            .gives::<api::user::Sites>(of)
            .bounded("the zones of the fleet and those that sites name"),
        E::NewSite => op("Says which zones are of a site")
            .takes::<api::user::Site>(of)
            .gives::<api::user::Sites>(of)
            .refuses(&[BAD_NAME, (409, "too_many"), BUSY, FAILED])
            .refuses(&UNPROVEN)
            .asks(of)
            .bounded("the zones of the fleet and those that sites name"),
        E::Query => op("Answers SQL over what devices measured")
            .takes::<api::Ask>(of)
            .gives::<api::Answer>(of)
            .gives_media(200, "The answer; with Accept: text/csv, RFC 4180.", "text/csv")
            .gives_header(200, crate::TRUNCATED, "Whether rows of the CSV were cut off.")
            .refuses(&[(400, "bad_sql"), (422, "too_large"), (429, "queries_busy")])
            .refuses(&[(500, "query_failed"), (504, "too_slow")])
            .bounded("the question's rows_max and the store's"),
        E::Devices => op("Devices and gateways, by page, sorted by id")
            .query::<fleet::Page>(of)
            .gives::<api::Fleet>(of)
            .refuses(&[BAD_NAME]),
        E::Software => op("What a device runs, by its own signed word")
            .gives::<api::release::Software>(of)
            .refuses(&[BAD_NAME, UNKNOWN_DEVICE, (404, "no_manifest")])
            .bounded("one device's components"),
        E::Inventory => op("Devices and gateways that are looked for, by page, sorted by id")
            .query::<inventory::call::Wanted>(of)
            .gives::<api::device::Inventory>(of)
            .refuses(&[BUSY]),
        E::InventorySummary => op("How many devices and gateways there are of each kind")
            .query::<inventory::call::Wanted>(of)
            .of_all()
            .gives::<api::device::Summary>(of)
            .refuses(&[BUSY]),
        E::Device => op("One device, as it is now")
            .gives::<api::device::Device>(of)
            .refuses(&[BAD_NAME, UNKNOWN_DEVICE])
            .bounded("one device's keys and components"),
        E::History => op("A device's life, by page, oldest first")
            .query::<inventory::call::Page>(of)
            .gives::<api::device::History>(of)
            .refuses(&[BAD_NAME, UNKNOWN_DEVICE, FAILED]),
        E::Forensics => op("All that is known of a device, with its proofs: verifies offline")
            .content(200, "docs/formats/forensics.md", "application/json", json!({}))
            .refuses(&[BAD_NAME, UNKNOWN_DEVICE, (422, "too_large"), BUSY, FAILED])
            .bounded("one device, and 10,000 moments of its life"),
        E::Decommission => stands(op("Takes a device out of service for good"), of),
        E::DeviceReenrol => {
            stands(op("Takes a device's keys: it has to enrol anew"), of).refuses(&UNPROVEN)
        }
        E::DeviceGroup => stands(op("Puts a device into a group"), of)
            .takes::<api::device::NewGroup>(of)
            .refuses(&[(403, "beyond_groups")])
            .refuses(&UNPROVEN),
        E::Revoke => stands(op("Ends a device's identity for good"), of),
        E::Quarantine => stands(op("Cuts a device off, for now"), of),
        E::Release => {
            stands(op("Lets a device back from quarantine"), of).refuses(&UNPROVEN).asks(of)
        }
        E::Ownership => op("Puts a serial number on the list of who may enrol")
            .takes::<api::Ownership>(of)
            .gives::<api::Changed>(of)
            .refuses(&[BAD_NAME, (409, "listed_otherwise"), (409, "id_taken"), FAILED])
            .refuses(&UNPROVEN)
            .bounded("one device's keys"),
        E::Releases => op("What the vendor has published, as it was verified")
            .gives::<api::release::Releases>(of)
            .bounded("what one repository's targets name"),
        E::RefreshReleases => op("Reads the vendor's repository now")
            .gives::<api::release::Releases>(of)
            .refuses(&[(409, "no_repository"), (503, "evidence_behind"), FAILED])
            .bounded("what one repository's targets name"),
        E::Rollouts => op("Rollouts, newest first")
            .query::<rollouts::call::Page>(of)
            .gives::<api::rollout::Rollouts>(of)
            .refuses(&[BAD_NAME, UNKNOWN_ROLLOUT]),
        E::NewRollout => op("Orders a rollout")
            .takes::<api::rollout::NewRollout>(of)
            .makes::<api::rollout::Rollout>(of)
            .refuses(&[BAD_NAME, (400, "bad_version"), (400, "bad_percent"), (400, "bad_limit")])
            .refuses(&[(400, "bad_plan"), (400, "no_cohort"), (404, "unknown_release")])
            .refuses(&[UNKNOWN_DEVICE, (409, "id_taken"), (409, "many_images")])
            .refuses(&[(403, "beyond_groups")])
            .refuses(&moves_refusals())
            .asks(of)
            .bounded("one order's waves and signals"),
        E::Rollout => op("One rollout, as it stands")
            .gives::<api::rollout::Rollout>(of)
            .refuses(&[BAD_NAME, UNKNOWN_ROLLOUT])
            .bounded("one order's waves and signals"),
        E::RolloutDevices => op("Devices of a rollout, by page, sorted by id")
            .query::<rollouts::call::Page>(of)
            .gives::<api::rollout::RolloutDevices>(of)
            .refuses(&[BAD_NAME, UNKNOWN_ROLLOUT, FAILED]),
        E::RolloutSignals => {
            op("What a rollout's gates were answered, and how its cohorts compare")
                .gives::<api::rollout::RolloutSignals>(of)
                .refuses(&[BAD_NAME, UNKNOWN_ROLLOUT, FAILED])
                .bounded("one order's waves and signals, and 720 points of each series")
        }
        E::RolloutStart => moves(op("Starts a rollout"), of).refuses(&moves_refusals()).asks(of),
        E::RolloutResume => moves(op("Lets a paused rollout go on"), of).refuses(&moves_refusals()),
        E::RolloutRevert => moves(op("Takes a rollout back"), of).refuses(&moves_refusals()),
        E::RolloutPause => moves(op("Holds a rollout where it is"), of),
        E::RolloutHalt => moves(op("Stops a rollout"), of).refuses(&[(409, "too_many_halted")]),
        E::RolloutAbort => moves(op("Gives a rollout up"), of),
        E::Events => op("What was done, by whom, by page, in order")
            .query::<audit::Page>(of)
            .gives::<api::event::Events>(of)
            .refuses(&[FAILED]),
        E::EvidenceCheckpoint => op("The newest signed head of the evidence log").gives_media(
            200,
            "A checkpoint (C2SP tlog-checkpoint).",
            "text/plain",
        ),
        E::EvidenceTile => op("A tile or a bundle of entries of the evidence log")
            .gives_media(200, "The tile (C2SP tlog-tiles).", "application/octet-stream")
            .refuses(&[BAD_NAME, (404, "not_found"), FAILED]),
        E::EvidenceExport => op("Events with their proofs: verifies offline")
            .query::<audit::Wanted>(of)
            .content(200, "docs/formats/evidence-export.md", "application/json", json!({}))
            .refuses(&[(400, "bad_checkpoint"), (422, "too_large"), BUSY, FAILED])
            .bounded("10,000 events"),
        E::Alerts => op("Alerts, by page, newest first")
            .query::<alerts::call::Which>(of)
            .gives::<api::alert::Alerts>(of)
            .refuses(&[FAILED]),
        E::AlertAcknowledge => op("Says that somebody looks after an alert")
            .takes::<api::alert::Acknowledge>(of)
            .gives::<api::alert::Alert>(of)
            .refuses(&[BAD_NAME, (400, "bad_text"), (404, "unknown_alert"), (409, "resolved")])
            .refuses(&[FAILED]),
        E::Silences => op("Silences: those that hold, and those that ended last")
            .gives::<api::alert::Silences>(of)
            .refuses(&[FAILED])
            .bounded("all that hold, and of those that ended the newest, 500 together"),
        E::NewSilence => op("Tells nobody of an alert, until an end and for a reason")
            .takes::<api::alert::NewSilence>(of)
            .makes::<api::alert::Silence>(of)
            .refuses(&[(400, "bad_silence"), (400, "bad_text"), (409, "too_many"), FAILED])
            .refuses(&[(404, "unknown_rule"), (404, "unknown_silence")]),
        E::SilenceEnd => op("Ends a silence before its time")
            .gives::<api::alert::Silence>(of)
            .refuses(&[BAD_NAME, (404, "unknown_silence"), (409, "ended"), FAILED]),
        E::AlertRules => op("When alerts are raised")
            .gives::<api::alert::Rules>(of)
            .bounded("the rules that a site may have"),
        E::AlertRulePut => op("Makes a rule of alerts, or puts it in the place of the one before")
            .takes::<api::alert::Rule>(of)
            .gives::<api::alert::Rule>(of)
            .refuses(&[BAD_NAME, (400, "bad_rule"), (409, "too_many"), (409, "shipped_rule")])
            .refuses(&[FAILED])
            .refuses(&UNPROVEN),
        E::AlertRuleDelete => op("Takes a rule of alerts away")
            .gives_nothing(204, "There is no such rule any more.")
            .refuses(&[BAD_NAME, (404, "unknown_rule"), (409, "shipped_rule"), FAILED])
            .refuses(&UNPROVEN),
        E::AlertTargets => op("Who is told of alerts, without what they are reached by")
            .gives::<api::alert::Targets>(of)
            .refuses(&[FAILED])
            .bounded("the targets that a site may have"),
        E::AlertTargetPut => op("Makes a target, or puts it in the place of the one before")
            .takes::<api::alert::Target>(of)
            .gives::<api::alert::TargetState>(of)
            .refuses(&[BAD_NAME, (400, "bad_target"), (409, "too_many"), FAILED])
            .refuses(&UNPROVEN)
            .bounded("the addresses of one target"),
        E::AlertTargetDelete => op("Takes a target away")
            .gives_nothing(204, "There is no such target any more.")
            .refuses(&[BAD_NAME, (404, "unknown_target"), FAILED])
            .refuses(&UNPROVEN),
        E::AlertTargetTest => op("Tells a target something, to see that it hears")
            .gives::<api::alert::TargetState>(of)
            .refuses(&[BAD_NAME, (404, "unknown_target"), (502, "target_failed"), FAILED])
            .bounded("the addresses of one target"),
        E::TwoPeople => op("What needs two people")
            .gives::<api::approval::TwoPeople>(of)
            .bounded("the kinds of what can need two"),
        E::TwoPeoplePut => op("Says what needs two people; for fewer, two are needed")
            .takes::<api::approval::TwoPeople>(of)
            .gives::<api::approval::TwoPeople>(of)
            .refuses(&[(400, "bad_two_people"), (409, "no_second_person")])
            .refuses(&UNPROVEN)
            .asks(of)
            .bounded("the kinds of what can need two"),
        E::Approvals => op("What waits for a second person, and what was decided, newest first")
            .query::<approvals::call::Page>(of)
            .gives::<api::approval::Approvals>(of)
            .refuses(&[FAILED]),
        E::Approval => op("One of them, with all that would be done")
            .gives::<api::approval::Approval>(of)
            .refuses(&[BAD_NAME, (404, "unknown_approval"), FAILED])
            .bounded("three roles, and the sites of one cohort"),
        E::Approve => op("Says yes as the second person: it is done")
            .gives::<api::approval::Approval>(of)
            .refuses(&[BAD_NAME, (404, "unknown_approval"), (403, "not_a_session")])
            .refuses(&[(403, "same_person"), (403, "not_a_second"), (409, "not_open")])
            .refuses(&[(409, "approval_failed"), BUSY, FAILED])
            .refuses(&UNPROVEN)
            .bounded("three roles, and the sites of one cohort"),
        E::RefuseApproval => op("Says no, or takes back what one has asked for")
            .takes::<api::approval::Refusal>(of)
            .gives::<api::approval::Approval>(of)
            .refuses(&[BAD_NAME, (400, "bad_text"), (404, "unknown_approval"), (409, "not_open")])
            .refuses(&[BUSY, FAILED])
            .bounded("three roles, and the sites of one cohort"),
        E::WeeklyReport => op("What became of the fleet in seven days")
            .query::<alerts::report::Until>(of)
            .gives::<api::alert::WeeklyReport>(of)
            .refuses(&[BUSY, FAILED])
            .bounded("the rollouts of a week, and the kinds of what was done"),
        E::WeeklyReportPage => op("The same as a page, laid out for print")
            .query::<alerts::report::Until>(of)
            .gives_media(200, "The page.", "text/html")
            .refuses(&[BUSY, FAILED]),
        E::Console | E::ConsolePage => {
            op("The web console's page").gives_media(200, "The page.", "text/html")
        }
        E::ConsoleFile => op("A file that the web console's page names")
            .gives_media(200, "The file.", "*/*")
            .refuses(&[(404, "not_found")]),
        E::Stream => op("What changes, as it changes (server-sent events)")
            .header(
                LAST_EVENT_ID,
                "The `id` that was read last: go on behind it.",
                json!({ "type": "integer", "minimum": 0 }),
            )
            .streams(of)
            .refuses(&[(400, "bad_last_event_id"), BUSY]),
        E::OpenApi => op("This document").content(
            200,
            "OpenAPI 3.1.",
            "application/json",
            json!({ "type": "object" }),
        ),
        E::Metrics => op("Figures of all stations of this process, for Prometheus").gives_media(
            200,
            "Prometheus' text format.",
            "text/plain",
        ),
        E::Health => op("Whether the process serves")
            .gives_media(200, "It serves.", "text/plain")
            .refuses(&[FAILED]),
    }
}

fn enrols(op: Operation) -> Operation {
    op.takes_media("application/pkcs10", "PKCS#10 in base64; line breaks are allowed.")
        .gives_media(200, "The certificate in base64, on one line.", "application/pkcs7-mime")
        .refuses(&[(400, "not_base64"), (400, "bad_csr"), (400, "unknown_key_kind")])
        .refuses(&[(400, "no_possession"), (403, "not_listed"), (403, "serial_mismatch")])
        .refuses(&[(409, "key_of_other_purpose"), (409, "key_of_other_device"), FAILED])
        .refuses(&[(409, "key_retired"), (429, "too_often")])
        .refuses(&UNPROVEN)
}

fn stands(op: Operation, of: &mut SchemaGenerator) -> Operation {
    op.gives::<api::Changed>(of)
        .refuses(&[BAD_NAME, UNKNOWN_DEVICE, (409, "not_drawn"), FAILED])
        .bounded("one device's keys")
}

fn user(op: Operation, of: &mut SchemaGenerator) -> Operation {
    op.gives::<api::user::User>(of)
        .refuses(&[BAD_NAME, (404, "unknown_user"), BUSY, FAILED])
        .bounded("the grants of one person")
}

fn moves(op: Operation, of: &mut SchemaGenerator) -> Operation {
    op.gives::<api::rollout::Rollout>(of)
        .refuses(&[BAD_NAME, UNKNOWN_ROLLOUT, (409, "not_drawn"), BUSY, FAILED])
        .refuses(&[(403, "beyond_groups")])
        .bounded("one order's waves and signals")
}

/// What a rollout that is to go on can meet.
fn moves_refusals() -> Vec<Refusal> {
    let conflicts = ["under_way", "overtaken", "too_many_halted", "no_repository"];
    let conflicts = conflicts.map(|word| (409, word));
    conflicts.into_iter().chain([BUSY, FAILED]).chain(UNPROVEN).collect()
}

impl Operation {
    /// It can need two people: then it is asked for, and not done.
    fn asks(self, of: &mut SchemaGenerator) -> Self {
        let said = "Asked for and not done: it needs a second person.";
        self.gives_at::<api::approval::Approval>(202, said, of)
            .refuses(&[(403, "not_a_person"), (409, "too_many"), (413, "oversize"), BUSY, FAILED])
            .refuses(&[(503, "evidence_behind")])
    }

    fn streams(self, of: &mut SchemaGenerator) -> Self {
        let data = of.subschema_for::<api::stream::Changed>().to_value();
        let kinds = of.subschema_for::<api::stream::ChangeKind>().to_value();
        let schema = json!({ "type": "string", "x-event": kinds, "x-data": data });
        self.content(
            200,
            "Lines of changes, for as long as they are read.",
            "text/event-stream",
            schema,
        )
    }

    /// It can be made under a key.
    fn knows_again(self) -> Self {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 128 });
        let mut this = self.header(
            "Idempotency-Key",
            "A name for this call: made again under it within 24 hours, it is answered again and not done again.",
            text,
        );
        let statuses: Vec<u16> = this.answers.keys().copied().collect();
        for status in statuses {
            this = this.gives_header(status, REPLAYED, "Set if it was answered before.");
        }
        this.refuses(&[
            (400, "bad_idempotency_key"),
            (400, "broken_body"),
            (413, "oversize"),
            FAILED,
        ])
        .refuses(&[
            (409, "idempotency_in_use"),
            (409, "idempotency_done"),
            (422, "idempotency_mismatch"),
        ])
    }

    /// As OpenAPI has it, with what the table says of its caller.
    fn written(mut self, endpoint: Endpoint) -> Value {
        self.refusals.push((503, "timed_out"));
        if kept(endpoint) != Kept::Nothing {
            self = self.knows_again();
        }
        let (security, who) = callers(endpoint.access());
        self.refusals.extend(who);
        let mut parameters = path_parameters(endpoint.path());
        parameters.append(&mut self.parameters);
        let mut responses = Map::new();
        for (status, answer) in self.answers {
            let mut written = json!({ "description": answer.description });
            if !answer.content.is_empty() {
                written["content"] = answer.content.into();
            }
            if !answer.headers.is_empty() {
                written["headers"] = answer.headers.into();
            }
            responses.insert(status.to_string(), written);
        }
        let mut words: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (status, word) in self.refusals {
            let words = words.entry(status).or_default();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        for (status, words) in words {
            let is_open = self.has_parser && status == 400;
            responses.insert(status.to_string(), problem(&words, is_open));
        }
        for answer in responses.values_mut() {
            answer["headers"][REQUEST_ID] = json!({ "$ref": "#/components/headers/RequestId" });
        }
        let mut operation = json!({
            "operationId": endpoint.as_str(),
            "summary": self.summary,
            "tags": [tag(endpoint.path())],
            "description": format!("For {}.", endpoint.access().expected()),
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation["responses"] = responses.into();
        operation["security"] = security;
        if let Some(why) = self.bounded {
            operation["x-bounded"] = why.into();
        }
        operation
    }
}

/// A refusal of one status: its words are the ends of its `type`.
fn problem(words: &[&str], is_open: bool) -> Value {
    let kinds: Vec<_> = words.iter().map(|word| format!("urn:plimsoll:problem:{word}")).collect();
    let mut listed = words.join(", ");
    let mut schema = json!({ "$ref": "#/components/schemas/Problem" });
    if is_open {
        listed.push_str(", or the word of a parser (docs/formats)");
    } else {
        schema["properties"] = json!({ "type": { "enum": kinds } });
    }
    json!({
        "description": listed,
        "content": { api::problem::CONTENT_TYPE: { "schema": schema } },
    })
}

/// How a caller proves who it is, and how it can fail to.
fn callers(access: Access) -> (Value, Vec<Refusal>) {
    let not_admitted = [(401, "unauthenticated"), (403, "out_of_scope")];
    match access {
        Access::Public => (json!([]), Vec::new()),
        Access::Enrol | Access::Gateway => {
            let quarantined = access == Access::Gateway;
            let refusals = not_admitted.into_iter().chain(BAD_PROOF).chain(BAD_CERTIFICATE);
            let refusals = refusals.chain(quarantined.then_some((403, "quarantined")));
            (json!([{ "certificate": [] }]), refusals.collect())
        }
        Access::SignedIn | Access::Within(_) | Access::Whole(_) => {
            let refusals = not_admitted.into_iter().chain(BAD_PROOF).chain(BAD_CERTIFICATE);
            (json!([{ "bearer": [] }, { "session": [] }]), refusals.collect())
        }
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let parameter = |name: &str| {
        let text = json!({ "type": "string", "minLength": 1 });
        let (description, schema) = match (name, tag(path)) {
            ("id", "alerts" | "silences" | "approvals") => {
                ("Its number.", json!({ "type": "integer", "minimum": 0 }))
            }
            // `model::id`: what neither a topic nor a path has to escape.
            ("id", "devices" | "rollouts") => {
                ("Its name.", json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" }))
            }
            ("id", _) => ("Its name.", text),
            ("digest", _) => {
                ("SHA-256, in hex.", json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }))
            }
            _ => ("The name of the file.", text),
        };
        json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": schema,
        })
    };
    names(path).map(parameter).collect()
}

/// What stands in braces, without the router's star.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.trim_start_matches('*')))
}

/// The group of a call: the first word of its path.
fn tag(path: &str) -> &str {
    let mut words = path.trim_start_matches('/').split('/');
    match words.next() {
        Some("v1") => words.next().unwrap_or("v1"),
        Some(".well-known") => "est",
        Some("" | "console" | "assets") => "console",
        _ => "process",
    }
}

fn made() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut of = SchemaGenerator::new(settings);
    of.subschema_for::<api::Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in Endpoint::ALL.iter().copied() {
        let path = endpoint.path().replace("{*", "{");
        let method = match endpoint.method() {
            Method::Get => "get",
            Method::Post => "post",
            Method::Delete => "delete",
        };
        let operation = describe(endpoint, &mut of).written(endpoint);
        paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Plimsoll's control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What each call means is in docs/api.md. Times are in milliseconds since 1970.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "headers": {
                "RequestId": {
                    "description": "The request's name in the log.", "schema": { "type": "string" },
                },
            },
            "schemas": of.take_definitions(true),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": api::user::SESSION_COOKIE,
                    "description": "Of POST /v1/session. What changes something needs this host's own Origin beside it.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A certificate of the site; to enrol, a maker's too.",
                },
            },
        },
    });
    without_links(&mut document);
    document
}

/// A link into the code's own documentation is a word elsewhere.
fn without_links(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    field => without_links(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_links),
        _ => {}
    }
}

/// A parameter that may be left out is not therefore null when it is there.
fn present(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = types.as_slice() {
            schema["type"] = kind.clone();
        }
    }
    if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
        forms.retain(|form| form["type"] != "null");
        if let [form] = forms.as_slice() {
            *schema = form.clone();
        }
    }
}
