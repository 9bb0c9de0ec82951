//! The layout of certificates: fields and the order of extensions, as SPIRE writes them.

use std::time::Duration;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE,
    ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER, ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH,
};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};

use super::der::{Writer, tag};
use crate::clock::whole_second;
use crate::entry::DnsName;
use crate::id::SpiffeId;
use crate::keys::KeyType;

/// How long before its signing a certificate begins to be valid, for clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_secs(10);

/// The first second that `UTCTime` cannot say: the year 2050.
const UTC_TIME_END: i64 = 2_524_608_000;

/// When a certificate is valid, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    /// From shortly before `now` to the end of `ttl`, or of the issuer's life if that is sooner.
    pub(super) fn new(now: Timestamp, ttl: Duration, issuer_end: Timestamp) -> Self {
        let end = now.checked_add(ttl).unwrap_or(Timestamp::MAX).min(issuer_end);
        let start = now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
        Self { not_before: whole_second(start), not_after: whole_second(end) }
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.nested(tag::SEQUENCE, |times| {
            write_time(times, self.not_before);
            write_time(times, self.not_after);
        });
    }
}

fn write_time(writer: &mut Writer, time: Timestamp) {
    if time.as_second() < UTC_TIME_END {
        writer.value(tag::UTC_TIME, time.strftime("%y%m%d%H%M%SZ").to_string().as_bytes());
    } else {
        writer.value(tag::GENERALIZED_TIME, time.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes());
    }
}

/// The algorithm by which keys of a kind sign certificates.
pub(super) fn signature_algorithm(kind: KeyType) -> AlgorithmIdentifier {
    match kind {
        KeyType::EcP256 => alg_id::ECDSA_SHA256,
        KeyType::EcP384 => alg_id::ECDSA_SHA384,
        KeyType::EcP521 => alg_id::ECDSA_SHA512,
        KeyType::Rsa2048 | KeyType::Rsa4096 | KeyType::OtherRsa => alg_id::RSA_PKCS1_SHA256,
    }
}

/// The extensions that all leaves share, encoded: key usage, extended key usage, basic
/// constraints.
pub(super) fn leaf_constraints() -> Vec<u8> {
    let mut writer = Writer::default();
    // digitalSignature, keyEncipherment, keyAgreement: bits 0, 2 and 4, three unused.
    extension(&mut writer, ID_CE_KEY_USAGE, true, |value| {
        value.value(tag::BIT_STRING, &[3, 0b1010_1000]);
    });
    extension(&mut writer, ID_CE_EXT_KEY_USAGE, false, |value| {
        value.nested(tag::SEQUENCE, |purposes| {
            purposes.value(tag::OBJECT_IDENTIFIER, ID_KP_SERVER_AUTH.as_bytes());
            purposes.value(tag::OBJECT_IDENTIFIER, ID_KP_CLIENT_AUTH.as_bytes());
        });
    });
    extension(&mut writer, ID_CE_BASIC_CONSTRAINTS, true, |value| {
        value.nested(tag::SEQUENCE, |_| {});
    });
    writer.finish()
}

/// The extensions that all authorities share, encoded: key usage, basic constraints.
pub(super) fn ca_constraints() -> Vec<u8> {
    let mut writer = Writer::default();
    // keyCertSign and cRLSign: bits 5 and 6, one unused.
    extension(&mut writer, ID_CE_KEY_USAGE, true, |value| {
        value.value(tag::BIT_STRING, &[1, 0b0000_0110]);
    });
    extension(&mut writer, ID_CE_BASIC_CONSTRAINTS, true, |value| {
        value.nested(tag::SEQUENCE, |constraints| {
            constraints.value(tag::BOOLEAN, &[0xff]);
        });
    });
    writer.finish()
}

/// Writes the identifiers of the subject's key and of the issuer's, where there is another.
pub(super) fn write_key_ids(writer: &mut Writer, subject_key: &[u8], issuer_key: Option<&[u8]>) {
    extension(writer, ID_CE_SUBJECT_KEY_IDENTIFIER, false, |value| {
        value.value(tag::OCTET_STRING, subject_key);
    });
    if let Some(issuer_key) = issuer_key {
        extension(writer, ID_CE_AUTHORITY_KEY_IDENTIFIER, false, |value| {
            value.nested(tag::SEQUENCE, |identifier| {
                identifier.value(tag::context(0), issuer_key);
            });
        });
    }
}

/// Writes the subject's alternative names: DNS names first, then the one URI. They must be
/// critical where the subject is empty, since there is no other name then.
///
/// # Source
/// RFC 5280, 4.2.1.6.
pub(super) fn write_names(
    writer: &mut Writer,
    dns_names: &[DnsName],
    id: Option<&SpiffeId>,
    critical: bool,
) {
    if dns_names.is_empty() && id.is_none() {
        return;
    }
    extension(writer, ID_CE_SUBJECT_ALT_NAME, critical, |value| {
        value.nested(tag::SEQUENCE, |names| {
            for name in dns_names {
                names.value(tag::context(2), name.as_str().as_bytes());
            }
            if let Some(id) = id {
                names.value(tag::context(6), id.as_str().as_bytes());
            }
        });
    });
}

fn extension(
    writer: &mut Writer,
    oid: ObjectIdentifier,
    critical: bool,
    fill: impl FnOnce(&mut Writer),
) {
    writer.nested(tag::SEQUENCE, |extension| {
        extension.value(tag::OBJECT_IDENTIFIER, oid.as_bytes());
        if critical {
            extension.value(tag::BOOLEAN, &[0xff]);
        }
        extension.nested(tag::OCTET_STRING, fill);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_from_2050_take_the_longer_form() {
        let text = |time: &str| {
            let mut writer = Writer::default();
            write_time(&mut writer, time.parse().unwrap());
            String::from_utf8(writer.finish()).unwrap()
        };
        assert_eq!(text("2049-12-31T23:59:59Z"), "\u{17}\r491231235959Z");
        assert_eq!(text("2050-01-01T00:00:00Z"), "\u{18}\u{f}20500101000000Z");
    }
}
