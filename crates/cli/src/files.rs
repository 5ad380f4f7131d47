//! Reads and opens files that the user names.
//!
//! Rules: at the start a file may be anything that can be read to its end, such as a shell's pipe or `/dev/null`. A
//! file that is read again must be a regular file, because others have already been read to their end. Reading has a
//! size limit and a time limit, and the error says which one was exceeded.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use mcp_gangway_core::Error;

/// The largest file that is read, in bytes. All certificates of a system together are smaller.
const MAX_SIZE: u64 = 4 << 20;
/// The time limit for reading, for example from a pipe without a writer.
const LONGEST: Duration = Duration::from_secs(10);

/// Whether a file is read for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    First,
    Again,
}

/// Reads a file. `from` is the option or variable that names it.
///
/// # Errors
/// It cannot be read, is too large, takes too long, or is read again and is not a regular file.
pub(crate) fn read(from: &str, path: &Path, time: Time) -> Result<Vec<u8>, Error> {
    let (done, outcome) = mpsc::channel();
    let named = path.to_owned();
    // A thread that waits for a pipe cannot be woken, so use another one.
    let reader = thread::Builder::new().spawn(move || drop(done.send(read_now(&named, time))));
    let read = match reader {
        Ok(_) => outcome.recv_timeout(LONGEST).unwrap_or_else(|_| {
            let why = format!("reading took longer than {} s", LONGEST.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }),
        Err(error) => Err(error),
    };
    read.map_err(|error| Error::config(format!("{from}: cannot read {}: {error}", path.display())))
}

/// Reads a text file in UTF-8, or in UTF-16 with a byte order mark, as PowerShell writes it.
///
/// # Errors
/// As for [`read`], or the text is neither.
pub(crate) fn read_text(from: &str, path: &Path, time: Time) -> Result<String, Error> {
    text(read(from, path, time)?)
        .ok_or_else(|| Error::config(format!("{from}: cannot read {}: it is not UTF-8 or UTF-16 text", path.display())))
}

/// Reads a file in PEM form. The text around the certificates may be in any encoding that contains ASCII.
///
/// # Errors
/// As for [`read`].
pub(crate) fn read_pem(from: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read(from, path, Time::First)?;
    Ok(text(bytes.clone()).map_or(bytes, String::into_bytes))
}

/// Returns the text without its byte order mark.
fn text(bytes: Vec<u8>) -> Option<String> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.get(2..)?.as_chunks();
        rest.is_empty().then(|| String::from_utf16(&units.iter().copied().map(unit).collect::<Vec<_>>()).ok())?
    };
    match *bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        _ => {
            let text = String::from_utf8(bytes).ok()?;
            Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        }
    }
}

fn read_now(path: &PathBuf, time: Time) -> io::Result<Vec<u8>> {
    let file = if time == Time::Again { open_regular(path)? } else { File::open(path)? };
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("it is larger than {MAX_SIZE} bytes")));
    }
    Ok(bytes)
}

/// Opens a file if it is a regular one. Does not wait for the other end of a pipe.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.read(true).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file any more")) }
}

/// Opens a file to append to, or creates it with access only for its owner. Does not wait for a pipe: it must have a
/// reader.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::{fs, io::Write};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn text_files_may_be_utf_8_or_utf_16_with_a_byte_order_mark() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let utf16 =
            |unit: fn(u16) -> [u8; 2]| "\u{feff}A: \u{fc}\r\n".encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        for bytes in [
            "A: \u{fc}\r\n".as_bytes().to_vec(),
            "\u{feff}A: \u{fc}\r\n".as_bytes().to_vec(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            fs::write(&file, &bytes).unwrap();
            assert_eq!(read_text("x", &file, Time::First).unwrap(), "A: \u{fc}\r\n", "{bytes:?}");
            assert_eq!(read_pem("x", &file).unwrap(), "A: \u{fc}\r\n".as_bytes(), "{bytes:?}");
        }
        for bytes in [&b"\xff"[..], b"\xff\xfeA", b"\xff\xfe\x00\xd8"] {
            fs::write(&file, bytes).unwrap();
            let line = read_text("x", &file, Time::First).unwrap_err().to_string();
            assert!(line.contains("not UTF-8 or UTF-16"), "{line}");
            assert_eq!(read_pem("x", &file).unwrap(), bytes);
        }
    }

    fn fifo(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    #[test]
    fn pipes_and_devices_are_read_at_the_start_but_not_on_rereading() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, file) = (fifo(&folder), folder.path().join("file"));
        fs::write(&file, "f").unwrap();
        let writer = thread::spawn({
            let pipe = pipe.clone();
            move || OpenOptions::new().write(true).open(pipe).unwrap().write_all(b"p").unwrap()
        });
        assert_eq!(read("x", &pipe, Time::First).unwrap(), b"p");
        writer.join().unwrap();
        assert_eq!(read("x", "/dev/null".as_ref(), Time::First).unwrap(), b"");
        std::os::unix::fs::symlink(&file, folder.path().join("link")).unwrap();
        assert_eq!(read("x", &folder.path().join("link"), Time::Again).unwrap(), b"f");
        for other in [&*pipe, "/dev/null".as_ref(), folder.path()] {
            let line = read("--header-file", other, Time::Again).unwrap_err().to_string();
            assert!(line.starts_with("--header-file: cannot read ") && line.contains("not a regular file"), "{line}");
        }
    }

    #[test]
    fn file_reads_are_limited_in_size_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        File::create(&file).unwrap().set_len(10 << 30).unwrap();
        for endless in [&*file, "/dev/zero".as_ref()] {
            let line = read("x", endless, Time::First).unwrap_err().to_string();
            assert!(line.contains("larger than"), "{line}");
        }
        let line = read("x", &fifo(&folder), Time::First).unwrap_err().to_string();
        assert!(line.contains("longer than 10 s"), "{line}");
    }

    #[test]
    fn log_file_that_is_a_pipe_or_folder_is_refused_without_blocking() {
        let folder = tempfile::tempdir().unwrap();
        append(&fifo(&folder)).unwrap_err();
        append(folder.path()).unwrap_err();
        append("/dev/null".as_ref()).unwrap();
    }
}
