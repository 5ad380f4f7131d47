//! Escapes U+2028 and U+2029, which some line readers (Node's `readline`, Python's `splitlines`) take for line breaks.
//!
//! In valid JSON both stand only in strings, where `\u2028` means the same. Every other byte stays as it is.

use memchr::memmem;

/// The bytes with which both begin in UTF-8.
const START: &[u8] = b"\xe2\x80";

/// Escapes the text of one line, which may come in blocks of any size.
#[derive(Debug, Default)]
pub(super) struct SeparatorEscaper {
    /// The end of the last block, which may be the beginning of a separator.
    rest: Vec<u8>,
}

impl SeparatorEscaper {
    /// Appends the escaped block to `text`, except for an end that the next block may complete.
    pub(super) fn push(&mut self, block: &[u8], text: &mut Vec<u8>) {
        let joined;
        let mut block = block;
        if !self.rest.is_empty() {
            joined = [std::mem::take(&mut self.rest), block.to_vec()].concat();
            block = &joined;
        }
        while let Some(at) = memmem::find(block, START) {
            let (before, found) = block.split_at(at);
            text.extend_from_slice(before);
            let Some(third) = found.get(START.len()) else {
                self.rest.extend_from_slice(found);
                return;
            };
            match third {
                0xa8 => text.extend_from_slice(b"\\u2028"),
                0xa9 => text.extend_from_slice(b"\\u2029"),
                _ => text.extend_from_slice(found.get(..=START.len()).unwrap_or_default()),
            }
            block = found.get(START.len() + 1..).unwrap_or_default();
        }
        let end = block.len() - usize::from(block.last() == START.first());
        text.extend_from_slice(block.get(..end).unwrap_or_default());
        self.rest.extend_from_slice(block.get(end..).unwrap_or_default());
    }

    /// Appends the end of the line to `text`.
    pub(super) fn finish(&mut self, text: &mut Vec<u8>) {
        text.append(&mut self.rest);
    }
}

/// Escapes the separators in `line` from `start` on.
pub(super) fn escape_from(line: &mut Vec<u8>, start: usize) {
    let tail = line.get(start..).unwrap_or_default();
    if memmem::find(tail, START).is_some() {
        let tail = tail.to_vec();
        line.truncate(start);
        let mut escaper = SeparatorEscaper::default();
        escaper.push(&tail, line);
        escaper.finish(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped_at_every_cut_and_nothing_else_is_changed() {
        let text = "a\u{2028}\u{2029}\u{2027}\u{202a}\u{2028}é\u{20ac}x\u{2029}";
        let expected = "a\\u2028\\u2029\u{2027}\u{202a}\\u2028é\u{20ac}x\\u2029";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let (mut escaper, mut written) = (SeparatorEscaper::default(), Vec::new());
                for block in [&text.as_bytes()[..first], &text.as_bytes()[first..second], &text.as_bytes()[second..]] {
                    escaper.push(block, &mut written);
                }
                escaper.finish(&mut written);
                assert_eq!(String::from_utf8(written).unwrap(), expected, "{first} {second}");
            }
        }
        let mut line = b"\xe2\x80\xa8\xe2\x80\xa8".to_vec();
        escape_from(&mut line, 3);
        assert_eq!(line, b"\xe2\x80\xa8\\u2028");
    }
}
