//! Files that commands write for others to pick up: certificates for everyone, keys for their owner.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::os_error::reason;

/// A file could not be written. Worded as the system's calls are.
#[derive(Debug, thiserror::Error)]
#[error("{call} {}: {}", path.display(), reason(error))]
pub struct FileError {
    call: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// Writes a file that everybody may read (0644, less the umask).
///
/// # Errors
/// [`FileError`]
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(path, content, 0o644, |_| Ok(()))
}

/// Writes a file that only its owner may read (0600), whatever its mode was before.
///
/// # Errors
/// [`FileError`]
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(path, content, 0o600, |file| match file.metadata()?.is_file() {
        true => file.set_permissions(Permissions::from_mode(0o600)),
        false => Ok(()), // a terminal or a pipe belongs to whoever opened it
    })
}

/// The path of a file in a folder that the operator named, without what means nothing in it:
/// `./x/` is `x`.
pub fn file_in(folder: &str, name: &str) -> PathBuf {
    let folder = Path::new(folder);
    folder
        .strip_prefix(".")
        .unwrap_or(folder)
        .components()
        .chain(Path::new(name).components())
        .collect()
}

fn write(
    path: &Path,
    content: &[u8],
    mode: u32,
    restrict: impl Fn(&fs::File) -> io::Result<()>,
) -> Result<(), FileError> {
    let failed = |call: &'static str| move |error| FileError { call, path: path.to_owned(), error };
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(failed("open"))?;
    restrict(&file).map_err(failed("chmod"))?;
    file.write_all(content).map_err(failed("write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_closed_even_where_an_open_one_stood() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "a longer text than the key").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"key").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"key".to_vec(), 0o600));
        let path = folder.path().join("new");
        write_private(&path, b"key").unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_is_no_file_keeps_its_mode() {
        write_private(Path::new("/dev/null"), b"key").unwrap();
        write_public(Path::new("/dev/null"), b"certificate").unwrap();
    }

    #[test]
    fn paths_are_told_without_what_means_nothing() {
        for (folder, path) in
            [("/tmp/", "/tmp/f"), ("./a//b/", "a/b/f"), (".", "f"), ("..", "../f")]
        {
            assert_eq!(file_in(folder, "f"), Path::new(path));
        }
    }

    #[test]
    fn a_missing_folder_is_told_as_the_system_tells_it() {
        let error = write_public(Path::new("/nowhere/svid.pem"), b"").unwrap_err();
        assert_eq!(error.to_string(), "open /nowhere/svid.pem: no such file or directory");
    }
}
