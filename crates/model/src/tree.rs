//! CBOR as a tree, for tests: take an accepted message apart, change one thing, put it together again.
//!
//! The tests of `trust` use this file too, by path.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Int(i64),
    /// An integer above those of [`Item::Int`].
    Large(u64),
    Float(f64),
    Bool(bool),
    Null,
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Item>),
    Map(Vec<(Item, Item)>),
    /// Bytes that stand in the message as they are: what no encoder of ours would write.
    Raw(Vec<u8>),
}

impl Item {
    pub fn read(bytes: &[u8]) -> Item {
        let mut d = Decoder::new(bytes);
        let item = read(&mut d);
        assert_eq!(d.position(), bytes.len(), "the accepted message has no trailing bytes");
        item
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        write(&mut e, self);
        e.into_writer()
    }

    /// The item behind a path of indexes; into a map, an index counts its values.
    pub fn at(&mut self, path: &[usize]) -> &mut Item {
        path.iter().fold(self, |item, index| match item {
            Item::Array(items) => &mut items[*index],
            Item::Map(entries) => &mut entries[*index].1,
            other => panic!("{other:?} holds nothing at {index}"),
        })
    }

    pub fn items(&mut self) -> &mut Vec<Item> {
        match self {
            Item::Array(items) => items,
            other => panic!("{other:?} is no array"),
        }
    }

    pub fn entries(&mut self) -> &mut Vec<(Item, Item)> {
        match self {
            Item::Map(entries) => entries,
            other => panic!("{other:?} is no map"),
        }
    }
}

impl From<i64> for Item {
    fn from(value: i64) -> Self {
        Item::Int(value)
    }
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Item::Text(text.into())
    }
}

impl From<&[u8]> for Item {
    fn from(bytes: &[u8]) -> Self {
        Item::Bytes(bytes.into())
    }
}

impl<const N: usize> From<[Item; N]> for Item {
    fn from(items: [Item; N]) -> Self {
        Item::Array(items.into())
    }
}

fn read(d: &mut Decoder<'_>) -> Item {
    match d.datatype().unwrap() {
        Type::Bool => Item::Bool(d.bool().unwrap()),
        Type::Null => {
            d.null().unwrap();
            Item::Null
        }
        Type::F16 | Type::F32 | Type::F64 => Item::Float(d.f64().unwrap()),
        Type::Bytes => Item::Bytes(d.bytes().unwrap().into()),
        Type::String => Item::Text(d.str().unwrap().into()),
        Type::Array => {
            let len = d.array().unwrap().unwrap();
            Item::Array((0..len).map(|_| read(d)).collect())
        }
        Type::Map => {
            let len = d.map().unwrap().unwrap();
            Item::Map((0..len).map(|_| (read(d), read(d))).collect())
        }
        _ => match i64::try_from(d.int().unwrap()) {
            Ok(int) => Item::Int(int),
            Err(_) => panic!("no accepted message in the tests holds an integer above i64"),
        },
    }
}

fn write(e: &mut Encoder<Vec<u8>>, item: &Item) {
    match item {
        Item::Int(v) => e.i64(*v),
        Item::Large(v) => e.u64(*v),
        Item::Float(v) => e.f64(*v),
        Item::Bool(v) => e.bool(*v),
        Item::Null => e.null(),
        Item::Bytes(v) => e.bytes(v),
        Item::Text(v) => e.str(v),
        Item::Array(items) => {
            e.array(items.len() as u64).unwrap();
            items.iter().for_each(|item| write(e, item));
            return;
        }
        Item::Map(entries) => {
            e.map(entries.len() as u64).unwrap();
            for (label, value) in entries {
                write(e, label);
                write(e, value);
            }
            return;
        }
        Item::Raw(bytes) => {
            e.writer_mut().extend_from_slice(bytes);
            return;
        }
    }
    .unwrap();
}
