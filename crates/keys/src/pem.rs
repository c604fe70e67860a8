//! PEM (RFC 7468), as much of it as we write: sections of one label.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub const CERTIFICATE: &str = "CERTIFICATE";
pub const CERTIFICATE_REQUEST: &str = "CERTIFICATE REQUEST";
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Our longest PEM file is a chain of three certificates, under 4 KiB.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The text is not PEM of the section that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a PEM section `{expected}`, found {found}")]
pub struct NotPem {
    pub expected: &'static str,
    pub found: String,
}

/// One section, in lines of 64 (RFC 7468 §2).
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 80);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Several sections, one after the other: a chain, leaf first.
pub fn encode_all<'a>(label: &str, ders: impl IntoIterator<Item = &'a [u8]>) -> String {
    ders.into_iter().map(|der| encode(label, der)).collect()
}

/// All sections of the text, at least one; a section with another label is refused. Text between sections is skipped.
pub fn decode(label: &'static str, text: &[u8]) -> Result<Vec<Vec<u8>>, NotPem> {
    let found = |found: String| NotPem { expected: label, found };
    let text = std::str::from_utf8(text).map_err(|_| found("bytes that are no text".into()))?;
    let end = format!("-----END {label}-----");
    let mut sections = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (its_label, after) =
            after.split_once("-----").ok_or_else(|| found("a section without a label".into()))?;
        if its_label != label {
            let shown: String = its_label.chars().take(40).collect();
            return Err(found(format!("a section {shown:?}")));
        }
        let (body, after) =
            after.split_once(&end).ok_or_else(|| found("a section without its end".into()))?;
        let body: Zeroizing<String> =
            Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let der = STANDARD.decode(body.as_bytes());
        sections.push(der.map_err(|_| found("a section that is no base64".into()))?);
        rest = after;
    }
    if sections.is_empty() {
        return Err(found(format!("{} bytes without a section", text.len())));
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_whatever_its_length() {
        for len in [0, 1, 2, 3, 47, 48, 49, 1000] {
            let der: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let text = encode_all(CERTIFICATE, [der.as_slice(), der.as_slice()]);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            assert_eq!(decode(CERTIFICATE, text.as_bytes()).unwrap(), [der.clone(), der]);
        }
    }

    #[test]
    fn a_text_that_is_not_the_section_asked_for_is_refused_with_what_was_found() {
        let good = encode(CERTIFICATE, b"certificate");
        assert!(decode(CERTIFICATE, good.as_bytes()).is_ok());
        let refused = |text: &str| decode(CERTIFICATE, text.as_bytes()).unwrap_err().found;
        assert_eq!(refused(""), "0 bytes without a section");
        assert_eq!(
            refused(&good.replace("CERTIFICATE", "EC PRIVATE KEY")),
            "a section \"EC PRIVATE KEY\""
        );
        assert_eq!(refused(&good[..good.len() - 10]), "a section without its end");
        assert_eq!(refused(&good.replace("Y2Vy", "Y2V!")), "a section that is no base64");
        assert_eq!(
            decode(CERTIFICATE, &[0xff]).unwrap_err().to_string(),
            "expected a PEM section `CERTIFICATE`, found bytes that are no text"
        );
    }
}
