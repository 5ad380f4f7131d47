//! Stores the bytes of one message as they arrive: a few in memory, many in an unlinked temporary file. The scanner
//! reads them once as they pass.
//!
//! Rule: no peer can exceed the memory limits. One payload may be in memory up to a limit, and all payloads together up
//! to another. A payload beyond them goes to the file, which no one else can open and which disappears with this
//! process.

use std::{
    fs::File,
    io::{self, Write as _},
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::{
    json::scanner::{JsonFault, KeptText, Outline, Scanner},
    memory, open_files,
};

/// A payload up to this size is always in memory.
const SMALL: usize = 64 << 10;
/// A payload beyond this size is never in memory.
const LARGE: usize = 1 << 20;
/// The most memory for all payloads between the two sizes.
const TOGETHER: usize = memory::PAYLOADS;
/// The bytes that are written to the file, or read from it, at once.
const BLOCK: usize = 64 << 10;

/// A disk that takes longer than this for a block delays other tasks on the same thread.
const SLOW: Duration = Duration::from_millis(2);

/// The storage of all payloads of a bridge.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
    in_memory: AtomicUsize,
    /// True if the last block took long to write.
    is_slow: AtomicBool,
    /// The least time for each block, and the threads that wrote them.
    #[cfg(test)]
    slowness: (Duration, std::sync::Mutex<Vec<std::thread::ThreadId>>),
}

/// Why a payload cannot be kept.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum SpoolError {
    /// It is larger than its reader's limit.
    #[error("longer than the limit of {}", size(*.limit))]
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// It is too large for memory, and cannot be put into a file.
    #[error("too large for memory, and cannot be put into a temporary file ({0})")]
    NoFile(io::ErrorKind),
    /// The same, as the process has too many files open.
    #[error("too large for memory, and this process has reached its limit on open files; raise it (ulimit -n)")]
    NoMoreFiles,
}

/// A payload that is not kept: the reason, and what is known of its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RejectedPayload {
    pub(crate) error: SpoolError,
    /// Its id in JSON, if that had arrived.
    pub(crate) id: Option<Bytes>,
    /// True if it has a method, so it is not a response.
    pub(crate) has_method: bool,
}

/// A whole payload.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Memory(Bytes),
    File(Spooled),
}

/// A payload in a file, or a part of it, perhaps with some bytes replaced.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    file: Arc<File>,
    parts: Vec<StoredPart>,
}

/// A part of a payload.
#[derive(Clone, Debug)]
pub(crate) enum StoredPart {
    /// The bytes of its file in this range.
    File(Range<u64>),
    Memory(Bytes),
}

/// A complete payload, and the scanner's outline of it.
#[derive(Debug)]
pub(crate) struct ScannedPayload {
    pub(crate) payload: Payload,
    pub(crate) outline: Result<Outline, JsonFault>,
}

impl ScannedPayload {
    /// True if it is only white space.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.outline, Err(JsonFault::Empty))
    }

    /// Returns the bytes, if they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Memory(bytes) => Some(bytes),
            Payload::File(_) => None,
        }
    }

    /// Returns the length in bytes.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn length(&self) -> u64 {
        match &self.payload {
            Payload::Memory(bytes) => bytes.len() as u64,
            Payload::File(spooled) => spooled.length(),
        }
    }
}

/// Gathers payloads one after another, piece by piece.
#[derive(Debug)]
pub(crate) struct Spooler {
    /// `None` if payloads stay in memory. Such a payload is given up only at its end, when its message is known.
    storage: Option<Arc<Storage>>,
    limit: u64,
    length: u64,
    held: HeldBytes,
    scanner: Scanner,
}

#[derive(Debug, Default)]
enum HeldBytes {
    #[default]
    Nothing,
    /// A slice of a received chunk.
    One(Bytes),
    Many(BytesMut, Option<MemoryShare>),
    File(File, BytesMut),
}

/// A share of the memory for payloads; given back when it is dropped.
#[derive(Debug)]
struct MemoryShare {
    storage: Arc<Storage>,
    bytes: usize,
}

impl Storage {
    /// Creates a storage that puts payloads too large for memory into this folder.
    pub(crate) fn new(folder: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            folder,
            in_memory: AtomicUsize::new(0),
            is_slow: AtomicBool::new(false),
            #[cfg(test)]
            slowness: Default::default(),
        })
    }

    /// Creates a storage on a disk that takes this time for each block.
    #[cfg(test)]
    pub(crate) fn slow(time: Duration) -> Arc<Self> {
        let storage = Self::new(std::env::temp_dir());
        Arc::new(Self { slowness: (time, std::sync::Mutex::default()), ..Arc::into_inner(storage).unwrap() })
    }

    /// Returns the thread that wrote each block.
    #[cfg(test)]
    pub(crate) fn writers(&self) -> Vec<std::thread::ThreadId> {
        self.slowness.1.lock().unwrap().clone()
    }

    /// Creates a storage without free memory: a payload over 64 KiB that arrives in pieces goes to a file.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn used_up() -> Arc<Self> {
        let storage = Self::new(std::env::temp_dir());
        storage.in_memory.store(TOGETHER, Ordering::Release);
        storage
    }

    /// Creates a file without a name that no one else may open.
    fn file(&self) -> io::Result<File> {
        let file = tempfile::tempfile_in(&self.folder)?;
        // A file that never had a name has the default permissions.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(file)
    }

    fn write(&self, file: &mut File, block: &[u8]) -> Result<(), SpoolError> {
        let begun = Instant::now();
        #[cfg(test)]
        {
            std::thread::sleep(self.slowness.0);
            self.slowness.1.lock().unwrap().push(std::thread::current().id());
        }
        file.write_all(block).map_err(|error| no_file(&error))?;
        self.is_slow.store(begun.elapsed() > SLOW, Ordering::Relaxed);
        Ok(())
    }

    /// True if a payload of this length may be in memory. If it is larger than [`SMALL`], it takes a share of the
    /// common memory.
    fn has_room(self: &Arc<Self>, share: &mut Option<MemoryShare>, length: usize) -> bool {
        length <= SMALL
            || length <= LARGE
                && share.get_or_insert_with(|| MemoryShare { storage: Arc::clone(self), bytes: 0 }).grow(length)
    }
}

impl MemoryShare {
    /// Grows to `bytes`. Returns false if too little is left.
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

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.storage.in_memory.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Spooler {
    /// Creates a store of payloads of at most `limit` bytes.
    pub(crate) fn new(limit: u64, storage: &Arc<Storage>) -> Self {
        Self { storage: Some(Arc::clone(storage)), ..Self::in_memory(limit) }
    }

    /// Creates a store of payloads of at most `limit` bytes that stay in memory.
    pub(crate) fn in_memory(limit: u64) -> Self {
        Self { storage: None, limit, length: 0, held: HeldBytes::Nothing, scanner: Scanner::new() }
    }

    /// Takes one more piece.
    ///
    /// # Errors
    /// Fails if the payload would exceed the limit or there is no place for it. The payload is given up, and the next
    /// piece begins another.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<(), RejectedPayload> {
        // The end reports faults. The id is of use even if the rest is not.
        let _ = self.scanner.feed(&piece);
        let length = self.length + piece.len() as u64;
        if length > self.limit && self.storage.is_none() {
            self.length = length;
            self.held = HeldBytes::Nothing;
            return Ok(());
        }
        self.hold(piece).map_err(|error| self.give_up(error))
    }

    fn give_up(&mut self, error: SpoolError) -> RejectedPayload {
        let id = self.scanner.id().and_then(text_of_id);
        let has_method = self.scanner.has_method();
        self.length = 0;
        self.held = HeldBytes::Nothing;
        self.scanner.reset();
        RejectedPayload { error, id, has_method }
    }

    fn hold(&mut self, piece: Bytes) -> Result<(), SpoolError> {
        let length = self.length + piece.len() as u64;
        if length > self.limit {
            return Err(SpoolError::TooLong { limit: self.limit });
        }
        self.held = match std::mem::take(&mut self.held) {
            HeldBytes::Nothing => HeldBytes::One(piece),
            HeldBytes::One(first) => {
                let many = BytesMut::with_capacity((first.len() + piece.len()) * 2);
                self.add(HeldBytes::Many(many, None), &first).and_then(|held| self.add(held, &piece))?
            }
            held => self.add(held, &piece)?,
        };
        self.length = length;
        Ok(())
    }

    /// True if the payload so far is one JSON document.
    pub(crate) fn is_document(&self) -> bool {
        self.scanner.is_over()
    }

    /// True if the next piece goes to a file on a slow disk.
    pub(crate) fn writes_slowly(&self) -> bool {
        let is_slow = |storage: &Arc<Storage>| storage.is_slow.load(Ordering::Relaxed);
        matches!(self.held, HeldBytes::File(..)) && self.storage.as_ref().is_some_and(is_slow)
    }

    /// Returns the length of the payload so far, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the payload; the next piece begins another.
    ///
    /// # Errors
    /// Fails if its rest cannot be written to its file, or if it had to stay in memory and is over the limit.
    pub(crate) fn take(&mut self) -> Result<ScannedPayload, RejectedPayload> {
        if self.length > self.limit {
            return Err(self.give_up(SpoolError::TooLong { limit: self.limit }));
        }
        let payload = self.take_payload().map_err(|error| self.give_up(error))?;
        self.length = 0;
        Ok(ScannedPayload { payload, outline: self.scanner.finish() })
    }

    fn take_payload(&mut self) -> Result<Payload, SpoolError> {
        Ok(match std::mem::take(&mut self.held) {
            HeldBytes::Nothing => Payload::Memory(Bytes::new()),
            HeldBytes::One(piece) => Payload::Memory(piece),
            HeldBytes::Many(many, None) => Payload::Memory(many.freeze()),
            HeldBytes::Many(bytes, Some(share)) => Payload::Memory(Bytes::from_owner(Owned { bytes, _share: share })),
            HeldBytes::File(mut file, rest) => {
                self.write(&mut file, &rest)?;
                let length = file.metadata().map_err(|error| no_file(&error))?.len();
                Payload::File(Spooled { file: Arc::new(file), parts: vec![StoredPart::File(0..length)] })
            }
        })
    }

    fn write(&self, file: &mut File, block: &[u8]) -> Result<(), SpoolError> {
        // Without a storage there is no file.
        self.storage.as_ref().map_or(Ok(()), |storage| storage.write(file, block))
    }

    fn add(&self, held: HeldBytes, piece: &Bytes) -> Result<HeldBytes, SpoolError> {
        match held {
            HeldBytes::Many(mut many, mut share) => {
                let length = many.len() + piece.len();
                let storage = self.storage.as_ref().filter(|storage| !storage.has_room(&mut share, length));
                let Some(storage) = storage else {
                    many.extend_from_slice(piece);
                    return Ok(HeldBytes::Many(many, share));
                };
                let mut file = storage.file().map_err(|error| no_file(&error))?;
                storage.write(&mut file, &many)?;
                drop((many, share));
                self.add(HeldBytes::File(file, BytesMut::with_capacity(BLOCK)), piece)
            }
            HeldBytes::File(mut file, mut block) => {
                if !block.is_empty() && block.len() + piece.len() > BLOCK {
                    self.write(&mut file, &block)?;
                    block.clear();
                }
                if piece.len() > BLOCK {
                    self.write(&mut file, piece)?;
                } else {
                    block.extend_from_slice(piece);
                }
                Ok(HeldBytes::File(file, block))
            }
            held => Ok(held),
        }
    }
}

/// Bytes with their share of the memory.
struct Owned {
    bytes: BytesMut,
    _share: MemoryShare,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Payload {
    /// Returns the bytes in this range.
    pub(crate) fn part(&self, range: Range<u64>) -> Self {
        match self {
            Self::Memory(bytes) => Self::Memory(slice(bytes, &range)),
            Self::File(spooled) => Self::File(spooled.slice(range)),
        }
    }

    /// Returns the JSON of a kept member; `None` if it is longer than the scanner keeps.
    pub(crate) fn text_of(&self, kept: &KeptText) -> Option<Bytes> {
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

impl StoredPart {
    fn length(&self) -> u64 {
        match self {
            Self::File(range) => range.end.saturating_sub(range.start),
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn slice(&self, range: &Range<u64>) -> Self {
        match self {
            Self::File(own) => Self::File(own.start + range.start..own.start + range.end),
            Self::Memory(bytes) => Self::Memory(slice(bytes, range)),
        }
    }
}

impl Spooled {
    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.parts.iter().map(StoredPart::length).sum()
    }

    /// Returns the bytes in this range.
    pub(crate) fn slice(&self, range: Range<u64>) -> Self {
        let mut at = 0;
        let within = |part: &StoredPart| {
            let (start, end) = (at, at + part.length());
            at = end;
            let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
            (from < to).then(|| part.slice(&(from - start..to - start)))
        };
        Self { file: Arc::clone(&self.file), parts: self.parts.iter().filter_map(within).collect() }
    }

    /// Returns a copy with the bytes in this range replaced.
    pub(crate) fn patched(&self, range: Range<u64>, with: Bytes) -> Self {
        let mut patched = self.slice(0..range.start);
        patched.push(with);
        patched.append(self.slice(range.end..u64::MAX));
        patched
    }

    /// Returns an empty payload of the same file.
    pub(crate) fn emptied(&self) -> Self {
        Self { file: Arc::clone(&self.file), parts: Vec::new() }
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.parts.push(StoredPart::Memory(bytes));
        }
    }

    /// Adds the bytes of another payload of the same file.
    pub(crate) fn append(&mut self, other: Self) {
        self.parts.extend(other.parts);
    }

    /// Returns its parts.
    pub(crate) fn parts(&self) -> &[StoredPart] {
        &self.parts
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns its bytes, block by block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = io::Result<Bytes>> {
        self.parts.iter().flat_map(|part| {
            let (range, bytes) = match part {
                StoredPart::File(range) => (range.clone(), None),
                StoredPart::Memory(bytes) => (0..0, Some(Ok(bytes.clone()))),
            };
            blocks(&self.file, range).chain(bytes)
        })
    }

    /// Reads all of it into memory.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(crate) fn load(&self) -> io::Result<Bytes> {
        let mut all = BytesMut::with_capacity(usize::try_from(self.length()).unwrap_or_default());
        for block in self.blocks() {
            all.extend_from_slice(&block?);
        }
        Ok(all.freeze())
    }
}

/// Reads a range of a file, block by block.
pub(crate) fn blocks(file: &File, mut range: Range<u64>) -> impl Iterator<Item = io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(BLOCK).min(BLOCK);
        if length == 0 {
            return None;
        }
        let mut block = BytesMut::zeroed(length);
        Some(match read_at(file, &mut block, range.start) {
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

fn text_of_id(id: &KeptText) -> Option<Bytes> {
    id.text.as_deref().map(Bytes::copy_from_slice)
}

/// Formats a number of bytes for people.
fn size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

fn no_file(error: &io::Error) -> SpoolError {
    if open_files::are_used_up(error) { SpoolError::NoMoreFiles } else { SpoolError::NoFile(error.kind()) }
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

    fn gather(store: &mut Spooler, text: &[u8], piece: usize) -> ScannedPayload {
        for piece in text.chunks(piece) {
            store.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        store.take().unwrap()
    }

    #[test]
    fn payload_equals_the_pushed_bytes_at_any_size() {
        let storage = storage();
        let mut store = Spooler::new(u64::MAX, &storage);
        for size in [0, 1, 100, SMALL - 20, SMALL + 1, LARGE, LARGE + 1, 3 * LARGE + 77] {
            let json = format!(r#"{{"id":7,"result":"{}"}}"#, "x".repeat(size));
            for piece in [1000, 16 << 10, 100_000, usize::MAX] {
                let ScannedPayload { payload, outline } = gather(&mut store, json.as_bytes(), piece);
                assert_eq!(text(&payload), json.as_bytes(), "{size} in pieces of {piece}");
                assert_eq!(outline.unwrap().length, json.len() as u64);
                let is_file = matches!(payload, Payload::File(_));
                assert_eq!(is_file, json.len() > LARGE && piece < json.len(), "{size} in pieces of {piece}");
            }
        }
        assert_eq!(storage.in_memory.load(Ordering::Acquire), 0, "all shares came back");
    }

    #[test]
    fn total_spool_memory_is_limited() {
        let storage = storage();
        let json = format!("\"{}\"", "x".repeat(LARGE / 2));
        let kept: Vec<_> = (0..TOGETHER / LARGE * 4)
            .map(|_| gather(&mut Spooler::new(u64::MAX, &storage), json.as_bytes(), 10_000).payload)
            .collect();
        let in_memory = kept.iter().filter(|payload| matches!(payload, Payload::Memory(_))).count();
        assert!((1..=TOGETHER / (LARGE / 2)).contains(&in_memory) && in_memory < kept.len(), "{in_memory}");
        assert!(kept.iter().all(|payload| text(payload) == json.as_bytes()));
        drop(kept);
        assert_eq!(storage.in_memory.load(Ordering::Acquire), 0);
    }

    #[test]
    fn part_of_a_spooled_payload_can_be_patched() {
        let text = [b" ".to_vec(), vec![b'a'; 2 * LARGE], b"ID".to_vec(), vec![b'b'; 100]].concat();
        let mut store = Spooler::new(u64::MAX, &storage());
        let ScannedPayload { payload, outline } = gather(&mut store, &text, 5000);
        assert!(outline.is_err());
        let Payload::File(spooled) = payload.part(1..text.len() as u64 - 1) else { panic!("in memory") };
        let at = 2 * LARGE as u64;
        let patched = spooled.patched(at..at + 2, Bytes::from_static(b"other"));
        let expected = [vec![b'a'; 2 * LARGE], b"other".to_vec(), vec![b'b'; 99]].concat();
        assert_eq!(patched.length(), expected.len() as u64);
        assert!(patched.load().unwrap() == expected);
        // Patch it again: all of the replacement, or a part of it.
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
    fn failed_payload_is_an_error_and_the_next_one_is_stored() {
        let mut store = Spooler::new(10, &storage());
        store.push(Bytes::from_static(b"12345678")).unwrap();
        let why = |pushed: Result<(), RejectedPayload>| pushed.unwrap_err().error;
        assert_eq!(why(store.push(Bytes::from_static(b"901"))), SpoolError::TooLong { limit: 10 });
        assert_eq!(text(&gather(&mut store, b"12", 1).payload), b"12");

        let nowhere = Storage::new("/no/such/folder".into());
        let mut store = Spooler::new(u64::MAX, &nowhere);
        store.push(Bytes::from(vec![b' '; LARGE])).unwrap();
        assert_eq!(why(store.push(Bytes::from_static(b"x"))), SpoolError::NoFile(io::ErrorKind::NotFound));
        assert_eq!(text(&gather(&mut store, b"12", 1).payload), b"12");
    }

    #[test]
    fn id_and_method_read_so_far_are_reported_for_a_dropped_payload() {
        let mut store = Spooler::new(30, &storage());
        for (text, id, has_method) in [
            (r#"{"id":"a","result":"0123456789"}"#, Some(r#""a""#), false),
            (r#"{"result":"0123456789","id":"a"}"#, None, false),
            (r#"{"method":"x","params":"0123456"}"#, None, true),
        ] {
            store.push(Bytes::copy_from_slice(&text.as_bytes()[..25])).unwrap();
            let given_up = store.push(Bytes::from_static(b"........")).unwrap_err();
            assert_eq!((given_up.id.as_deref(), given_up.has_method), (id.map(str::as_bytes), has_method), "{text}");
        }
    }

    #[test]
    fn in_memory_payload_over_the_limit_is_dropped_but_its_id_is_read() {
        let mut store = Spooler::in_memory(10);
        for piece in [r#"{"method":"x","#, r#""params":[],"#, r#""id":7}"#] {
            store.push(Bytes::from_static(piece.as_bytes())).unwrap();
            assert!(matches!(store.held, HeldBytes::Nothing));
        }
        let given_up = store.take().unwrap_err();
        assert_eq!((given_up.error, given_up.id.as_deref()), (SpoolError::TooLong { limit: 10 }, Some(&b"7"[..])));
        assert_eq!(text(&gather(&mut store, b"12", 1).payload), b"12");
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        for (bytes, text) in
            [(4 << 30, "4 GiB"), (1536 << 20, "1536 MiB"), (1 << 10, "1 KiB"), (1500, "1500 bytes"), (0, "0 bytes")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
