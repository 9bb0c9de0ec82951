//! What an agent keeps in its data folder: its SVID, the bundle, and how its bootstrap went.
//!
//! The file is the one that SPIRE's agents write, so that either can take over from the other.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::id::TrustDomain;
use spire_core::os_error::reason;
use spire_core::svid::x509::X509Svid;

const FILE: &str = "agent-data.json";
/// Written through version 1.8: certificates in DER, one after the other.
const OLD_SVID_FILE: &str = "agent_svid.der";
const OLD_BUNDLE_FILE: &str = "bundle.der";
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The data folder of an agent. Everything in it can be read at any time; every change is written
/// at once, as a whole.
#[derive(Debug)]
pub struct Storage {
    path: PathBuf,
    data: Mutex<AgentData>,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentData {
    /// The agent's SVID: the leaf first, DER. Empty where it has none.
    pub svid: Vec<Bytes>,
    /// The roots of the trust domain, DER. Empty where none were ever stored.
    pub bundle: Vec<Bytes>,
    /// Whether the server said that this agent may attest again.
    pub reattestable: bool,
    /// What the bootstrap state is kept for.
    pub bootstrap: BootstrapRecord,
}

/// How far a first or a repeated bootstrap has come, over restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootstrapRecord {
    /// Whether the configured source of the first bundle is to be used, whatever is stored.
    pub source: BootstrapUse,
    /// When the attempts began; `None` while none is under way.
    pub started_at: Option<Timestamp>,
    /// How many there were.
    pub attempts: u64,
}

/// Which bundle the next attestation trusts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BootstrapUse {
    /// Nothing is known yet.
    Unspecified,
    /// The configured source: the stored bundle has been given up.
    Configured,
    /// The stored bundle where there is one.
    #[default]
    Stored,
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
    #[error("failed to write storage: {path}: {}", reason(error))]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

impl Storage {
    /// Opens the data folder and makes it where it does not exist. Files of agents through 1.8 are
    /// taken over where there is no newer file.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(folder).map_err(|error| io_error(folder, error))?;
        let path = folder.join(FILE);
        let data = match read(&path)? {
            Some(text) => parse(&text)?,
            None => old_data(folder)?,
        };
        Ok(Self { path, data: Mutex::new(data) })
    }

    /// What is kept now.
    pub fn data(&self) -> AgentData {
        self.locked().clone()
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

    /// Gives up the SVID; the bundle stays.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn delete_svid(&self) -> Result<(), StorageError> {
        self.update(|data| {
            data.svid.clear();
            data.reattestable = false;
        })
    }

    /// Keeps a new bundle, where it differs from the one that is kept.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store_bundle(&self, bundle: &Bundle) -> Result<(), StorageError> {
        self.update(|data| {
            let certificates = bundle.x509_authorities.iter().map(|it| it.certificate.clone());
            data.bundle = certificates.collect();
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

    fn update(&self, change: impl FnOnce(&mut AgentData)) -> Result<(), StorageError> {
        let mut data = self.locked();
        let mut changed = data.clone();
        change(&mut changed);
        if *data == changed && self.path.exists() {
            return Ok(());
        }
        write_whole(&self.path, render(&changed).as_bytes())
            .map_err(|error| StorageError::Write { path: self.path.clone(), error })?;
        *data = changed;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, AgentData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file that only its owner may read, so that at any moment either the old content or the
/// new one is there, whole.
///
/// # Errors
/// What the file system says.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn io_error(path: &Path, error: io::Error) -> StorageError {
    StorageError::Io { path: path.to_owned(), error }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, error)),
    };
    if length > MAX_FILE_BYTES {
        let text = format!("{length} bytes are more than an agent keeps ({MAX_FILE_BYTES})");
        return Err(io_error(path, io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    fs::read(path).map(Some).map_err(|error| io_error(path, error))
}

/// An old bundle without an SVID that it goes with may be from anywhere, and is left alone.
fn old_data(folder: &Path) -> Result<AgentData, StorageError> {
    let svid = old_certificates(&folder.join(OLD_SVID_FILE))?;
    if svid.is_empty() {
        return Ok(AgentData::default());
    }
    let bundle = old_certificates(&folder.join(OLD_BUNDLE_FILE))?;
    Ok(AgentData { svid, bundle, ..AgentData::default() })
}

fn old_certificates(path: &Path) -> Result<Vec<Bytes>, StorageError> {
    let der = read(path)?.unwrap_or_default();
    split_der(&der).ok_or_else(|| {
        io_error(path, io::Error::new(io::ErrorKind::InvalidData, "no certificates in DER"))
    })
}

/// Takes certificates apart that follow each other without padding: each is one DER SEQUENCE.
fn split_der(mut der: &[u8]) -> Option<Vec<Bytes>> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (content, header) = match *der {
            [0x30, length @ 0..=0x7f, ..] => (usize::from(length), 2),
            [0x30, 0x81, length, ..] => (usize::from(length), 3),
            [0x30, 0x82, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
            _ => return None,
        };
        let (certificate, rest) = der.split_at_checked(header + content)?;
        certificates.push(Bytes::copy_from_slice(certificate));
        der = rest;
    }
    Some(certificates)
}

/// The file as it is written: one line, members in this order.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default)]
    svid: Option<Vec<String>>,
    #[serde(default)]
    bundle: Option<Vec<String>>,
    #[serde(default)]
    reattestable: bool,
    #[serde(default = "stored_use")]
    bootstrap_use: u8,
    #[serde(default = "no_time")]
    bootstrap_start_time: String,
    #[serde(default)]
    connection_attempts: u64,
}

/// How the absence of a time is written.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

fn no_time() -> String {
    NO_TIME.to_owned()
}

fn stored_use() -> u8 {
    2
}

fn parse(text: &[u8]) -> Result<AgentData, StorageError> {
    let written: Written = serde_json::from_slice(text).map_err(|error| {
        // The sentence that SPIRE has for a file that was cut off.
        let text =
            if error.is_eof() { "unexpected end of JSON input".into() } else { error.to_string() };
        StorageError::Malformed(text)
    })?;
    let started_at = match written.bootstrap_start_time.as_str() {
        NO_TIME | "" => None,
        text => Some(text.parse().map_err(|_| {
            StorageError::Malformed(format!("bootstrap_start_time: {text:?} is no time"))
        })?),
    };
    Ok(AgentData {
        svid: certificates("svid", written.svid)?,
        bundle: certificates("bundle", written.bundle)?,
        reattestable: written.reattestable,
        bootstrap: BootstrapRecord {
            source: match written.bootstrap_use {
                0 => BootstrapUse::Unspecified,
                1 => BootstrapUse::Configured,
                _ => BootstrapUse::Stored,
            },
            started_at,
            attempts: written.connection_attempts,
        },
    })
}

fn render(data: &AgentData) -> String {
    let items = |certificates: &[Bytes]| {
        let item = |certificate: &Bytes| STANDARD.encode(pem(certificate));
        (!certificates.is_empty()).then(|| certificates.iter().map(item).collect())
    };
    let written = Written {
        svid: items(&data.svid),
        bundle: items(&data.bundle),
        reattestable: data.reattestable,
        bootstrap_use: match data.bootstrap.source {
            BootstrapUse::Unspecified => 0,
            BootstrapUse::Configured => 1,
            BootstrapUse::Stored => 2,
        },
        bootstrap_start_time: data.bootstrap.started_at.map_or_else(no_time, |at| at.to_string()),
        connection_attempts: data.bootstrap.attempts,
    };
    serde_json::to_string(&written).expect("strings, numbers and booleans are JSON")
}

fn pem(certificate: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(certificate);
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn certificates(member: &str, items: Option<Vec<String>>) -> Result<Vec<Bytes>, StorageError> {
    let certificate = |item: String| {
        let pem = STANDARD.decode(item).ok()?;
        let der = CertificateDer::from_pem_slice(&pem).ok()?;
        Some(Bytes::copy_from_slice(&der))
    };
    items
        .unwrap_or_default()
        .into_iter()
        .map(|item| {
            certificate(item).ok_or_else(|| {
                StorageError::Malformed(format!("{member}: an item is no PEM certificate"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn data() -> AgentData {
        AgentData {
            svid: vec![Bytes::from_static(b"0\x03leaf"), Bytes::from_static(b"intermediate")],
            bundle: vec![Bytes::from_static(b"root")],
            reattestable: true,
            bootstrap: BootstrapRecord {
                source: BootstrapUse::Configured,
                started_at: Some("2026-01-02T03:04:05Z".parse().unwrap()),
                attempts: 3,
            },
        }
    }

    fn trust_domain() -> TrustDomain {
        TrustDomain::parse("example.org").unwrap()
    }

    #[test]
    fn the_file_has_the_members_that_spire_writes() {
        assert_eq!(
            render(&AgentData::default()),
            r#"{"svid":null,"bundle":null,"reattestable":false,"bootstrap_use":2,"bootstrap_start_time":"0001-01-01T00:00:00Z","connection_attempts":0}"#
        );
        assert_eq!(parse(render(&data()).as_bytes()).unwrap(), data());
        assert!(render(&data()).contains(r#""bootstrap_start_time":"2026-01-02T03:04:05Z""#));
        assert!(render(&data()).contains(r#""svid":["LS0tLS1CRUdJTiBDRVJUSUZJQ0FUR"#));
    }

    #[test]
    fn unknown_members_are_ignored_and_missing_ones_tolerated() {
        assert_eq!(parse(br#"{"other":1}"#).unwrap(), AgentData::default());
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
    fn files_of_older_agents_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut long = vec![0x30, 0x82, 0x01, 0x00];
        long.extend([7; 256]);
        let svid = [&long[..], b"0\x03abc"].concat();
        fs::write(folder.path().join(OLD_BUNDLE_FILE), b"0\x04root").unwrap();
        assert_eq!(Storage::open(folder.path()).unwrap().data(), AgentData::default());
        fs::write(folder.path().join(OLD_SVID_FILE), svid).unwrap();
        let data = Storage::open(folder.path()).unwrap().data();
        assert_eq!(data.svid, [Bytes::from(long), Bytes::from_static(b"0\x03abc")]);
        assert_eq!(data.bundle, [Bytes::from_static(b"0\x04root")]);
    }

    #[test]
    fn an_old_file_that_was_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(OLD_SVID_FILE), b"0\x05abc").unwrap();
        assert!(Storage::open(folder.path()).is_err());
    }
}
