//! Where readings come from. Each source reads at its edge and hands over typed [`crate::pack::Sample`]s.

pub mod app;
pub mod host;
pub mod replay;

use model::{SeriesName, Unit};

/// A series name from whatever text there is: what a name may not hold becomes `_`, and what it may not start with
/// goes. `None`: nothing is left.
pub fn series_name(text: &str) -> Option<SeriesName> {
    let mut name = String::with_capacity(text.len().min(128));
    for c in text.trim().chars() {
        let kept = c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '/' | '_');
        match (kept, name.is_empty()) {
            (true, true) if !c.is_ascii_alphanumeric() => {}
            (true, _) => name.push(c),
            (false, true) => {}
            (false, false) if name.ends_with('_') => {}
            (false, false) => name.push('_'),
        }
        if name.len() == 128 {
            break;
        }
    }
    SeriesName::new(name.trim_end_matches('_')).ok()
}

/// A unit of the SenML registries (RFC 8428 §12.1, RFC 8798), written in this program.
fn unit(text: &str) -> Unit {
    Unit::new(text).expect("the registry's symbols are short and printable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_what_it_may_and_marks_what_it_may_not() {
        for (text, name) in [
            ("cpu/busy", "cpu/busy"),
            ("  Motor Temp (°C) ", "Motor_Temp_C"),
            ("__x__", "x"),
            ("/dev/sda", "dev/sda"),
            ("a  b", "a_b"),
            ("é1", "1"),
            ("T:1.5-x", "T:1.5-x"),
        ] {
            assert_eq!(series_name(text).unwrap().as_str(), name, "{text:?}");
        }
        assert_eq!(series_name("°%"), None);
        assert_eq!(series_name(&"x".repeat(300)).unwrap().as_str().len(), 128);
    }
}
