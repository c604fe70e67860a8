//! Who is told, and how: webhooks and mail.
//!
//! Promises: what a target shares with nobody else is in no answer, error or log; a webhook's body is signed, and what
//! comes twice has the same id; plain text goes to this machine only; an attempt ends within [`ATTEMPT_TIME_MAX`].

use super::page;
use super::rule::{is_id, number};
use api::alert::{Alert, MailSecurity, Secret, Target, Telling, TellingKind, Way};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lettre::message::{MultiPart, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::Sha256;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// From the name's lookup to the last byte of the answer.
pub const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(15);
/// The most targets of a site.
pub const TARGETS_MAX: usize = 50;
/// As SHA-256 has it: a shorter secret is guessed sooner than a signature.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
const RECIPIENTS_MAX: usize = 20;
const PEM_BYTES_MAX: usize = 32 * 1024;

/// Why something is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct BadTarget {
    pub field: &'static str,
    pub expected: &'static str,
    pub found: String,
}

/// What is wrong with it, if anything is. To be asked once its secrets are those that it is to have.
pub fn check(target: &Target) -> Result<(), BadTarget> {
    let bad = |field, expected, found: String| Err(BadTarget { field, expected, found });
    if !is_id(&target.id) {
        return bad("id", "1 to 64 lower case letters, digits and -", format!("{:?}", target.id));
    }
    let pem = match &target.way {
        Way::Webhook { ca_pem, .. } | Way::Mail { ca_pem, .. } => ca_pem,
    };
    if let Some(pem) = pem
        && (pem.len() > PEM_BYTES_MAX || certificates(pem).is_none())
    {
        let expected = "certificates in PEM, at most 32768 bytes";
        return bad("ca_pem", expected, format!("{} bytes of something else", pem.len()));
    }
    match &target.way {
        Way::Webhook { url, secret, .. } => {
            // A URL may have a secret in it: no refusal repeats it.
            let Ok(parsed) = Url::parse(url) else {
                return bad("url", "a URL", "something else".into());
            };
            let host = parsed.host_str().unwrap_or("");
            match parsed.scheme() {
                "https" => {}
                "http" if is_this_machine(host) => {}
                scheme => {
                    let expected = "https, or http to 127.0.0.1, ::1 or localhost";
                    return bad("url", expected, format!("{scheme} to {host}"));
                }
            }
            if !SECRET_BYTES.contains(&secret.reveal().len()) {
                let found = format!("{} bytes", secret.reveal().len());
                return bad("secret", "16 to 256 bytes", found);
            }
        }
        Way::Mail { host, security, from, to, user, password, .. } => {
            if host.is_empty() || host.len() > 255 || host.contains(char::is_whitespace) {
                return bad("host", "the name of a mail server", format!("{host:?}"));
            }
            if *security == MailSecurity::Plain && !is_this_machine(host) {
                let expected = "tls or starttls; plain to 127.0.0.1, ::1 or localhost only";
                return bad("security", expected, format!("plain to {host}"));
            }
            if let Some(wrong) =
                std::iter::once(from).chain(to).find(|a| a.parse::<lettre::Address>().is_err())
            {
                return bad("from and to", "addresses as name@host", format!("{wrong:?}"));
            }
            if !(1..=RECIPIENTS_MAX).contains(&to.len()) {
                return bad("to", "1 to 20 addresses", to.len().to_string());
            }
            if user.is_some() == password.is_empty() {
                let found = if user.is_some() { "a user alone" } else { "a password alone" };
                return bad("user and password", "both or neither", found.into());
            }
        }
    }
    Ok(())
}

/// The target with the secrets that the one before it had, where a change names none.
pub fn keep_secrets(mut target: Target, before: Option<&Target>) -> Target {
    match (&mut target.way, before.map(|before| &before.way)) {
        (Way::Webhook { secret, .. }, Some(Way::Webhook { secret: known, .. }))
            if secret.is_empty() =>
        {
            *secret = known.clone();
        }
        (
            Way::Mail { password, user: Some(user), host, .. },
            Some(Way::Mail { password: known, user: Some(of), host: at, .. }),
        ) if password.is_empty() && user == of && host == at => {
            // For this user at this server only: whoever changes the server does not hear the password by that.
            *password = known.clone();
        }
        _ => {}
    }
    target
}

/// As it may be shown.
pub fn without_secrets(mut target: Target) -> (Target, bool) {
    let secret = match &mut target.way {
        Way::Webhook { secret, .. } => secret,
        Way::Mail { password, .. } => password,
    };
    let had = !secret.is_empty();
    *secret = Secret::default();
    (target, had)
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|found| !found.is_empty())
}

/// One attempt. Why it failed is a text for people, without anything that the target shares with nobody else.
pub async fn deliver(target: &Target, telling: &Telling) -> Result<(), String> {
    let work = async {
        match &target.way {
            Way::Webhook { url, secret, ca_pem } => {
                post(url, secret, ca_pem.as_deref(), telling).await
            }
            Way::Mail { .. } => send(&target.way, telling).await,
        }
    };
    let late = |_| Err(format!("not done within {} s", ATTEMPT_TIME_MAX.as_secs()));
    tokio::time::timeout(ATTEMPT_TIME_MAX, work).await.unwrap_or_else(late)
}

/// `sha256=` and the HMAC-SHA-256 of the body in hex, as receivers of webhooks know it.
pub fn signature(secret: &Secret, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

async fn post(
    url: &str,
    secret: &Secret,
    ca_pem: Option<&str>,
    telling: &Telling,
) -> Result<(), String> {
    let body = serde_json::to_vec(telling).expect("the API's types have a JSON form");
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(ca_pem)?)
        // Where it was sent is where it is meant to be.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(ATTEMPT_TIME_MAX)
        .build()
        .map_err(|error| told(&error.without_url()))?;
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("plimsoll-delivery", &telling.id)
        .header("plimsoll-signature", signature(secret, &body))
        .body(body);
    let answer = request.send().await.map_err(|error| told(&error.without_url()))?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("expected 2xx, was answered {status}")) }
}

fn told(error: &dyn std::error::Error) -> String {
    model::told(error)
}

/// The authorities of this machine, and one of the target's own.
fn tls(ca_pem: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // A machine without authorities of its own is no error while the target brings one.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca_pem {
        for certificate in certificates(pem).ok_or("its ca_pem is none")? {
            roots.add(certificate).map_err(|error| told(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| told(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn send(way: &Way, telling: &Telling) -> Result<(), String> {
    let Way::Mail { host, port, security, user, password, from, to, ca_pem } = way else {
        return Err("expected mail".into());
    };
    let message = message(from, to, telling)?;
    let parameters = || {
        let mut builder = TlsParameters::builder(host.clone());
        if let Some(pem) = ca_pem {
            let certificate =
                Certificate::from_pem(pem.as_bytes()).map_err(|error| told(&error))?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build_rustls().map_err(|error| told(&error))
    };
    let tls = match security {
        MailSecurity::Tls => Tls::Wrapper(parameters()?),
        MailSecurity::Starttls => Tls::Required(parameters()?),
        MailSecurity::Plain => Tls::None,
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host.as_str())
        .port(*port)
        .tls(tls)
        .timeout(Some(ATTEMPT_TIME_MAX));
    if let Some(user) = user {
        let password = password.reveal().to_owned();
        transport = transport.credentials(Credentials::new(user.clone(), password));
    }
    transport.build().send(message).await.map(drop).map_err(|error| told(&error))
}

fn message(from: &str, to: &[String], telling: &Telling) -> Result<Message, String> {
    let mailbox = |address: &str| {
        let address: lettre::Address = address.parse().map_err(|e| told(&e))?;
        Ok::<_, String>(lettre::message::Mailbox::new(None, address))
    };
    let mut builder = Message::builder().from(mailbox(from)?).subject(subject(telling));
    for address in to {
        builder = builder.to(mailbox(address)?);
    }
    // Who gets it twice sees that it is the same.
    let domain = from.rsplit('@').next().unwrap_or("localhost");
    let builder = builder.message_id(Some(format!("<{}.{}@{domain}>", telling.id, telling.site)));
    let message = match &telling.report {
        Some(report) => builder
            .multipart(MultiPart::alternative_plain_html(page::text(report), page::html(report))),
        None => builder.header(header::ContentType::TEXT_PLAIN).body(plain(telling)),
    };
    message.map_err(|error| told(&error))
}

fn subject(telling: &Telling) -> String {
    let site = &telling.site;
    match (telling.kind, &telling.alert) {
        (TellingKind::Firing, Some(alert)) => {
            format!("[{site}] {}: {}", alert.priority.as_str(), alert.sentence)
        }
        (_, Some(alert)) => format!("[{site}] resolved: {}", alert.sentence),
        (TellingKind::Report, _) => format!("[{site}] the fleet's week"),
        _ => format!("[{site}] a test message"),
    }
}

fn plain(telling: &Telling) -> String {
    let Some(alert) = &telling.alert else {
        return format!("This is a test message of site {}.\n", telling.site);
    };
    let Alert { id, rule, subject, sentence, priority, since_ms, count, .. } = alert;
    let mut text = format!("{sentence}\n\n");
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{value}\n"));
    line("site", telling.site.clone());
    line("alert", id.to_string());
    line("rule", rule.clone());
    line("of", subject.clone());
    line("priority", priority.as_str().to_owned());
    line("since", page::time(*since_ms));
    if let Some(value) = alert.value {
        line("value", number(value));
    }
    if *count > 1 {
        line("stands for", format!("{count} subjects"));
    }
    if let Some(at_ms) = alert.resolved_at_ms {
        line("resolved", page::time(at_ms));
    }
    if let Some(runbook) = &alert.runbook {
        line("what to do", format!("docs/runbooks/{runbook}"));
    }
    text
}
