//! The messages that SPIRE keeps in columns of bytes.

use prost::Message;

/// `spire.common.Bundle`
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of a bundle")]
pub struct Bundle {
    #[prost(string, tag = "1")]
    pub trust_domain_id: String,
    #[prost(message, repeated, tag = "2")]
    pub root_cas: Vec<Certificate>,
    #[prost(message, repeated, tag = "3")]
    pub jwt_signing_keys: Vec<PublicKey>,
    #[prost(int64, tag = "4")]
    pub refresh_hint: i64,
    #[prost(uint64, tag = "5")]
    pub sequence_number: u64,
    #[prost(message, repeated, tag = "6")]
    pub wit_signing_keys: Vec<PublicKey>,
}

/// `spire.common.Certificate`
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of a root")]
pub struct Certificate {
    #[prost(bytes = "vec", tag = "1")]
    pub der_bytes: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub tainted_key: bool,
}

/// `spire.common.PublicKey`
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of a key")]
pub struct PublicKey {
    #[prost(bytes = "vec", tag = "1")]
    pub pkix_bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    pub kid: String,
    #[prost(int64, tag = "3")]
    pub not_after: i64,
    #[prost(bool, tag = "4")]
    pub tainted_key: bool,
}

/// A CA journal.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of a journal")]
pub struct Entries {
    #[prost(message, repeated, tag = "1")]
    pub x509_cas: Vec<X509CaEntry>,
    #[prost(message, repeated, tag = "2")]
    pub jwt_keys: Vec<JwtKeyEntry>,
    /// They are alike.
    #[prost(message, repeated, tag = "3")]
    pub wit_keys: Vec<JwtKeyEntry>,
}

/// An X.509 authority in a journal.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of an authority")]
pub struct X509CaEntry {
    #[prost(string, tag = "1")]
    pub slot_id: String,
    #[prost(int64, tag = "2")]
    pub issued_at: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub certificate: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub upstream_chain: Vec<Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub status: i32,
    #[prost(string, tag = "6")]
    pub authority_id: String,
    #[prost(int64, tag = "7")]
    pub not_after: i64,
    #[prost(string, tag = "8")]
    pub upstream_authority_id: String,
}

/// A key for JWT-SVIDs in a journal.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the fields are those of a key")]
pub struct JwtKeyEntry {
    #[prost(string, tag = "1")]
    pub slot_id: String,
    #[prost(int64, tag = "2")]
    pub issued_at: i64,
    #[prost(int64, tag = "3")]
    pub not_after: i64,
    #[prost(string, tag = "4")]
    pub kid: String,
    #[prost(bytes = "vec", tag = "5")]
    pub public_key: Vec<u8>,
    #[prost(int32, tag = "6")]
    pub status: i32,
    #[prost(string, tag = "7")]
    pub authority_id: String,
}

/// What an authority in a journal does.
pub mod status {
    /// Written before 1.7.1.
    pub const UNKNOWN: i32 = 0;
    /// It signs next.
    pub const PREPARED: i32 = 2;
    /// It signs.
    pub const ACTIVE: i32 = 3;
    /// It signed before.
    pub const OLD: i32 = 4;
}
