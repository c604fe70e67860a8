//! A gate's questions, as they are asked, and what their answers come to.

use api::{Answer as Rows, Cell};
use rollout::{Answer, Plan, State};

/// Stands for the time at which the open wave was opened, in milliseconds since 1970.
const OPENED: &str = "$opened_ms";
/// Stands for the rollout's start.
const STARTED: &str = "$started_ms";

/// The plan's questions, in its order. What is put in is numbers alone, so nothing in them can be read as SQL.
pub fn questions(plan: &Plan, state: &State) -> Vec<String> {
    let opened = state.opened_at.0.to_string();
    let started = state.started.0.to_string();
    let ask = |sql: &str| sql.replace(OPENED, &opened).replace(STARTED, &started);
    plan.signals.iter().map(|signal| ask(&signal.sql)).collect()
}

/// The first cell of the first row, if it is a number. Whatever else it is lets no wave pass.
pub fn number(rows: &Rows) -> Answer {
    match rows.rows.first().and_then(|row| row.first()) {
        None | Some(Cell::Null) => Answer::Empty,
        Some(Cell::Number(number)) => number.as_f64().map_or(Answer::Failed, Answer::Number),
        Some(_) => Answer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_number_can_pass() {
        let table = [
            (json!([[3]]), Answer::Number(3.0)),
            (json!([[-2.5, "x"], [9]]), Answer::Number(-2.5)),
            (json!([]), Answer::Empty),
            (json!([[]]), Answer::Empty),
            (json!([[null]]), Answer::Empty),
            (json!([["NaN"]]), Answer::Failed),
            (json!([["3"]]), Answer::Failed),
            (json!([[true]]), Answer::Failed),
        ];
        for (rows, answer) in table {
            let rows = serde_json::from_value(rows).unwrap();
            let found = number(&Rows { columns: vec![], rows, truncated: false, took_ms: 1 });
            assert_eq!(found, answer);
        }
    }
}
