//! What an operator says of traces, by option or by the variables that OpenTelemetry has for it. Pure.

use std::fmt;
use std::path::PathBuf;

/// One in a hundred readings: a site of a thousand devices, one message a second each, tells of ten a second.
pub const RATIO: f64 = 0.01;

/// Where traces go, and how many.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// Whole: with `/v1/traces`.
    pub url: String,
    /// The share of readings that is traced. Of updates each is: they are few, and each is asked about.
    pub ratio: f64,
    /// What the collector wants to see, a token often. Secret.
    pub headers: Vec<(String, String)>,
    /// An authority of the collector's own, in PEM, besides those of this machine.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "{name}: expected http://HOST:PORT or https://HOST:PORT, without a user, a password or a query"
    )]
    Endpoint { name: &'static str },
    #[error("{name}: expected a share from 0 to 1, found {found}")]
    Ratio { name: &'static str, found: String },
    #[error("OTEL_EXPORTER_OTLP_HEADERS: expected NAME=VALUE, with commas between them")]
    Headers,
    #[error(
        "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/json or http/protobuf, found {found}: gRPC is not spoken"
    )]
    Protocol { found: String },
}

impl Settings {
    /// What was said by the options `--otlp-endpoint` and `--otlp-ratio`, or else by variables. `None`: no traces.
    pub fn read(
        endpoint: Option<&str>,
        ratio: Option<f64>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        // An empty variable is one that is not set (OpenTelemetry, Environment Variable Specification).
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_disabled =
            variable("OTEL_SDK_DISABLED").is_some_and(|said| said.eq_ignore_ascii_case("true"));
        let exact = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let below = |url: &str| format!("{}/v1/traces", url.trim_end_matches('/'));
        let (name, url) = if let Some(endpoint) = endpoint {
            ("--otlp-endpoint", below(endpoint))
        } else if is_disabled {
            return Ok(None);
        } else if let Some(url) = variable(exact) {
            (exact, url)
        } else if let Some(url) = variable(base) {
            (base, below(&url))
        } else {
            return Ok(None);
        };
        is_endpoint(&url).then_some(()).ok_or(SettingsError::Endpoint { name })?;
        if let Some(found) = variable("OTEL_EXPORTER_OTLP_PROTOCOL")
            && !matches!(found.as_str(), "http/json" | "http/protobuf")
        {
            return Err(SettingsError::Protocol { found });
        }
        Ok(Some(Self {
            url,
            ratio: share(ratio, variable("OTEL_TRACES_SAMPLER_ARG"))?,
            headers: variable("OTEL_EXPORTER_OTLP_HEADERS")
                .map_or(Ok(Vec::new()), |text| headers(&text))?,
            ca: variable("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from),
        }))
    }
}

/// What is told of it never has a header's value.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, ratio, headers, ca } = self;
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "Settings({url}, ratio {ratio}, headers {names:?}, ca {ca:?})")
    }
}

/// A password in a URL would be shown wherever the URL is.
fn is_endpoint(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && !url.contains(['?', '#'])
        && url.parse::<reqwest::Url>().is_ok()
}

fn share(option: Option<f64>, variable: Option<String>) -> Result<f64, SettingsError> {
    let (name, found, ratio) = match (option, variable) {
        (Some(ratio), _) => ("--otlp-ratio", ratio.to_string(), Some(ratio)),
        (None, Some(text)) => {
            let ratio = text.trim().parse().ok();
            ("OTEL_TRACES_SAMPLER_ARG", text, ratio)
        }
        (None, None) => return Ok(RATIO),
    };
    ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or(SettingsError::Ratio { name, found })
}

/// As W3C Baggage writes lists: `a=1,b=2`, values percent-encoded. What is wrong with it is not shown: it is a secret.
fn headers(text: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let one = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), decoded(value.trim())?);
        let is_good = !name.is_empty()
            && reqwest::header::HeaderName::try_from(name).is_ok()
            && reqwest::header::HeaderValue::try_from(&value).is_ok();
        is_good.then(|| (name.to_owned(), value))
    };
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs.map(|pair| one(pair).ok_or(SettingsError::Headers)).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let mut byte = [0];
        let (digits, tail) = rest.split_at_checked(2)?;
        model::hex::decode_into(&std::str::from_utf8(digits).ok()?.to_lowercase(), &mut byte)?;
        bytes.push(byte[0]);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        endpoint: Option<&str>,
        ratio: Option<f64>,
        variables: &[(&str, &str)],
    ) -> Result<Option<Settings>, SettingsError> {
        Settings::read(endpoint, ratio, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn nothing_is_traced_until_somebody_says_where_to() {
        assert_eq!(read(None, Some(1.0), &[]), Ok(None));
        assert_eq!(read(None, None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(read(None, None, &[BASE, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
    }

    #[test]
    fn options_and_the_variables_of_opentelemetry_say_where_and_how_many() {
        let url = |endpoint, variables: &[_]| read(endpoint, None, variables).unwrap().unwrap().url;
        assert_eq!(url(None, &[BASE]), "http://collector:4318/v1/traces");
        assert_eq!(url(Some("https://other:1/x"), &[BASE]), "https://other:1/x/v1/traces");
        let exact = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/as-it-is");
        assert_eq!(url(None, &[BASE, exact]), "http://traces:1/as-it-is");
        let ratio = |ratio, variables: &[_]| {
            read(Some("http://c:1"), ratio, variables).unwrap().unwrap().ratio
        };
        assert_eq!(ratio(None, &[]), RATIO);
        assert_eq!(ratio(None, &[("OTEL_TRACES_SAMPLER_ARG", "0.5")]), 0.5);
        assert_eq!(ratio(Some(1.0), &[("OTEL_TRACES_SAMPLER_ARG", "0.5")]), 1.0);
        let said = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20c2VjcmV0, x-scope = 1")];
        let headers = read(Some("http://c:1"), None, &said).unwrap().unwrap().headers;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(headers, [pair("authorization", "Basic c2VjcmV0"), pair("x-scope", "1")]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_no_secret_is_shown() {
        for bad in [
            "collector:4318",
            "ftp://c:1",
            "http://",
            "http://user:s3cret@c:1",
            "http://c:1/x?token=s3cret",
            "https:///x",
        ] {
            let refused = read(Some(bad), None, &[]).unwrap_err();
            assert_eq!(refused, SettingsError::Endpoint { name: "--otlp-endpoint" }, "{bad}");
            assert!(!refused.to_string().contains("s3cret"));
        }
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(
                read(Some("http://c:1"), Some(bad), &[]),
                Err(SettingsError::Ratio { .. })
            ));
        }
        let said = |name, value| read(Some("http://c:1"), None, &[(name, value)]).unwrap_err();
        assert!(matches!(said("OTEL_TRACES_SAMPLER_ARG", "all"), SettingsError::Ratio { .. }));
        assert!(matches!(
            said("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            SettingsError::Protocol { .. }
        ));
        for bad in ["s3cret", "a b=s3cret", "a=s3cret%zz", "=s3cret", "a=s3cret%0a"] {
            let refused = said("OTEL_EXPORTER_OTLP_HEADERS", bad);
            assert_eq!(refused, SettingsError::Headers, "{bad}");
            assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{bad}");
        }
        let good = read(Some("http://c:1"), None, &[("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret")]);
        assert!(!format!("{good:?}").contains("s3cret"));
    }
}
