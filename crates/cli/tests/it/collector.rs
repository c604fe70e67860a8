//! A collector of OTLP over HTTP: takes spans, and reads them by the words of OTLP 1.5 and its JSON encoding, and by no others.

use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use crate::PATIENCE;

pub struct Collector {
    pub url: String,
    posts: Receiver<Post>,
    pub spans: Vec<Told>,
    /// Heads, as they came.
    pub heard: String,
    bodies: String,
}

struct Post {
    head: String,
    body: String,
    spans: Vec<Told>,
}

/// A span and whose it is.
#[derive(Clone, Debug)]
pub struct Told {
    pub service: String,
    pub span: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    pub trace_id: Hex<16>,
    pub span_id: Hex<8>,
    pub parent_span_id: Option<Hex<8>>,
    /// W3C Trace Context, and OpenTelemetry's part of it.
    pub trace_state: Option<String>,
    pub name: String,
    /// `SpanKind`: internal, server, client, producer, consumer.
    pub kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue>,
    pub flags: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    #[serde(rename = "scope")]
    _scope: Scope,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "version")]
    _version: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

/// Whole numbers of 64 bits are decimal text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
enum AnyValue {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "intValue")]
    Number(String),
    #[serde(rename = "boolValue")]
    Flag(bool),
}

/// So many bytes in hex, not all of them 0.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex<const N: usize>(String);

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_id = text.len() == 2 * N
            && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && text.bytes().any(|byte| byte != b'0');
        if is_id {
            Ok(Self(text))
        } else {
            Err(format!("expected an id of {N} bytes, found {text}"))
        }
    }
}

impl Told {
    pub fn text(&self, key: &str) -> Option<&str> {
        match value(&self.span.attributes, key)? {
            AnyValue::Text(text) => Some(text),
            other => panic!("{key} is no text: {other:?}"),
        }
    }

    pub fn number(&self, key: &str) -> i64 {
        match value(&self.span.attributes, key) {
            Some(AnyValue::Number(number)) => number.parse().unwrap(),
            other => panic!("{key} is no number: {other:?}"),
        }
    }

    pub fn follows(&self, parent: &Told) -> bool {
        self.span.parent_span_id.as_ref() == Some(&parent.span.span_id)
    }

    pub fn from(&self) -> u64 {
        self.span.start_time_unix_nano.parse().unwrap()
    }

    pub fn to(&self) -> u64 {
        self.span.end_time_unix_nano.parse().unwrap()
    }
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, posts) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                std::thread::spawn(move || serve(stream, &tell));
            }
        });
        Self { url, posts, spans: Vec::new(), heard: String::new(), bodies: String::new() }
    }

    /// Takes spans until `found` has what it looks for.
    pub fn until<T>(&mut self, what: &str, found: impl Fn(&[Told]) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = found(&self.spans) {
                return found;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            let Ok(post) = self.posts.recv_timeout(left) else {
                panic!("{what} did not come, of {:#?}", self.spans);
            };
            self.take(post);
        }
    }

    /// What has come by now.
    pub fn drain(&mut self) {
        while let Ok(post) = self.posts.try_recv() {
            self.take(post);
        }
    }

    pub fn bodies(&self) -> String {
        self.bodies.clone()
    }

    fn take(&mut self, post: Post) {
        self.heard += &post.head;
        self.bodies += &post.body;
        self.spans.extend(post.spans);
    }
}

/// Answers one post after the other, as long as somebody comes.
fn serve(stream: TcpStream, tell: &Sender<Post>) {
    let mut reader = BufReader::new(&stream);
    loop {
        let (mut head, mut len) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
            if let Some(found) =
                head.lines().last().and_then(|l| l.strip_prefix("content-length: "))
            {
                len = found.trim().parse().unwrap();
            }
        }
        assert!(head.starts_with("POST /v1/traces "), "{head}");
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        let request: Request = serde_json::from_slice(&body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let post = Post { head, body, spans: spans(request) };
        if tell.send(post).is_err() {
            return;
        }
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    }
}

fn spans(request: Request) -> Vec<Told> {
    let of = |ResourceSpans { resource, scope_spans }: ResourceSpans| {
        let Some(AnyValue::Text(service)) = value(&resource.attributes, "service.name") else {
            panic!("no service.name: {:?}", resource.attributes);
        };
        let service = service.clone();
        let spans = scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.map(move |span| Told { service: service.clone(), span }).collect::<Vec<_>>()
    };
    request.resource_spans.into_iter().flat_map(of).collect()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    Some(&attributes.iter().find(|pair| pair.key == key)?.value)
}
