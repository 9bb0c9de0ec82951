//! The key manager `disk`: keys in one file that only its owner may read.
//!
//! # Source
//! The file is SPIRE's: JSON indented by tabs, a base64 text (PKCS#8 DER) for each key id, sorted.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{KeyError, KeyManager, KeyType, LocalKey, SigningKey};
use crate::catalog::{Plugin, PluginError};
use crate::config::{FromSection, Reader};
use crate::files::replace_private;
use crate::os_error::reason;

/// Registers the plugin of the server, which is told its file.
pub const SERVER_PLUGIN: Plugin<dyn KeyManager> = Plugin {
    name: "disk",
    build: |section, _host| {
        let ServerConfig { keys_path } = section.decode()?;
        Ok(Arc::new(DiskKeyManager::open(keys_path)?))
    },
};

/// Registers the plugin of the agent, which is told a directory and makes it where it is missing.
pub const AGENT_PLUGIN: Plugin<dyn KeyManager> = Plugin {
    name: "disk",
    build: |section, _host| {
        let AgentConfig { directory } = section.decode()?;
        make_directory(&directory)?;
        Ok(Arc::new(DiskKeyManager::open(directory.join("keys.json"))?))
    },
};

struct ServerConfig {
    keys_path: PathBuf,
}

impl FromSection for ServerConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        let keys_path = reader.required("keys_path", "keys_path is required")?;
        Some(Self { keys_path: keys_path.into() })
    }
}

struct AgentConfig {
    directory: PathBuf,
}

impl FromSection for AgentConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        let directory = reader.required("directory", "directory must be configured")?;
        Some(Self { directory: directory.into() })
    }
}

impl From<KeyError> for PluginError {
    fn from(error: KeyError) -> Self {
        Self::Unusable(error.to_string())
    }
}

fn make_directory(directory: &Path) -> Result<(), KeyError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| {
        let (directory, reason) = (directory.display(), reason(&error));
        KeyError::Unavailable(format!("mkdir {directory}: {reason}"))
    })
}

/// Keys in memory and in a file, which is read once.
#[derive(Debug, Clone)]
pub struct DiskKeyManager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    keys: RwLock<BTreeMap<String, LocalKey>>,
    /// Held while the file is written, so that no writer drops another's key.
    writing: Mutex<()>,
}

impl DiskKeyManager {
    /// Loads the keys of `path`; without that file there are none yet.
    ///
    /// # Errors
    /// [`KeyError`] where the file cannot be read or holds something else.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let path = path.into();
        let keys = match fs::read(&path).map(Zeroizing::new) {
            Ok(text) => decode(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                let (path, reason) = (path.display(), reason(&error));
                return Err(KeyError::Unavailable(format!(
                    "unable to load keys: open {path}: {reason}"
                )));
            }
        };
        Ok(Self(Arc::new(Inner { path, keys: RwLock::new(keys), writing: Mutex::new(()) })))
    }
}

impl Inner {
    fn keep(&self, id: String, key: LocalKey) -> Result<(), KeyError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        keys.insert(id, key);
        replace_private(&self.path, encode(&keys)?.as_bytes()).map_err(|error| {
            KeyError::Unavailable(format!(
                "keymanager(disk): failed to generate key: unable to write entries: {error}"
            ))
        })?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

#[async_trait]
impl KeyManager for DiskKeyManager {
    async fn generate(&self, id: &str, kind: KeyType) -> Result<Arc<dyn SigningKey>, KeyError> {
        let key = LocalKey::generate(kind).await?;
        let (inner, id, kept) = (Arc::clone(&self.0), id.to_owned(), key.clone());
        match tokio::task::spawn_blocking(move || inner.keep(id, kept)).await {
            Ok(result) => result?,
            Err(_) => return Err(KeyError::Unavailable("the process is stopping".into())),
        }
        Ok(Arc::new(key))
    }

    async fn key(&self, id: &str) -> Result<Option<Arc<dyn SigningKey>>, KeyError> {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.get(id).map(|key| Arc::new(key.clone()) as Arc<dyn SigningKey>))
    }
}

/// The file as serde sees it. Other members are ignored.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    keys: Option<BTreeMap<String, Zeroizing<String>>>,
}

fn decode(text: &[u8]) -> Result<BTreeMap<String, LocalKey>, KeyError> {
    let broken =
        |reason: String| KeyError::Invalid(format!("unable to decode keys JSON: {reason}"));
    if text.is_empty() {
        return Err(broken("unexpected end of JSON input".into()));
    }
    let document: Document =
        serde_json::from_slice(text).map_err(|error| broken(without_content(&error)))?;
    let mut keys = BTreeMap::new();
    for (id, encoded) in document.keys.unwrap_or_default() {
        let der = STANDARD.decode(encoded.as_bytes()).map(Zeroizing::new);
        let der = der.map_err(|error| broken(format!("key {id:?} is no base64: {error}")))?;
        let key =
            LocalKey::from_pkcs8(&der).map_err(|error| broken(format!("key {id:?}: {error}")))?;
        keys.insert(id, key);
    }
    Ok(keys)
}

/// What serde says, unless it might quote a key that stands in the wrong place.
fn without_content(error: &serde_json::Error) -> String {
    if error.is_data() {
        let (line, column) = (error.line(), error.column());
        return format!("line {line} column {column} is not how a file of keys is laid out");
    }
    error.to_string()
}

/// The text of the file, put together by hand so that no copy of a key is left in memory.
fn encode(keys: &BTreeMap<String, LocalKey>) -> Result<Zeroizing<String>, KeyError> {
    // A buffer that never grows leaves no old copies behind: an RSA key of 4096 bits fills the
    // larger part of 4 KiB.
    let capacity = 64 + keys.keys().map(|id| 4096 + 6 * id.len()).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    text.push_str("{\n\t\"keys\": {");
    for (position, (id, key)) in keys.iter().enumerate() {
        text.push_str(if position == 0 { "\n\t\t" } else { ",\n\t\t" });
        text.push_str(&serde_json::Value::from(id.as_str()).to_string());
        text.push_str(": \"");
        STANDARD.encode_string(key.to_pkcs8()?.as_slice(), &mut text);
        text.push('"');
    }
    text.push_str(if keys.is_empty() { "}\n}" } else { "\n\t}\n}" });
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::sync::watch;

    use super::*;
    use crate::bundle::Bundle;
    use crate::catalog::Host;
    use crate::clock::Clock;
    use crate::config::Section;
    use crate::id::TrustDomain;

    #[tokio::test]
    async fn keys_are_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let manager = DiskKeyManager::open(&path).unwrap();
        let b = manager.generate("x509-CA-B", KeyType::EcP256).await.unwrap();
        let a = manager.generate("x509-CA-A", KeyType::Rsa2048).await.unwrap();

        let manager = DiskKeyManager::open(&path).unwrap();
        for (id, key) in [("x509-CA-A", a), ("x509-CA-B", b)] {
            let loaded = manager.key(id).await.unwrap().expect(id);
            assert_eq!(loaded.public_key(), key.public_key());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!directory.path().join("keys.json.tmp").exists());
    }

    #[test]
    fn the_file_is_laid_out_as_spire_lays_it_out() {
        let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        let base64 = STANDARD.encode(key.to_pkcs8().unwrap().as_slice());
        let keys = BTreeMap::from([("b".into(), key.clone()), ("a".into(), key)]);
        assert_eq!(
            *encode(&keys).unwrap(),
            format!(
                "{{\n\t\"keys\": {{\n\t\t\"a\": \"{base64}\",\n\t\t\"b\": \"{base64}\"\n\t}}\n}}"
            )
        );
        assert_eq!(*encode(&BTreeMap::new()).unwrap(), "{\n\t\"keys\": {}\n}");
        assert!(decode(encode(&BTreeMap::new()).unwrap().as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn a_broken_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        for (content, end) in [
            ("", "unable to decode keys JSON: unexpected end of JSON input"),
            ("{", "unable to decode keys JSON: EOF while parsing an object at line 1 column 1"),
            (r#"{"keys":{"a":"AA=="}}"#, "in PKCS#8 is expected"),
        ] {
            fs::write(&path, content).unwrap();
            let error = DiskKeyManager::open(&path).unwrap_err().to_string();
            assert!(error.ends_with(end), "{error}");
        }
        for content in ["{}", r#"{"keys":null,"more":1}"#] {
            fs::write(&path, content).unwrap();
            assert!(DiskKeyManager::open(&path).is_ok(), "{content}");
        }
    }

    fn host() -> Host {
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        let bundle = watch::channel(Arc::new(Bundle::empty(trust_domain.clone()))).1;
        Host { trust_domain, bundle, clock: Clock::system() }
    }

    #[tokio::test]
    async fn both_plugins_read_their_settings() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("agent/keys");
        let section = |text: String| Section::parse(&text).unwrap();
        let agent = section(format!("directory = {below:?} more = 1"));
        let keys = (AGENT_PLUGIN.build)(&agent, &host()).unwrap();
        keys.generate("agent-svid-A", KeyType::EcP256).await.unwrap();
        assert_eq!(fs::metadata(&below).unwrap().permissions().mode() & 0o777, 0o700);

        let server = section(format!("keys_path = {:?}", below.join("keys.json")));
        let keys = (SERVER_PLUGIN.build)(&server, &host()).unwrap();
        assert!(keys.key("agent-svid-A").await.unwrap().is_some());

        let refusal = |plugin: &Plugin<dyn KeyManager>| {
            let error = (plugin.build)(&Section::default(), &host()).err().unwrap();
            error.to_string()
        };
        assert!(refusal(&SERVER_PLUGIN).contains("keys_path is required"));
        assert!(refusal(&AGENT_PLUGIN).contains("directory must be configured"));
        fs::write(below.join("keys.json"), "").unwrap();
        assert_eq!(
            (AGENT_PLUGIN.build)(&agent, &host()).err().unwrap().to_string(),
            "rpc error: code = Internal desc = unable to decode keys JSON: unexpected end of JSON \
             input"
        );
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_written_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/keys.json");
        let manager = DiskKeyManager::open(&path).unwrap();
        let error = manager.generate("agent-svid-A", KeyType::EcP256).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "keymanager(disk): failed to generate key: unable to write entries: open \
                 {}.tmp: no such file or directory",
                path.display()
            )
        );
        assert!(manager.key("agent-svid-A").await.unwrap().is_none());
    }
}
