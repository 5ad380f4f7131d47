//! The members of a JSON object as `serde_json` finds them, including duplicate names and names that are not valid
//! Unicode.

use std::{fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// All members of an object, in order.
pub(super) struct Members<'a>(pub(super) Vec<(Vec<u8>, &'a str)>);

impl<'a> Members<'a> {
    /// Returns the members if the text is an object.
    pub(super) fn of(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Returns the value of the last member with this name.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| *value)
    }

    /// True if there are several members with this name, and one of them is `null`.
    pub(super) fn is_doubtful(&self, name: &str) -> bool {
        let own = || self.0.iter().filter(|(own, _)| own == name.as_bytes());
        own().count() > 1 && own().any(|(_, value)| *value == "null")
    }
}

/// Returns the range of a slice in its text.
pub(super) fn place(text: &str, part: &str) -> Range<u64> {
    let start = (part.as_ptr().addr() - text.as_ptr().addr()) as u64;
    start..start + part.len() as u64
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value::<&RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A name, unescaped, which can hold lone surrogates.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, text: &[u8]) -> Result<Name, E> {
                Ok(Name(text.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Text)
    }
}
