//! The key manager `disk`: keys in one file that only its owner may read.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::{KeyError, KeyManager, KeyType, SigningKey};

/// Keys in memory and in a file.
#[derive(Debug)]
pub struct DiskKeyManager {
    path: PathBuf,
}

impl DiskKeyManager {
    /// Loads the keys of `path`; without that file there are none yet.
    ///
    /// # Errors
    /// [`KeyError`] where the file cannot be read or holds something else.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let path: PathBuf = path.into();
        let _ = Self { path };
        todo!()
    }
}

#[async_trait]
impl KeyManager for DiskKeyManager {
    async fn generate(&self, id: &str, kind: KeyType) -> Result<Arc<dyn SigningKey>, KeyError> {
        let _ = (id, kind, &self.path);
        todo!()
    }

    async fn key(&self, id: &str) -> Result<Option<Arc<dyn SigningKey>>, KeyError> {
        let _ = id;
        todo!()
    }
}
