//! The ids of JSON-RPC, as they were written.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::random::random;

/// A JSON-RPC id as it was written. Its spelling is kept; [`Id::same`] compares by value, and 1 is not "1" (R4).
#[derive(Clone)]
pub(crate) struct Id(pub(super) Bytes);

impl Id {
    /// An id of the bridge's own: a string of characters that JSON does not escape.
    pub(crate) fn own(text: &str) -> Self {
        Self(format!("\"{text}\"").into())
    }

    /// An id as it stands in a message, if it is one.
    pub(crate) fn read(json: Bytes) -> Option<Self> {
        let id = Self(json);
        id.is_valid().then_some(id)
    }

    /// The id in JSON.
    pub(crate) fn as_str(&self) -> &str {
        // A slice of text that was valid UTF-8, cut at JSON tokens.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// Whether two ids are the same value: `"a"` and `"\u0061"`, `1` and `1.0`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        if self.0 == other.0 {
            return true;
        }
        // Nearly all ids are written in the one plain way, and then no others are the same. A look at all open requests
        // must not read each of their ids.
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

    /// Whether no other spelling than this has its value but one that says so: a string without escapes, or a short integer.
    fn is_plain(&self) -> bool {
        match &*self.0 {
            [b'"', text @ ..] => !text.contains(&b'\\'),
            // Up to 2^53, floating-point numbers are the integers that they stand for.
            digits => digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit),
        }
    }

    /// Whether `other` is this id after a peer took it through a floating-point number, as JavaScript does.
    pub(crate) fn same_when_rounded(&self, other: &Self) -> bool {
        match (self.value(), other.value()) {
            (Some(serde_json::Value::Number(one)), Some(serde_json::Value::Number(two))) => {
                one.as_f64() == two.as_f64()
            }
            _ => false,
        }
    }

    /// Whether a peer that names this id may mean the other: it is the same, was rounded, or became a string.
    pub(crate) fn means(&self, other: &Self) -> bool {
        let bare = |id: &Self| id.as_str().trim_matches('"').to_owned();
        self.same(other) || self.same_when_rounded(other) || bare(self) == bare(other)
    }

    /// Whether this is the text of another id, which is a number.
    pub(crate) fn is_text_of(&self, number: &Self) -> bool {
        let text = self.0.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        text.is_some_and(|text| text == &*number.0)
    }

    /// Whether the two are spelled alike.
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

/// The next id that no client and no server uses: it differs from process to process, and cannot be guessed.
pub(crate) fn own_id() -> Id {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| random().to_bits());
    Id::own(&format!("mcp-gangway-{process:x}-{}", CALLS.fetch_add(1, Ordering::Relaxed)))
}
