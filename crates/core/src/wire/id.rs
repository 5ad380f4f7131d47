//! JSON-RPC ids in their original spelling.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::random::random;

/// A JSON-RPC id. It keeps its spelling; [`Id::same`] compares by value, and 1 is not "1" (R4).
#[derive(Clone)]
pub(crate) struct Id(pub(super) Bytes);

impl Id {
    /// Creates an id of the bridge's own: a string of characters that JSON does not escape.
    pub(crate) fn own(text: &str) -> Self {
        Self(format!("\"{text}\"").into())
    }

    /// Reads an id from its JSON, if it is one.
    pub(crate) fn read(json: Bytes) -> Option<Self> {
        let id = Self(json);
        id.is_valid().then_some(id)
    }

    /// Returns the id in JSON.
    pub(crate) fn as_str(&self) -> &str {
        // A slice of valid UTF-8, cut at JSON tokens.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// True if two ids are the same value: `"a"` and `"\u0061"`, `1` and `1.0`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        if self.0 == other.0 {
            return true;
        }
        // Nearly all ids are plain, and different plain ids differ in value. So a search of all open requests does not
        // parse each id.
        if self.is_plain() && other.is_plain() {
            return false;
        }
        match (self.value(), other.value()) {
            (Some(serde_json::Value::Number(one)), Some(serde_json::Value::Number(two))) => {
                one == two || (one.is_f64() != two.is_f64() && one.as_f64() == two.as_f64())
            }
            (Some(one), Some(two)) => one == two,
            _ => false,
        }
    }

    /// True if its value has no other plain spelling: it is a string without escapes, or a short integer.
    fn is_plain(&self) -> bool {
        match &*self.0 {
            [b'"', text @ ..] => !text.contains(&b'\\'),
            // Floating-point numbers hold integers up to 2^53 exactly.
            digits => digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit),
        }
    }

    /// True if `other` is this id after a peer converted it to a floating-point number, as JavaScript does.
    pub(crate) fn same_when_rounded(&self, other: &Self) -> bool {
        match (self.value(), other.value()) {
            (Some(serde_json::Value::Number(one)), Some(serde_json::Value::Number(two))) => {
                one.as_f64() == two.as_f64()
            }
            _ => false,
        }
    }

    /// True if a peer that sends this id may mean `other`: it is the same, was rounded, or became a string.
    pub(crate) fn means(&self, other: &Self) -> bool {
        let bare = |id: &Self| id.as_str().trim_matches('"').to_owned();
        self.same(other) || self.same_when_rounded(other) || bare(self) == bare(other)
    }

    /// True if this is a string with the text of `number`.
    pub(crate) fn is_text_of(&self, number: &Self) -> bool {
        let text = self.0.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        text.is_some_and(|text| text == &*number.0)
    }

    /// True if the two have the same spelling.
    pub(crate) fn identical(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    pub(super) fn is_valid(&self) -> bool {
        matches!(self.0.first(), Some(b'"' | b'-' | b'0'..=b'9' | b'n'))
    }

    fn value(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.0).ok()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns the bridge's next own id. No client or server uses it: it differs between processes, and cannot be guessed.
pub(crate) fn own_id() -> Id {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| random().to_bits());
    Id::own(&format!("mcp-gangway-{process:x}-{}", CALLS.fetch_add(1, Ordering::Relaxed)))
}
