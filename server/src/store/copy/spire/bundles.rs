//! Bundles, this trust domain's own and foreign ones.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::id::TrustDomain;
use spire_core::svid::x509::split_chain;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::super::records::{Batch, Kind, Numbered, Position, Records};
use super::columns::{Column, Type};
use super::{Database, LARGE, Page, Spire, Unfit, parse, table_of};
use crate::store::copy::CopyError;
use crate::store::copy::Remark;
use crate::store::row::Row;

const COLUMNS: &[Column] =
    &[("id", Type::Number), ("trust_domain", Type::Text), ("data", Type::Bytes)];

/// `spire.common.Bundle`
#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(string, tag = "1")]
    trust_domain_id: String,
    #[prost(message, repeated, tag = "2")]
    root_cas: Vec<PackedRoot>,
    #[prost(message, repeated, tag = "3")]
    jwt_signing_keys: Vec<PackedKey>,
    #[prost(int64, tag = "4")]
    refresh_hint: i64,
    #[prost(uint64, tag = "5")]
    sequence_number: u64,
    /// Keys for WIT-SVIDs since 1.14. Releases from 1.7.2 to 1.10.1 had the public keys of tainted
    /// roots here, which have neither name nor end.
    #[prost(message, repeated, tag = "6")]
    wit_signing_keys: Vec<PackedKey>,
}

/// `spire.common.Certificate`
#[derive(Clone, PartialEq, Message)]
struct PackedRoot {
    /// One certificate, or several one after the other.
    #[prost(bytes = "bytes", tag = "1")]
    der_bytes: Bytes,
    #[prost(bool, tag = "2")]
    tainted_key: bool,
}

/// `spire.common.PublicKey`
#[derive(Clone, PartialEq, Message)]
struct PackedKey {
    #[prost(bytes = "bytes", tag = "1")]
    pkix_bytes: Bytes,
    #[prost(string, tag = "2")]
    kid: String,
    /// Unix seconds; 0 says nothing.
    #[prost(int64, tag = "3")]
    not_after: i64,
    #[prost(bool, tag = "4")]
    tainted_key: bool,
}

/// A row as it is copied.
struct Copied {
    number: i64,
    bundle: Bundle,
    /// What there is to say about it.
    remarks: Vec<String>,
}

/// Whose the bundles are that are copied, by the ids of their rows.
pub(super) type Names = HashMap<i64, TrustDomain>;

impl Spire {
    pub(super) async fn bundles(&mut self, from: Position) -> Result<Batch, CopyError> {
        let page = self.database.page(Kind::Bundle, COLUMNS, from, LARGE).await?;
        let mut batch = page.batch(Records::Bundles(Vec::new()));
        let mut bundles = Vec::new();
        for row in &page.rows {
            let copied = self.database.bundle(row).and_then(|copied| {
                match self.survey.bundles.get(&copied.number) {
                    Some(_) => Ok(copied),
                    None => Err(Unfit::unreadable("a row before it holds the same trust domain's")),
                }
            });
            let table = table_of(Kind::Bundle);
            match copied {
                Ok(Copied { number, bundle, remarks }) => {
                    let name = bundle.trust_domain.to_string();
                    let remark = |text| Remark { table, name: name.clone(), text };
                    batch.remarks.extend(remarks.into_iter().map(remark));
                    bundles.push(Numbered { number, record: bundle });
                }
                Err(unfit) => {
                    let name = row.text(1).unwrap_or_default().to_owned();
                    batch.skipped.push(unfit.of(table, name));
                }
            }
        }
        batch.records = Records::Bundles(bundles);
        Ok(batch)
    }
}

impl Database {
    /// Whose the bundles are. Of several of one trust domain the first is copied.
    pub(super) async fn bundle_names(&mut self) -> Result<Names, CopyError> {
        let mut names = Names::new();
        let mut from = Position::Start;
        loop {
            let page = self.page(Kind::Bundle, COLUMNS, from, LARGE).await?;
            for row in &page.rows {
                if let Ok(Copied { number, bundle, .. }) = self.bundle(row)
                    && !names.values().any(|name| *name == bundle.trust_domain)
                {
                    names.insert(number, bundle.trust_domain);
                }
            }
            let Page { last: Some(last), .. } = page else { return Ok(names) };
            from = Position::Number(last);
        }
    }

    fn bundle(&self, row: &Row) -> Result<Copied, Unfit> {
        let fields = self.fields(row, COLUMNS);
        let data = fields.bytes("data")?;
        let packed =
            Packed::decode(data).map_err(|error| Unfit::unreadable(format!("data: {error}")))?;
        let column = fields.text("trust_domain")?;
        let mut remarks = Vec::new();
        // SPIRE writes each field in one way, so that what is longer holds more.
        if packed.encoded_len() != data.len() {
            remarks.push("it holds fields of a later release, which are not copied".to_owned());
        }
        // SPIRE goes by what the message says.
        let name = match packed.trust_domain_id.as_str() {
            "" => column,
            name if name != column => {
                remarks.push(format!("column trust_domain says {column:?}, its content counts"));
                name
            }
            name => name,
        };
        let mut bundle = Bundle::empty(parse("trust_domain", name)?);
        unpack(packed, &mut bundle, &mut remarks)?;
        Ok(Copied { number: fields.number("id")?, bundle, remarks })
    }
}

fn unpack(packed: Packed, bundle: &mut Bundle, remarks: &mut Vec<String>) -> Result<(), Unfit> {
    for root in packed.root_cas {
        let certificates = split_chain(&root.der_bytes)
            .map_err(|error| Unfit::unreadable(format!("one of its roots: {error}")))?;
        for certificate in certificates {
            add_root(bundle, X509Authority { certificate, tainted: root.tainted_key });
        }
    }
    for key in packed.jwt_signing_keys {
        add_key(bundle, key)?;
    }
    let (tainted, wit): (Vec<_>, Vec<_>) = packed
        .wit_signing_keys
        .into_iter()
        .partition(|key| key.kid.is_empty() && key.not_after == 0);
    for key in tainted {
        let roots = bundle.x509_authorities.iter_mut();
        for root in roots.filter(|root| has_key(root, &key.pkix_bytes)) {
            root.tainted = true;
        }
    }
    if !wit.is_empty() {
        let count = wit.len();
        remarks.push(format!("its keys for WIT-SVIDs ({count}) are not copied: no server has any"));
    }
    // The hint is a number of seconds; one that is none of 32 bits says nothing sensible.
    bundle.refresh_hint = packed.refresh_hint.try_into().unwrap_or_default();
    bundle.sequence_number = packed.sequence_number;
    Ok(())
}

/// A root may be there twice, once tainted.
fn add_root(bundle: &mut Bundle, root: X509Authority) {
    let mut known = bundle.x509_authorities.iter_mut();
    match known.find(|known| known.certificate == root.certificate) {
        Some(known) => known.tainted |= root.tainted,
        None => bundle.x509_authorities.push(root),
    }
}

fn add_key(bundle: &mut Bundle, key: PackedKey) -> Result<(), Unfit> {
    let PackedKey { pkix_bytes: public_key, kid: key_id, not_after, tainted_key: tainted } = key;
    let expires_at = match not_after {
        0 => None,
        second => Some(Timestamp::from_second(second).map_err(|_| {
            Unfit::unreadable(format!("the end of its key {key_id:?} is no point in time"))
        })?),
    };
    let mut known = bundle.jwt_authorities.iter_mut();
    match known.find(|known| known.key_id == key_id && known.public_key == public_key) {
        Some(known) => known.tainted |= tainted,
        None => {
            let key = JwtAuthority { key_id, public_key, expires_at, tainted };
            bundle.jwt_authorities.push(key);
        }
    }
    Ok(())
}

/// Whether this is a root's public key, SubjectPublicKeyInfo DER.
fn has_key(root: &X509Authority, public_key: &[u8]) -> bool {
    let certificate = Certificate::from_der(&root.certificate);
    let key = certificate
        .and_then(|certificate| certificate.tbs_certificate().subject_public_key_info().to_der());
    key.is_ok_and(|key| key == public_key)
}
