//! What a person sees of a running site: steps on standard output, events on standard error.

use tracing_subscriber::EnvFilter;

/// One step, for people.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { println!("  {}", format_args!($($words)*)) };
}

/// Events at `info` where the process has a log of its own, at `warn` beside the steps of `up`. `RUST_LOG` overrides.
pub fn start(own_log: bool) {
    let default = if own_log { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
