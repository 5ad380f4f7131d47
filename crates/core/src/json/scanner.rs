//! A streaming JSON scanner: checks the syntax, and finds what a bridge must know of a message of any size.
//!
//! Rule: each byte is read once. Only an id, a method and a member's name are kept, each up to a limit. So a text costs
//! the same per byte in one chunk or in a thousand, and no memory.
//!
//! The grammar is that of RFC 8259, as `serde_json` applies it to a value that it skips. Numbers of any size and
//! escapes of lone surrogates are JSON. Control characters in strings and bytes that are not UTF-8 are not. A byte
//! order mark at the front is skipped. If a key occurs twice, the last one counts. Keys are compared unescaped.
//!
//! The scanner is a state machine that keeps its [`ScanState`] between chunks. Most time goes into strings:
//! [`skip_plain`] skips plain text in wide steps. To watch another member, add its name to
//! [`Scanner::end_watched_name`].

use std::{borrow::Cow, mem, ops::Range};

use smallvec::SmallVec;

use super::{
    nesting::Nesting,
    wide::{is_simple_escape, skip_digits, skip_escapes, skip_plain, skip_short},
};
use crate::json::{nesting::MAX_DEPTH, wide::each};

/// The member of the `_meta` of `params` that each modern message has.
pub(crate) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The longest id or method whose text is kept, in bytes of JSON.
pub(crate) const MAX_KEPT_BYTES: usize = 4096;

/// Large chunks are read in pieces of this size, which fit into the processor's cache.
const PIECE: usize = 16 << 10;

/// Reads texts one after another: call [`Scanner::feed`] with the bytes of a text, then [`Scanner::finish`].
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
pub(crate) struct Scanner {
    state: ScanState,
    /// Why the state is [`ScanState::Broken`].
    fault: Option<JsonFault>,
    /// The remaining letters of `true`, `false` or `null`.
    letters: &'static [u8],
    /// The remaining hexadecimal digits of an escape.
    digits: u8,
    /// True if the current string is a member's name.
    in_name: bool,
    /// True if that name has an escape.
    has_escape: bool,
    nesting: Nesting,
    /// The depth at which names are compared; 0 if none are.
    watched: u32,
    /// The role of the next value.
    next: Role,
    /// The role of the value that is being kept, if any.
    keeping: Role,
    is_kept_string: bool,
    /// The start of the name or value that is being kept.
    kept_from: Option<u64>,
    /// Its part in earlier pieces, up to the limit.
    kept: Vec<u8>,
    is_kept_whole: bool,
    /// True if the names compared below the outermost object are those of its `error`.
    in_error: bool,
    /// The start of the current member's name in the outermost object, and the end of the value before it.
    name_from: u64,
    last_end: u64,
    /// A `null` member that may have to be removed. If it is the first member, the range to remove reaches to the next
    /// one.
    cut: Cut,
    /// The current piece is known to be UTF-8 up to here.
    checked: usize,
    /// A character that is cut by the end of a chunk.
    character: [u8; 4],
    character_len: usize,
    /// The number of bytes before the current piece.
    offset: u64,
    outline: Outline,
}

/// What a bridge must know of a message. All positions are offsets in bytes from the start of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) shape: Shape,
    /// The last member `id` of the outermost object.
    pub(crate) id: Option<KeptText>,
    /// Its last member `method`.
    pub(crate) method: Option<KeptText>,
    /// Its parts of a response.
    pub(crate) answer: ResponseOutline,
    /// True if the `_meta` of its `params` names a protocol version, as each modern request does (R81).
    pub(crate) names_version: bool,
    /// True if there is a raw CR or LF inside the value, that is, between its tokens (R2).
    pub(crate) line_breaks: bool,
    /// The value, without the byte order mark and the whitespace around it.
    pub(crate) value: Range<u64>,
    /// The length of the whole text.
    pub(crate) length: u64,
}

/// The facts that decide whether a response is valid (JSON-RPC 2.0, section 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseOutline {
    pub(crate) version: Version,
    pub(crate) result: MemberKind,
    pub(crate) error: MemberKind,
    /// True if the error's `message` is a string.
    pub(crate) has_message: bool,
    /// The positions of its parts. Boxed, as most responses need none.
    pub(crate) places: Option<Box<Places>>,
}

/// The positions of parts of a response that may have to be changed or read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// The value of a version that is `null`.
    pub(crate) version: Range<u64>,
    /// The bytes to remove for a member `result` or `error` that is `null`, with one of the commas next to it.
    pub(crate) result: Range<u64>,
    pub(crate) error: Range<u64>,
    /// The start of the error's `code`, if it is a number.
    pub(crate) code: Option<u64>,
}

/// The member `jsonrpc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    #[default]
    Absent,
    Null,
    /// It is "2.0".
    Two,
    Other,
}

/// The member `result` or `error`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberKind {
    #[default]
    Absent,
    Null,
    /// There are several, and at least one is `null`.
    Several,
    Value,
}

impl ResponseOutline {
    /// True if there is a result or an error.
    pub(crate) fn is_any(&self) -> bool {
        self.result != MemberKind::Absent || self.error != MemberKind::Absent
    }

    /// True if it is an ordinary result, as nearly all responses are.
    pub(crate) fn is_plain_result(&self) -> bool {
        self.version == Version::Two && self.result != MemberKind::Absent && self.error == MemberKind::Absent
    }

    /// Returns the outline relative to a text that begins at `start`.
    pub(crate) fn after(&self, start: u64) -> Self {
        let moved = |range: &Range<u64>| range.start.saturating_sub(start)..range.end.saturating_sub(start);
        let places = self.places.as_ref().map(|places| Places {
            version: moved(&places.version),
            result: moved(&places.result),
            error: moved(&places.error),
            code: places.code.map(|at| at.saturating_sub(start)),
        });
        Self { places: places.map(Box::new), ..self.clone() }
    }

    fn places(&mut self) -> &mut Places {
        self.places.get_or_insert_default()
    }
}

/// The kind of the outermost value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    /// A batch.
    Array,
    #[default]
    Other,
}

/// A member's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptText {
    /// Its position.
    pub(crate) range: Range<u64>,
    pub(crate) is_string: bool,
    /// Its JSON, which is UTF-8; `None` if it is longer than [`MAX_KEPT_BYTES`].
    pub(crate) text: Option<ShortText>,
}

/// An id or method. The usual ones need no allocation.
pub(crate) type ShortText = SmallVec<[u8; 40]>;

/// Why a text is not JSON or is not accepted, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonFault {
    #[error("{expected} at byte {at}")]
    Syntax { at: u64, expected: Expected },
    /// A variant of its own, as such a text may become JSON when it is repaired.
    #[error("it is not UTF-8 at byte {at}")]
    NotUtf8 { at: u64 },
    #[error("it is nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep { at: u64 },
    #[error("it ends in the middle of a value, after {at} bytes")]
    Incomplete { at: u64 },
    #[error("it is empty")]
    Empty,
}

/// What the grammar expects at the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Expected {
    #[error("expected a value")]
    Value,
    #[error("expected a member's name")]
    Name,
    #[error("expected a member's name or }}")]
    NameOrEnd,
    #[error("expected a colon")]
    Colon,
    #[error("expected a comma or }}")]
    CommaOrBrace,
    #[error("expected a comma or ]")]
    CommaOrBracket,
    #[error("expected a digit")]
    Digit,
    #[error("expected true, false or null")]
    Word,
    #[error("unknown escape")]
    Escape,
    #[error("expected a hexadecimal digit")]
    HexDigit,
    #[error("control character in a string")]
    NoControl,
    #[error("expected nothing after the value")]
    Nothing,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            state: ScanState::Mark,
            fault: None,
            letters: b"",
            digits: 0,
            in_name: false,
            has_escape: false,
            nesting: Nesting::default(),
            watched: 0,
            next: Role::Other,
            keeping: Role::Other,
            is_kept_string: false,
            kept_from: None,
            kept: Vec::new(),
            is_kept_whole: true,
            in_error: false,
            name_from: 0,
            last_end: 0,
            cut: Cut::None,
            checked: 0,
            character: [0; 4],
            character_len: 0,
            offset: 0,
            outline: Outline::default(),
        }
    }

    /// Takes the next bytes of the text.
    ///
    /// # Errors
    /// Fails if no JSON begins like this. Every later call returns the same fault.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), JsonFault> {
        for piece in bytes.chunks(PIECE) {
            self.read(piece);
            if let Some(fault) = self.fault {
                return Err(fault);
            }
            self.offset += piece.len() as u64;
        }
        self.fault.map_or(Ok(()), Err)
    }

    /// Ends the text. The scanner is then ready for another.
    ///
    /// # Errors
    /// Fails if the text is not JSON, ends in the middle of a value, or is empty.
    pub(crate) fn finish(&mut self) -> Result<Outline, JsonFault> {
        let fault = match self.state {
            ScanState::End => None,
            // Only the end of the text completes an outermost number.
            ScanState::Zero | ScanState::Integer | ScanState::Fraction | ScanState::Exponent
                if self.nesting.depth == 0 =>
            {
                self.outline.value.end = self.offset;
                None
            }
            ScanState::Mark | ScanState::Start => Some(JsonFault::Empty),
            _ => Some(self.fault.unwrap_or(JsonFault::Incomplete { at: self.offset })),
        };
        self.outline.length = self.offset;
        let outline = mem::take(&mut self.outline);
        self.reset();
        fault.map_or(Ok(outline), Err)
    }

    /// Drops the text read so far, and prepares for another.
    pub(crate) fn reset(&mut self) {
        self.state = ScanState::Mark;
        self.fault = None;
        self.nesting.clear();
        self.watched = 0;
        self.next = Role::Other;
        self.keeping = Role::Other;
        self.kept_from = None;
        self.kept.clear();
        self.is_kept_whole = true;
        self.last_end = 0;
        self.cut = Cut::None;
        self.offset = 0;
        self.outline = Outline::default();
    }

    /// Returns the last complete `id` of the outermost object so far, also after a fault, for an error reply.
    pub(crate) fn id(&self) -> Option<&KeptText> {
        self.outline.id.as_ref()
    }

    /// True if an object or array is complete and only white space has followed.
    pub(crate) fn is_over(&self) -> bool {
        self.state == ScanState::End
    }

    /// True if a `method` has been read so far.
    pub(crate) fn has_method(&self) -> bool {
        self.outline.method.is_some()
    }

    /// Reads one piece of the text.
    fn read(&mut self, bytes: &[u8]) {
        let mut at = 0;
        let mut state = self.state;
        self.checked = 0;
        // Each arm reads as far as it can and returns the next state. At the end of the piece the loop ends in the
        // state in which the next piece starts. A turn of the loop costs more than a byte, so an arm makes the
        // commonest transitions itself, such as from a comma to the next token.
        while let Some(&byte) = bytes.get(at) {
            state = match state {
                ScanState::Value => {
                    let Some(byte) = self.token(byte, bytes, &mut at) else { break };
                    self.begin_value(byte, bytes, &mut at)
                }
                ScanState::After => {
                    let Some(byte) = self.token(byte, bytes, &mut at) else { break };
                    match (byte, self.nesting.is_object()) {
                        (b',', is_object) => {
                            at += 1;
                            let next = bytes.get(at).and_then(|byte| self.token(*byte, bytes, &mut at));
                            match (next, is_object) {
                                (Some(b'"'), true) => self.begin_name(bytes, &mut at),
                                (_, true) => ScanState::Name,
                                (Some(byte), false) => self.begin_value(byte, bytes, &mut at),
                                (None, false) => ScanState::Value,
                            }
                        }
                        (b'}', true) | (b']', false) => self.close(bytes, &mut at),
                        (_, true) => self.wrong(at, Expected::CommaOrBrace),
                        (_, false) => self.wrong(at, Expected::CommaOrBracket),
                    }
                }
                ScanState::Text => self.text(bytes, &mut at),
                ScanState::Name => match self.token(byte, bytes, &mut at) {
                    Some(b'"') => self.begin_name(bytes, &mut at),
                    Some(_) => self.wrong(at, Expected::Name),
                    None => break,
                },
                ScanState::Colon => match self.token(byte, bytes, &mut at) {
                    Some(b':') => {
                        at += 1;
                        ScanState::Value
                    }
                    Some(_) => self.wrong(at, Expected::Colon),
                    None => break,
                },
                ScanState::FirstName => match self.token(byte, bytes, &mut at) {
                    Some(b'"') => self.begin_name(bytes, &mut at),
                    Some(b'}') => self.close(bytes, &mut at),
                    Some(_) => self.wrong(at, Expected::NameOrEnd),
                    None => break,
                },
                ScanState::FirstElement => match self.token(byte, bytes, &mut at) {
                    Some(b']') => self.close(bytes, &mut at),
                    Some(_) => ScanState::Value,
                    None => break,
                },
                ScanState::Minus => match byte {
                    b'0' => {
                        at += 1;
                        ScanState::Zero
                    }
                    b'1'..=b'9' => self.integer(bytes, &mut at),
                    _ => self.wrong(at, Expected::Digit),
                },
                ScanState::Zero => self.after_integer(bytes, &mut at, state),
                ScanState::Integer => self.integer(bytes, &mut at),
                ScanState::Point => match byte {
                    b'0'..=b'9' => self.fraction(bytes, &mut at),
                    _ => self.wrong(at, Expected::Digit),
                },
                ScanState::Fraction => self.fraction(bytes, &mut at),
                ScanState::E if matches!(byte, b'+' | b'-') => {
                    at += 1;
                    ScanState::Sign
                }
                ScanState::E | ScanState::Sign => match byte {
                    b'0'..=b'9' => ScanState::Exponent,
                    _ => self.wrong(at, Expected::Digit),
                },
                ScanState::Exponent => {
                    skip_digits(bytes, &mut at);
                    if at == bytes.len() { state } else { self.end_value(bytes, at) }
                }
                ScanState::Escape => self.escape(byte, &mut at),
                ScanState::Digits => self.hex_digit(byte, &mut at),
                ScanState::Character => self.character(byte, &mut at),
                ScanState::Word => self.word(byte, bytes, &mut at),
                ScanState::Mark | ScanState::Mark1 | ScanState::Mark2 | ScanState::Start => {
                    self.start(byte, &mut at, state)
                }
                ScanState::End => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' => {
                        at += 1;
                        ScanState::End
                    }
                    _ => self.wrong(at, Expected::Nothing),
                },
                ScanState::Broken => break,
            };
        }
        self.state = state;
        if let Some(start) = self.kept_from {
            self.keep(bytes, start);
        }
    }

    /// Skips whitespace inside the outermost value, from this byte on. Returns the next byte without taking it; `None`
    /// at the end of the piece.
    #[inline]
    fn token(&mut self, byte: u8, bytes: &[u8], at: &mut usize) -> Option<u8> {
        if byte > b' ' { Some(byte) } else { self.skip_space(bytes, at) }
    }

    #[inline(never)]
    fn skip_space(&mut self, bytes: &[u8], at: &mut usize) -> Option<u8> {
        let mut rest = bytes.get(*at..).unwrap_or_default();
        loop {
            match rest.split_first() {
                Some((b' ' | b'\t', after)) => rest = after,
                Some((b'\n' | b'\r', after)) => {
                    self.outline.line_breaks = true;
                    rest = after;
                }
                stop => {
                    *at = bytes.len() - rest.len();
                    return stop.map(|(byte, _)| *byte);
                }
            }
            // Indentation.
            while let Some((word, after)) = rest.split_first_chunk() {
                let others = u64::from_le_bytes(*word) ^ each(b' ');
                if others != 0 {
                    rest = rest.get(others.trailing_zeros() as usize / 8..).unwrap_or_default();
                    break;
                }
                rest = after;
            }
        }
    }

    /// Skips what precedes the outermost value, and notes where the value begins.
    fn start(&mut self, byte: u8, at: &mut usize, state: ScanState) -> ScanState {
        let state = match (state, byte) {
            (ScanState::Mark, 0xEF) => ScanState::Mark1,
            (ScanState::Mark1, 0xBB) => ScanState::Mark2,
            (ScanState::Mark2, 0xBF) | (ScanState::Mark | ScanState::Start, b' ' | b'\t' | b'\n' | b'\r') => {
                ScanState::Start
            }
            (ScanState::Mark | ScanState::Start, _) => {
                self.outline.value.start = self.place(*at);
                self.outline.shape = match byte {
                    b'{' => Shape::Object,
                    b'[' => Shape::Array,
                    _ => Shape::Other,
                };
                self.watched = u32::from(byte == b'{');
                return ScanState::Value;
            }
            // A broken byte order mark is not a value either.
            _ => return self.fail(JsonFault::Syntax { at: 0, expected: Expected::Value }),
        };
        *at += 1;
        state
    }

    /// Begins a value that starts with this byte.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would cost as much as a short value does")]
    fn begin_value(&mut self, byte: u8, bytes: &[u8], at: &mut usize) -> ScanState {
        if self.next != Role::Other {
            self.begin_watched(byte, bytes, *at);
        }
        let state = match byte {
            b'"' => {
                *at += 1;
                self.in_name = false;
                return if skip_short(bytes, at) { self.end_value(bytes, *at) } else { ScanState::Text };
            }
            b'{' if self.nesting.open(true) => ScanState::FirstName,
            b'[' if self.nesting.open(false) => ScanState::FirstElement,
            b'{' | b'[' => return self.fail(JsonFault::TooDeep { at: self.place(*at) }),
            b'1'..=b'9' => return self.integer(bytes, at),
            b'0' => ScanState::Zero,
            b'-' => ScanState::Minus,
            b't' => return self.begin_word(b"true", bytes, at),
            b'f' => return self.begin_word(b"false", bytes, at),
            b'n' => return self.begin_word(b"null", bytes, at),
            _ => return self.wrong(*at, Expected::Value),
        };
        *at += 1;
        state
    }

    #[inline]
    fn begin_word(&mut self, word: &'static [u8], bytes: &[u8], at: &mut usize) -> ScanState {
        if bytes.get(*at..).is_some_and(|rest| rest.starts_with(word)) {
            *at += word.len();
            return self.end_value(bytes, *at);
        }
        self.letters = word;
        ScanState::Word
    }

    /// Reads the next letter of a word that is cut by the end of a piece, or is wrong.
    #[cold]
    fn word(&mut self, byte: u8, bytes: &[u8], at: &mut usize) -> ScanState {
        match self.letters.split_first() {
            Some((letter, left)) if *letter == byte => {
                *at += 1;
                self.letters = left;
                if left.is_empty() { self.end_value(bytes, *at) } else { ScanState::Word }
            }
            _ => self.wrong(*at, Expected::Word),
        }
    }

    /// Reads the digits before the point, and what follows.
    #[inline]
    fn integer(&mut self, bytes: &[u8], at: &mut usize) -> ScanState {
        skip_digits(bytes, at);
        self.after_integer(bytes, at, ScanState::Integer)
    }

    #[inline]
    fn after_integer(&mut self, bytes: &[u8], at: &mut usize, state: ScanState) -> ScanState {
        match bytes.get(*at) {
            None => state,
            Some(b'.') => {
                *at += 1;
                match bytes.get(*at) {
                    Some(b'0'..=b'9') => self.fraction(bytes, at),
                    _ => ScanState::Point,
                }
            }
            Some(b'e' | b'E') => {
                *at += 1;
                ScanState::E
            }
            Some(_) => self.end_value(bytes, *at),
        }
    }

    /// Reads the digits after the point, and what follows.
    #[inline]
    fn fraction(&mut self, bytes: &[u8], at: &mut usize) -> ScanState {
        skip_digits(bytes, at);
        match bytes.get(*at) {
            None => ScanState::Fraction,
            Some(b'e' | b'E') => {
                *at += 1;
                ScanState::E
            }
            Some(_) => self.end_value(bytes, *at),
        }
    }

    /// Begins the value of a watched member, which starts with this byte.
    #[inline(never)]
    fn begin_watched(&mut self, byte: u8, bytes: &[u8], at: usize) {
        let role = mem::replace(&mut self.next, Role::Other);
        match role {
            // Nearly always, and complete in this piece.
            Role::Version if bytes.get(at..).is_some_and(|value| value.starts_with(br#""2.0""#)) => {
                self.outline.answer.version = Version::Two;
            }
            Role::Id | Role::Method | Role::Version => {
                self.keeping = role;
                self.is_kept_string = byte == b'"';
                self.kept_from = Some(self.place(at));
            }
            Role::Result => self.outline.answer.result = self.member(role, byte),
            Role::Error => {
                self.outline.answer.error = self.member(role, byte);
                if let Some(places) = &mut self.outline.answer.places {
                    places.code = None;
                }
                self.outline.answer.has_message = false;
                self.watch(true, byte);
            }
            Role::Code => {
                let number = matches!(byte, b'-' | b'0'..=b'9').then(|| self.place(at));
                self.outline.answer.places().code = number;
            }
            Role::Message => self.outline.answer.has_message = byte == b'"',
            // Its members' names are watched too.
            Role::Params | Role::Meta => self.watch(false, byte),
            Role::Other => {}
        }
    }

    /// Watches the names of the members of this value, if it is an object. It starts with `byte`.
    fn watch(&mut self, in_error: bool, byte: u8) {
        if byte == b'{' {
            self.in_error = in_error;
            self.watched = self.nesting.depth + 1;
        }
    }

    /// Returns the kind of this member of the outermost object. Its value starts with `byte`.
    fn member(&mut self, role: Role, byte: u8) -> MemberKind {
        let ResponseOutline { result, error, .. } = &self.outline.answer;
        match (if role == Role::Result { result } else { error }, byte) {
            (MemberKind::Absent, b'n') => {}
            (MemberKind::Absent | MemberKind::Value, byte) if byte != b'n' => return MemberKind::Value,
            _ => return MemberKind::Several,
        }
        let (cut, start) = if self.last_end == 0 {
            (Cut::First(role), self.name_from)
        } else {
            (Cut::AfterAnother(role), self.last_end)
        };
        self.cut = cut;
        self.place_of(role).start = start;
        MemberKind::Null
    }

    fn place_of(&mut self, role: Role) -> &mut Range<u64> {
        let places = self.outline.answer.places();
        if role == Role::Result { &mut places.result } else { &mut places.error }
    }

    /// Ends the range to remove of a `null` member.
    fn end_cut(&mut self, role: Role, end: u64) {
        self.place_of(role).end = end;
    }

    /// Begins a member's name at its opening quote.
    #[inline]
    fn begin_name(&mut self, bytes: &[u8], at: &mut usize) -> ScanState {
        self.in_name = true;
        self.has_escape = false;
        if self.nesting.depth == self.watched {
            self.kept_from = Some(self.place(*at));
        }
        *at += 1;
        if skip_short(bytes, at) { self.end_string(bytes, at) } else { ScanState::Text }
    }

    /// Ends a string before `at`.
    #[inline]
    fn end_string(&mut self, bytes: &[u8], at: &mut usize) -> ScanState {
        if !self.in_name {
            return self.end_value(bytes, *at);
        }
        if self.nesting.depth == self.watched {
            self.end_watched_name(bytes, *at);
        }
        if bytes.get(*at) != Some(&b':') {
            return ScanState::Colon;
        }
        *at += 1;
        ScanState::Value
    }

    /// Ends the name of a watched object's member before `at`.
    #[inline(never)]
    fn end_watched_name(&mut self, bytes: &[u8], at: usize) {
        if self.watched == 1 {
            self.name_from = self.kept_from.unwrap_or_default();
            if let Cut::First(role) = self.cut {
                self.end_cut(role, self.name_from);
                self.cut = Cut::None;
            }
        }
        let Some(name) = self.take_kept(bytes, at) else { return };
        let plain;
        let name: &[u8] = if self.has_escape {
            // A name with a lone surrogate cannot be a Rust string, and is none of those below.
            plain = serde_json::from_slice::<String>(&name).unwrap_or_default();
            plain.as_bytes()
        } else {
            name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or_default()
        };
        match (self.watched, name) {
            (1, b"id") => self.next = Role::Id,
            (1, b"method") => self.next = Role::Method,
            (1, b"jsonrpc") => self.next = Role::Version,
            (1, b"result") => self.next = Role::Result,
            (1, b"error") => self.next = Role::Error,
            (2, b"code") if self.in_error => self.next = Role::Code,
            (2, b"message") if self.in_error => self.next = Role::Message,
            (2, _) if self.in_error => {}
            (1, b"params") => {
                self.next = Role::Params;
                self.outline.names_version = false;
            }
            (2, b"_meta") => {
                self.next = Role::Meta;
                self.outline.names_version = false;
            }
            (3, name) if name == PROTOCOL_VERSION.as_bytes() => self.outline.names_version = true,
            _ => {}
        }
    }

    /// Closes the innermost object or array at its closing bracket.
    #[inline]
    fn close(&mut self, bytes: &[u8], at: &mut usize) -> ScanState {
        *at += 1;
        self.nesting.close();
        self.watched = self.watched.min(self.nesting.depth);
        self.end_value(bytes, *at)
    }

    /// Ends a value before `at`.
    #[inline]
    fn end_value(&mut self, bytes: &[u8], at: usize) -> ScanState {
        if self.nesting.depth > 1 { ScanState::After } else { self.end_outer_value(bytes, at) }
    }

    /// Ends the outermost value, or an element or member of it, before `at`.
    #[inline(never)]
    fn end_outer_value(&mut self, bytes: &[u8], at: usize) -> ScanState {
        if self.nesting.depth == 0 {
            self.outline.value.end = self.place(at);
            return ScanState::End;
        }
        let role = mem::replace(&mut self.keeping, Role::Other);
        if role != Role::Other {
            self.end_kept(role, bytes, at);
        }
        if self.nesting.depth == 1 {
            self.last_end = self.place(at);
            match self.cut {
                Cut::None => {}
                Cut::AfterAnother(role) => {
                    self.end_cut(role, self.last_end);
                    self.cut = Cut::None;
                }
                // The range grows if another member follows.
                Cut::First(role) => self.end_cut(role, self.last_end),
            }
        }
        ScanState::After
    }

    /// Ends a kept value before `at`.
    #[inline]
    fn end_kept(&mut self, role: Role, bytes: &[u8], at: usize) {
        let range = self.kept_from.unwrap_or_default()..self.place(at);
        let text = self.take_kept(bytes, at).map(|text| ShortText::from_slice(&text));
        match (role, text.as_deref()) {
            (Role::Version, text) => {
                self.outline.answer.version = match text {
                    Some(br#""2.0""#) => Version::Two,
                    Some(b"null") => Version::Null,
                    Some(text) if is_two_with_escapes(text) => Version::Two,
                    _ => Version::Other,
                };
                if self.outline.answer.version == Version::Null {
                    self.outline.answer.places().version = range;
                }
            }
            (Role::Id, _) => self.outline.id = Some(KeptText { range, is_string: self.is_kept_string, text }),
            _ => self.outline.method = Some(KeptText { range, is_string: self.is_kept_string, text }),
        }
    }

    /// Keeps this piece's part of an unfinished name or value.
    #[cold]
    fn keep(&mut self, bytes: &[u8], start: u64) {
        let here = self.here(bytes, start, bytes.len());
        if self.kept.len() + here.len() <= MAX_KEPT_BYTES {
            self.kept.extend_from_slice(here);
        } else {
            self.is_kept_whole = false;
        }
    }

    /// Returns the name or value that ends before `at`; `None` if it is over the limit.
    fn take_kept<'a>(&mut self, bytes: &'a [u8], at: usize) -> Option<Cow<'a, [u8]>> {
        let start = self.kept_from.take()?;
        let here = self.here(bytes, start, at);
        let is_whole = mem::replace(&mut self.is_kept_whole, true) && self.kept.len() + here.len() <= MAX_KEPT_BYTES;
        if self.kept.is_empty() {
            return is_whole.then_some(Cow::Borrowed(here));
        }
        let mut kept = mem::take(&mut self.kept);
        kept.extend_from_slice(here);
        is_whole.then_some(Cow::Owned(kept))
    }

    /// Returns the part of this piece from `start`, an offset in the text, or from the start of the piece if that is
    /// later.
    fn here<'a>(&self, bytes: &'a [u8], start: u64, end: usize) -> &'a [u8] {
        let start = usize::try_from(start.saturating_sub(self.offset)).unwrap_or(end);
        bytes.get(start..end).unwrap_or_default()
    }

    /// Reads on in a string: to its end, to an escape or character that the end of the piece cuts, or to the end of the
    /// piece.
    #[inline]
    fn text(&mut self, bytes: &[u8], at: &mut usize) -> ScanState {
        let mut after_escape = false;
        loop {
            let start = *at;
            let is_ascii = if after_escape { skip_escapes(bytes, at) } else { skip_plain(bytes, at) };
            if !is_ascii && *at > self.checked {
                let state = self.check_utf8(bytes, start, *at);
                if state != ScanState::Text {
                    // Only the end of the piece cuts a character.
                    *at = bytes.len();
                    return state;
                }
            }
            match bytes.get(*at) {
                None => return ScanState::Text,
                Some(b'"') => {
                    *at += 1;
                    return self.end_string(bytes, at);
                }
                Some(b'\\') => {
                    self.has_escape = true;
                    *at += 1;
                    if !bytes.get(*at).is_some_and(|next| is_simple_escape(*next)) {
                        return ScanState::Escape;
                    }
                    *at += 1;
                    after_escape = true;
                }
                Some(0..0x20) => return self.wrong(*at, Expected::NoControl),
                Some(_) => after_escape = false,
            }
        }
    }

    /// Reads the byte after a backslash.
    fn escape(&mut self, byte: u8, at: &mut usize) -> ScanState {
        let state = match byte {
            simple if is_simple_escape(simple) => ScanState::Text,
            b'u' => {
                self.digits = 4;
                ScanState::Digits
            }
            _ => return self.wrong(*at, Expected::Escape),
        };
        *at += 1;
        state
    }

    /// Reads a digit of an escape.
    fn hex_digit(&mut self, byte: u8, at: &mut usize) -> ScanState {
        if !byte.is_ascii_hexdigit() {
            return self.wrong(*at, Expected::HexDigit);
        }
        *at += 1;
        self.digits -= 1;
        if self.digits == 0 { ScanState::Text } else { ScanState::Digits }
    }

    /// Checks a run of a string, from `at` to `end`. Checks the rest of the piece with it, as that costs less than a
    /// check of each run. If the end of the piece cuts the last character of the run, keeps the bytes of that
    /// character.
    #[inline(never)]
    fn check_utf8(&mut self, bytes: &[u8], at: usize, end: usize) -> ScanState {
        let from = at.max(self.checked);
        let Err(error) = simdutf8::compat::from_utf8(bytes.get(from..).unwrap_or_default()) else {
            self.checked = bytes.len();
            return ScanState::Text;
        };
        self.checked = from + error.valid_up_to();
        if self.checked >= end {
            return ScanState::Text;
        }
        if error.error_len().is_some() {
            return self.fail(JsonFault::NotUtf8 { at: self.place(self.checked) });
        }
        self.character_len = 0;
        let mut at = self.checked;
        for byte in bytes.get(at..).unwrap_or_default() {
            self.character(*byte, &mut at);
        }
        ScanState::Character
    }

    /// Reads the next byte of a cut character.
    #[cold]
    fn character(&mut self, byte: u8, at: &mut usize) -> ScanState {
        // An incomplete character has at most three bytes.
        if let Some(next) = self.character.get_mut(self.character_len) {
            *next = byte;
        }
        self.character_len += 1;
        *at += 1;
        match std::str::from_utf8(self.character.get(..self.character_len).unwrap_or_default()) {
            Ok(_) => ScanState::Text,
            Err(error) if error.error_len().is_none() => ScanState::Character,
            Err(_) => self.fail(JsonFault::NotUtf8 { at: self.place(*at) - self.character_len as u64 }),
        }
    }

    /// Returns the offset in the text of `at`, an index into the piece.
    fn place(&self, at: usize) -> u64 {
        self.offset + at as u64
    }

    #[cold]
    fn wrong(&mut self, at: usize, expected: Expected) -> ScanState {
        self.fail(JsonFault::Syntax { at: self.place(at), expected })
    }

    #[cold]
    fn fail(&mut self, fault: JsonFault) -> ScanState {
        self.fault = Some(fault);
        ScanState::Broken
    }
}

/// The position in the grammar. It has no fields, as it is passed on for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    /// Before everything, where a byte order mark may be.
    Mark,
    /// After the first byte of the mark.
    Mark1,
    /// After the second.
    Mark2,
    /// Before the outermost value.
    Start,
    /// Before a value.
    Value,
    /// After the bracket that opens an array.
    FirstElement,
    /// After the brace that opens an object.
    FirstName,
    /// After the comma in an object.
    Name,
    /// After a member's name.
    Colon,
    /// After a value inside another.
    After,
    /// In a string.
    Text,
    /// After a backslash.
    Escape,
    /// In the hexadecimal digits of an escape.
    Digits,
    /// In a character cut by the end of a piece.
    Character,
    /// In a number, after its minus.
    Minus,
    /// After the zero that no digit can follow.
    Zero,
    /// After a digit before the point.
    Integer,
    Point,
    /// After a digit after the point.
    Fraction,
    E,
    /// After the sign of the exponent.
    Sign,
    /// After a digit of the exponent.
    Exponent,
    /// In `true`, `false` or `null`.
    Word,
    /// After the outermost value.
    End,
    /// After a fault.
    Broken,
}

/// The role of a value, by the name of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Id,
    Method,
    Params,
    /// The `_meta` of the parameters.
    Meta,
    /// `jsonrpc`.
    Version,
    Result,
    Error,
    /// `code` and `message` of the error.
    Code,
    Message,
    Other,
}

/// The range to remove of a `null` member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    /// From the start of this member, the first, to the start of the next one's name.
    First(Role),
    /// From the end of the value before it.
    AfterAnother(Role),
}

/// True if a value of `jsonrpc` is "2.0" written with escapes, which is rare.
#[cold]
fn is_two_with_escapes(text: &[u8]) -> bool {
    text.contains(&b'\\') && serde_json::from_slice::<String>(text).is_ok_and(|text| text == "2.0")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        internals::checks::{agrees, scan},
        wire::{
            message::{Kind, Message, Parsed},
            revision::Era,
        },
    };

    /// Scans a text. The result must be the same at every cut into two, and byte by byte.
    fn at_every_cut(text: &[u8]) -> Result<Outline, JsonFault> {
        let whole = scan([text]);
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(scan([head, tail]), whole, "{:?} cut at {cut}", String::from_utf8_lossy(text));
        }
        assert_eq!(scan(text.chunks(1)), whole, "{:?} byte by byte", String::from_utf8_lossy(text));
        whole
    }

    fn outline(text: &str) -> Outline {
        at_every_cut(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    /// Returns the outline of a text in words.
    fn told(result: Result<Outline, JsonFault>) -> Vec<String> {
        let outline = match result {
            Ok(outline) => outline,
            Err(fault) => return vec![fault.to_string()],
        };
        let kept = |name: &str, kept: Option<KeptText>| {
            kept.map(|kept| format!("{name} {}", String::from_utf8_lossy(&kept.text.unwrap())))
        };
        let flag = |is_set: bool, name: &str| is_set.then(|| name.to_owned());
        let seen = [
            Some(format!("{:?}", outline.shape).to_lowercase()),
            kept("id", outline.id),
            kept("method", outline.method),
            flag(outline.answer.is_any(), "answer"),
            flag(outline.names_version, "version"),
            flag(outline.line_breaks, "line breaks"),
        ];
        seen.into_iter().flatten().collect()
    }

    #[test]
    fn vectors_hold_at_every_cut() {
        for case in crate::vectors::read("json") {
            let result = at_every_cut(&case.input);
            agrees(&case.input, &result);
            assert_eq!(told(result), case.expected, "{}", case.name);
        }
    }

    #[test]
    fn valid_json_examples_are_accepted() {
        for text in [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1",
            "-1",
            "10",
            "0.0",
            "-0.10",
            "1e1",
            "1E+01",
            "0e0",
            "1.5e-10",
            "\"\"",
            "1e999999",
            "123456789012345678901234567890",
            "[]",
            "{}",
            "[[]]",
            "[{}]",
            "{\"\":[]}",
            "[1,2]",
            "[null,true]",
            "{\"a\":1,\"a\":2}",
            "{\"a\":{\"b\":[]},\"c\":[{}]}",
            " \t\r\n[ \t\r\n1 \t\r\n,\n2 ]\n ",
            "{ \"a\" : 1 , \"b\" : 2 }",
            r#""\"\\\/\b\f\n\r\t\u0000\uFfFf""#,
            r#""\ud800""#,
            r#""\udc00\ud800\u""#.replace("\\u\"", "\"").as_str(),
            "\"\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\"",
            "\"\u{2028}\u{feff}\"",
            "\u{feff}1",
            "\u{feff} 1",
            "\"[{,:}]\"",
            "{\"\\u0061\\\"\":\"\\\\\"}",
        ] {
            let result = at_every_cut(text.as_bytes());
            assert!(result.is_ok(), "{text:?}: {result:?}");
            agrees(text.as_bytes(), &result);
        }
    }

    #[test]
    fn json_syntax_errors_are_reported_with_their_position() {
        use Expected::*;
        let syntax = |at, expected| JsonFault::Syntax { at, expected };
        for (text, fault) in [
            (&b"x"[..], syntax(0, Value)),
            (b" ]", syntax(1, Value)),
            (b"\0", syntax(0, Value)),
            (b"\x0C1", syntax(0, Value)),
            (b"+1", syntax(0, Value)),
            (b".5", syntax(0, Value)),
            (b"'a'", syntax(0, Value)),
            (b"NaN", syntax(0, Value)),
            (b"/**/1", syntax(0, Value)),
            (b"\xC2\xA01", syntax(0, Value)),
            (b"\xEF\xBB1", syntax(0, Value)),
            (b"\xEF\xBB\xBF\xEF\xBB\xBF1", syntax(3, Value)),
            (b"[,1]", syntax(1, Value)),
            (b"[1,]", syntax(3, Value)),
            (b"[1,,2]", syntax(3, Value)),
            (b"{\"a\":}", syntax(5, Value)),
            (b"[}", syntax(1, Value)),
            (b"[1 2]", syntax(3, CommaOrBracket)),
            (b"[1}", syntax(2, CommaOrBracket)),
            (b"[1:2]", syntax(2, CommaOrBracket)),
            (b"[\"\x7f\"\x7f]", syntax(4, CommaOrBracket)),
            (b"{\"a\":1 \"b\"}", syntax(7, CommaOrBrace)),
            (b"{\"a\":1]", syntax(6, CommaOrBrace)),
            (b"{]", syntax(1, NameOrEnd)),
            (b"{1:2}", syntax(1, NameOrEnd)),
            (b"{,", syntax(1, NameOrEnd)),
            (b"{\"a\":1,}", syntax(7, Name)),
            (b"{\"a\":1 , ,", syntax(9, Name)),
            (b"{\"a\"}", syntax(4, Colon)),
            (b"{\"a\" 1}", syntax(5, Colon)),
            (b"{\"a\",1}", syntax(4, Colon)),
            (b"01", syntax(1, Nothing)),
            (b"1 1", syntax(2, Nothing)),
            (b"1x", syntax(1, Nothing)),
            (b"{}}", syntax(2, Nothing)),
            (b"\"\",", syntax(2, Nothing)),
            (b"1\0", syntax(1, Nothing)),
            (b"[-]", syntax(2, Digit)),
            (b"--1", syntax(1, Digit)),
            (b"-a", syntax(1, Digit)),
            (b"1.]", syntax(2, Digit)),
            (b"1.e1", syntax(2, Digit)),
            (b"1e,", syntax(2, Digit)),
            (b"1e+-1", syntax(3, Digit)),
            (b"[0x1]", syntax(2, CommaOrBracket)),
            (b"[1.2.3]", syntax(4, CommaOrBracket)),
            (b"[1e2.3]", syntax(4, CommaOrBracket)),
            (b"trux", syntax(3, Word)),
            (b"nul ", syntax(3, Word)),
            (b"[fals]", syntax(5, Word)),
            (b"TRUE", syntax(0, Value)),
            (b"truee", syntax(4, Nothing)),
            (b"\"\\x\"", syntax(2, Escape)),
            (b"\"\\\xE9\"", syntax(2, Escape)),
            (b"\"\\\n\"", syntax(2, Escape)),
            (b"\"\\u00g0\"", syntax(5, HexDigit)),
            (b"\"\\u12\"", syntax(5, HexDigit)),
            (b"\"a\nb\"", syntax(2, NoControl)),
            (b"\"\0\"", syntax(1, NoControl)),
            (b"{\"a\x1f\":1}", syntax(3, NoControl)),
            (
                b"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\t\"",
                syntax(77, NoControl),
            ),
        ] {
            let result = at_every_cut(text);
            assert_eq!(result, Err(fault), "{:?}", String::from_utf8_lossy(text));
            agrees(text, &result);
        }
        assert_eq!(syntax(7, CommaOrBrace).to_string(), "expected a comma or } at byte 7");
    }

    #[test]
    fn invalid_utf8_and_incomplete_json_are_reported() {
        let incomplete = |at| JsonFault::Incomplete { at };
        for (text, fault) in [
            (&b""[..], JsonFault::Empty),
            (b" \n", JsonFault::Empty),
            (b"\xEF\xBB\xBF", JsonFault::Empty),
            (b"\xEF\xBB\xBF ", JsonFault::Empty),
            (b"\"\xff\"", JsonFault::NotUtf8 { at: 1 }),
            (b"\"a\x80\"", JsonFault::NotUtf8 { at: 2 }),
            (b"\"\xC0\x80\"", JsonFault::NotUtf8 { at: 1 }),
            (b"\"\xED\xA0\x80\"", JsonFault::NotUtf8 { at: 1 }),
            (b"\"\xF4\x90\x80\x80\"", JsonFault::NotUtf8 { at: 1 }),
            (b"\"\xE2\x82\"", JsonFault::NotUtf8 { at: 1 }),
            (b"\"\xE2\x82\\n\"", JsonFault::NotUtf8 { at: 1 }),
            (b"{\"\xF0\x9F\x98\":1}", JsonFault::NotUtf8 { at: 2 }),
            (b"[\"\xE2\x82\n", JsonFault::NotUtf8 { at: 2 }),
            (b"\"\n\xff", JsonFault::Syntax { at: 1, expected: Expected::NoControl }),
            (b"[", incomplete(1)),
            (b"{", incomplete(1)),
            (b"[1,", incomplete(3)),
            (b"[1", incomplete(2)),
            (b"{\"a\"", incomplete(4)),
            (b"{\"a\":", incomplete(5)),
            (b"{\"a\":1,", incomplete(7)),
            (b"\"", incomplete(1)),
            (b"\"\\", incomplete(2)),
            (b"\"\\u12", incomplete(5)),
            (b"\"\xE2\x82", incomplete(3)),
            (b"-", incomplete(1)),
            (b"1.", incomplete(2)),
            (b"1e", incomplete(2)),
            (b"1e+", incomplete(3)),
            (b"tru", incomplete(3)),
            (b"\xEF\xBB", incomplete(2)),
        ] {
            let result = at_every_cut(text);
            assert_eq!(result, Err(fault), "{:?}", String::from_utf8_lossy(text));
            agrees(text, &result);
        }
    }

    #[test]
    fn outline_has_the_id_method_and_response_members() {
        let kept = |start, text: &'static str| {
            Some(KeptText {
                range: start..start + text.len() as u64,
                is_string: text.starts_with('"'),
                text: Some(ShortText::from_slice(text.as_bytes())),
            })
        };
        assert_eq!(
            outline("\u{feff} {\"id\" : -1.5 ,\n\"method\":\"a\\u0062\",\"params\":{\"id\":7,\"method\":8}} \n"),
            Outline {
                shape: Shape::Object,
                id: kept(12, "-1.5"),
                method: kept(28, r#""a\u0062""#),
                answer: ResponseOutline::default(),
                names_version: false,
                line_breaks: true,
                value: 4..67,
                length: 69,
            }
        );
        for (text, id, method) in [
            (r#"{"id":1,"id":"2","method":"a","method":null}"#, Some("\"2\""), Some("null")),
            (
                r#"{"\u0069\u0064":1,"m\u0065thod":"p\u0069ng","\ud800":{"\udfff":0}}"#,
                Some("1"),
                Some(r#""p\u0069ng""#),
            ),
            (r#"{"id":{"id":[1,{"id" : 2}]},"Id":3}"#, Some(r#"{"id":[1,{"id" : 2}]}"#), None),
            (r#"{"id":[] ,"result":{"method":"x","id":1}}"#, Some("[]"), None),
            (r#"{"id":"é","method":true}"#, Some("\"é\""), Some("true")),
            (r#"{"x":{"id":1},"y":[{"id":2}],"idx":3,"i":4,"":5}"#, None, None),
            (r#"[{"id":1,"method":"x"}]"#, None, None),
            (r#""id""#, None, None),
        ] {
            let outline = outline(text);
            for (found, expected) in [(outline.id, id), (outline.method, method)] {
                let found = found.map(|kept| {
                    let range = usize::try_from(kept.range.start).unwrap()..usize::try_from(kept.range.end).unwrap();
                    assert_eq!(&kept.text.unwrap()[..], text[range.clone()].as_bytes());
                    text[range].to_owned()
                });
                assert_eq!(found.as_deref(), expected, "{text}");
            }
        }
        assert_eq!(
            [outline("[]").shape, outline("{}").shape, outline(" 1").shape],
            [Shape::Array, Shape::Object, Shape::Other]
        );
        for (text, has_answer) in [
            (r#"{"result":null}"#, true),
            (r#"{"\u0065rror":{},"a":1}"#, true),
            (r#"{"a":{"result":1}}"#, false),
            (r#"[{"result":1}]"#, false),
            (r#"{"results":1,"resul":2,"result\u0000":3}"#, false),
        ] {
            assert_eq!(outline(text).answer.is_any(), has_answer, "{text}");
        }
    }

    #[test]
    fn r81_protocol_version_is_found_only_in_params_meta() {
        let meta = r#"{"_meta":{"progressToken":{},"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
        for (text, names_version) in [
            (format!(r#"{{"params":{meta}}}"#), true),
            (format!(r#"{{"params":{}}}"#, meta.replace('/', "\\/")), true),
            (format!(r#"{{"params":{}}}"#, meta.replace('_', "\\u005f").replace('o', "\\u006F")), true),
            (format!(r#"{{"params":{{"x":{{"_meta":{{}}}},{},"y":{{}}}}}}"#, &meta[1..meta.len() - 1]), true),
            (format!(r#"{{"params":{meta},"params":{{}}}}"#), false),
            (format!(r#"{{"params":{{}},"params":{meta}}}"#), true),
            (format!(r#"{{"params":{meta},"params":1}}"#), false),
            (format!(r#"{{"params":{{{},"_meta":{{}}}}}}"#, &meta[1..meta.len() - 1]), false),
            (format!(r#"{{"params":{{{},"_meta":[]}}}}"#, &meta[1..meta.len() - 1]), false),
            (format!(r#"{{"params":{{"_meta":[],{}}}}}"#, &meta[1..meta.len() - 1]), true),
            (format!(r#"{{"params":[{meta}]}}"#), false),
            (format!(r#"{{"params":{{"_meta":[{meta}]}}}}"#), false),
            (format!(r#"{{"params":{{"_meta":{{"a":{meta}}}}}}}"#), false),
            (format!(r#"{{"params":{{"a":{meta}}}}}"#), false),
            (format!(r#"{{"result":{meta}}}"#), false),
            (format!(r#"{{"params":{{}},"x":{{"_meta":{meta}}}}}"#), false),
            (format!(r#"[{{"params":{meta}}}]"#), false),
            (meta.to_owned(), false),
        ] {
            assert_eq!(outline(&text).names_version, names_version, "{text}");
        }
    }

    #[test]
    fn r2_only_line_breaks_between_tokens_are_reported() {
        for (text, line_breaks) in [
            ("\n{}\r\n", false),
            ("{\n}", true),
            ("{\"a\"\r:1}", true),
            (r#"{"a":"\n"}"#, false),
            ("[1\n]", true),
            ("\n1\n", false),
        ] {
            assert_eq!(outline(text).line_breaks, line_breaks, "{text:?}");
        }
    }

    #[test]
    fn long_ids_are_found_but_not_kept() {
        for length in [MAX_KEPT_BYTES - 2, MAX_KEPT_BYTES - 1, 3 * PIECE] {
            let text = format!(r#"{{"id":"{}","method":"{}"}}"#, "é".repeat(length / 2) + &"a".repeat(length % 2), "m");
            for chunk in [1, 7, 1000, text.len()] {
                let outline = scan(text.as_bytes().chunks(chunk)).unwrap();
                let id = outline.id.unwrap();
                assert_eq!(id.range, 6..8 + length as u64);
                assert_eq!(id.text.is_some(), length + 2 <= MAX_KEPT_BYTES, "{length}");
                assert!(id.text.is_none_or(|id| id[..] == text.as_bytes()[6..8 + length]));
                assert_eq!(&outline.method.unwrap().text.unwrap()[..], b"\"m\"");
            }
        }
        let name = "a".repeat(2 * PIECE);
        let text = format!(r#"{{"{name}":1,"{name}id":2,"id":3}}"#);
        for chunk in [1, 1000, text.len()] {
            assert_eq!(scan(text.as_bytes().chunks(chunk)).unwrap().id.unwrap().text.unwrap().as_slice(), b"3");
        }
    }

    #[test]
    fn id_is_known_before_the_message_ends() {
        let mut scanner = Scanner::new();
        scanner.feed(br#"{"jsonrpc":"2.0","id":7"#).unwrap();
        assert_eq!(scanner.id(), None);
        scanner.feed(br#","params":{"id":8},"id":"#).unwrap();
        assert_eq!(scanner.id().unwrap().text.as_ref().unwrap().as_slice(), b"7");
        scanner.feed(b"}").unwrap_err();
        assert_eq!(scanner.id().unwrap().text.as_ref().unwrap().as_slice(), b"7");
    }

    #[test]
    fn nesting_has_a_limit() {
        let deepest = MAX_DEPTH as usize;
        let text = "[".repeat(deepest) + &"]".repeat(deepest);
        assert!(scan([text.as_bytes()]).is_ok());
        assert!(scan(text.as_bytes().chunks(999)).is_ok());
        let text = "[".repeat(deepest + 1);
        assert_eq!(scan([text.as_bytes()]), Err(JsonFault::TooDeep { at: u64::from(MAX_DEPTH) }));
        let text = format!(r#"{{"params":{}{},"id":1}}"#, r#"{"a":["#.repeat(999), "]}".repeat(999));
        assert_eq!(scan([text.as_bytes()]).unwrap().id.unwrap().text.unwrap().as_slice(), b"1");
        // Each level closes as it opened, at every depth.
        for depth in [1, 63, 64, 65, 127, 128, 129, 200] {
            let (open, close): (String, String) = (0..depth)
                .map(|level: usize| if level.count_ones().is_multiple_of(2) { ("[", "]") } else { ("{\"\":", "}") })
                .collect::<Vec<_>>()
                .into_iter()
                .unzip();
            let close: String = close.chars().rev().collect();
            agrees(format!("{open}1{close}").as_bytes(), &Ok(scan([format!("{open}1{close}").as_bytes()]).unwrap()));
            let wrong = close.replacen(']', "}", 1);
            assert!(scan([format!("{open}1{wrong}").as_bytes()]).is_err(), "{depth}");
        }
    }

    #[test]
    fn special_bytes_are_found_at_every_position_of_long_strings() {
        // Each kind of byte at each position of the wide steps.
        for length in (0..160).chain(PIECE - 4..PIECE + 4) {
            for (special, after) in [("\\\"", 0), ("é", 0), ("😀", 0), ("\\u00e9", 0), ("\u{1}", 1), ("\u{1f}", 1)] {
                let text = format!("\"{}{special}{}\"", "x".repeat(length), "~é".repeat(length % 70));
                let result = scan([text.as_bytes()]);
                agrees(text.as_bytes(), &result);
                assert_eq!(result.is_ok(), after == 0);
            }
            let mut text = format!("\"{}\"", "x".repeat(length + 1)).into_bytes();
            text[length + 1] = 0x80;
            assert_eq!(scan([&*text]), Err(JsonFault::NotUtf8 { at: length as u64 + 1 }));
        }
    }

    /// JSON with every kind of spelling.
    fn json() -> impl Strategy<Value = String> {
        let space = || prop_oneof![4 => Just(""), 1 => Just(" "), 1 => "[ \t\r\n]{1,12}".prop_map(|s| &*s.leak())];
        let string = || {
            let part = prop_oneof![
                "[a-z]{0,12}",
                "[ -!#-\\[\\]-~]{0,90}",
                "\\PC{0,4}".prop_map(|text| text.replace(['"', '\\'], "")),
                Just("é€😀".to_owned()),
                r#"\\["\\/bfnrt]"#,
                r"\\u[0-9a-fA-F]{4}",
            ];
            prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
        };
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
            string(),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let element = (space(), inner.clone(), space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
            let member = (space(), string(), space(), space(), inner, space())
                .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
            prop_oneof![
                prop::collection::vec(element, 1..4).prop_map(|elements| format!("[{}]", elements.join(","))),
                prop::collection::vec(member, 1..4).prop_map(|members| format!("{{{}}}", members.join(","))),
                space().prop_map(|space| format!("[{space}]")),
                space().prop_map(|space| format!("{{{space}}}")),
            ]
        })
    }

    /// An object with the members of a message, in any order and number.
    fn message() -> impl Strategy<Value = String> {
        let names = prop::sample::select(vec![
            "id",
            "method",
            "params",
            "result",
            "error",
            "_meta",
            "jsonrpc",
            "io.modelcontextprotocol/protocolVersion",
            "i",
            "",
        ]);
        let name = (names, any::<u64>()).prop_map(|(name, escaped)| {
            let spelled = name.chars().zip(0..).map(|(letter, index)| match escaped.rotate_right(index) & 15 {
                0 if escaped.is_multiple_of(4) => format!("\\u{:04x}", u32::from(letter)),
                1 if letter == '/' => "\\/".to_owned(),
                _ => letter.to_string(),
            });
            format!("\"{}\"", spelled.collect::<String>())
        });
        let space = || prop::sample::select(vec!["", "", "", " ", "\n", "  \r\n\t "]);
        let leaf = prop_oneof![
            Just("1".to_owned()),
            Just("\"tools/call\"".to_owned()),
            Just(r#""server\/discover""#.to_owned()),
            Just("null".to_owned()),
            Just(r#""\ud800é""#.to_owned()),
            Just("[]".to_owned()),
            Just("{}".to_owned()),
            Just(r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":""}}"#.to_owned()),
            json(),
        ];
        let object = move |inner: BoxedStrategy<String>, most: usize| {
            let member = (space(), name.clone(), space(), space(), inner, space())
                .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
            prop::collection::vec(member, 1..most).prop_map(|members| format!("{{{}}}", members.join(","))).boxed()
        };
        let third = prop_oneof![leaf.clone(), object(leaf.clone().boxed(), 4)].boxed();
        let second = prop_oneof![leaf, object(third, 4)].boxed();
        object(second, 7)
    }

    /// Returns kind, era, id and method of the message with this outline.
    fn read(outline: &Outline) -> Option<(Kind, Era, Option<Bytes>, String)> {
        let id = outline.id.as_ref().map(|id| Bytes::copy_from_slice(id.text.as_ref().unwrap()));
        if id.as_ref().is_some_and(|id| !matches!(id[0], b'"' | b'-' | b'0'..=b'9' | b'n')) {
            return None;
        }
        let method = match &outline.method {
            None => String::new(),
            Some(method) if !method.is_string => return None,
            Some(method) => {
                let text = std::str::from_utf8(method.text.as_ref().unwrap()).unwrap();
                serde_json::from_str(text).unwrap_or_else(|_| text[1..text.len() - 1].to_owned())
            }
        };
        let kind = match (&outline.method, &id) {
            (Some(_), Some(_)) => Kind::Request,
            (Some(_), None) => Kind::Notification,
            _ if outline.answer.is_any() => Kind::Response,
            _ => return None,
        };
        let is_modern = method == "server/discover" || kind != Kind::Response && outline.names_version;
        Some((kind, if is_modern { Era::Modern } else { Era::Legacy }, id, method))
    }

    const TELLING: &[u8] = b"\"\\,:[]{}01-+.eEtrufalsn/ \n\t\0\x7f\x80\xBF\xC3\xE2\xEF\xF0\xFF";

    /// Changes a text; each place is in 65536ths of its length.
    fn changed(text: &str, changes: &[(u16, u8, u8)]) -> Vec<u8> {
        let mut text = text.as_bytes().to_vec();
        for &(place, kind, byte) in changes {
            let at = text.len() * usize::from(place) / 65536;
            let byte = if byte < 128 { TELLING[usize::from(byte) % TELLING.len()] } else { byte };
            match kind % 4 {
                0 if at < text.len() => text[at] = byte,
                1 if at < text.len() => drop(text.remove(at)),
                2 => text.insert(at, byte),
                3 if byte < 80 => text.truncate(at),
                _ => {}
            }
        }
        text
    }

    proptest! {
        #[test]
        fn valid_json_is_accepted_like_serde_json(text in prop_oneof![json(), message()], ends in "[ \t\r\n]{0,2}", mark: bool) {
            let text = format!("{}{ends}{text}{ends}", if mark { "\u{feff}" } else { "" });
            let result = at_every_cut(text.as_bytes());
            prop_assert!(result.is_ok(), "{}: {:?}", text, result);
            agrees(text.as_bytes(), &result);
        }

        #[test]
        fn mutated_json_is_judged_like_serde_json(
            text in prop_oneof![json(), message()],
            changes in prop::collection::vec(any::<(u16, u8, u8)>(), 1..4),
        ) {
            let text = changed(&text, &changes);
            agrees(&text, &at_every_cut(&text));
        }

        #[test]
        fn arbitrary_bytes_are_judged_like_serde_json(text in prop::collection::vec(any::<u8>(), 0..40)) {
            agrees(&text, &at_every_cut(&text));
            let text = [b"\"", &*text, b"\""].concat();
            agrees(&text, &at_every_cut(&text));
        }

        #[test]
        fn scanner_agrees_with_the_message_parser(text in message()) {
            let found = read(&at_every_cut(text.as_bytes()).unwrap());
            let expected = match Message::parse(&Bytes::from(text.clone())) {
                Ok(Parsed::One(one)) => {
                    let id = one.id().map(|id| Bytes::from(id.as_str().to_owned()));
                    Some((one.kind(), one.era(), id, one.method().to_owned()))
                }
                _ => None,
            };
            prop_assert_eq!(found, expected, "{}", text);
        }

        #[test]
        fn scan_result_does_not_depend_on_chunk_sizes(
            texts in prop::collection::vec(message(), 1..5),
            repeat in 1..200_usize,
            sizes in prop::collection::vec(1..3000_usize, 1..20),
        ) {
            let text = format!(r#"{{"params":[{}],"id":1,"result":{}}}"#, vec![texts.join(","); repeat].join(",\n"), texts[0]);
            let mut rest = text.as_bytes();
            let mut chunks = Vec::new();
            for size in sizes.iter().cycle() {
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                chunks.push(chunk);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let result = scan(chunks);
            prop_assert_eq!(&result, &scan([text.as_bytes()]));
            agrees(text.as_bytes(), &result);
        }
    }
}
