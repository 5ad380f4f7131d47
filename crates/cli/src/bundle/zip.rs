//! Writes a zip archive as unzip programs and bundle hosts read it: deflate, Unix modes, no folders.
//!
//! Rule: equal entries give equal bytes, so the time of every entry is the format's first day.
//!
//! The format is APPNOTE.TXT of PKWARE. Numbers are little-endian. Archives from 4 GiB on need fields that are not
//! written here.

use std::io::{self, Write as _};

use flate2::{Compression, Crc, write::DeflateEncoder};

/// A file in the archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    name: String,
    bytes: Vec<u8>,
    is_program: bool,
}

impl Entry {
    pub(super) fn file(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes, is_program: false }
    }

    pub(super) fn program(name: &str, bytes: Vec<u8>) -> Self {
        Self { is_program: true, ..Self::file(name, bytes) }
    }
}

/// Returns an archive of the entries in the order of their names.
///
/// # Errors
/// It would be too large.
pub(super) fn archive(entries: &mut [Entry]) -> io::Result<Vec<u8>> {
    /// Version 2.0 of the format: deflate.
    const VERSION: u16 = 20;
    const DEFLATE: u16 = 8;
    /// 1980-01-01, 00:00.
    const TIME: [u16; 2] = [0, 1 << 5 | 1];
    /// The system that wrote the modes.
    const UNIX: u16 = 3 << 8;

    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for Entry { name, bytes, is_program } in entries.iter() {
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes)?;
        let packed = encoder.finish()?;

        let start = number(out.len())?;
        let mut common = Vec::new();
        put_16(&mut common, &[VERSION, 0, DEFLATE, TIME[0], TIME[1]]);
        put_32(&mut common, &[crc.sum(), number(packed.len())?, number(bytes.len())?]);
        put_16(&mut common, &[short(name.len())?, 0]);

        put_32(&mut out, &[0x0403_4b50]);
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&packed);

        let mode = if *is_program { 0o100_755 } else { 0o100_644 };
        put_32(&mut directory, &[0x0201_4b50]);
        put_16(&mut directory, &[UNIX | VERSION]);
        directory.extend_from_slice(&common);
        // No comment, the first disk, no text.
        put_16(&mut directory, &[0, 0, 0]);
        put_32(&mut directory, &[mode << 16, start]);
        directory.extend_from_slice(name.as_bytes());
    }
    let (start, count) = (number(out.len())?, short(entries.len())?);
    out.extend_from_slice(&directory);
    put_32(&mut out, &[0x0605_4b50]);
    put_16(&mut out, &[0, 0, count, count]);
    put_32(&mut out, &[number(directory.len())?, start]);
    put_16(&mut out, &[0]);
    Ok(out)
}

fn put_16(out: &mut Vec<u8>, numbers: &[u16]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn put_32(out: &mut Vec<u8>, numbers: &[u32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn number(size: usize) -> io::Result<u32> {
    u32::try_from(size).map_err(|_| io::Error::other("it would have more than 4 GiB"))
}

fn short(count: usize) -> io::Result<u16> {
    u16::try_from(count).map_err(|_| io::Error::other("it would have too many files or a name that is too long"))
}
