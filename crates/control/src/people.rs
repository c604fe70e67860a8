//! People and programs of the operator, as calls.

use crate::call::{Call, json_answer};
use crate::problem::Failure;
use crate::station::Station;
use api::user::Me;
use axum::response::Response;

pub(crate) fn me(station: &Station, call: &Call) -> Result<Response, Failure> {
    let person = call.person(station)?;
    Ok(json_answer(&Me {
        actor: person.actor.to_string(),
        user: person.user.clone(),
        site: station.terms.site.clone(),
        grants: person.grants.clone(),
        scopes: person.scopes(),
        until_ms: person.until_ms,
    }))
}
