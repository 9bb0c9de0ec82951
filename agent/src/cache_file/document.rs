//! The form of the file: JSON, in which messages, certificates and keys stand in base64. Buffers
//! that hold keys or tokens wipe themselves and never grow, so that no copies are left behind.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spire_core::bundle::Bundle;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{IdError, SpiffeId, TrustDomain};
use spire_core::keys::{KeyError, LocalKey};
use spire_core::svid::x509::{CertificateError, X509Svid, verify};
use spire_core::wire::convert::bundle::{self, WireBundleError};
use spire_core::wire::convert::entry::{self, WireEntryError};
use spire_core::wire::types;
use zeroize::Zeroizing;

use crate::cache::{Bundles, Cache, HeldEntry, HeldSvid, JwtSvid, JwtSvids};

/// The form that is written here, and the only one that is read.
const VERSION: u32 = 1;

/// The agent that a file belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its SPIFFE ID.
    pub agent_id: SpiffeId,
}

/// What a file holds.
#[derive(Debug)]
pub struct Contents {
    /// The bundles.
    pub bundles: Bundles,
    /// Everything that the agent may serve.
    pub entries: Vec<Arc<Entry>>,
    /// X.509-SVIDs of some of these entries.
    pub x509_svids: Vec<(EntryId, HeldSvid)>,
    /// JWT-SVIDs with the audiences that they are kept under.
    pub jwt_svids: Vec<(Vec<String>, JwtSvid)>,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It was cut off, or is something else.
    #[error("it is no cache: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another release wrote it.
    #[error("its version is {0}, and only {VERSION} is read")]
    Version(u32),
    /// Another agent wrote it.
    #[error("it belongs to {0}, another agent")]
    Foreign(String),
    /// A message in it is cut off.
    #[error("a message in it is malformed: {0}")]
    Message(#[from] prost::DecodeError),
    /// An entry in it cannot be.
    #[error("an entry in it is malformed: {0}")]
    Entry(#[from] WireEntryError),
    /// A bundle in it cannot be, or is not of the domain that it must be of.
    #[error("a bundle in it is malformed: {0}")]
    Bundle(#[from] WireBundleError),
    /// A certificate in it cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A key in it is none, or not that of its certificate.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A SPIFFE ID in it is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A time in it is none.
    #[error("{0} is no time in seconds since 1970")]
    Time(i64),
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    trust_domain: String,
    agent_id: String,
    bundle: Base64,
    federated_bundles: Vec<Base64>,
    entries: Vec<WrittenEntry>,
    jwt_svids: Vec<WrittenToken>,
}

#[derive(Serialize, Deserialize)]
struct WrittenEntry {
    entry: Base64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x509_svid: Option<WrittenSvid>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSvid {
    cert_chain: Vec<Base64>,
    /// PKCS#8 DER.
    private_key: Base64,
    /// The revision of the entry that it was signed for.
    revision: i64,
}

#[derive(Serialize, Deserialize)]
struct WrittenToken {
    spiffe_id: String,
    audience: Vec<String>,
    token: Zeroizing<String>,
    /// Seconds since 1970.
    issued_at: i64,
    expires_at: i64,
}

impl Contents {
    /// Writes what is held now.
    pub fn write(owner: &Owner, cache: &Cache, jwt_svids: &JwtSvids) -> Zeroizing<Vec<u8>> {
        let (entries, bundles) = cache.contents();
        let document = Document {
            version: VERSION,
            trust_domain: owner.trust_domain.to_string(),
            agent_id: owner.agent_id.to_string(),
            bundle: write_bundle(&bundles.own),
            federated_bundles: bundles.federated.values().map(|it| write_bundle(it)).collect(),
            entries: entries.iter().map(write_entry).collect(),
            jwt_svids: jwt_svids.kept().into_iter().map(write_token).collect(),
        };
        let mut length = Length(0);
        let counted = serde_json::to_writer(&mut length, &document);
        let mut text = Zeroizing::new(Vec::with_capacity(length.0));
        let written = counted.and_then(|()| serde_json::to_writer(&mut *text, &document));
        written.expect("strings, numbers and lists are JSON");
        text
    }

    /// Reads what of `text` is valid at `now`.
    ///
    /// # Errors
    /// [`DocumentError`] where `text` is not what an agent `owner` wrote.
    pub fn read(text: &[u8], owner: &Owner, now: Timestamp) -> Result<Self, DocumentError> {
        let document: Document = serde_json::from_slice(text)?;
        if document.version != VERSION {
            return Err(DocumentError::Version(document.version));
        }
        if document.trust_domain != owner.trust_domain.as_str()
            || document.agent_id != owner.agent_id.as_str()
        {
            return Err(DocumentError::Foreign(document.agent_id));
        }
        let own = read_bundle(document.bundle)?;
        if own.trust_domain != owner.trust_domain {
            return Err(DocumentError::Foreign(own.trust_domain.id().to_string()));
        }
        let mut federated = BTreeMap::new();
        for bundle in document.federated_bundles {
            let bundle = read_bundle(bundle)?;
            federated.insert(bundle.trust_domain.clone(), bundle);
        }
        let mut entries = Vec::with_capacity(document.entries.len());
        let mut x509_svids = Vec::new();
        for WrittenEntry { entry, x509_svid } in document.entries {
            let entry = entry::received_encoded(entry.into_bytes())?;
            if let Some(svid) = x509_svid
                && let Some(svid) = read_svid(svid, &own, now)?
            {
                x509_svids.push((entry.id.clone(), svid));
            }
            entries.push(Arc::new(entry));
        }
        let mut jwt_svids = Vec::new();
        for written in document.jwt_svids {
            let (audience, svid) = read_token(written)?;
            if now < svid.expires_at {
                jwt_svids.push((audience, svid));
            }
        }
        Ok(Self { bundles: Bundles { own, federated }, entries, x509_svids, jwt_svids })
    }
}

fn write_bundle(bundle: &Bundle) -> Base64 {
    Base64::of(&bundle::sent(bundle, None).encode_to_vec())
}

fn read_bundle(bundle: Base64) -> Result<Arc<Bundle>, DocumentError> {
    Ok(Arc::new(bundle::bundle(&types::Bundle::decode(bundle.into_bytes())?)?))
}

fn write_entry((entry, svid): &HeldEntry) -> WrittenEntry {
    let svid = svid.as_ref().map(|held| WrittenSvid {
        cert_chain: held.svid.chain.iter().map(|it| Base64::of(it)).collect(),
        private_key: Base64::of(held.key.as_pkcs8()),
        revision: held.revision,
    });
    let entry = Base64::of(&entry::sent(entry, None).encode_to_vec());
    WrittenEntry { entry, x509_svid: svid }
}

/// `None` where the SVID has expired, or leads to no root of the bundle any more.
fn read_svid(
    written: WrittenSvid,
    own: &Bundle,
    now: Timestamp,
) -> Result<Option<HeldSvid>, DocumentError> {
    let chain: Vec<Bytes> = written.cert_chain.into_iter().map(Base64::into_bytes).collect();
    let key = LocalKey::from_pkcs8(&written.private_key.0)?;
    let is_valid = verify(&chain, own, now).is_ok();
    let held = HeldSvid::new(X509Svid::from_chain(chain)?, &key, written.revision)?;
    Ok(is_valid.then_some(held))
}

fn write_token((audience, svid): (Vec<String>, Arc<JwtSvid>)) -> WrittenToken {
    WrittenToken {
        spiffe_id: svid.spiffe_id.to_string(),
        audience,
        token: svid.token.clone(),
        issued_at: svid.issued_at.as_second(),
        expires_at: svid.expires_at.as_second(),
    }
}

fn read_token(written: WrittenToken) -> Result<(Vec<String>, JwtSvid), DocumentError> {
    let time = |seconds| Timestamp::from_second(seconds).map_err(|_| DocumentError::Time(seconds));
    let svid = JwtSvid {
        spiffe_id: SpiffeId::parse(&written.spiffe_id)?,
        token: written.token,
        issued_at: time(written.issued_at)?,
        expires_at: time(written.expires_at)?,
    };
    Ok((written.audience, svid))
}

/// Bytes that may be secret.
struct Base64(Zeroizing<Vec<u8>>);

impl Base64 {
    fn of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes, where they are no secret.
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Base64 needs no escapes, so that the text can be read where it stands.
        let text = <&str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

/// Counts what is written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
