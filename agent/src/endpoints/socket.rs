//! Unix sockets that workloads and operators find by their paths.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;

use spire_core::grpc::BACKLOG;
use spire_core::os_error::reason;
use tokio::net::{UnixListener, UnixSocket};

/// The longest path that the kernel takes for a socket, in bytes.
const MAX_PATH_BYTES: usize = 107;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no path of this length.
    #[error("socket path {0:?} is longer than 107 bytes; choose a shorter one")]
    TooLong(String),
    /// Something stands at the path that is no socket, and is not ours to remove.
    #[error("{0:?} is there already and is no socket; move it, or choose another path")]
    Occupied(String),
    /// The folder cannot be made.
    #[error("unable to create socket directory {path:?}: {}", reason(source))]
    Folder {
        /// The folder.
        path: String,
        /// The file system's answer.
        source: io::Error,
    },
    /// The file system refused.
    #[error("listen unix {path}: {}", reason(source))]
    System {
        /// The socket.
        path: String,
        /// Its answer.
        source: io::Error,
    },
}

/// Makes the folder of a socket where it is missing, open to all to enter as far as the umask lets
/// it. The folder of the Workload API's socket is made before the umask is tightened.
///
/// # Errors
/// [`SocketError`].
pub fn make_folder(path: &Path) -> Result<(), SocketError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(|source| SocketError::Folder { path: folder.display().to_string(), source })
}

/// Opens a socket at `path` with `mode`, and makes its folder where that is missing. A socket that
/// an earlier process has left is replaced.
///
/// # Errors
/// [`SocketError`].
pub(super) fn listen(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let shown = path.display().to_string();
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(SocketError::TooLong(shown));
    }
    let found = fs::symlink_metadata(path).map(|found| found.file_type());
    if found.is_ok_and(|found| !found.is_socket()) {
        return Err(SocketError::Occupied(shown));
    }
    make_folder(path)?;
    let open = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| SocketError::System { path: shown, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_old_socket_is_replaced_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/api.sock");
        for _ in 0..2 {
            drop(listen(&path, 0o777).unwrap());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        let file = folder.path().join("file");
        fs::write(&file, "data").unwrap();
        assert!(matches!(listen(&file, 0o777), Err(SocketError::Occupied(_))));
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(listen(&long, 0o777), Err(SocketError::TooLong(_))));
    }
}
