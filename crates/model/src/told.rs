//! An error as a person reads it.

use alloc::string::{String, ToString as _};
use core::error::Error;

/// An error with its causes, in one line. A cause that the text before it says already is not said twice.
pub fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt;
    use std::io;

    #[derive(Debug)]
    struct Outer {
        says_its_cause: bool,
        cause: io::Error,
    }

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot do it")?;
            if self.says_its_cause { write!(f, ": {}", self.cause) } else { Ok(()) }
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.cause)
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        for says_its_cause in [false, true] {
            let outer = Outer { says_its_cause, cause: io::Error::other("no space") };
            assert_eq!(told(&outer), "cannot do it: no space");
        }
    }
}
