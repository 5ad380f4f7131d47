//! The bytes of one message while they arrive: in memory while they are few, in an unlinked temporary file when they are
//! many, and read once by the scanner as they pass.
//!
//! Rule: what is held in memory is bounded whatever a peer sends. A payload of its own size may be in memory up to a limit,
//! and all of them together up to another; what grows beyond goes to the file, which nobody else can open and which is
//! gone with this process.

use std::{
    fs::File,
    io::{self, Write as _},
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::scan::{Fault, Kept, Outline, Scanner};

/// Up to this size a payload is in memory whatever else is.
const SMALL: usize = 64 << 10;
/// Beyond this size it is not, however much room there is.
const LARGE: usize = 1 << 20;
/// What all payloads between the two may take together.
const TOGETHER: usize = 8 << 20;
/// What is gathered before it is written to the file, and read from it at once.
const BLOCK: usize = 64 << 10;

/// Where payloads are kept, for all of a bridge's.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
    in_memory: AtomicUsize,
}

/// Why a payload cannot be kept.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Unkept {
    /// It is larger than its reader takes.
    #[error("longer than the limit of {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// It is too large for memory, and cannot be put into a file.
    #[error("too large for memory, and cannot be put into a temporary file ({0})")]
    NoFile(io::ErrorKind),
}

/// A whole payload.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Memory(Bytes),
    File(Spooled),
}

/// A payload in a file, or a part of it.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    file: Arc<File>,
    range: Range<u64>,
    /// What stands in the place of some bytes.
    patch: Option<(Range<u64>, Bytes)>,
}

/// A payload that has come to its end, and what the scanner has seen of it.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) payload: Payload,
    pub(crate) outline: Result<Outline, Fault>,
}

impl Gathered {
    /// Whether there is nothing but white space.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.outline, Err(Fault::Empty))
    }

    /// The bytes, if they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Memory(bytes) => Some(bytes),
            Payload::File(_) => None,
        }
    }

    /// Bytes in all.
    pub(crate) fn length(&self) -> u64 {
        match &self.payload {
            Payload::Memory(bytes) => bytes.len() as u64,
            Payload::File(spooled) => spooled.length(),
        }
    }
}

/// Gathers one payload after the other, piece by piece.
#[derive(Debug)]
pub(crate) struct Gatherer {
    /// None where all of it is to be in memory.
    storage: Option<Arc<Storage>>,
    limit: u64,
    length: u64,
    held: Held,
    scanner: Scanner,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// A slice of what was received.
    One(Bytes),
    Many(BytesMut, Option<Share>),
    File(File, BytesMut),
}

/// A part of what payloads may take together; given back when it is dropped.
#[derive(Debug)]
struct Share {
    storage: Arc<Storage>,
    bytes: usize,
}

impl Storage {
    /// Storage that puts into this folder what is too large for memory.
    pub(crate) fn new(folder: PathBuf) -> Arc<Self> {
        Arc::new(Self { folder, in_memory: AtomicUsize::new(0) })
    }

    /// Storage whose memory is used up: what is over 64 KiB, and comes in pieces, is in a file.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn used_up() -> Arc<Self> {
        Arc::new(Self { folder: std::env::temp_dir(), in_memory: AtomicUsize::new(TOGETHER) })
    }

    /// Whether a payload of this length may be in memory. From a certain length on it then has its share of what there is.
    fn has_room(self: &Arc<Self>, share: &mut Option<Share>, length: usize) -> bool {
        length <= SMALL
            || length <= LARGE
                && share.get_or_insert_with(|| Share { storage: Arc::clone(self), bytes: 0 }).grow(length)
    }
}

impl Share {
    /// Makes it this large. False if there is not so much left.
    fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if self.storage.in_memory.fetch_add(more, Ordering::AcqRel) + more > TOGETHER {
            self.storage.in_memory.fetch_sub(more, Ordering::AcqRel);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.storage.in_memory.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Gatherer {
    /// A gatherer of payloads of at most `limit` bytes.
    pub(crate) fn new(limit: u64, storage: &Arc<Storage>) -> Self {
        Self { storage: Some(Arc::clone(storage)), ..Self::in_memory(limit) }
    }

    /// A gatherer of payloads of at most `limit` bytes, which stay in memory.
    pub(crate) fn in_memory(limit: u64) -> Self {
        Self { storage: None, limit, length: 0, held: Held::Nothing, scanner: Scanner::new() }
    }

    /// Takes one more piece.
    ///
    /// # Errors
    /// It would pass the limit, or there is no place for it; what was gathered is still there, and can be taken.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<(), Unkept> {
        // What is wrong with it is told at the end. The id is of use even if the rest is not.
        let _ = self.scanner.feed(&piece);
        let length = self.length + piece.len() as u64;
        if length > self.limit {
            return Err(Unkept::TooLong { limit: self.limit });
        }
        self.held = match std::mem::take(&mut self.held) {
            Held::Nothing => Held::One(piece),
            Held::One(first) => {
                let many = BytesMut::with_capacity((first.len() + piece.len()) * 2);
                self.add(Held::Many(many, None), &first).and_then(|held| self.add(held, &piece))?
            }
            held => self.add(held, &piece)?,
        };
        self.length = length;
        Ok(())
    }

    /// Bytes of the payload up to here.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The id of the message up to here, also of one that is given up, in JSON.
    pub(crate) fn id(&self) -> Option<Bytes> {
        self.scanner.id().and_then(|id| id.text.as_deref()).map(Bytes::copy_from_slice)
    }

    /// The payload; the next piece begins another.
    ///
    /// # Errors
    /// The rest of it cannot be put into its file.
    pub(crate) fn take(&mut self) -> Result<Gathered, Unkept> {
        self.length = 0;
        let outline = self.scanner.finish();
        let payload = match std::mem::take(&mut self.held) {
            Held::Nothing => Payload::Memory(Bytes::new()),
            Held::One(piece) => Payload::Memory(piece),
            Held::Many(many, None) => Payload::Memory(many.freeze()),
            Held::Many(bytes, Some(share)) => Payload::Memory(Bytes::from_owner(Owned { bytes, _share: share })),
            Held::File(mut file, rest) => {
                file.write_all(&rest).map_err(|error| no_file(&error))?;
                let length = file.metadata().map_err(|error| no_file(&error))?.len();
                Payload::File(Spooled { file: Arc::new(file), range: 0..length, patch: None })
            }
        };
        Ok(Gathered { payload, outline })
    }

    /// Gives up what was gathered.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
        self.held = Held::Nothing;
        self.scanner.reset();
    }

    fn add(&self, held: Held, piece: &Bytes) -> Result<Held, Unkept> {
        match held {
            Held::Many(mut many, mut share) => {
                let length = many.len() + piece.len();
                let storage = self.storage.as_ref().filter(|storage| !storage.has_room(&mut share, length));
                let Some(storage) = storage else {
                    many.extend_from_slice(piece);
                    return Ok(Held::Many(many, share));
                };
                let mut file = tempfile::tempfile_in(&storage.folder).map_err(|error| no_file(&error))?;
                file.write_all(&many).map_err(|error| no_file(&error))?;
                drop((many, share));
                self.add(Held::File(file, BytesMut::with_capacity(BLOCK)), piece)
            }
            Held::File(mut file, mut block) => {
                if block.len() + piece.len() > BLOCK {
                    file.write_all(&block).map_err(|error| no_file(&error))?;
                    block.clear();
                }
                if piece.len() > BLOCK {
                    file.write_all(piece).map_err(|error| no_file(&error))?;
                } else {
                    block.extend_from_slice(piece);
                }
                Ok(Held::File(file, block))
            }
            held => Ok(held),
        }
    }
}

/// Bytes with their share.
struct Owned {
    bytes: BytesMut,
    _share: Share,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Payload {
    /// The part of it that is the value, without what stands around it.
    pub(crate) fn part(&self, range: Range<u64>) -> Self {
        match self {
            Self::Memory(bytes) => Self::Memory(slice(bytes, &range)),
            Self::File(spooled) => Self::File(Spooled { range, ..spooled.clone() }),
        }
    }

    /// The JSON of a member of it; `None` if that is longer than the scanner keeps.
    pub(crate) fn text_of(&self, kept: &Kept) -> Option<Bytes> {
        let text = kept.text.as_ref()?;
        Some(match self {
            Self::Memory(bytes) => slice(bytes, &kept.range),
            Self::File(_) => Bytes::copy_from_slice(text),
        })
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let place = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
    let (start, end) = (place(range.start), place(range.end));
    bytes.slice(start..end.max(start))
}

impl Spooled {
    /// Bytes in all.
    pub(crate) fn length(&self) -> u64 {
        let own = self.range.end - self.range.start;
        self.patch.as_ref().map_or(own, |(gone, put)| own - (gone.end - gone.start) + put.len() as u64)
    }

    /// The same with other bytes in the place of some; `range` counts from the start of the part, as it reads now. Where some
    /// have been replaced before, it is among those that stand there since.
    pub(crate) fn patched(&self, range: Range<u64>, with: Bytes) -> Self {
        let range = self.range.start + range.start..self.range.start + range.end;
        let patch = match &self.patch {
            None => (range, with),
            Some((gone, put)) => {
                let place =
                    |at: u64| usize::try_from(at.saturating_sub(gone.start)).unwrap_or(usize::MAX).min(put.len());
                let before = put.slice(..place(range.start));
                (gone.clone(), [before, with, put.slice(place(range.end)..)].concat().into())
            }
        };
        Self { patch: Some(patch), ..self.clone() }
    }

    /// Its bytes, block by block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = io::Result<Bytes>> + use<> {
        let Self { file, range, patch } = self.clone();
        let (before, put, after) = match patch {
            Some((gone, put)) => (range.start..gone.start, put, gone.end..range.end),
            None => (range, Bytes::new(), 0..0),
        };
        let rest = Arc::clone(&file);
        let put = (!put.is_empty()).then_some(Ok(put));
        read(file, before).chain(put).chain(read(rest, after))
    }

    /// All of it, in memory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn load(&self) -> io::Result<Bytes> {
        let mut all = BytesMut::with_capacity(usize::try_from(self.length()).unwrap_or_default());
        for block in self.blocks() {
            all.extend_from_slice(&block?);
        }
        Ok(all.freeze())
    }
}

/// The blocks of a part of a file.
fn read(file: Arc<File>, mut range: Range<u64>) -> impl Iterator<Item = io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(BLOCK).min(BLOCK);
        if length == 0 {
            return None;
        }
        let mut block = BytesMut::zeroed(length);
        Some(match read_at(&file, &mut block, range.start) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                range.start += count as u64;
                block.truncate(count);
                Ok(block.freeze())
            }
            Err(error) => {
                range.start = range.end;
                Err(error)
            }
        })
    })
}

#[cfg(unix)]
fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, block, at)
}

#[cfg(windows)]
fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, block, at)
}

fn no_file(error: &io::Error) -> Unkept {
    Unkept::NoFile(error.kind())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Storage for a test.
    pub(crate) fn storage() -> Arc<Storage> {
        Storage::new(std::env::temp_dir())
    }

    fn text(payload: &Payload) -> Vec<u8> {
        match payload {
            Payload::Memory(bytes) => bytes.to_vec(),
            Payload::File(spooled) => spooled.load().unwrap().to_vec(),
        }
    }

    fn gather(gatherer: &mut Gatherer, text: &[u8], piece: usize) -> Gathered {
        for piece in text.chunks(piece) {
            gatherer.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        gatherer.take().unwrap()
    }

    #[test]
    fn a_payload_is_what_was_pushed_whatever_its_size() {
        let storage = storage();
        let mut gatherer = Gatherer::new(u64::MAX, &storage);
        for size in [0, 1, 100, SMALL - 20, SMALL + 1, LARGE, LARGE + 1, 3 * LARGE + 77] {
            let json = format!(r#"{{"id":7,"result":"{}"}}"#, "x".repeat(size));
            for piece in [1000, 16 << 10, 100_000, usize::MAX] {
                let Gathered { payload, outline } = gather(&mut gatherer, json.as_bytes(), piece);
                assert_eq!(text(&payload), json.as_bytes(), "{size} in pieces of {piece}");
                assert_eq!(outline.unwrap().length, json.len() as u64);
                let is_file = matches!(payload, Payload::File(_));
                assert_eq!(is_file, json.len() > LARGE && piece < json.len(), "{size} in pieces of {piece}");
            }
        }
        assert_eq!(storage.in_memory.load(Ordering::Acquire), 0, "all shares came back");
    }

    #[test]
    fn memory_for_all_has_a_limit() {
        let storage = storage();
        let json = format!("\"{}\"", "x".repeat(LARGE / 2));
        let kept: Vec<_> = (0..TOGETHER / LARGE * 4)
            .map(|_| gather(&mut Gatherer::new(u64::MAX, &storage), json.as_bytes(), 10_000).payload)
            .collect();
        let in_memory = kept.iter().filter(|payload| matches!(payload, Payload::Memory(_))).count();
        assert!((1..=TOGETHER / (LARGE / 2)).contains(&in_memory) && in_memory < kept.len(), "{in_memory}");
        assert!(kept.iter().all(|payload| text(payload) == json.as_bytes()));
        drop(kept);
        assert_eq!(storage.in_memory.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_part_can_be_patched() {
        let text = [b" ".to_vec(), vec![b'a'; 2 * LARGE], b"ID".to_vec(), vec![b'b'; 100]].concat();
        let mut gatherer = Gatherer::new(u64::MAX, &storage());
        let Gathered { payload, outline } = gather(&mut gatherer, &text, 5000);
        assert!(outline.is_err());
        let Payload::File(spooled) = payload.part(1..text.len() as u64 - 1) else { panic!("in memory") };
        let at = 2 * LARGE as u64;
        let patched = spooled.patched(at..at + 2, Bytes::from_static(b"other"));
        let expected = [vec![b'a'; 2 * LARGE], b"other".to_vec(), vec![b'b'; 99]].concat();
        assert_eq!(patched.length(), expected.len() as u64);
        assert!(patched.load().unwrap() == expected);
        // And once more: all of what was put there, or a part of it.
        for (range, with, expected) in
            [(0..5, "an", "an"), (0..1, "An", "Anther"), (5..5, "s", "others"), (4..5, "", "othe")]
        {
            let patched = patched.patched(at + range.start..at + range.end, Bytes::from_static(with.as_bytes()));
            let expected = [vec![b'a'; 2 * LARGE], expected.into(), vec![b'b'; 99]].concat();
            assert_eq!(patched.length(), expected.len() as u64);
            assert!(patched.load().unwrap() == expected);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_an_error_and_the_next_one_is_kept() {
        let mut gatherer = Gatherer::new(10, &storage());
        gatherer.push(Bytes::from_static(b"12345678")).unwrap();
        assert_eq!(gatherer.push(Bytes::from_static(b"901")), Err(Unkept::TooLong { limit: 10 }));
        gatherer.clear();
        assert_eq!(text(&gather(&mut gatherer, b"12", 1).payload), b"12");

        let nowhere = Storage::new("/no/such/folder".into());
        let mut gatherer = Gatherer::new(u64::MAX, &nowhere);
        gatherer.push(Bytes::from(vec![b' '; LARGE])).unwrap();
        assert_eq!(gatherer.push(Bytes::from_static(b"x")), Err(Unkept::NoFile(io::ErrorKind::NotFound)));
        gatherer.clear();
        assert_eq!(text(&gather(&mut gatherer, b"12", 1).payload), b"12");
    }
}
