//! `disk`: an upstream CA whose certificate and key are files on this machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use spire_core::bundle::{JwtAuthority, X509Authority};
use spire_core::catalog::{Host, Plugin};
use spire_core::clock::Clock;
use spire_core::config::{ConfigErrors, FromSection, Reader, Section};
use spire_core::id::TrustDomain;
use spire_core::keys::{LocalKey, SigningKey};
use spire_core::svid::x509::{CaTemplate, CertificateRequest, IssueError, Issuer};
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamBundle, UpstreamError};
use zeroize::Zeroizing;

use crate::certificate;
use crate::path;

/// Registers the plugin.
pub const PLUGIN: Plugin<dyn UpstreamAuthority> =
    Plugin { name: "disk", build: |section, host| Ok(Arc::new(Disk::build(section, host)?)) };

/// Lifetime of what is signed for a caller that names none.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// How often it is looked whether the files changed.
const LOOK: Duration = Duration::from_secs(5);

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where the upstream CA lies.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    bundle: Option<PathBuf>,
}

/// The upstream CA as it was read.
#[derive(Debug)]
struct Loaded {
    issuer: Issuer,
    roots: Vec<X509Authority>,
}

/// Signs with an upstream CA from files, which are read again for each signature.
#[derive(Debug)]
pub struct Disk {
    files: Files,
    trust_domain: TrustDomain,
    clock: Clock,
    last_good: Mutex<Arc<Loaded>>,
}

impl Disk {
    fn build(section: &Section, host: &Host) -> Result<Self, ConfigErrors> {
        let files = section.decode()?;
        Self::open(files, host.trust_domain.clone(), host.clock.clone()).map_err(|err| {
            let (_, findings) = section.read(|reader| -> Option<()> {
                reader.reject(err.setting, &err.message, "set it to a file that can be used");
                None
            });
            ConfigErrors(findings.mistakes)
        })
    }

    fn open(files: Files, trust_domain: TrustDomain, clock: Clock) -> Result<Self, LoadError> {
        let loaded = Arc::new(files.load(clock.now())?);
        Ok(Self { files, trust_domain, clock, last_good: Mutex::new(loaded) })
    }

    /// The CA as its files are now, else as they last were good.
    async fn current(&self, now: Timestamp) -> Result<Arc<Loaded>, UpstreamError> {
        let files = self.files.clone();
        let loaded = tokio::task::spawn_blocking(move || files.load(now)).await;
        let failure = match loaded {
            Ok(Ok(loaded)) => {
                let loaded = Arc::new(loaded);
                *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = loaded.clone();
                return Ok(loaded);
            }
            Ok(Err(err)) => err.message,
            Err(err) => err.to_string(),
        };
        let last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last_good.issuer.expires_at() <= now {
            return Err(UpstreamError::Invalid(failure));
        }
        tracing::warn!(
            plugin_name = "disk",
            error = failure,
            "Unable to read the upstream CA; the one that was read before is used"
        );
        Ok(last_good)
    }
}

#[async_trait]
impl UpstreamAuthority for Disk {
    async fn mint(&self, csr: &[u8], ttl: Duration) -> Result<Minted, UpstreamError> {
        let request = CertificateRequest::parse(csr)
            .map_err(|err| UpstreamError::Invalid(format!("unable to parse CSR: {err}")))?;
        let expected = self.trust_domain.id();
        if request.uris != [expected.as_str()] {
            return Err(UpstreamError::Invalid(format!(
                "the CSR must have the URI SAN {expected} alone, not {:?}",
                request.uris
            )));
        }
        let now = self.clock.now();
        let loaded = self.current(now).await?;
        let template = CaTemplate {
            trust_domain: &self.trust_domain,
            public_key: &request.public_key,
            subject: &request.subject,
            ttl: if ttl.is_zero() { DEFAULT_TTL } else { ttl },
        };
        let chain = loaded.issuer.sign_ca(&template, now).await.map_err(|err| match err {
            IssueError::Key(err) => UpstreamError::Unavailable(err.to_string()),
            IssueError::Template(why) => UpstreamError::Invalid(why),
        })?;
        Ok(Minted { chain, roots: loaded.roots.clone() })
    }

    async fn publish_jwt_key(
        &self,
        _key: &JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, UpstreamError> {
        Err(UpstreamError::Unsupported)
    }

    async fn bundle(&self) -> Result<UpstreamBundle, UpstreamError> {
        let loaded = self.current(self.clock.now()).await?;
        Ok(UpstreamBundle { roots: loaded.roots.clone(), jwt_keys: None })
    }

    fn bundle_period(&self) -> Duration {
        LOOK
    }
}

/// Why the files are no usable CA.
#[derive(Debug)]
struct LoadError {
    /// The setting that names the file at fault.
    setting: &'static str,
    message: String,
}

impl FromSection for Files {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        reader.ignored("ttl", "the server's ca_ttl decides");
        let certificate = reader.required("cert_file_path", "cert_file_path is required");
        let key = reader.required("key_file_path", "key_file_path is required");
        let bundle = reader.string("bundle_file_path").map(PathBuf::from);
        Some(Self { certificate: certificate?.into(), key: key?.into(), bundle })
    }
}

impl Files {
    fn load(&self, now: Timestamp) -> Result<Loaded, LoadError> {
        let at = |setting| move |message| LoadError { setting, message };
        let of_certificate = at("cert_file_path");
        let key = self
            .read_key()
            .map_err(|err| at("key_file_path")(format!("unable to load upstream CA key: {err}")))?;
        let chain = read_certificates(&self.certificate)
            .map_err(|err| of_certificate(format!("unable to load upstream CA cert: {err}")))?;
        let roots = match &self.bundle {
            None if chain.len() > 1 => {
                let sentence =
                    "with no bundle_file_path configured only self-signed CAs are supported";
                return Err(of_certificate(sentence.to_owned()));
            }
            None => chain.clone(),
            Some(bundle) => read_certificates(bundle).map_err(|err| {
                at("bundle_file_path")(format!("unable to load upstream CA bundle: {err}"))
            })?,
        };
        check(&chain, &roots, &key, now)
            .map_err(|err| of_certificate(format!("unable to load upstream CA: {err}")))?;
        let key: Arc<dyn SigningKey> = Arc::new(key);
        let issuer = if self.bundle.is_some() {
            Issuer::intermediate(chain, key)
        } else {
            Issuer::root(chain[0].clone(), key)
        };
        let issuer = issuer.map_err(|err| of_certificate(err.to_string()))?;
        let root = |certificate| X509Authority { certificate, tainted: false };
        Ok(Loaded { issuer, roots: roots.into_iter().map(root).collect() })
    }

    fn read_key(&self) -> Result<LocalKey, String> {
        let text = Zeroizing::new(read(&self.key)?);
        LocalKey::from_pem(&text).map_err(|err| format!("{}: {err}", self.key.display()))
    }
}

fn check(chain: &[Bytes], roots: &[Bytes], key: &LocalKey, now: Timestamp) -> Result<(), String> {
    let chain = certificate::read_all(chain)?;
    let roots = certificate::read_all(roots)?;
    let (own, others) = chain.split_first().ok_or("there is no certificate")?;
    if own.public_key != key.public_key().spki {
        return Err("certificate and private key do not match".to_owned());
    }
    path::verify(own, 1, others, &roots, now).map(drop).map_err(|err| {
        format!(
            "certificate cannot be validated with the provided bundle or is not self-signed: {err}"
        )
    })
}

/// The certificates of a PEM file, at least one; blocks of other kinds are passed over.
fn read_certificates(path: &Path) -> Result<Vec<Bytes>, String> {
    let text = read(path)?;
    let certificates: Vec<Bytes> = CertificateDer::pem_slice_iter(&text)
        .map(|certificate| certificate.map(|der| Bytes::copy_from_slice(&der)))
        .collect::<Result<_, _>>()
        .map_err(|err| format!("{}: {err}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate found in this file", path.display()));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |what: &str, err: std::io::Error| {
        let reason = match err.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => err.to_string(),
        };
        format!("{what} {}: {reason}", path.display())
    };
    let file = File::open(path).map_err(|err| failed("open", err))?;
    // Room for all of it from the start: a growing buffer would leave copies of a key behind.
    let size = file.metadata().map_err(|err| failed("read", err))?.len().min(MAX_FILE_BYTES);
    let mut content = Vec::with_capacity(size as usize + 1);
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(|err| failed("read", err))?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display()));
    }
    Ok(content)
}
