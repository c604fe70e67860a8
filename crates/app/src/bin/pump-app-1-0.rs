//! `pump-app` 1.0.0. The first release: flow, pressure, temperature.

use app::{Fault, Release};
use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(&Release { version: "1.0.0", vibration: false, fault: Fault::None })
}
