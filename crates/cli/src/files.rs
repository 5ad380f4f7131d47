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

/// Reads a text file.
///
/// # Errors
/// As for [`read`], or the text is not UTF-8.
pub(crate) fn read_text(from: &str, path: &Path, time: Time) -> Result<String, Error> {
    let no_text = |_| Error::config(format!("{from}: cannot read {}: it is not UTF-8 text", path.display()));
    String::from_utf8(read(from, path, time)?).map_err(no_text)
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
