//! Searches in JSON strings that look at many bytes at a time.

use wide::u8x16;

/// True if a backslash and this byte are a complete escape.
#[inline]
pub(super) fn is_simple_escape(byte: u8) -> bool {
    // A table, as comparisons would be branches that the processor cannot predict.
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    const SIMPLE: [bool; 256] = {
        let mut simple = [false; 256];
        let mut escapes: &[u8] = br#""\/bfnrt"#;
        while let [escape, others @ ..] = escapes {
            simple[*escape as usize] = true;
            escapes = others;
        }
        simple
    };
    SIMPLE.get(usize::from(byte)).is_some_and(|is_simple| *is_simple)
}

#[inline]
pub(super) fn skip_digits(bytes: &[u8], at: &mut usize) {
    while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
        *at += 1;
    }
}

/// Returns a word with this byte in each place.
pub(super) const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Skips the rest of a string and its closing quote, if the string ends within a word and is ASCII without escapes, as
/// most names are.
#[inline]
pub(super) fn skip_short(bytes: &[u8], at: &mut usize) -> bool {
    let Some(word) = bytes.get(*at..).and_then(<[u8]>::first_chunk) else { return false };
    let word = u64::from_le_bytes(*word);
    let Some(stop) = first_stop(word) else { return false };
    // Ignore the bytes after the stop.
    let before = word & !(u64::MAX << (8 * stop));
    let is_over = word >> (8 * stop) & 0xFF == u64::from(b'"') && before & each(0x80) == 0;
    if is_over {
        *at += stop + 1;
    }
    is_over
}

/// Skips text up to a quote, a backslash or a control character. Returns true if all of it is ASCII.
#[inline]
pub(super) fn skip_plain(bytes: &[u8], at: &mut usize) -> bool {
    let (length, is_ascii) = plain_run(bytes.get(*at..).unwrap_or_default());
    *at += length;
    is_ascii
}

/// Skips text with occasional escapes while all of them are simple. Returns true if all of it is ASCII.
#[inline(never)]
pub(super) fn skip_escapes(bytes: &[u8], at: &mut usize) -> bool {
    let mut is_ascii = true;
    while let Some(block) = bytes.get(*at..).and_then(<[u8]>::first_chunk) {
        let Marks { stops, high } = marks(block);
        let mut left = stops;
        // Finding the next mark does not read the text, so neither waits for the other. If no mark is left, the length
        // is a constant, so the next block does not wait for this one.
        let length = loop {
            if left == 0 {
                break 64;
            }
            let place = left.trailing_zeros();
            let text = block.get(place as usize..).unwrap_or_default();
            match text {
                [b'\\', escaped, ..] if is_simple_escape(*escaped) => left &= !(0b11 << place),
                _ => break place,
            }
        };
        is_ascii &= high.checked_shl(64 - length).unwrap_or_default() == 0;
        *at += length as usize;
        if length < 64 || stops == 0 {
            break;
        }
    }
    is_ascii
}

/// A bit for each byte of a block.
struct Marks {
    /// Quotes, backslashes and control characters.
    stops: u64,
    /// Bytes that are not ASCII.
    high: u64,
}

#[inline]
fn marks(block: &[u8; 64]) -> Marks {
    let mut marks = Marks { stops: 0, high: 0 };
    let (quarters, _) = block.as_chunks();
    for quarter in quarters.iter().rev() {
        let quarter = u8x16::new(*quarter);
        let quote = quarter.simd_eq(u8x16::splat(b'"'));
        let backslash = quarter.simd_eq(u8x16::splat(b'\\'));
        let control = quarter.min(u8x16::splat(0x1F)).simd_eq(quarter);
        marks.stops = marks.stops << 16 | u64::from((quote | backslash | control).to_bitmask());
        marks.high = marks.high << 16 | u64::from(quarter.to_bitmask());
    }
    marks
}

/// Returns how many bytes come before a quote, a backslash or a control character, and true if all of them are ASCII.
/// The byte right after them may also make that false.
#[inline]
fn plain_run(text: &[u8]) -> (usize, bool) {
    let mut rest = text;
    let mut seen = 0;
    // Most strings are short, and end in the first words.
    for _ in 0..8 {
        let Some((word, after)) = rest.split_first_chunk() else { break };
        let word = u64::from_le_bytes(*word);
        seen |= word;
        if let Some(stop) = first_stop(word) {
            return (text.len() - rest.len() + stop, seen & each(0x80) == 0);
        }
        rest = after;
    }
    let (length, is_ascii) = if rest.len() < 8 { short_run(rest) } else { long_run(rest) };
    (text.len() - rest.len() + length, is_ascii && seen & each(0x80) == 0)
}

/// Like [`plain_run`], byte by byte.
#[inline]
fn short_run(text: &[u8]) -> (usize, bool) {
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    let length = text.iter().position(|byte| !is_plain(byte)).unwrap_or(text.len());
    (length, text.iter().take(length).all(u8::is_ascii))
}

/// Like [`plain_run`], with a cost per call that pays off for long text.
#[inline(never)]
fn long_run(text: &[u8]) -> (usize, bool) {
    let length = memchr::memchr2(b'"', b'\\', text).unwrap_or(text.len());
    let run = text.get(..length).unwrap_or_default();
    // In this plain form the compiler uses vector instructions.
    let (lowest, all) = run.iter().fold((u8::MAX, 0), |(lowest, all), byte| (lowest.min(*byte), all | byte));
    let length = if lowest < 0x20 { run.iter().position(|byte| *byte < 0x20).unwrap_or(length) } else { length };
    (length, all.is_ascii())
}

/// Returns the index of the first quote, backslash or control character in a little-endian word.
///
/// A subtraction sets a byte's high bit if the byte is smaller. The borrow makes the bits after the first such byte
/// unreliable, but the first is exact.
#[inline]
fn first_stop(word: u64) -> Option<usize> {
    // With this bit flipped, the quote is the only printable character below 0x21. Control characters stay below it.
    let quote_or_control = (word ^ each(0x02)).wrapping_sub(each(0x21));
    let backslash = (word ^ each(b'\\')).wrapping_sub(each(1));
    let stops = (quote_or_control | backslash) & !word & each(0x80);
    (stops != 0).then_some(stops.trailing_zeros() as usize / 8)
}
