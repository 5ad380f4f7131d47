//! The files in the folder for sign-ins: records, bindings, locks and notes.
//!
//! Rules: whatever stands where a file should be is opened without waiting for anybody and without following a link; it
//! counts only if it is a regular file of the user's, and is read up to a limit. A file is written whole and put in place
//! at once, and is only for its owner (0600). The folder is too: one of the user's that others may write is closed to
//! them, and one of another user's is not used; both are said once. The work is done beside the event loop and is not
//! waited for longer than a few seconds, as a file system may be a network's.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

/// The largest file that is read, in bytes: more than what a record can hold.
const LARGEST: u64 = 4 << 20;
/// The longest wait for a file system.
const LONGEST: Duration = Duration::from_secs(5);

/// The folder, which need not be there yet.
#[derive(Clone, Debug)]
pub(super) struct Folder(Arc<FolderState>);

#[derive(Debug)]
struct FolderState {
    path: PathBuf,
    /// The user knows that something is wrong with it.
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is found out about it there"))]
    is_told: AtomicBool,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(FolderState { path, is_told: AtomicBool::new(false) }))
    }

    /// Where a file with this name is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// Gives what is in a file.
    ///
    /// # Errors
    /// There is none, or what is there is no file of the user's, or too large.
    pub(super) async fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.within(name, |path| {
            let mut options = OpenOptions::new();
            let mut text = Vec::new();
            open(path, options.read(true))?.take(LARGEST + 1).read_to_end(&mut text)?;
            if text.len() as u64 > LARGEST {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for what should be there"));
            }
            Ok(text)
        })
        .await
    }

    /// Writes a file in the place of what was there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn write(&self, name: &str, text: Vec<u8>) -> io::Result<()> {
        self.put(name, text, true).await
    }

    /// Writes a file where there is nothing yet. Of several processes one succeeds.
    ///
    /// # Errors
    /// There is something (`AlreadyExists`), or it cannot be written.
    pub(super) async fn create(&self, name: &str, text: Vec<u8>) -> io::Result<()> {
        self.put(name, text, false).await
    }

    async fn put(&self, name: &str, text: Vec<u8>, replaces: bool) -> io::Result<()> {
        let folder = self.clone();
        self.within(name, move |path| {
            folder.make()?;
            // A file that tempfile makes is only for its owner.
            let mut file = tempfile::NamedTempFile::new_in(&folder.0.path)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            if replaces {
                file.persist(path)?
            } else {
                file.persist_noclobber(path)?
            };
            Ok(())
        })
        .await
    }

    /// Opens a file for its lock, and makes it where there is none.
    ///
    /// # Errors
    /// It cannot be made, or what is there is no file of the user's.
    pub(super) async fn open_lock(&self, name: &str) -> io::Result<File> {
        let folder = self.clone();
        self.within(name, move |path| {
            folder.make()?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            open(path, &mut options)
        })
        .await
    }

    /// Removes a file, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) async fn remove(&self, name: &str) -> io::Result<()> {
        self.within(name, |path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// The names of what is there.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(super) async fn names(&self) -> io::Result<Vec<String>> {
        self.within("", |path| {
            fs::read_dir(path)?
                .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
                .collect()
        })
        .await
    }

    /// Does something with a path in the folder, unless the folder is not to be used.
    async fn within<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (folder, path) = (self.clone(), self.path(name));
        let worked = timeout(LONGEST, spawn_blocking(move || folder.check().and_then(|()| work(&path)))).await;
        worked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?
    }

    fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.0.path)
    }

    /// Whether the folder is the user's alone, after it was made so. One that is not there is.
    #[cfg(unix)]
    fn check(&self) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};

        let path = &self.0.path;
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata?,
        };
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !is_ours(&metadata) {
            self.tell("the folder for sign-ins belongs to another user and is not used; choose another");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder belongs to another user"));
        }
        if metadata.mode() & 0o022 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            self.tell("others could write to the folder for sign-ins; it is now for its owner alone (0700)");
        }
        Ok(())
    }

    /// On Windows a folder in the user's profile is the user's by what it inherits.
    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "they are needed elsewhere")]
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn tell(&self, what: &str) {
        if !self.0.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(folder = %self.0.path.display(), "{what}");
        }
    }
}

/// Opens a regular file of the user's, and nothing else.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
    }
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(options, /* FILE_FLAG_OPEN_REPARSE_POINT */ 0x0020_0000);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    #[cfg(unix)]
    if !is_ours(&metadata) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(file)
}

#[cfg(unix)]
fn is_ours(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(metadata) == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::new(home.path().to_owned());
        (home, folder)
    }

    #[tokio::test]
    async fn what_is_no_file_freezes_and_misleads_nobody() {
        let (home, folder) = folder();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "another's").unwrap();
        let at = |name: &str| home.path().join(name);
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Its other end is open, so that opening it succeeds at once.
        mknodat(CWD, at("held"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _held = OpenOptions::new().read(true).write(true).open(at("held")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(outside.path(), at("link")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        for name in ["fifo", "held", "socket", "folder", "link", "device", "dangling"] {
            folder.read(name).await.unwrap_err();
            folder.open_lock(name).await.unwrap_err();
            assert_eq!(
                folder.create(name, b"x".to_vec()).await.unwrap_err().kind(),
                io::ErrorKind::AlreadyExists,
                "{name}"
            );
            if name != "folder" {
                folder.write(name, b"ours".to_vec()).await.unwrap();
                assert_eq!(folder.read(name).await.unwrap(), b"ours", "{name}");
            }
        }
        assert_eq!(fs::read(outside.path()).unwrap(), b"another's");
        assert!(!at("nowhere").exists());
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_read() {
        let (home, folder) = folder();
        let file = File::create(home.path().join("x")).unwrap();
        file.set_len(LARGEST).unwrap();
        assert_eq!(folder.read("x").await.unwrap().len() as u64, LARGEST);
        file.set_len(10 << 30).unwrap();
        assert_eq!(folder.read("x").await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn others_are_kept_out_of_the_folder() {
        for mode in [0o777, 0o720, 0o702, 0o1777] {
            let (home, folder) = folder();
            fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
            folder.write("x", b"x".to_vec()).await.unwrap();
            assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o7777, 0o700, "{mode:o}");
            assert!(folder.0.is_told.load(Ordering::Relaxed));
            assert_eq!(fs::metadata(home.path().join("x")).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // Whom nobody but its owner may write to is left as it is.
        let (home, folder) = folder();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder.write("x", b"x".to_vec()).await.unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(!folder.0.is_told.load(Ordering::Relaxed));
    }

    /// Only where the tests may give a folder away.
    #[tokio::test]
    async fn a_folder_of_another_users_is_not_used() {
        let (home, folder) = folder();
        folder.write("x", b"x".to_vec()).await.unwrap();
        if std::os::unix::fs::chown(home.path(), Some(12345), None).is_err() {
            return;
        }
        assert_eq!(folder.read("x").await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(folder.write("y", b"y".to_vec()).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(!home.path().join("y").exists() && folder.0.is_told.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn one_of_many_creates_a_file() {
        let (_home, folder) = folder();
        let one = |text: &'static str| folder.create("x", text.into());
        let (a, b, c) = tokio::join!(one("a"), one("b"), one("c"));
        assert_eq!([a, b, c].iter().filter(|created| created.is_ok()).count(), 1);
    }
}
