//! What the API says of itself: every answer that a test of this suite sees is held to it.

use crate::world::Got;
use control::endpoint::{Endpoint, Method};
use control::openapi;
use serde_json::{Value, json};
use std::sync::LazyLock;

pub static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(openapi::document()).unwrap());

/// Panics if the document does not foresee this answer: its status, its kind, its body, the word of its problem.
pub fn hold(method: &reqwest::Method, path: &str, got: &Got) {
    let Some(operation) = operation(method, path) else { return };
    if let Err(why) = holds(operation, got) {
        panic!(
            "{method} {path} answered what docs/openapi.json does not foresee: {why}; say it in crates/control/src/openapi.rs"
        );
    }
}

/// `None`: no call of the table, so that its answer is none either.
pub fn operation(method: &reqwest::Method, path: &str) -> Option<&'static Value> {
    let named = |endpoint: &&Endpoint| {
        let of = match endpoint.method() {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Delete => reqwest::Method::DELETE,
        };
        of == *method && fits(endpoint.path(), path)
    };
    // A name that is written out comes before one that stands for any, as in the router.
    let found = Endpoint::ALL.iter().filter(named);
    let endpoint = found.min_by_key(|endpoint| endpoint.path().matches('{').count())?;
    let of = endpoint.path().replace("{*", "{");
    Some(&DOCUMENT["paths"][of][method.as_str().to_lowercase()])
}

fn fits(template: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for wanted in template.split('/') {
        match parts.next() {
            Some(_) if wanted.starts_with("{*") => return true,
            Some(found) if wanted.starts_with('{') && !found.is_empty() => {}
            Some(found) if wanted == found => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

pub fn holds(operation: &Value, got: &Got) -> Result<(), String> {
    let status = got.status.as_u16().to_string();
    let Some(answer) = operation["responses"].get(&status) else {
        let word = serde_json::from_slice::<Value>(&got.body).ok();
        let word = word.and_then(|problem| problem["type"].as_str().map(str::to_owned));
        return Err(format!("status {status}, {word:?}"));
    };
    let Some(content) = answer.get("content") else {
        let is_empty = got.body.is_empty();
        return if is_empty { Ok(()) } else { Err(format!("a body at status {status}")) };
    };
    let essence = got.header("content-type").split(';').next().unwrap_or("").trim();
    let schema =
        content.get(essence).or_else(|| content.get("*/*")).map(|content| &content["schema"]);
    let schema = schema.ok_or_else(|| format!("{essence:?} at status {status}"))?;
    if !essence.ends_with("json") {
        return Ok(());
    }
    let body = serde_json::from_slice(&got.body).map_err(|e| format!("a body that is {e}"))?;
    valid(schema, &body).map_err(|why| format!("at status {status} {why}"))
}

/// JSON Schema as far as the document uses it. A word of it that is not known here is an error, and not passed over.
fn valid(schema: &Value, found: &Value) -> Result<(), String> {
    let words = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(words) => words,
        other => return Err(format!("has no schema but {other}")),
    };
    let no = |why: String| Err(format!("{why}, found {found}"));
    for (word, wanted) in words {
        match word.as_str() {
            "$ref" => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                let schema = DOCUMENT.pointer(pointer);
                valid(
                    schema.ok_or_else(|| format!("leads to {wanted}, which is not there"))?,
                    found,
                )?;
            }
            "type" => {
                let kinds = wanted.as_array().map_or(vec![wanted], |kinds| kinds.iter().collect());
                if !kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), found)) {
                    return no(format!("expected {wanted}"));
                }
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(found) = found.get(name) {
                        valid(schema, found).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
            }
            "required" => {
                let missing = wanted.as_array().unwrap().iter();
                let missing: Vec<_> =
                    missing.filter(|name| found.get(name.as_str().unwrap()).is_none()).collect();
                if !missing.is_empty() {
                    return no(format!("expected {missing:?}"));
                }
            }
            "additionalProperties" => {
                let known = words.get("properties").and_then(Value::as_object);
                for (name, found) in found.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    if *wanted == json!(false) {
                        return no(format!("expected nothing beside {known:?}"));
                    }
                    valid(wanted, found).map_err(|why| format!("{name}: {why}"))?;
                }
            }
            "items" => {
                for found in found.as_array().into_iter().flatten() {
                    valid(wanted, found)?;
                }
            }
            "prefixItems" => {
                for (wanted, found) in
                    wanted.as_array().unwrap().iter().zip(found.as_array().into_iter().flatten())
                {
                    valid(wanted, found)?;
                }
            }
            "minItems" | "maxItems" => {
                let count = found.as_array().map_or(0, Vec::len) as u64;
                let bound = wanted.as_u64().unwrap();
                if (word == "minItems" && count < bound) || (word == "maxItems" && count > bound) {
                    return no(format!("expected {word} {bound}"));
                }
            }
            "enum" if !wanted.as_array().unwrap().contains(found) => {
                return no(format!("expected one of {wanted}"));
            }
            "const" if wanted != found => return no(format!("expected {wanted}")),
            "enum" | "const" => {}
            "minimum" | "maximum" => {
                let (bound, found) = (wanted.as_f64().unwrap(), found.as_f64());
                let breaks = |f: f64| if word == "minimum" { f < bound } else { f > bound };
                if found.is_some_and(breaks) {
                    return no(format!("expected {word} {bound}"));
                }
            }
            "allOf" => wanted.as_array().unwrap().iter().try_for_each(|s| valid(s, found))?,
            "anyOf" | "oneOf" => {
                let forms = wanted.as_array().unwrap();
                let fitting = forms.iter().filter(|schema| valid(schema, found).is_ok()).count();
                if fitting == 0 || (word == "oneOf" && fitting > 1) {
                    return no(format!("expected {word} {wanted}, of which {fitting} fit"));
                }
            }
            "description" | "title" | "default" | "format" | "contentEncoding" => {}
            other => return Err(format!("has a schema with {other:?}, which is not looked at")),
        }
    }
    Ok(())
}

fn is_a(kind: &str, found: &Value) -> bool {
    match kind {
        "object" => found.is_object(),
        "array" => found.is_array(),
        "string" => found.is_string(),
        "integer" => found.is_u64() || found.is_i64(),
        "number" => found.is_number(),
        "boolean" => found.is_boolean(),
        "null" => found.is_null(),
        _ => false,
    }
}
