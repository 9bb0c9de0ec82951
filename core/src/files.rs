//! Files with secrets, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::os_error::reason;

/// A file could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {}", path.display(), reason(source))]
pub struct ReplaceError {
    /// What was tried: `open`, `write`, `rename` or `sync`.
    pub step: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the file system says.
    pub source: io::Error,
}

/// Writes a file that only its owner may read: beside its place, and then moved there, so that at
/// any moment, and after a crash, either the old content or the new one is there, whole.
///
/// # Errors
/// [`ReplaceError`]. Unless its step is `sync`, the old content is still there.
pub fn replace_private(path: &Path, content: &[u8]) -> Result<(), ReplaceError> {
    let temporary = temporary(path);
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ReplaceError { step, path, source }
    };
    // One that a crash left behind may have other rights.
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(&temporary);
    let mut file = opened.map_err(failed("open", &temporary))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("rename", &temporary))?;
    // Until its folder is on the disk too, a power cut may bring the old file back.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("sync", folder))
}

/// Where [`replace_private`] writes a file before it takes its place.
pub fn temporary(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    temporary.into()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_lies_in_the_way_lends_the_new_file_neither_its_rights_nor_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let beside = temporary(&path);
        fs::write(&beside, "left by a crash").unwrap();
        fs::set_permissions(&beside, Permissions::from_mode(0o644)).unwrap();
        replace_private(&path, b"secret").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let other = folder.path().join("other");
        fs::write(&other, "another's").unwrap();
        symlink(&other, &beside).unwrap();
        replace_private(&path, b"newer").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"another's");
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert!(!beside.exists());
    }

    #[test]
    fn the_step_that_failed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/keys.json");
        assert_eq!(
            replace_private(&path, b"").unwrap_err().to_string(),
            format!("open {}.tmp: no such file or directory", path.display())
        );
    }
}
