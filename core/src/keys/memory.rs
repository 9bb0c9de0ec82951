//! The key manager `memory`: keys that end with the process.

use std::sync::Arc;

use async_trait::async_trait;

use super::{KeyError, KeyManager, KeyType, SigningKey};

/// Keys in memory alone.
#[derive(Debug, Default)]
pub struct MemoryKeyManager {}

impl MemoryKeyManager {
    /// No keys yet.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl KeyManager for MemoryKeyManager {
    async fn generate(&self, id: &str, kind: KeyType) -> Result<Arc<dyn SigningKey>, KeyError> {
        let _ = (id, kind);
        todo!()
    }

    async fn key(&self, id: &str) -> Result<Option<Arc<dyn SigningKey>>, KeyError> {
        let _ = id;
        todo!()
    }
}
