//! Roots that an operator adds to those of the upstream, in a file that may change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::certificate;
use crate::pem::Text;

/// A file with roots. While it cannot be read, what it held last counts.
pub(crate) struct Supplement {
    path: PathBuf,
    last: Mutex<(Arc<[Bytes]>, Option<String>)>,
}

impl Supplement {
    /// A file that must hold certificates now.
    ///
    /// # Errors
    /// A sentence that says why it cannot be read.
    pub(crate) fn open(path: PathBuf) -> Result<Self, String> {
        let roots =
            read(&path).map_err(|err| format!("unable to load supplemental bundle: {err}"))?;
        Ok(Self { path, last: Mutex::new((roots.into(), None)) })
    }

    /// The roots as they are in the file now.
    pub(crate) async fn roots(&self) -> Vec<Bytes> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let read = read.unwrap_or_else(|err| Err(err.to_string()));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(roots) => *last = (roots.into(), None),
            Err(failure) => {
                if last.1.as_ref() != Some(&failure) {
                    tracing::warn!(
                        error = failure,
                        "Unable to read the supplemental bundle; what was read before is used"
                    );
                    last.1 = Some(failure);
                }
            }
        }
        last.0.to_vec()
    }
}

fn read(path: &Path) -> Result<Vec<Bytes>, String> {
    let roots = Text::of_file(path)?.certificates()?;
    certificate::read_all(&roots).map_err(|err| format!("{}: {err}", path.display()))?;
    Ok(roots)
}
