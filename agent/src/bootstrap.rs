//! First trust in the server: the bundle from the source that the operator chose, and the rules by
//! which an agent gives up an old bundle for it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use spire_core::bundle::{Bundle, BundleError};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::limits::REMOTE_CALL;
use spire_core::os_error::reason;
use spire_core::wire::workload::{self, X509BundlesRequest};
use tonic::transport::Endpoint;

use crate::client::{RpcError, ServerAddress};
use crate::config::{BundleFormat, BundleSource, RebootstrapMode};
use crate::storage::{BootstrapRecord, BootstrapUse, Storage, StorageError};

/// Largest bundle document that is read, in bytes.
const MAX_BUNDLE_BYTES: usize = 4 << 20;

/// What an attempt is made for, as sources behind a Unix socket learn it.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// Whose bundle is wanted.
    pub trust_domain: &'a TrustDomain,
    /// The server that will be asked.
    pub server: &'a ServerAddress,
    /// Whether an earlier bundle was given up.
    pub is_rebootstrap: bool,
    /// Which attempt this is, from 1.
    pub number: u64,
    /// When the first one was.
    pub started_at: Timestamp,
}

/// No bundle could be had.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("could not parse trust bundle: open {path}: {}", reason(error))]
    File {
        /// Its path.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// What was read is no bundle.
    #[error("could not parse trust bundle: {0}")]
    Document(#[from] BundleError),
    /// The web server did not give one.
    #[error("unable to fetch trust bundle URL {url}: {reason}")]
    Url {
        /// Its address.
        url: Url,
        /// What happened.
        reason: String,
    },
    /// The other Workload API did not give one.
    #[error("unable to fetch trust bundle from the Workload API at {address}: {reason}")]
    WorkloadApi {
        /// Its address.
        address: String,
        /// What happened.
        reason: String,
    },
}

impl BundleSource {
    /// Asks the source. `None` means that no bundle is needed because nothing is checked.
    ///
    /// # Errors
    /// [`BootstrapError`].
    pub async fn fetch(&self, attempt: &Attempt<'_>) -> Result<Option<Bundle>, BootstrapError> {
        let trust_domain = attempt.trust_domain.clone();
        match self {
            Self::File { path, format } => {
                let text = tokio::fs::read(path)
                    .await
                    .map_err(|error| BootstrapError::File { path: path.clone(), error })?;
                format.read(trust_domain, &text).map(Some)
            }
            Self::Url { url, socket, format } => {
                let url = if socket.is_some() { with_purpose(url, attempt) } else { url.clone() };
                let document = download(&url, socket.clone())
                    .await
                    .map_err(|reason| BootstrapError::Url { url, reason })?;
                format.read(trust_domain, &document).map(Some)
            }
            Self::WorkloadApi { address } => {
                let asked = tokio::time::timeout(REMOTE_CALL, ask(address, &trust_domain)).await;
                let reason = match asked {
                    Ok(Ok(der)) => return Ok(Some(Bundle::from_der(trust_domain, &der)?)),
                    Ok(Err(reason)) => reason,
                    Err(_) => format!("no answer within {REMOTE_CALL:?}"),
                };
                Err(BootstrapError::WorkloadApi { address: address.clone(), reason })
            }
            Self::Insecure => Ok(None),
        }
    }
}

impl BundleFormat {
    fn read(self, trust_domain: TrustDomain, text: &[u8]) -> Result<Bundle, BootstrapError> {
        Ok(match self {
            Self::Pem => Bundle::from_pem(trust_domain, text)?,
            Self::Spiffe => Bundle::from_spiffe_json(trust_domain, text)?,
        })
    }
}

/// Tells the process behind the socket what the bundle is wanted for.
fn with_purpose(url: &Url, attempt: &Attempt<'_>) -> Url {
    let mut url = url.clone();
    let mode = if attempt.is_rebootstrap { "rebootstrap" } else { "bootstrap" };
    url.query_pairs_mut()
        .append_pair("spire-attest-mode", mode)
        .append_pair("spire-connection-attempts", &attempt.number.to_string())
        .append_pair("spire-attest-start-time", &attempt.started_at.to_string())
        .append_pair("spire-server-address", &attempt.server.host)
        .append_pair("spire-server-port", &attempt.server.port.to_string())
        .append_pair("spiffe-trust-domain", attempt.trust_domain.as_str());
    url
}

async fn download(url: &Url, socket: Option<PathBuf>) -> Result<Vec<u8>, String> {
    let mut client = reqwest::Client::builder().timeout(REMOTE_CALL);
    client = match socket {
        Some(socket) => client.unix_socket(socket),
        None => client.https_only(true),
    };
    let client = client.build().map_err(|error| chain(&error))?;
    let mut answer = client.get(url.clone()).send().await.map_err(|error| chain(&error))?;
    if !answer.status().is_success() {
        return Err(format!("the answer is {}", answer.status()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error))? {
        if document.len() + chunk.len() > MAX_BUNDLE_BYTES {
            return Err(format!("the answer is longer than {MAX_BUNDLE_BYTES} bytes"));
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

/// An error with what it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The roots of `trust_domain` from another Workload API: DER, one after the other.
async fn ask(address: &str, trust_domain: &TrustDomain) -> Result<Vec<u8>, String> {
    let target = match address.strip_prefix("tcp://") {
        Some(address) => format!("http://{address}"),
        None => {
            let path = address.strip_prefix("unix:").unwrap_or(address);
            format!("unix://{}", path.strip_prefix("//").unwrap_or(path))
        }
    };
    let channel = Endpoint::from_shared(target)
        .map_err(|error| chain(&error))?
        .connect()
        .await
        .map_err(|error| chain(&error))?;
    let rpc_error = |status| RpcError::from(status).to_string();
    let called = workload::client(channel).fetch_x509_bundles(X509BundlesRequest {}).await;
    let mut answers = called.map_err(rpc_error)?.into_inner();
    let answer = answers.message().await.map_err(rpc_error)?.ok_or("the stream ended at once")?;
    let id = trust_domain.id();
    match answer.bundles.get(id.as_str()) {
        Some(der) => Ok(der.to_vec()),
        None => Err(format!("it has no bundle of {id}")),
    }
}

/// Counts attempts over restarts, and notices when the stored bundle is to be given up.
#[derive(Debug)]
pub struct Rebootstrap {
    /// When at all.
    pub mode: RebootstrapMode,
    /// How long an unknown authority must persist.
    pub delay: Duration,
    /// The time.
    pub clock: Clock,
}

impl Rebootstrap {
    /// Notes that one more attempt to attest begins, and returns its record.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn attempt_begins(&self, storage: &Storage) -> Result<BootstrapRecord, StorageError> {
        let mut record = storage.data().bootstrap;
        record.started_at.get_or_insert(self.clock.now());
        record.attempts += 1;
        storage.store_bootstrap(record)?;
        Ok(record)
    }

    /// Notes that the server's authority is unknown. Returns whether that has lasted so long that
    /// the stored SVID and bundle were given up.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn authority_is_unknown(&self, storage: &Storage) -> Result<bool, StorageError> {
        let data = storage.data();
        let is_bound = !data.svid.is_empty() && !data.reattestable;
        if self.mode == RebootstrapMode::Never || data.bundle.is_empty() || is_bound {
            return Ok(false);
        }
        let now = self.clock.now();
        let mut record = data.bootstrap;
        let since = *record.started_at.get_or_insert(now);
        if now.duration_since(since) < SignedDuration::try_from(self.delay).unwrap_or_default() {
            storage.store_bootstrap(record)?;
            return Ok(false);
        }
        storage.forget_servers()?;
        storage.store_bootstrap(BootstrapRecord {
            source: BootstrapUse::Configured,
            started_at: None,
            attempts: 0,
        })?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::samples::start;

    fn attempt<'a>(trust_domain: &'a TrustDomain, server: &'a ServerAddress) -> Attempt<'a> {
        Attempt { trust_domain, server, is_rebootstrap: true, number: 3, started_at: start() }
    }

    fn example() -> (TrustDomain, ServerAddress) {
        let server = ServerAddress { host: "spire".to_owned(), port: 8081 };
        (TrustDomain::parse("example.org").unwrap(), server)
    }

    #[test]
    fn a_process_behind_a_socket_learns_what_the_bundle_is_wanted_for() {
        let (trust_domain, server) = example();
        let url = with_purpose(&"http://x/?a=b".parse().unwrap(), &attempt(&trust_domain, &server));
        assert_eq!(
            url.query().unwrap(),
            "a=b&spire-attest-mode=rebootstrap&spire-connection-attempts=3&\
             spire-attest-start-time=2027-01-15T08%3A00%3A00Z&spire-server-address=spire&\
             spire-server-port=8081&spiffe-trust-domain=example.org"
        );
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let (trust_domain, server) = example();
        let path = PathBuf::from("/nowhere/root.pem");
        let source = BundleSource::File { path, format: BundleFormat::Pem };
        let error = source.fetch(&attempt(&trust_domain, &server)).await.unwrap_err();
        assert!(
            error.to_string().starts_with("could not parse trust bundle: open /nowhere/root.pem: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_absent_workload_api_is_named() {
        let (trust_domain, server) = example();
        let source = BundleSource::WorkloadApi { address: "unix:///nowhere/api.sock".to_owned() };
        let error = source.fetch(&attempt(&trust_domain, &server)).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/api.sock"), "{error}");
    }

    #[test]
    fn an_authority_must_be_unknown_for_the_whole_delay() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        let (trust_domain, _) = example();
        let mut bundle = Bundle::empty(trust_domain.clone());
        bundle.x509_authorities.push(spire_core::bundle::X509Authority {
            certificate: bytes::Bytes::from_static(b"root"),
            tainted: false,
        });
        storage.store_bundle(&bundle).unwrap();
        let clock = Clock::standing_at(start());
        let rule =
            |mode| Rebootstrap { mode, delay: Duration::from_secs(600), clock: clock.clone() };

        let auto = rule(RebootstrapMode::Auto);
        assert!(!auto.authority_is_unknown(&storage).unwrap());
        clock.advance(SignedDuration::from_secs(599));
        assert!(!auto.authority_is_unknown(&storage).unwrap());
        storage.store_bundle(&bundle).unwrap();
        clock.advance(SignedDuration::from_secs(1));
        assert!(!auto.authority_is_unknown(&storage).unwrap());
        clock.advance(SignedDuration::from_secs(600));
        assert!(!rule(RebootstrapMode::Never).authority_is_unknown(&storage).unwrap());
        assert!(auto.authority_is_unknown(&storage).unwrap());
        assert_eq!(storage.bundle(&trust_domain), None);
        assert_eq!(storage.data().bootstrap.source, BootstrapUse::Configured);
    }
}
