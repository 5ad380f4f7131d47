//! Files that the user names.
//!
//! Rules: at the start a file may be anything that can be read to its end, like a pipe of the shell's or `/dev/null`; what is
//! read again must be a regular file, as anything else has been read to its end. Neither is read beyond a size or waited for
//! beyond a time, and the error says which it was.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use mcp_gangway_core::Error;

/// The largest file that is read, in bytes: more than all certificates of a system.
const LARGEST: u64 = 4 << 20;
/// The longest wait for one, as for a pipe that nobody writes to.
const LONGEST: Duration = Duration::from_secs(10);

/// Which time a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    First,
    Again,
}

/// Reads a file; `from` is the option or variable that names it.
///
/// # Errors
/// It cannot be read, is too large, takes too long, or is no regular file and is read again.
pub(crate) fn read(from: &str, path: &Path, time: Time) -> Result<Vec<u8>, Error> {
    let (done, outcome) = mpsc::channel();
    let named = path.to_owned();
    // Whoever waits for a pipe cannot be woken, so it is not this thread.
    let reader = thread::Builder::new().spawn(move || drop(done.send(read_now(&named, time))));
    let read = match reader {
        Ok(_) => outcome.recv_timeout(LONGEST).unwrap_or_else(|_| {
            let why = format!("it does not end within {} s", LONGEST.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }),
        Err(error) => Err(error),
    };
    read.map_err(|error| Error::config(format!("{from}: cannot read {}: {error}", path.display())))
}

/// The same for a text.
///
/// # Errors
/// As for [`read`], and what is no UTF-8.
pub(crate) fn read_text(from: &str, path: &Path, time: Time) -> Result<String, Error> {
    let no_text = |_| Error::config(format!("{from}: cannot read {}: it is no UTF-8 text", path.display()));
    String::from_utf8(read(from, path, time)?).map_err(no_text)
}

fn read_now(path: &PathBuf, time: Time) -> io::Result<Vec<u8>> {
    let file = if time == Time::Again { open_regular(path)? } else { File::open(path)? };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// Opens a file without waiting for the other end of a pipe, and only if it is one.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.read(true).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file any more")) }
}

/// Opens a file to append to, or makes it, only for its owner. What stands there instead is not waited for either: a pipe must
/// have a reader.
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
    fn at_the_start_a_pipe_is_as_good_as_a_file_and_later_it_is_not() {
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
            assert!(line.starts_with("--header-file: cannot read ") && line.contains("no regular file"), "{line}");
        }
    }

    #[test]
    fn what_has_no_end_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        File::create(&file).unwrap().set_len(10 << 30).unwrap();
        for endless in [&*file, "/dev/zero".as_ref()] {
            let line = read("x", endless, Time::First).unwrap_err().to_string();
            assert!(line.contains("larger than"), "{line}");
        }
        let line = read("x", &fifo(&folder), Time::First).unwrap_err().to_string();
        assert!(line.contains("does not end within"), "{line}");
    }

    #[test]
    fn a_log_waits_for_no_reader() {
        let folder = tempfile::tempdir().unwrap();
        append(&fifo(&folder)).unwrap_err();
        append(folder.path()).unwrap_err();
        append("/dev/null".as_ref()).unwrap();
    }
}
