//! The files in the state folder: records of sign-ins, bindings, locks and notes, and what servers said last time.
//!
//! Rules:
//! - Opening a path never blocks and never follows a link. Only a regular file of the user counts, and it is read up
//!   to a limit.
//! - A file is written completely, then moved into place in one step. Only its owner can access it (0600).
//! - If others can write to the user's folder, their access is removed. A folder of another user is not used. The
//!   user is told about either once.
//! - The work runs outside the event loop with a timeout of a few seconds, because the file system may be on a
//!   network.

#[cfg(unix)]
use std::sync::atomic::Ordering;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{task::spawn_blocking, time::timeout};

/// The largest file that is read, in bytes. No record is larger.
const MAX_SIZE: u64 = 4 << 20;
/// The longest wait for a file system.
const LONGEST: Duration = Duration::from_secs(5);
/// How often a file is replaced until the system permits it, and the time between the tries.
const REPLACE_TRIES: u32 = 50;
const REPLACE_PAUSE: Duration = Duration::from_millis(20);

/// The folder, which may not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Folder(Arc<FolderState>);

#[derive(Debug)]
struct FolderState {
    path: PathBuf,
    /// True if the user was told about a problem with the folder.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix checks the folder"))]
    is_told: AtomicBool,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Arc::new(FolderState { path, is_told: AtomicBool::new(false) }))
    }

    /// Returns the path of the file with this name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It does not exist, is not a regular file of the user, or is too large.
    pub(crate) async fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.within(name, |path| {
            let mut options = OpenOptions::new();
            let mut text = Vec::new();
            open(path, options.read(true))?.take(MAX_SIZE + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MAX_SIZE {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
            }
            Ok(text)
        })
        .await
    }

    /// Writes a file, and replaces an existing one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn write(&self, name: &str, text: Vec<u8>) -> io::Result<()> {
        self.put(name, text, true).await
    }

    async fn put(&self, name: &str, text: Vec<u8>, replaces: bool) -> io::Result<()> {
        let folder = self.clone();
        self.within(name, move |path| {
            folder.make()?;
            // tempfile makes files that only their owner can access.
            let mut file = NamedTempFile::new_in(&folder.0.path)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            if replaces { replace(file, path) } else { file.persist_noclobber(path).map(drop).map_err(Into::into) }
        })
        .await
    }

    /// Removes the oldest files with this extension, except the newest `most`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) async fn prune(&self, extension: &'static str, most: usize) -> io::Result<()> {
        self.within("", move |path| {
            let mut files = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if entry.path().extension().is_some_and(|own| own == extension) {
                    files.push((entry.metadata()?.modified()?, entry.path()));
                }
            }
            files.sort_unstable_by(|one, other| other.cmp(one));
            // Another process may remove them at the same time.
            files.into_iter().skip(most).for_each(|(_, file)| drop(fs::remove_file(file)));
            Ok(())
        })
        .await
    }

    /// Runs an operation on a path in the folder, unless the folder must not be used.
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
        // A file in the place of a folder is not a file of that name in the folder.
        builder.create(&self.0.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
            _ => error,
        })
    }

    /// Checks that the folder is the user's, and removes write access of others. A folder that does not exist passes.
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
            self.tell("the state folder belongs to another user and is not used; choose another");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder belongs to another user"));
        }
        if metadata.mode() & 0o022 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            self.tell("others could write to the state folder; now only its owner can access it (0700)");
        }
        Ok(())
    }

    /// On Windows, a folder in the user's profile inherits the user's permissions.
    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "the Unix version needs them")]
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

/// What sign-ins need beyond that.
#[cfg(feature = "oauth")]
impl Folder {
    /// Creates a file. If several processes try, one succeeds.
    ///
    /// # Errors
    /// It exists (`AlreadyExists`), or it cannot be written.
    pub(crate) async fn create(&self, name: &str, text: Vec<u8>) -> io::Result<()> {
        self.put(name, text, false).await
    }

    /// Opens a file for its lock, and creates it if it does not exist.
    ///
    /// # Errors
    /// It cannot be created, or is not a regular file of the user.
    pub(crate) async fn open_lock(&self, name: &str) -> io::Result<File> {
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
    pub(crate) async fn remove(&self, name: &str) -> io::Result<()> {
        self.within(name, |path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// Returns the names of the files.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) async fn names(&self) -> io::Result<Vec<String>> {
        self.within("", |path| {
            fs::read_dir(path)?
                .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
                .collect()
        })
        .await
    }
}

/// Returns a file name without extension that is unique for these parts, and does not reveal them.
pub(crate) fn name_of(parts: impl IntoIterator<Item = Option<impl AsRef<str>>>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref().map(AsRef::as_ref);
        // The length separates the parts.
        hash.update(part.map_or(u64::MAX, |part: &str| part.len() as u64).to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Moves a complete file into its place. Windows refuses that while another process has the old file open, so it is
/// tried again for a short time.
fn replace(mut file: NamedTempFile, path: &Path) -> io::Result<()> {
    for _ in 1..REPLACE_TRIES {
        match file.persist(path) {
            Err(refused) if cfg!(windows) && refused.error.kind() == io::ErrorKind::PermissionDenied => {
                file = refused.file;
                thread::sleep(REPLACE_PAUSE);
            }
            ended => return ended.map(drop).map_err(Into::into),
        }
    }
    file.persist(path).map(drop).map_err(Into::into)
}

/// Opens a regular file of the user, and nothing else.
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
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
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
#[cfg(all(target_os = "linux", feature = "oauth"))]
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
    async fn non_regular_files_are_neither_read_nor_followed() {
        let (home, folder) = folder();
        let outside = NamedTempFile::new().unwrap();
        fs::write(outside.path(), "another's").unwrap();
        let at = |name: &str| home.path().join(name);
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // The other end is open, so opening it succeeds at once.
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
    async fn file_over_the_size_limit_is_not_read() {
        let (home, folder) = folder();
        let file = File::create(home.path().join("x")).unwrap();
        file.set_len(MAX_SIZE).unwrap();
        assert_eq!(folder.read("x").await.unwrap().len() as u64, MAX_SIZE);
        file.set_len(10 << 30).unwrap();
        assert_eq!(folder.read("x").await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn state_folder_writable_by_others_is_made_private() {
        for mode in [0o777, 0o720, 0o702, 0o1777] {
            let (home, folder) = folder();
            fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
            folder.write("x", b"x".to_vec()).await.unwrap();
            assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o7777, 0o700, "{mode:o}");
            assert!(folder.0.is_told.load(Ordering::Relaxed));
            assert_eq!(fs::metadata(home.path().join("x")).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // A folder that only its owner can write to stays unchanged.
        let (home, folder) = folder();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder.write("x", b"x".to_vec()).await.unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(!folder.0.is_told.load(Ordering::Relaxed));
    }

    /// Runs only where the tests may change the owner of a folder.
    #[tokio::test]
    async fn state_folder_owned_by_another_user_is_not_used() {
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
    async fn only_the_newest_files_of_an_extension_are_kept() {
        let (home, folder) = folder();
        for name in ["a.kept", "b.kept", "c.kept", "d.json"] {
            folder.write(name, b"x".to_vec()).await.unwrap();
        }
        for (name, age) in [("a.kept", 1), ("b.kept", 3), ("c.kept", 2)] {
            let file = File::options().write(true).open(home.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_hours(age)).unwrap();
        }
        folder.prune("kept", 2).await.unwrap();
        let mut names = folder.names().await.unwrap();
        names.sort();
        assert_eq!(names, ["a.kept", "c.kept", "d.json"]);
    }

    #[tokio::test]
    async fn only_one_of_several_concurrent_creates_succeeds() {
        let (_home, folder) = folder();
        let one = |text: &'static str| folder.create("x", text.into());
        let (a, b, c) = tokio::join!(one("a"), one("b"), one("c"));
        assert_eq!([a, b, c].iter().filter(|created| created.is_ok()).count(), 1);
    }
}
