//! The document of the API.

use crate::contract::{DOCUMENT, holds, operation};
use crate::world::{Got, World};
use api::path;
use control::openapi;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn got(status: u16, content_type: &str, body: impl ToString) -> Got {
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("content-type", content_type.parse().unwrap());
    Got { status: status.try_into().unwrap(), headers, body: body.to_string().into_bytes() }
}

#[test]
fn an_answer_that_the_document_does_not_foresee_is_found() {
    let get = reqwest::Method::GET;
    let devices = operation(&get, path::DEVICES).unwrap();
    let device = json!({
        "id": "pump-1", "serial": "PUMP-1", "role": "device", "zone": "hall", "standing": "listed",
        "listed_at_ms": 1, "enrolled_at_ms": null, "changed_at_ms": 1, "keys": [],
    });
    let json = "application/json";
    let fleet = |device: &Value| json!({ "generation": 7, "devices": [device] });
    holds(devices, &got(200, json, fleet(&device))).unwrap();
    let with = |name: &str, value: Value| {
        let mut device = device.clone();
        device[name] = value;
        got(200, json, fleet(&device))
    };
    let problem = |word: &str| {
        let body = api::Problem::new(400, word, "no", "found something");
        got(400, api::problem::CONTENT_TYPE, serde_json::to_string(&body).unwrap())
    };
    holds(devices, &problem("bad_name")).unwrap();
    for (what, got) in [
        ("another status", got(204, json, "")),
        ("another kind", got(200, "text/plain", fleet(&device))),
        ("no JSON", got(200, json, "{")),
        ("a field that is missing", got(200, json, json!({ "devices": [] }))),
        ("a word that is none", with("role", json!("toaster"))),
        ("a number that is text", with("listed_at_ms", json!("1"))),
        ("null where there is always something", with("zone", Value::Null)),
        ("a list of something else", with("keys", json!([7]))),
        ("a problem that is not documented", problem("bad_weather")),
    ] {
        let why = holds(devices, &got).expect_err(what);
        println!("{what}: {why}");
    }
    let revoke = operation(&reqwest::Method::POST, "/v1/devices/pump-1/revoke").unwrap();
    assert_eq!(revoke["operationId"], "revoke");
    assert!(operation(&get, "/v1/devices/pump-1/revoke").is_none());
}

/// `UPDATE_EXPECT=1` writes it.
#[test]
fn the_document_in_the_repository_is_the_one_that_is_served() {
    expect_test::expect_file!["../../../../docs/openapi.json"].assert_eq(openapi::document());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_to_everybody() {
    let world = World::new().await;
    let got = Got::of(world.call(None, reqwest::Method::GET, path::OPENAPI)).await;
    assert_eq!(got.json::<Value>(), *DOCUMENT);
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
}

/// What leads nowhere would be passed over by a reader of the document.
#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    references(&DOCUMENT, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        assert!(DOCUMENT.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

/// A list without an end costs whoever gives it as much as whoever asks likes (INV-COST-1).
#[test]
fn every_list_has_pages_or_says_what_bounds_it() {
    let mut paged = 0;
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap().iter();
            let schemas = answers
                .filter(|(status, _)| status.starts_with('2'))
                .filter_map(|(_, answer)| answer["content"].get("application/json"));
            let has_list = schemas.map(|json| &json["schema"]).any(|schema| has_list(schema, 0));
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let takes = |name| parameters.iter().any(|p| p["name"] == name && p["in"] == "query");
            let has_pages = takes("after") && takes("limit");
            paged += usize::from(has_pages);
            let is_bounded = operation["x-bounded"].as_str().is_some_and(|why| why.len() > 5);
            assert!(
                !has_list || has_pages || is_bounded,
                "{method} {path} gives a list without an end"
            );
            if has_pages {
                let next =
                    operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
                        .as_str()
                        .and_then(|it| DOCUMENT.pointer(it.trim_start_matches('#')));
                assert!(next.unwrap()["properties"]["next"].is_object(), "{method} {path}");
            }
        }
    }
    assert!(paged >= 3, "{paged}");
}

/// Arrays at the top, or in what is at the top.
fn has_list(schema: &Value, depth: usize) -> bool {
    if depth > 3 {
        return false;
    }
    if let Some(reference) = schema["$ref"].as_str() {
        return has_list(DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(), depth + 1);
    }
    let fields = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    is_of_arrays(schema) || fields.into_iter().any(|field| has_list(field, depth + 1))
}

fn is_of_arrays(schema: &Value) -> bool {
    let kind = &schema["type"];
    *kind == "array" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("array")))
}

/// The table of docs/api.md and the document tell of the same problems.
#[test]
fn every_problem_is_in_the_manual_with_its_status_and_the_other_way_round() {
    let manual = include_str!("../../../../docs/api.md");
    let errors = manual.split("\n## Errors\n").nth(1).unwrap();
    let table = errors
        .lines()
        .skip_while(|line| !line.starts_with("| 4"))
        .take_while(|line| line.starts_with('|'));
    let mut told = BTreeSet::new();
    for line in table {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let status: u16 = cells.next().unwrap().parse().unwrap();
        let words = cells.next().unwrap().split('`').skip(1).step_by(2);
        let is_word = |word: &&str| {
            word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        told.extend(words.filter(is_word).map(|word| (status, word.to_owned())));
    }
    let mut given = BTreeSet::new();
    // What is refused before there is a call of the table.
    given.extend([(404, "not_found".to_owned()), (405, "method_not_allowed".to_owned())]);
    for operation in DOCUMENT["paths"].as_object().unwrap().values() {
        for operation in operation.as_object().unwrap().values() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let words = answer["content"][api::problem::CONTENT_TYPE]["schema"]["properties"]
                    ["type"]["enum"]
                    .as_array();
                for word in words.into_iter().flatten() {
                    let word = word.as_str().unwrap().rsplit(':').next().unwrap().to_owned();
                    given.insert((status.parse().unwrap(), word));
                }
            }
        }
    }
    let only = |a: &BTreeSet<(u16, String)>, b: &BTreeSet<_>| {
        a.difference(b).map(|(status, word)| format!("{status} {word}")).collect::<Vec<_>>()
    };
    assert_eq!(only(&given, &told), [""; 0], "in the document, not in the table of docs/api.md");
    // The words of a parser are told of as what they are.
    let mut open = only(&told, &given);
    open.retain(|word| {
        !["400 not_zstd", "400 wrong_kind", "400 other_kind", "400 counter_too_high"]
            .contains(&word.as_str())
    });
    assert_eq!(open, [""; 0], "in the table of docs/api.md, not in the document");
}
