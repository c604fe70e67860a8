//! `pump-app` 1.2.0. Starts, and fails its own check: it is never healthy.

use app::{Fault, Release};
use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(&Release { version: "1.2.0", vibration: true, fault: Fault::FailsItsCheck })
}
