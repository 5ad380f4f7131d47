//! Checks challenges: each parsed value occurs in the input, and stays the same when written and parsed again.

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::{Input, repeated};
use crate::auth::Challenge;

/// Checks any refusals, with one header for each line.
pub fn challenge(input: &[u8]) {
    let input = Input::read(input);
    let lines = input.text.split(|byte| *byte == b'\n').take(1000);
    let read = of(lines.filter_map(|line| HeaderValue::from_bytes(line).ok()));
    let Some(header) = read.to_header() else { return };
    // Quoting needs at most one backslash for each byte. U+FFFD, which replaces invalid UTF-8, has three bytes.
    assert!(header.len() <= 3 * input.text.len() + 100, "{} bytes from {}", header.len(), input.text.len());
    if let Ok(value) = HeaderValue::try_from(header.clone()) {
        assert_eq!(of([value]).to_header(), Some(header));
    }
}

fn of(values: impl IntoIterator<Item = HeaderValue>) -> Challenge {
    Challenge::of(&repeated(&WWW_AUTHENTICATE, values))
}
