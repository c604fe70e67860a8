//! `pump-app` 1.3.0. Looks healthy, and leaks memory.

use app::{Fault, Release};
use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(&Release { version: "1.3.0", vibration: true, fault: Fault::LeaksMemory })
}
