//! Signs certificates. What does not change between two of them is encoded once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::der::{Writer, tag};
use super::read::{self, Certificate};
use super::signed::{random_serial, seal};
use super::signer;
use super::template::{self, Validity};
use super::{CertificateError, Subject, X509Svid};
use crate::entry::DnsName;
use crate::id::{SpiffeId, TrustDomain};
use crate::keys::{KeyError, SigningKey};

/// What a leaf shall say.
#[derive(Debug, Clone)]
pub struct LeafTemplate<'t> {
    /// Whom it names. It must have a path.
    pub id: &'t SpiffeId,
    /// Its public key, SubjectPublicKeyInfo DER, from a checked request or a key manager.
    pub public_key: &'t [u8],
    /// Its DNS names in order; the first becomes the common name.
    pub dns_names: &'t [DnsName],
    /// Its subject; `None`, or one that says nothing, means `C=US, O=SPIRE`.
    pub subject: Option<&'t Subject>,
    /// How long it shall live from now on. The life of the issuer caps it silently.
    pub ttl: Duration,
}

/// What the certificate of an authority below this one shall say.
#[derive(Debug, Clone)]
pub struct CaTemplate<'t> {
    /// Whose authority it is; its ID becomes the URI SAN.
    pub trust_domain: &'t TrustDomain,
    /// Its public key, SubjectPublicKeyInfo DER, from a checked request.
    pub public_key: &'t [u8],
    /// Its subject, taken as it is.
    pub subject: &'t Subject,
    /// How long it shall live from now on. The life of the issuer caps it silently.
    pub ttl: Duration,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The key could not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The template asks for something that no SVID may be.
    #[error("{0}")]
    Template(String),
}

/// An authority for X.509-SVIDs: its certificate and its key. Cheap to clone.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    certificate: Bytes,
    /// What follows a leaf in its chain; empty below a root.
    served: Vec<Bytes>,
    key: Arc<dyn SigningKey>,
    authority_id: String,
    key_id: Vec<u8>,
    expires_at: Timestamp,
    subject: Subject,
    /// Encoded: the subject as `Name`.
    name: Vec<u8>,
    /// Encoded: the subject of a leaf without DNS names.
    leaf_subject: Vec<u8>,
    leaf_constraints: Vec<u8>,
}

impl Issuer {
    /// A root, which is in the bundle: chains that it signs hold the leaf alone.
    ///
    /// # Errors
    /// [`CertificateError`] where the certificate cannot be read or has another key.
    pub fn root(certificate: Bytes, key: Arc<dyn SigningKey>) -> Result<Self, CertificateError> {
        Self::new(certificate, Vec::new(), key)
    }

    /// An authority below others: `chain` begins with its own certificate and is appended to all
    /// that it signs.
    ///
    /// # Errors
    /// [`CertificateError`] where its certificate cannot be read or has another key.
    pub fn intermediate(
        chain: Vec<Bytes>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, CertificateError> {
        let certificate =
            chain.first().cloned().ok_or_else(|| CertificateError("chain is empty".into()))?;
        Self::new(certificate, chain, key)
    }

    fn new(
        certificate: Bytes,
        served: Vec<Bytes>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, CertificateError> {
        let parsed = Certificate::read(&certificate)?;
        if parsed.public_key != key.public_key().spki {
            return Err(CertificateError("certificate and private key do not match".into()));
        }
        let key_id = parsed.subject_key_id()?;
        let subject = Subject::read(parsed.subject)?;
        let mut leaf_subject = Writer::default();
        Subject::of_svids().write(&mut leaf_subject);
        let inner = Inner {
            served,
            authority_id: hex::encode(&key_id),
            key_id,
            expires_at: parsed.not_after,
            subject,
            name: parsed.subject.to_vec(),
            leaf_subject: leaf_subject.finish(),
            leaf_constraints: template::leaf_constraints(),
            certificate: certificate.clone(),
            key,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Its own certificate, DER.
    pub fn certificate(&self) -> &Bytes {
        &self.0.certificate
    }

    /// Its id as an authority: the subject key identifier in lower-case hexadecimal digits.
    pub fn authority_id(&self) -> &str {
        &self.0.authority_id
    }

    /// When its certificate ceases to be valid, and with it all that it signed.
    pub fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }

    /// The subject of a CA below this one: its own with the unit `DOWNSTREAM-<n>`, where n counts
    /// the authorities down to this one, without the root of an upstream.
    pub fn downstream_subject(&self) -> Subject {
        let depth = self.0.served.len().max(1);
        Subject {
            organizational_unit: vec![format!("DOWNSTREAM-{depth}")],
            ..self.0.subject.clone()
        }
    }

    /// Signs a leaf.
    ///
    /// # Errors
    /// [`IssueError`].
    ///
    /// # Source
    /// X509-SVID, 4.
    pub async fn sign_leaf(
        &self,
        template: &LeafTemplate<'_>,
        now: Timestamp,
    ) -> Result<X509Svid, IssueError> {
        if template.id.path().is_empty() {
            return Err(IssueError::Template(format!("{} has no path", template.id)));
        }
        let inner = &*self.0;
        let validity = self.validity(now, template.ttl)?;
        let subject_key_id = key_id(template.public_key)?;
        let serial = signer::serial(&inner.key_id)?;
        let tbs = write_tbs(
            &*inner.key,
            &inner.name,
            &serial,
            validity,
            |writer| match (template.subject, template.dns_names.first()) {
                (None, None) => {
                    writer.raw(&inner.leaf_subject);
                }
                (subject, name) => write_leaf_subject(writer, subject, name),
            },
            template.public_key,
            |extensions| {
                extensions.raw(&inner.leaf_constraints);
                template::write_key_ids(extensions, &subject_key_id, Some(&inner.key_id));
                template::write_names(extensions, template.dns_names, Some(template.id), false);
            },
        );
        let leaf = seal(&*inner.key, tbs).await?;
        let mut chain = Vec::with_capacity(1 + inner.served.len());
        chain.push(leaf);
        chain.extend_from_slice(&inner.served);
        Ok(X509Svid {
            id: template.id.clone(),
            chain,
            serial: u128::from_be_bytes(serial).to_string(),
            not_before: validity.not_before,
            expires_at: validity.not_after,
        })
    }

    /// Signs an authority below this one. Returns its certificate first, then the certificates
    /// that lead from it to a root.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_ca(
        &self,
        template: &CaTemplate<'_>,
        now: Timestamp,
    ) -> Result<Vec<Bytes>, IssueError> {
        let inner = &*self.0;
        let validity = self.validity(now, template.ttl)?;
        let subject_key_id = key_id(template.public_key)?;
        let tbs = write_tbs(
            &*inner.key,
            &inner.name,
            &random_serial()?,
            validity,
            |writer| template.subject.write(writer),
            template.public_key,
            |extensions| {
                extensions.raw(&template::ca_constraints());
                template::write_key_ids(extensions, &subject_key_id, Some(&inner.key_id));
                let id = template.trust_domain.id();
                template::write_names(extensions, &[], Some(&id), template.subject.is_empty());
            },
        );
        let mut chain = vec![seal(&*inner.key, tbs).await?];
        chain.extend_from_slice(&inner.served);
        Ok(chain)
    }

    fn validity(&self, now: Timestamp, ttl: Duration) -> Result<Validity, IssueError> {
        let validity = Validity::new(now, ttl, self.0.expires_at);
        if validity.not_after <= validity.not_before {
            let end = self.0.expires_at;
            return Err(IssueError::Template(format!("the signing authority expired at {end}")));
        }
        Ok(validity)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Issuer({})", self.0.authority_id)
    }
}

/// Makes a self-signed root. Its serial number becomes the `serialNumber` of its subject, so that
/// no two roots of a trust domain have one name.
///
/// # Errors
/// [`IssueError`].
pub async fn self_sign_ca(
    key: &dyn SigningKey,
    trust_domain: &TrustDomain,
    subject: &Subject,
    ttl: Duration,
    now: Timestamp,
) -> Result<Bytes, IssueError> {
    let serial = random_serial()?;
    let serial_number = Some(u128::from_be_bytes(serial).to_string());
    let mut name = Writer::default();
    Subject { serial_number, ..subject.clone() }.write(&mut name);
    let name = name.finish();
    let public = key.public_key();
    let key_id = key_id(&public.spki)?;
    let tbs = write_tbs(
        key,
        &name,
        &serial,
        Validity::new(now, ttl, Timestamp::MAX),
        |writer| {
            writer.raw(&name);
        },
        &public.spki,
        |extensions| {
            extensions.raw(&template::ca_constraints());
            template::write_key_ids(extensions, &key_id, None);
            template::write_names(extensions, &[], Some(&trust_domain.id()), false);
        },
    );
    Ok(seal(key, tbs).await?)
}

/// What is signed of a certificate.
///
/// # Source
/// RFC 5280, 4.1.
fn write_tbs(
    key: &dyn SigningKey,
    issuer: &[u8],
    serial: &[u8],
    validity: Validity,
    subject: impl FnOnce(&mut Writer),
    public_key: &[u8],
    extensions: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut writer = Writer::with_capacity(1024);
    writer.nested(tag::SEQUENCE, |fields| {
        // Version 3 is written as 2.
        fields.nested(tag::context_constructed(0), |version| {
            version.value(tag::INTEGER, &[2]);
        });
        fields.positive_integer(serial);
        fields.value(tag::SEQUENCE, &template::signature_algorithm(key.public_key().kind));
        fields.raw(issuer);
        validity.write(fields);
        subject(fields);
        fields.raw(public_key);
        fields.nested(tag::context_constructed(3), |list| {
            list.nested(tag::SEQUENCE, extensions);
        });
    });
    writer.finish()
}

fn write_leaf_subject(writer: &mut Writer, subject: Option<&Subject>, name: Option<&DnsName>) {
    let mut subject = match subject {
        Some(subject) if !subject.is_empty() => subject.clone(),
        _ => Subject::of_svids(),
    };
    if let Some(name) = name {
        subject.common_name = Some(name.as_str().to_owned());
    }
    subject.write(writer);
}

fn key_id(public_key: &[u8]) -> Result<Vec<u8>, IssueError> {
    read::key_id(public_key)
        .map_err(|error| IssueError::Template(format!("public key cannot be read: {error}")))
}
