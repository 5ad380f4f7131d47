//! Challenges: what is read in any is a part of it, and stays the same when it is written anew.

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::{Input, repeated};
use crate::auth::Challenge;

/// Whatever refusals say, in a header for each line.
pub fn challenge(input: &[u8]) {
    let input = Input::read(input);
    let lines = input.text.split(|byte| *byte == b'\n').take(1000);
    let read = of(lines.filter_map(|line| HeaderValue::from_bytes(line).ok()));
    let Some(header) = read.to_header() else { return };
    // Quoting needs at most a backslash for each byte, and U+FFFD, in the place of what is not UTF-8, three bytes.
    assert!(header.len() <= 3 * input.text.len() + 100, "{} bytes from {}", header.len(), input.text.len());
    if let Ok(value) = HeaderValue::try_from(header.clone()) {
        assert_eq!(of([value]).to_header(), Some(header));
    }
}

fn of(values: impl IntoIterator<Item = HeaderValue>) -> Challenge {
    Challenge::of(&repeated(&WWW_AUTHENTICATE, values))
}
