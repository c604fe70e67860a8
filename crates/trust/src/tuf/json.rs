//! JSON within bounds, and the one form of it that is signed.
//!
//! TUF signs the OLPC canonical form: no white space, members in order of their names, integers only, and in strings
//! nothing escaped but `"` and `\`. A file may stand in any form; what is signed is made from it again. Every member
//! of a file goes into that form, known to us or not, so that unknown fields stay under the signature.
//!
//! Refused, though other readers take them: a name twice in one object (readers disagree about which counts), floats
//! (they have no canonical form) and integers beyond 64 bits.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// How deep lists and objects may lie in one another: a target's custom data is at 7.
const DEPTH_MAX: u32 = 16;

/// A document, with what needs no unescaping borrowed from its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    /// In order of names, none twice.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// Why bytes are not such a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadJson {
    pub expected: &'static str,
    /// The byte at which it was seen.
    pub at: usize,
}

impl fmt::Display for BadJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

impl core::error::Error for BadJson {}

impl<'a> Value<'a> {
    /// Reads a document of at most `values_max` values. The caller has bounded its bytes.
    pub fn parse(bytes: &'a [u8], values_max: u32) -> Result<Self, BadJson> {
        let text = core::str::from_utf8(bytes)
            .map_err(|error| BadJson { expected: "UTF-8", at: error.valid_up_to() })?;
        let mut parser = Parser { text, at: 0, values: values_max };
        parser.space();
        let value = parser.value(0)?;
        parser.space();
        if parser.at == text.len() { Ok(value) } else { Err(parser.bad("the end")) }
    }

    /// An object of members in any order. Each name stands once.
    pub fn object(members: Vec<(&'a str, Value<'a>)>) -> Self {
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> =
            members.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect();
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        debug_assert!(members.windows(2).all(|two| two[0].0 != two[1].0), "a name stands once");
        Self::Object(members)
    }

    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let members = self.as_object()?;
        let at = members.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok()?;
        Some(&members[at].1)
    }

    pub fn as_object(&self) -> Option<&[(Cow<'a, str>, Value<'a>)]> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Value<'a>]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Int(int) = self { u64::try_from(*int).ok() } else { None }
    }

    /// The form that is signed.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, &canonical_text);
        out
    }

    /// JSON that any reader takes: the canonical form, but with control characters escaped too.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, &json_text);
        out
    }

    fn write(&self, out: &mut Vec<u8>, text: &dyn Fn(&str, &mut Vec<u8>)) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(int) => out.extend_from_slice(alloc::format!("{int}").as_bytes()),
            Self::Text(string) => text(string, out),
            Self::List(items) => {
                out.push(b'[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    item.write(out, text);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (n, (name, value)) in members.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    text(name, out);
                    out.push(b':');
                    value.write(out, text);
                }
                out.push(b'}');
            }
        }
    }
}

fn canonical_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(alloc::format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// How many values may still come.
    values: u32,
}

impl<'a> Parser<'a> {
    fn bad(&self, expected: &'static str) -> BadJson {
        BadJson { expected, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes on over `byte` if it comes next.
    fn eats(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value<'a>, BadJson> {
        if depth > DEPTH_MAX {
            return Err(self.bad("lists and objects at most 16 deep"));
        }
        self.values = self
            .values
            .checked_sub(1)
            .ok_or(self.bad("no more values than such a file may have"))?;
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.int(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Value<'a>, BadJson> {
        let words =
            [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))];
        for (word, value) in words {
            if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.bad("a value"))
    }

    fn int(&mut self) -> Result<Value<'a>, BadJson> {
        let from = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let digits = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let (number, digits) = (&self.text[from..self.at], &self.text[digits..self.at]);
        // RFC 8259 §6 has no leading zeros; "-0" is an integer to some readers and a float to others.
        let plain = digits.starts_with(|c: char| ('1'..='9').contains(&c)) || number == "0";
        let goes_on = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        match number.parse() {
            Ok(int) if plain && !goes_on => Ok(Value::Int(int)),
            _ => Err(self.bad("an integer of 64 bits")),
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value<'a>, BadJson> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.eats(b']') {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.eats(b']') {
                return Ok(Value::List(items));
            }
            if !self.eats(b',') {
                return Err(self.bad("`,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value<'a>, BadJson> {
        self.at += 1;
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        self.space();
        if self.eats(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.bad("a name"));
            }
            let name = self.string()?;
            self.space();
            if !self.eats(b':') {
                return Err(self.bad("`:`"));
            }
            self.space();
            members.push((name, self.value(depth + 1)?));
            self.space();
            if self.eats(b'}') {
                break;
            }
            if !self.eats(b',') {
                return Err(self.bad("`,` or `}`"));
            }
        }
        // UTF-8 sorts as code points do, which is the order of the canonical form.
        members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if members.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(self.bad("each name once in an object that ended"));
        }
        Ok(Value::Object(members))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, BadJson> {
        self.at += 1;
        let from = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[from..self.at - 1]));
                }
                Some(b'\\') => return self.escaped(from).map(Cow::Owned),
                Some(0x20..) => self.at += 1,
                _ => return Err(self.bad("the rest of a string, control characters escaped")),
            }
        }
    }

    /// A string with an escape at the place where the parser stands.
    fn escaped(&mut self, from: usize) -> Result<String, BadJson> {
        let mut out = String::from(&self.text[from..self.at]);
        loop {
            let plain = self.at;
            while !matches!(self.peek(), Some(b'"' | b'\\' | 0..0x20) | None) {
                self.at += 1;
            }
            out.push_str(&self.text[plain..self.at]);
            if self.eats(b'"') {
                return Ok(out);
            }
            if !self.eats(b'\\') {
                return Err(self.bad("the rest of a string, control characters escaped"));
            }
            let escape = self.peek().ok_or(self.bad("an escape"))?;
            self.at += 1;
            out.push(match escape {
                b'"' | b'\\' | b'/' => escape as char,
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return Err(self.bad("an escape")),
            });
        }
    }

    fn unicode(&mut self) -> Result<char, BadJson> {
        let first = self.hex4()?;
        let code = match first {
            0xd800..0xdc00 => {
                if !(self.eats(b'\\') && self.eats(b'u')) {
                    return Err(self.bad("the second half of a surrogate pair"));
                }
                let second = self.hex4()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(self.bad("the second half of a surrogate pair"));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            _ => first,
        };
        char::from_u32(code).ok_or(self.bad("a character"))
    }

    fn hex4(&mut self) -> Result<u32, BadJson> {
        let bad = self.bad("four hexadecimal digits");
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| (byte as char).to_digit(16)).ok_or(bad)?;
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use proptest::prelude::*;

    fn canonical(text: &str) -> Result<String, &'static str> {
        Value::parse(text.as_bytes(), 100)
            .map(|value| String::from_utf8(value.canonical()).unwrap())
            .map_err(|bad| bad.expected)
    }

    #[test]
    fn what_is_signed_does_not_depend_on_how_the_file_is_laid_out() {
        let laid_out =
            "\n{ \"b\" : [ 1 , -2,\t9223372036854775807 ] , \"a\":{ } ,\r\n\"é\":\"\",\"z\":[]}\n";
        let one = "{\"a\":{},\"b\":[1,-2,9223372036854775807],\"z\":[],\"é\":\"\"}";
        assert_eq!(canonical(laid_out).unwrap(), one);
        assert_eq!(canonical(one).unwrap(), one);
        // Only two characters are escaped in it, whatever the file escapes.
        assert_eq!(canonical(r#""\/\u0041\"\\\n\ud83d\ude00""#).unwrap(), "\"/A\\\"\\\\\n😀\"");
        assert_eq!(canonical("[true,false,null,0,-1]").unwrap(), "[true,false,null,0,-1]");
    }

    #[test]
    fn names_are_sorted_by_code_points() {
        // In UTF-16 the first of these would stand behind the second.
        assert_eq!(
            canonical("{\"\u{10000}\":1,\"\u{ffff}\":2}").unwrap(),
            "{\"\u{ffff}\":2,\"\u{10000}\":1}"
        );
    }

    #[test]
    fn a_text_that_was_changed_is_refused_with_its_reason() {
        const END: &str = "the end";
        const VALUE: &str = "a value";
        const INT: &str = "an integer of 64 bits";
        const TEXT: &str = "the rest of a string, control characters escaped";
        const HALF: &str = "the second half of a surrogate pair";
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(canonical(&deep(17)).is_ok());
        assert_eq!(canonical(&deep(18)), Err("lists and objects at most 16 deep"));
        assert_eq!(canonical(&"[".repeat(100_000)), Err("lists and objects at most 16 deep"));
        let many = |n: usize| format!("[{}]", vec!["0"; n].join(","));
        assert!(canonical(&many(99)).is_ok());
        assert_eq!(canonical(&many(100)), Err("no more values than such a file may have"));
        for (text, expected) in [
            ("", VALUE),
            ("{} {}", END),
            ("{}\0", END),
            ("nul", VALUE),
            ("True", VALUE),
            ("'a'", VALUE),
            ("[1,]", VALUE),
            ("[1 2]", "`,` or `]`"),
            ("[1", "`,` or `]`"),
            ("{\"a\" 1}", "`:`"),
            ("{\"a\":1 \"b\":2}", "`,` or `}`"),
            ("{\"a\":1,}", "a name"),
            ("{a:1}", "a name"),
            ("{\"a\":1,\"b\":2,\"a\":1}", "each name once in an object that ended"),
            ("{\"a\":1,\"\\u0061\":2}", "each name once in an object that ended"),
            ("1.0", INT),
            ("1e3", INT),
            ("01", INT),
            ("-", INT),
            ("-0", INT),
            ("-01", INT),
            ("+1", VALUE),
            ("9223372036854775808", INT),
            ("\"a", TEXT),
            ("\"\\n", TEXT),
            ("\"a\nb\"", TEXT),
            ("\"\\n\n\"", TEXT),
            ("\"\\", "an escape"),
            ("\"\\x41\"", "an escape"),
            ("\"\\u00\"", "four hexadecimal digits"),
            ("\"\\u+041\"", "four hexadecimal digits"),
            ("\"\\ud83d\"", HALF),
            ("\"\\ud83d\\u0041\"", HALF),
            ("\"\\ude00\"", "a character"),
        ] {
            assert_eq!(canonical(text), Err(expected), "{text:?}");
        }
        let broken = Value::parse(b"\"\xff\"", 9).unwrap_err();
        assert_eq!((broken.expected, broken.at), ("UTF-8", 1));
    }

    #[test]
    fn a_member_is_found_by_its_name() {
        let value = Value::object(vec![("b", Value::Int(2)), ("a", Value::Int(1))]);
        assert_eq!(value.get("a").and_then(Value::as_u64), Some(1));
        assert_eq!(value.get("b").and_then(Value::as_u64), Some(2));
        assert_eq!(value.get("c"), None);
        assert_eq!(Value::Null.get("a"), None);
        assert_eq!(Value::Int(-1).as_u64(), None);
    }

    proptest! {
        #[test]
        fn it_says_what_another_parser_says(text in "[\\[\\]{}\":,0-9a\\\\u\\-. tn]{0,24}") {
            // serde_json takes floats, large numbers and names twice; what both take means the same to both.
            if let Ok(ours) = Value::parse(text.as_bytes(), 100) {
                let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
                let again: serde_json::Value = serde_json::from_slice(&ours.to_json()).unwrap();
                prop_assert_eq!(theirs, again);
            }
        }

        #[test]
        fn what_was_written_is_read_back(text in any::<String>(), int in any::<i64>()) {
            let value = Value::object(vec![
                ("text", Value::text(text)),
                ("list", Value::List(vec![Value::Int(int), Value::Bool(true), Value::Null])),
            ]);
            let bytes = value.to_json();
            prop_assert_eq!(Value::parse(&bytes, 100), Ok(value));
        }

        #[test]
        fn bytes_of_any_kind_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Value::parse(&bytes, 100);
        }
    }
}
