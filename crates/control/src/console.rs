//! The web console: its files, as `build.rs` compiled them in.
//!
//! A stranger may have them: they say nothing of the site. What they show is asked for by the calls that everybody uses, under
//! the session of whoever signed in.

use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::problem::Failure;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

struct File {
    name: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/console.rs"));

const INDEX: &str = "index.html";

/// Only what came from here runs, is shown or is asked, and nobody frames it: a text that a device sent is never more than a
/// text (CSP level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The name of a file has a digest of its content: under one name there is one content, for ever.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The page that names those files is asked for anew each time, or an update would show at the next year's end.
const NEVER: &str = "no-cache";

pub(crate) fn console(call: &Call) -> Result<Response, Failure> {
    let path = call.head.uri.path();
    let find = |name: &str| FILES.iter().find(|file| file.name == name);
    let (file, keeps) = match call.endpoint {
        // Every page is the same file; it knows by the address which one to show.
        Endpoint::Console | Endpoint::ConsolePage => (find(INDEX), NEVER),
        _ => (path.strip_prefix("/assets/").filter(|name| *name != INDEX).and_then(find), FOR_EVER),
    };
    let file = file.ok_or_else(|| Failure::not_found(path))?;
    Ok(answer(file, keeps, &call.head.headers))
}

fn answer(file: &File, keeps: &'static str, asked: &HeaderMap) -> Response {
    let brotli = file.brotli.filter(|_| takes_brotli(asked));
    let mut response = Response::new(Body::from(brotli.unwrap_or(file.plain)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, file.kind),
        (header::CACHE_CONTROL, keeps),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if brotli.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    response
}

/// Whether the caller takes Brotli (RFC 9110 §12.5.3). Whoever says nothing of it gets the bytes as they are.
fn takes_brotli(asked: &HeaderMap) -> bool {
    let accepts = asked.get_all(header::ACCEPT_ENCODING).into_iter();
    accepts.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_brotli = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("br"));
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            is_brotli
                && weight
                    .is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &str) -> HeaderMap {
        let value = HeaderValue::from_str(accept).unwrap();
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)])
    }

    #[test]
    fn brotli_is_sent_to_whoever_takes_it() {
        assert!(takes_brotli(&asked("gzip, deflate, br, zstd")));
        assert!(takes_brotli(&asked("BR;q=0.5")));
        for not in ["gzip", "br;q=0", "br; q=0.0", "*", "brotli", ""] {
            assert!(!takes_brotli(&asked(not)), "{not}");
        }
        assert!(!takes_brotli(&HeaderMap::new()));
    }

    #[test]
    fn there_is_a_page_and_no_name_twice() {
        assert!(FILES.iter().any(|file| file.name == INDEX));
        assert!(FILES.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn the_page_runs_nothing_that_its_policy_forbids() {
        let index = FILES.iter().find(|file| file.name == INDEX).unwrap();
        let text = std::str::from_utf8(index.plain).unwrap();
        for tag in text.split('<').filter(|tag| tag.starts_with("script")) {
            assert!(tag.contains("src=\"/assets/"), "<{tag}");
        }
        assert!(!text.contains("<style") && !text.contains(" style="));
    }

    #[test]
    fn what_is_kept_for_ever_is_named_by_its_content() {
        for file in FILES.iter().filter(|file| file.name != INDEX) {
            let stem = file.name.rsplit_once('.').unwrap().0;
            let digest = &stem[stem.len() - 9..];
            assert!(digest.starts_with('-') && digest.len() == 9, "{}", file.name);
        }
    }
}
