//! The data folder of an agent: its SVID, the bundle, how its bootstrap went, and, where the operator
//! wants it, what its workloads may be handed after a restart.

mod agent_data;
mod legacy;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::files::{ReplaceError, replace_private, temporary};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::limits::MAX_CACHE_FILE_BYTES;
use spire_core::os_error::reason;
use spire_core::svid::x509::X509Svid;
use zeroize::Zeroizing;

pub use agent_data::{AgentData, BootstrapRecord, BootstrapUse};

const FILE: &str = "agent-data.json";
const CACHE_FILE: &str = "cache.json";
/// Largest file that is read, apart from that of the cache.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The data folder of an agent. Everything in it can be read at any time; every change is written
/// at once, as a whole.
#[derive(Debug)]
pub struct Storage {
    path: PathBuf,
    cache_path: PathBuf,
    data: Mutex<AgentData>,
}

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file holds something else.
    #[error("failed to open storage: failed to unmarshal data: {0}")]
    Malformed(String),
    /// The folder or a file in it cannot be read.
    #[error("failed to open storage: {path}: {}", reason(error))]
    Io {
        /// Which one.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// A change cannot be written.
    #[error("failed to write storage: {0}")]
    Write(#[from] ReplaceError),
}

impl Storage {
    /// Opens the data folder and makes it where it does not exist. Files of agents through 1.8 are
    /// taken over where there is no newer one of later agents.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(folder).map_err(|error| io_error(folder, error))?;
        let path = folder.join(FILE);
        let data = match read(&path, MAX_FILE_BYTES)? {
            Some(text) => legacy::newer(folder, &path, agent_data::parse(&text)?)?,
            None => legacy::data(folder)?,
        };
        Ok(Self { path, cache_path: folder.join(CACHE_FILE), data: Mutex::new(data) })
    }

    /// What is kept now.
    pub fn data(&self) -> AgentData {
        self.locked().clone()
    }

    /// Whom the stored SVID names; `None` where there is none that can be read.
    pub fn agent_id(&self) -> Option<SpiffeId> {
        X509Svid::from_chain(self.data().svid).ok().map(|svid| svid.id)
    }

    /// The stored bundle as one of `trust_domain`; `None` where none is stored.
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<Bundle> {
        let certificates = self.locked().bundle.clone();
        let authority = |certificate| X509Authority { certificate, tainted: false };
        (!certificates.is_empty()).then(|| Bundle {
            x509_authorities: certificates.into_iter().map(authority).collect(),
            ..Bundle::empty(trust_domain.clone())
        })
    }

    /// Keeps a new SVID.
    ///
    /// # Errors
    /// [`StorageError`]; what was kept before is kept still.
    pub fn store_svid(&self, svid: &X509Svid, reattestable: bool) -> Result<(), StorageError> {
        self.update(|data| {
            data.svid.clone_from(&svid.chain);
            data.reattestable = reattestable;
        })
    }

    /// Keeps what an attestation has brought, with which the bootstrap is over.
    ///
    /// # Errors
    /// [`StorageError`]; what was kept before is kept still.
    pub fn store_attested(
        &self,
        svid: &X509Svid,
        reattestable: bool,
        bundle: &Bundle,
    ) -> Result<(), StorageError> {
        self.update(|data| {
            data.svid.clone_from(&svid.chain);
            data.reattestable = reattestable;
            data.bundle = certificates(bundle);
            data.bootstrap = BootstrapRecord::default();
        })
    }

    /// Gives up the SVID, and with it what its workloads might be handed; the bundle stays.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn delete_svid(&self) -> Result<(), StorageError> {
        self.update(|data| {
            data.svid.clear();
            data.reattestable = false;
        })
    }

    /// Keeps the bundle of a server that is known, with which the bootstrap is over. Where that
    /// is kept already, nothing is written.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store_bundle(&self, bundle: &Bundle) -> Result<(), StorageError> {
        self.update(|data| {
            data.bundle = certificates(bundle);
            data.bootstrap = BootstrapRecord::default();
        })
    }

    /// Notes how the bootstrap goes.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store_bootstrap(&self, record: BootstrapRecord) -> Result<(), StorageError> {
        self.update(|data| data.bootstrap = record)
    }

    /// Gives up everything that ties this agent to the servers that it knew.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn forget_servers(&self) -> Result<(), StorageError> {
        self.update(|data| {
            data.svid.clear();
            data.bundle.clear();
            data.reattestable = false;
            data.bootstrap.source = BootstrapUse::Configured;
        })
    }

    /// Keeps what workloads may be handed after a restart. Without an SVID of its own an agent has
    /// nothing to hand out: then nothing is written.
    ///
    /// # Errors
    /// [`StorageError`]; what was kept before is kept still.
    pub fn store_cache(&self, content: &[u8]) -> Result<(), StorageError> {
        let data = self.locked();
        let length = content.len();
        if u64::try_from(length).is_ok_and(|length| length > MAX_CACHE_FILE_BYTES) {
            return Err(too_large(&self.cache_path, length, MAX_CACHE_FILE_BYTES));
        }
        if data.svid.is_empty() {
            return Ok(());
        }
        Ok(replace_private(&self.cache_path, content)?)
    }

    /// What [`Storage::store_cache`] kept; `None` where there is nothing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn read_cache(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        read(&self.cache_path, MAX_CACHE_FILE_BYTES)
    }

    /// Gives up what workloads might be handed after a restart.
    ///
    /// # Errors
    /// [`StorageError`] where it is still there.
    pub fn delete_cache(&self) -> Result<(), StorageError> {
        for path in [temporary(&self.cache_path), self.cache_path.clone()] {
            // A disk that cannot be written would refuse even what has nothing to do.
            if fs::symlink_metadata(&path).is_ok() {
                fs::remove_file(&path).map_err(|error| io_error(&path, error))?;
            }
        }
        Ok(())
    }

    fn update(&self, change: impl FnOnce(&mut AgentData)) -> Result<(), StorageError> {
        let mut data = self.locked();
        let mut changed = data.clone();
        change(&mut changed);
        if changed.svid.is_empty() {
            self.delete_cache()?;
        }
        if *data == changed && self.path.exists() {
            return Ok(());
        }
        replace_private(&self.path, agent_data::render(&changed).as_bytes())?;
        *data = changed;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, AgentData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn certificates(bundle: &Bundle) -> Vec<Bytes> {
    bundle.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect()
}

fn io_error(path: &Path, error: io::Error) -> StorageError {
    StorageError::Io { path: path.to_owned(), error }
}

fn too_large(path: &Path, length: impl std::fmt::Display, limit: u64) -> StorageError {
    let text = format!("{length} bytes are more than an agent keeps ({limit})");
    io_error(path, io::Error::new(io::ErrorKind::InvalidData, text))
}

/// A file of at most `limit` bytes; `None` where there is none.
fn read(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
    let failed = |error| io_error(path, error);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(too_large(path, length, limit));
    }
    // There is room to spare from the start: a buffer that grows leaves copies of secrets behind.
    let room = usize::try_from(length).unwrap_or_default() + 64;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(length).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;

    use super::agent_data::tests::data;
    use super::*;

    fn trust_domain() -> TrustDomain {
        TrustDomain::parse("example.org").unwrap()
    }

    #[test]
    fn a_broken_file_is_refused_as_spire_refuses_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "").unwrap();
        assert_eq!(
            Storage::open(folder.path()).unwrap_err().to_string(),
            "failed to open storage: failed to unmarshal data: unexpected end of JSON input"
        );
    }

    #[test]
    fn what_is_stored_survives_and_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(&folder.path().join("deep/below")).unwrap();
        let bundle = Bundle {
            x509_authorities: vec![X509Authority {
                certificate: Bytes::from_static(b"root"),
                tainted: false,
            }],
            ..Bundle::empty(trust_domain())
        };
        storage.store_bundle(&bundle).unwrap();
        storage.store_bootstrap(data().bootstrap).unwrap();
        let mode = fs::metadata(&storage.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Storage::open(&folder.path().join("deep/below")).unwrap();
        assert_eq!(again.data(), storage.data());
        assert_eq!(again.bundle(&trust_domain()), Some(bundle));
        again.forget_servers().unwrap();
        assert_eq!(
            Storage::open(&folder.path().join("deep/below")).unwrap().bundle(&trust_domain()),
            None
        );
    }

    #[test]
    fn the_cache_goes_with_the_svid() {
        let folder = tempfile::tempdir().unwrap();
        let write = |data: &AgentData| {
            fs::write(folder.path().join(FILE), agent_data::render(data)).unwrap();
            Storage::open(folder.path()).unwrap()
        };
        let storage = write(&AgentData::default());
        storage.store_cache(b"secret").unwrap();
        assert_eq!(storage.read_cache().unwrap(), None, "there was no SVID");

        for give_up in [Storage::delete_svid, Storage::forget_servers] {
            let storage = write(&data());
            storage.store_cache(b"secret").unwrap();
            assert_eq!(storage.read_cache().unwrap().unwrap().as_slice(), b"secret");
            let mode = fs::metadata(&storage.cache_path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            storage.store_bootstrap(BootstrapRecord::default()).unwrap();
            assert!(storage.read_cache().unwrap().is_some());
            fs::write(temporary(&storage.cache_path), "left by a crash").unwrap();
            give_up(&storage).unwrap();
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "{left:?}");
        }
    }
}
