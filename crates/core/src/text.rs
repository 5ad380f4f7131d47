//! Makes text that a peer chose safe to show in an error, a log or a terminal.
//!
//! Rule: code that shows text that may come from a peer uses [`shown`] or [`excerpt`]. The result stays on one line,
//! holds no terminal commands and no hidden characters, and holds no secret that this process knows.

use std::borrow::Cow;

use crate::secrets;

/// Replaces a secret.
const BLANK: &str = "[secret]";
/// Marks the end of a text that was cut.
const CUT: char = '…';

/// Returns a text made safe to show.
pub fn shown<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    match blanked(&text, text.len()) {
        Some(blanked) => harmless(blanked),
        None => harmless(text),
    }
}

/// Returns the beginning of a text made safe to show: at most `limit` bytes, with a mark at the end if the text was
/// cut.
pub fn excerpt(text: &str, limit: usize) -> String {
    let looked_at = text.get(..text.floor_char_boundary(excerpt_read_limit(limit))).unwrap_or_default();
    let kept = looked_at.floor_char_boundary(limit);
    let beginning = looked_at.get(..kept).unwrap_or_default();
    let mut shown = match blanked(looked_at, kept) {
        Some(blanked) => harmless(blanked),
        None => harmless(beginning),
    }
    .into_owned();
    if kept < text.len() || shown.len() > limit {
        shown.truncate(shown.floor_char_boundary(limit.saturating_sub(CUT.len_utf8())));
        shown.push(CUT);
    }
    shown
}

/// Returns how many bytes of a text [`excerpt`] reads. It reads more than it shows, as half a secret cannot be
/// recognized.
pub const fn excerpt_read_limit(limit: usize) -> usize {
    limit.saturating_add(secrets::MAX_PREFIX_BYTES)
}

/// True if a text holds a secret that this process knows.
pub(crate) fn repeats_secret(text: &str) -> bool {
    !secrets::places_in(text).is_empty()
}

/// Returns the text before `end` without the secrets that begin there; `None` if there are none.
fn blanked(text: &str, end: usize) -> Option<String> {
    let places = secrets::places_in(text);
    if places.is_empty() {
        return None;
    }
    let mut blanked = String::new();
    let mut at = 0;
    for place in places.into_iter().take_while(|place| place.start < end) {
        blanked.push_str(text.get(at..place.start).unwrap_or_default());
        blanked.push_str(BLANK);
        at = place.end;
    }
    blanked.push_str(text.get(at..end).unwrap_or_default());
    Some(blanked)
}

/// Returns the text on one line, with characters that act or hide replaced by their numbers.
fn harmless<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    if !text.contains(is_control_or_invisible) {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => shown.push(' '),
            c if is_control_or_invisible(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown.into()
}

/// True for characters that act on a terminal or hide text:
///
/// - controls that terminals obey (C0, DEL, C1);
/// - line ends, and changes of the writing direction;
/// - invisible characters, which hide text or make different texts look alike: all that Unicode calls ignorable by
///   default (`Default_Ignorable_Code_Point`, unassigned ones included), and the marks of annotations.
///
/// An emoji of several characters and Persian with joiners therefore show numbers. In a log, certainty matters more.
fn is_control_or_invisible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(
        c,
        '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Returns every character that is never shown unchanged.
#[cfg(test)]
pub(crate) fn hostile() -> String {
    let all = ('\0'..='\u{e0fff}').filter(|c| is_control_or_invisible(*c));
    all.flat_map(|c| [c, 'x']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_in_peer_text_are_escaped() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{7}b\r\nc\u{202e}d\u{2028}e\u{7f}\0";
        assert_eq!(shown(hostile), r"a\u{1b}[2J\u{9b}31m\u{7}b  c\u{202e}d e\u{7f}\u{0}");
        assert_eq!(
            shown("a\u{ad}b\u{61c}c\u{200b}d\u{2066}e\u{feff}f"),
            r"a\u{ad}b\u{61c}c\u{200b}d\u{2066}e\u{feff}f"
        );
        assert_eq!(shown("x\u{e0041}\u{fe0f}\u{e0100}"), r"x\u{e0041}\u{fe0f}\u{e0100}");
        let long = excerpt(&"\u{1b}".repeat(600), 512);
        assert!(long.len() <= 512 && long.ends_with(CUT), "{long}");
    }

    #[test]
    fn control_and_format_characters_are_replaced() {
        // The classes that the bridge promises to replace, listed independently of the ranges above.
        let promised = ('\0'..='\u{1f}')
            .chain('\u{7f}'..='\u{9f}')
            .chain(['\u{61c}', '\u{feff}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'])
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain('\u{e0000}'..='\u{e007f}');
        for c in promised {
            let text = format!("a{c}b");
            assert!(!shown(text.as_str()).contains(c) && !excerpt(&text, 100).contains(c), "{:x}", u32::from(c));
        }
    }

    #[test]
    fn ordinary_unicode_text_is_unchanged() {
        let text = "Größe 10 µm – «да» 한국어 日本語 ไทย עברית العربية ₿ 𝒳 🦀 e\u{301}\u{a0}\u{3000}";
        assert_eq!(shown(text), text);
        assert!(matches!(shown("as it is"), Cow::Borrowed(_)));
    }

    #[test]
    fn excerpt_is_cut_at_a_character_boundary_and_marked() {
        let text = "é".repeat(600);
        let cut = excerpt(&text, 512);
        assert!(cut.len() <= 512 && cut.strip_suffix(CUT).unwrap().chars().all(|c| c == 'é'), "{cut}");
        assert_eq!(excerpt(&text[..512], 512), text[..512]);
        assert_eq!(excerpt("", 512), "");
    }
}
