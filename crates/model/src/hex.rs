//! Bytes as hexadecimal digits: written in lower case, read in either.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    write(&mut text, bytes).expect("a String takes all");
    text
}

/// `None`: not two digits for each byte.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    decode_into(text, &mut bytes)?;
    Some(bytes)
}

/// As [`decode`], for as many bytes as `into` has. After `None` it holds some of them.
pub fn decode_into(text: &str, into: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != 2 * into.len() {
        return None;
    }
    let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    for (byte, digits) in into.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(digits[0])? << 4 | nibble(digits[1])?;
    }
    Some(())
}

pub(crate) fn write(to: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(to, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_to_digits_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encode(&bytes);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(decode(&text), Some(bytes.clone()));
        assert_eq!(decode(&text.to_uppercase()), Some(bytes));
        assert_eq!((encode(&[]), decode("")), (String::new(), Some(Vec::new())));
    }

    #[test]
    fn what_is_not_two_digits_for_each_byte_is_refused() {
        for text in ["0", "000", "0g", "g0", "+1", " 1", "\u{e9}", "\u{e9}0"] {
            assert_eq!(decode(text), None, "{text}");
        }
        for len in [0, 1, 3] {
            assert_eq!(decode_into("0102", &mut vec![0; len]), None, "{len}");
        }
    }
}
