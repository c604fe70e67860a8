//! `pump-app` 1.1.0. Adds the speed of vibration.

use app::{Fault, Release};
use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(&Release { version: "1.1.0", vibration: true, fault: Fault::None })
}
