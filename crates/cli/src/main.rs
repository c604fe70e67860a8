//! The `plimsoll` command. For now it links every heavy dependency, so that the cost of the stack is known from the start.

fn main() {
    let _session = datafusion_probe();
}

fn datafusion_probe() -> &'static str {
    store::ENGINE
}
