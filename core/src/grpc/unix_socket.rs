//! Unix sockets that workloads and operators find by their paths.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::unix::UCred;
use tokio::net::{self, UnixStream};

use super::{BACKLOG, accepted};
use crate::limits::MAX_SOCKET_PATH_BYTES;
use crate::os_error::reason;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no path of this length.
    #[error(
        "socket path {path:?} is {bytes} bytes long, and a Unix socket takes at most \
         {MAX_SOCKET_PATH_BYTES}; choose a shorter path"
    )]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// The length of its path.
        bytes: usize,
    },
    /// Something stands at the path that is no socket, and is not ours to remove.
    #[error("{0:?} is there already and is no socket; move it, or choose another path")]
    Occupied(PathBuf),
    /// The folder cannot be made.
    #[error("unable to create socket directory {path:?}: {}", reason(source))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The file system refused.
    #[error("listen unix {}: {}", path.display(), reason(source))]
    System {
        /// The socket.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: net::UnixListener,
    path: PathBuf,
    file: Option<FileId>,
}

impl UnixSocket {
    /// Opens a socket at `path` with `mode`, and makes its folder with `folder_mode` where that is
    /// missing. A socket that an earlier process has left is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path, mode: u32, folder_mode: u32) -> Result<Self, SocketError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_SOCKET_PATH_BYTES {
            return Err(SocketError::TooLong { path: path.to_owned(), bytes });
        }
        let found = fs::symlink_metadata(path).map(|found| found.file_type());
        if found.is_ok_and(|found| !found.is_socket()) {
            return Err(SocketError::Occupied(path.to_owned()));
        }
        make_folder(path, folder_mode)?;
        let listener = listen(path, mode)
            .map_err(|source| SocketError::System { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), file: FileId::of(path) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, and what the kernel tells of its peer; nothing where the connection or
    /// its peer is gone already.
    pub async fn accept(&self) -> Option<(UnixStream, UCred)> {
        let (stream, _) = accepted(self.listener.accept().await).await?;
        let peer = stream.peer_cred().ok()?;
        Some((stream, peer))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // A process that has started meanwhile may have put its own socket there.
        if self.file.is_some() && self.file == FileId::of(&self.path) {
            let _ = fs::remove_file(&self.path); // whoever starts next removes it as well
        }
    }
}

/// Makes the folder of a socket where it is missing, with `mode` as far as the umask lets it.
///
/// # Errors
/// [`SocketError::Folder`].
pub fn make_folder(path: &Path, mode: u32) -> Result<(), SocketError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(mode).create(folder);
    made.map_err(|source| SocketError::Folder { path: folder.to_owned(), source })
}

fn listen(path: &Path, mode: u32) -> io::Result<net::UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = net::UnixSocket::new_stream()?;
    socket.bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)
}

/// Device and number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok()?;
        Some(Self(file.dev(), file.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_and_its_folder_have_their_modes_and_the_socket_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/api.sock");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let socket = UnixSocket::bind(&path, 0o770, 0o750).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o770, 0o750));
        std::mem::forget(socket); // a crash leaves the file
        drop(UnixSocket::bind(&path, 0o770, 0o750).unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_of_a_newer_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let first = UnixSocket::bind(&path, 0o777, 0o755).unwrap();
        let second = UnixSocket::bind(&path, 0o777, 0o755).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.conf");
        fs::write(&file, "settings").unwrap();
        assert_eq!(
            UnixSocket::bind(&file, 0o770, 0o750).unwrap_err().to_string(),
            format!("{file:?} is there already and is no socket; move it, or choose another path")
        );
        assert_eq!(fs::read(&file).unwrap(), b"settings");
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_named() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        let error = UnixSocket::bind(&path, 0o770, 0o750).unwrap_err().to_string();
        assert!(error.contains("108 bytes long") && error.contains("at most 107"), "{error}");
    }
}
