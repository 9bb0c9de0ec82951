//! `aws_pca`: AWS Private CA signs the intermediate.
//!
//! Each certificate is paid for, so that one is asked for only when the server needs an
//! intermediate, and asking twice for the same one does not buy two.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::client::Waiters;
use aws_sdk_acmpca::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_acmpca::primitives::Blob;
use aws_sdk_acmpca::types::{
    CertificateAuthority, CertificateAuthorityStatus, SigningAlgorithm, Validity,
    ValidityPeriodType,
};
use aws_sdk_acmpca::waiters::certificate_issued::WaitUntilCertificateIssuedError;
use bytes::Bytes;
use der::pem::LineEnding;
use jiff::Timestamp;
use spire_aws_client::{Aws, StaticKey, failure};
use spire_core::bundle::{JwtAuthority, X509Authority};
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::clock::Clock;
use spire_core::config::{FromSection, Reader, Section};
use spire_core::id::TrustDomain;
use spire_core::remote::{Endpoint, Endpoints};
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamBundle, UpstreamError};
use tokio::sync::OnceCell;

use crate::supplement::Supplement;
use crate::{arn, pem, request};

/// Registers the plugin.
pub const PLUGIN: Plugin<dyn UpstreamAuthority> = Plugin {
    name: NAME,
    build: |section, host| Ok(Arc::new(AwsPca::new(section, host, ISSUANCE)?)),
};

const NAME: &str = "aws_pca";

/// How long a certificate of the plugin may take to be issued.
const ISSUANCE: Duration = Duration::from_secs(180);

/// How often the CA is asked which certificate it has.
const LOOK: Duration = Duration::from_secs(60);

/// The section as checked.
struct Config {
    region: Option<String>,
    authority: String,
    template: String,
    algorithm: Option<SigningAlgorithm>,
    static_key: Option<StaticKey>,
    assume_role: Option<String>,
    endpoints: Endpoints,
    supplement: Option<PathBuf>,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.ignored("ttl", "the server's ca_ttl decides");
        let region = reader.string("region");
        let sentence = "certificate_authority_arn is required";
        let authority = reader.required("certificate_authority_arn", sentence);
        let template = reader.string("ca_signing_template_arn");
        let remedy = format!("use one of {}", SigningAlgorithm::values().join(", "));
        let algorithm = reader.parsed("signing_algorithm", &remedy, |text| {
            SigningAlgorithm::try_parse(text)
                .map_err(|_| format!("{text:?} is no algorithm of AWS"))
        });
        let static_key = StaticKey::read(reader, Some("secret_token"));
        let assume_role = reader.string("assume_role_arn");
        let endpoint = reader.parsed("endpoint", "write a base URL", Endpoint::parse);
        let endpoints = Endpoints::read(reader, &["acmpca", "sts"]);
        let supplement = reader.string("supplemental_bundle_path").map(PathBuf::from);
        let (authority, mut endpoints) = (authority?, endpoints?);
        if let Some(endpoint) = endpoint {
            endpoints.or_insert("acmpca", ("endpoint", endpoint), reader);
        }
        Some(Self {
            region: arn::region(&authority).or(region),
            template: template.unwrap_or_else(|| default_template(&authority)),
            authority,
            algorithm,
            static_key,
            assume_role,
            endpoints,
            supplement,
        })
    }
}

/// The template for a CA that signs no other CA, in the partition of the authority.
fn default_template(authority: &str) -> String {
    let partition = authority.split(':').nth(1).filter(|it| !it.is_empty()).unwrap_or("aws");
    format!("arn:{partition}:acm-pca:::template/SubordinateCACertificate_PathLen0/V1")
}

/// A CA of AWS Private CA.
pub struct AwsPca {
    authority: String,
    template: String,
    algorithm: Option<SigningAlgorithm>,
    assume_role: Option<String>,
    region: Option<String>,
    supplement: Option<Supplement>,
    /// How long a certificate may take to be issued.
    issuance: Duration,
    trust_domain: TrustDomain,
    clock: Clock,
    aws: Aws,
    /// Made at the first question, since that may need the net.
    client: OnceCell<Client>,
    /// The certificate that was bought last, for as long as it may not have arrived.
    ordered: Mutex<Option<Order>>,
    /// The root that the CA led to when that was last known.
    known_root: Mutex<Option<Bytes>>,
    /// Certificates that were bought since the start.
    bought: AtomicU64,
    warned_of_permission: AtomicBool,
}

/// A certificate that AWS was asked for.
#[derive(Debug, Clone)]
struct Order {
    /// Stands for the request.
    token: String,
    /// The certificate's ARN.
    certificate: String,
}

impl AwsPca {
    /// As the plugin's section says, for whom a certificate may take as long as `issuance` until it
    /// is issued.
    ///
    /// # Errors
    /// [`PluginError`] names each setting that cannot be used.
    pub fn new(section: &Section, host: &Host, issuance: Duration) -> Result<Self, PluginError> {
        let config: Config = section.decode()?;
        let supplement = config.supplement.map(Supplement::open).transpose();
        let aws =
            Aws::new(NAME, config.static_key, config.endpoints).map_err(PluginError::Unusable)?;
        Ok(Self {
            authority: config.authority,
            template: config.template,
            algorithm: config.algorithm,
            assume_role: config.assume_role,
            region: config.region,
            supplement: supplement.map_err(PluginError::Unusable)?,
            issuance,
            trust_domain: host.trust_domain.clone(),
            clock: host.clock.clone(),
            aws,
            client: OnceCell::new(),
            ordered: Mutex::new(None),
            known_root: Mutex::new(None),
            bought: AtomicU64::new(0),
            warned_of_permission: AtomicBool::new(false),
        })
    }

    async fn client(&self) -> &Client {
        let connect = || async {
            let region = self.region.as_deref();
            let config = match &self.assume_role {
                Some(role) => self.aws.assuming(role, region).await,
                None => self.aws.own(region).await,
            };
            Client::new(&self.aws.at(config, "acmpca"))
        };
        self.client.get_or_init(connect).await
    }

    /// The CA as AWS describes it, which must be able to sign.
    async fn active(&self, client: &Client) -> Result<CertificateAuthority, UpstreamError> {
        let call = client.describe_certificate_authority();
        let answer = call.certificate_authority_arn(&self.authority).send().await;
        let answer = answer.map_err(|err| unavailable("DescribeCertificateAuthority", &err))?;
        let described = answer.certificate_authority.ok_or_else(|| {
            UpstreamError::Invalid(format!("AWS describes {} by nothing", self.authority))
        })?;
        match described.status() {
            Some(CertificateAuthorityStatus::Active) => Ok(described),
            status => Err(UpstreamError::Unavailable(format!(
                "the certificate authority {} is {}, not ACTIVE, and signs nothing; make it ACTIVE, \
                 or name another as certificate_authority_arn",
                self.authority,
                status.map_or("in no state", CertificateAuthorityStatus::as_str)
            ))),
        }
    }

    /// Has a certificate issued, unless it was for this request already. `token` stands for it.
    async fn issue(
        &self,
        client: &Client,
        csr: &[u8],
        token: String,
        algorithm: SigningAlgorithm,
        ends_at: Timestamp,
    ) -> Result<Order, UpstreamError> {
        if let Some(order) = self.ordered().clone().filter(|order| order.token == token) {
            return Ok(order);
        }
        let pem = der::pem::encode_string("CERTIFICATE REQUEST", LineEnding::LF, csr)
            .map_err(|err| UpstreamError::Invalid(format!("unable to encode CSR: {err}")))?;
        let validity = Validity::builder()
            .r#type(ValidityPeriodType::Absolute)
            .value(ends_at.as_second())
            .build()
            .map_err(|err| UpstreamError::Invalid(err.to_string()))?;
        let answer = client
            .issue_certificate()
            .certificate_authority_arn(&self.authority)
            .csr(Blob::new(pem))
            .signing_algorithm(algorithm)
            .template_arn(&self.template)
            .validity(validity)
            // It names the request, so that an answer that was lost is not paid for twice.
            .idempotency_token(&token)
            .send()
            .await
            .map_err(|err| unavailable("IssueCertificate", &err))?;
        let certificate = answer.certificate_arn.ok_or_else(|| {
            UpstreamError::Invalid("IssueCertificate gave a certificate no name".to_owned())
        })?;
        tracing::info!(
            plugin_name = NAME,
            certificate_arn = certificate,
            issued = self.bought.fetch_add(1, Ordering::Relaxed) + 1,
            "AWS Private CA issues a certificate"
        );
        let order = Order { token, certificate };
        *self.ordered() = Some(order.clone());
        Ok(order)
    }

    fn ordered(&self) -> MutexGuard<'_, Option<Order>> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_root(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.known_root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a certificate: itself, then what leads to the root, and the root.
    async fn issued(
        &self,
        client: &Client,
        certificate: &str,
    ) -> Result<(Vec<Bytes>, Bytes), UpstreamError> {
        let waited = client
            .wait_until_certificate_issued()
            .certificate_authority_arn(&self.authority)
            .certificate_arn(certificate)
            .wait(self.issuance)
            .await
            .map_err(|err| {
                if is_lost(&err) {
                    // It will never be there: the next try may ask for another.
                    *self.ordered() = None;
                }
                let text = DisplayErrorContext(&err);
                UpstreamError::Unavailable(format!("{certificate} was not issued: {text}"))
            })?;
        let answer = waited.into_result().map_err(|err| unavailable("GetCertificate", &err))?;
        let mut chain = certificates(answer.certificate())?;
        let mut above = certificates(answer.certificate_chain())?;
        let Some(root) = above.pop().filter(|_| chain.len() == 1) else {
            let sentence = "AWS Private CA returned no single certificate with a chain to its root";
            return Err(UpstreamError::Invalid(sentence.to_owned()));
        };
        chain.append(&mut above);
        Ok((chain, root))
    }

    /// The root of the certificate that the CA has now; `None` where this server may not ask.
    async fn root(&self, client: &Client) -> Result<Option<Bytes>, UpstreamError> {
        let call = client.get_certificate_authority_certificate();
        let answer = match call.certificate_authority_arn(&self.authority).send().await {
            Ok(answer) => answer,
            Err(err) if is_denied(&err) => {
                if !self.warned_of_permission.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        plugin_name = NAME,
                        "acm-pca:GetCertificateAuthorityCertificate is not permitted: a renewed CA \
                         is noticed at the next rotation only, and not checked against what it \
                         signs; permit it"
                    );
                }
                return Ok(None);
            }
            Err(err) => return Err(unavailable("GetCertificateAuthorityCertificate", &err)),
        };
        let own = certificates(answer.certificate())?;
        let root = certificates(answer.certificate_chain())?.pop().or(own.into_iter().next());
        root.map(Some)
            .ok_or_else(|| UpstreamError::Invalid(format!("{} has no certificate", self.authority)))
    }

    /// `root` and the roots of the supplemental bundle.
    async fn roots(&self, root: Option<Bytes>) -> Vec<X509Authority> {
        let mut roots = Vec::from_iter(root);
        if let Some(supplement) = &self.supplement {
            for root in supplement.roots().await {
                if !roots.contains(&root) {
                    roots.push(root);
                }
            }
        }
        let trusted = |certificate| X509Authority { certificate, tainted: false };
        roots.into_iter().map(trusted).collect()
    }
}

#[async_trait]
impl UpstreamAuthority for AwsPca {
    async fn mint(&self, csr: &[u8], ttl: Duration) -> Result<Minted, UpstreamError> {
        request::read(csr, &self.trust_domain)?;
        let client = self.client().await;
        let described = self.active(client).await?;
        let own = described.certificate_authority_configuration();
        let algorithm = self.algorithm.clone().or(own.map(|own| own.signing_algorithm().clone()));
        let algorithm = algorithm.ok_or_else(|| {
            UpstreamError::Invalid(
                "AWS does not say how the CA signs; set signing_algorithm".into(),
            )
        })?;
        let ttl = request::lifetime(ttl);
        let wanted = self.clock.now().checked_add(ttl).unwrap_or(Timestamp::MAX);
        // AWS refuses what would outlive the CA.
        let last = described.not_after().map_or(wanted.as_second(), |end| end.secs());
        let ends_at = Timestamp::from_second(wanted.as_second().min(last)).unwrap_or(wanted);
        let expected = self.root(client).await?;

        let token = token(csr, expected.as_ref());
        let order = self.issue(client, csr, token, algorithm, ends_at).await?;
        let certificate = order.certificate;
        let (chain, root) = self.issued(client, &certificate).await?;
        if expected.is_some_and(|expected| expected != root) {
            *self.ordered() = None;
            return Err(UpstreamError::Invalid(format!(
                "{certificate} leads to another root than the one of {}",
                self.authority
            )));
        }
        *self.known_root() = Some(root.clone());
        Ok(Minted { chain, roots: self.roots(Some(root)).await })
    }

    async fn publish_jwt_key(
        &self,
        _key: &JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, UpstreamError> {
        Err(UpstreamError::Unsupported)
    }

    async fn bundle(&self) -> Result<UpstreamBundle, UpstreamError> {
        let asked = self.root(self.client().await).await?;
        let root = {
            let mut known = self.known_root();
            *known = asked.or(known.take());
            known.clone()
        };
        // A permission may be granted at any time, and be taken away for a while.
        if root.is_none() && self.supplement.is_none() {
            let sentence = "acm-pca:GetCertificateAuthorityCertificate is not permitted";
            return Err(UpstreamError::Unavailable(sentence.to_owned()));
        }
        Ok(UpstreamBundle { roots: self.roots(root).await, ..UpstreamBundle::default() })
    }

    fn bundle_period(&self) -> Duration {
        LOOK
    }

    async fn ends_at(&self) -> Result<Option<Timestamp>, UpstreamError> {
        let described = self.active(self.client().await).await?;
        Ok(described.not_after().and_then(|end| Timestamp::from_second(end.secs()).ok()))
    }
}

fn certificates(pem: Option<&str>) -> Result<Vec<Bytes>, UpstreamError> {
    let pem = pem.unwrap_or_default();
    pem::certificates(pem.as_bytes()).map_err(|err| {
        UpstreamError::Invalid(format!("AWS Private CA returned a broken certificate: {err}"))
    })
}

/// Stands for a request to a CA that leads to `root`: what was bought before the CA was renewed is of no
/// use afterwards.
fn token(csr: &[u8], root: Option<&Bytes>) -> String {
    let mut token = Context::new(&SHA256);
    token.update(csr);
    token.update(root.map_or(&[][..], |root| &root[..]));
    hex::encode(&token.finish().as_ref()[..16])
}

/// Whether AWS has given up a certificate.
fn is_lost(error: &WaitUntilCertificateIssuedError) -> bool {
    let WaitUntilCertificateIssuedError::OperationFailed(failed) = error else { return false };
    let lost = ["RequestFailedException", "ResourceNotFoundException"];
    failed.error().code().is_some_and(|code| lost.contains(&code))
}

fn is_denied<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code().is_some_and(|code| code.starts_with("AccessDenied"))
}

fn unavailable<E, R>(call: &str, error: &SdkError<E, R>) -> UpstreamError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    UpstreamError::Unavailable(failure(call, error))
}
