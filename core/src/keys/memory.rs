//! The key manager `memory`: keys that end with the process.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;

use super::{KeyError, KeyManager, KeyType, LocalKey, SigningKey};
use crate::catalog::{Plugin, refuse_settings};

/// Registers the plugin, for server and agent.
pub const PLUGIN: Plugin<dyn KeyManager> = Plugin {
    name: "memory",
    build: |section, _host| {
        refuse_settings(section)?;
        Ok(Arc::new(MemoryKeyManager::new()))
    },
};

/// Keys in memory alone.
#[derive(Debug, Default)]
pub struct MemoryKeyManager {
    keys: RwLock<HashMap<String, LocalKey>>,
}

impl MemoryKeyManager {
    /// No keys yet.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl KeyManager for MemoryKeyManager {
    async fn generate(&self, id: &str, kind: KeyType) -> Result<Arc<dyn SigningKey>, KeyError> {
        let key = LocalKey::generate(kind).await?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(id.to_owned(), key.clone());
        Ok(Arc::new(key))
    }

    async fn key(&self, id: &str) -> Result<Option<Arc<dyn SigningKey>>, KeyError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.get(id).map(|key| Arc::new(key.clone()) as Arc<dyn SigningKey>))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_key_replaces_the_first() {
        let manager = MemoryKeyManager::new();
        assert!(manager.key("x509-CA-A").await.unwrap().is_none());
        let first = manager.generate("x509-CA-A", KeyType::EcP256).await.unwrap();
        let second = manager.generate("x509-CA-A", KeyType::EcP384).await.unwrap();
        let kept = manager.key("x509-CA-A").await.unwrap().unwrap();
        assert_ne!(kept.public_key(), first.public_key());
        assert_eq!(kept.public_key(), second.public_key());
    }
}
