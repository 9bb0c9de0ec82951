//! What this crate reads of certificates and requests, without copies. Nothing is judged here.

use std::collections::BTreeSet;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER,
};
use der::asn1::{AnyRef, BitStringRef, OctetStringRef, UintRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use jiff::Timestamp;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::time::{Time, Validity};

use crate::limits::MAX_SERIAL_BYTES;

/// The parts of a certificate.
#[derive(Debug)]
pub(crate) struct Certificate<'c> {
    /// Big-endian, without leading zeros.
    pub(crate) serial: &'c [u8],
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// `Name`, DER.
    pub(crate) subject: &'c [u8],
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: &'c [u8],
    pub(crate) extensions: Extensions<'c>,
}

/// The extensions that are looked at, of a certificate or a request.
#[derive(Debug, Default)]
pub(crate) struct Extensions<'c> {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) subject_key_id: Option<&'c [u8]>,
    pub(crate) uris: Vec<&'c str>,
    pub(crate) dns_names: Vec<&'c str>,
}

impl<'c> Certificate<'c> {
    pub(crate) fn read(der: &'c [u8]) -> der::Result<Self> {
        let mut outer = sequence(der)?;
        let mut fields = sequence(outer.tlv_bytes()?)?;
        outer.tlv_bytes()?; // signature algorithm
        outer.tlv_bytes()?; // signature
        outer.finish()?;

        if Tag::peek(&fields)?
            == (Tag::ContextSpecific { constructed: true, number: der::TagNumber(0) })
        {
            fields.tlv_bytes()?; // version
        }
        let serial = UintRef::decode(&mut fields)?.as_bytes();
        if serial.len() > MAX_SERIAL_BYTES {
            return Err(der::ErrorKind::Overlength.into());
        }
        fields.tlv_bytes()?; // signature algorithm
        fields.tlv_bytes()?; // issuer
        let validity: Validity = Validity::decode(&mut fields)?;
        let subject = fields.tlv_bytes()?;
        let public_key = fields.tlv_bytes()?;
        let mut extensions = Extensions::default();
        while !fields.is_finished() {
            let field = AnyRef::decode(&mut fields)?;
            if let Tag::ContextSpecific { number: der::TagNumber(3), .. } = field.tag() {
                extensions = Extensions::read(field.value())?;
            }
        }
        Ok(Self {
            serial,
            not_before: instant(validity.not_before)?,
            not_after: instant(validity.not_after)?,
            subject,
            public_key,
            extensions,
        })
    }

    /// The serial number in decimal digits.
    pub(crate) fn serial_text(&self) -> String {
        decimal(self.serial)
    }

    /// The subject key identifier, made from the key where the certificate carries none.
    pub(crate) fn subject_key_id(&self) -> der::Result<Vec<u8>> {
        match self.extensions.subject_key_id {
            Some(id) => Ok(id.to_vec()),
            None => key_id(self.public_key),
        }
    }
}

impl<'c> Extensions<'c> {
    /// Reads `SEQUENCE OF Extension`. None may be there twice, or readers would differ on which
    /// one counts.
    ///
    /// # Source
    /// RFC 5280, 4.2.
    pub(crate) fn read(der: &'c [u8]) -> der::Result<Self> {
        let mut found = Self::default();
        let mut known = BTreeSet::new();
        let mut list = sequence(der)?;
        while !list.is_finished() {
            let (oid, value) = list.sequence(|extension| -> der::Result<_> {
                let oid = ObjectIdentifier::decode(extension)?;
                if Tag::peek(extension)? == Tag::Boolean {
                    extension.tlv_bytes()?; // critical
                }
                Ok((oid, <&OctetStringRef>::decode(extension)?))
            })?;
            if !known.insert(oid) {
                return Err(der::ErrorKind::Value { tag: Tag::Sequence }.into());
            }
            found.take(oid, value.as_bytes())?;
        }
        Ok(found)
    }

    fn take(&mut self, oid: ObjectIdentifier, value: &'c [u8]) -> der::Result<()> {
        match oid {
            ID_CE_BASIC_CONSTRAINTS => {
                self.basic_constraints = Some(BasicConstraints::from_der(value)?);
            }
            ID_CE_KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(value)?),
            ID_CE_SUBJECT_KEY_IDENTIFIER => {
                self.subject_key_id = Some(<&OctetStringRef>::from_der(value)?.as_bytes());
            }
            ID_CE_SUBJECT_ALT_NAME => {
                let mut names = sequence(value)?;
                while !names.is_finished() {
                    let name = AnyRef::decode(&mut names)?;
                    let kind = match name.tag() {
                        Tag::ContextSpecific { constructed: false, number } => number.value(),
                        _ => continue,
                    };
                    match kind {
                        2 => self.dns_names.push(ascii(name.value())?),
                        6 => self.uris.push(ascii(name.value())?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The content of a `SEQUENCE` that fills all of `der`.
pub(crate) fn sequence(der: &[u8]) -> der::Result<SliceReader<'_>> {
    content(AnyRef::from_der(der)?, Tag::Sequence)
}

/// The content of a value that must have the tag `expected`.
pub(crate) fn content(value: AnyRef<'_>, expected: Tag) -> der::Result<SliceReader<'_>> {
    if value.tag() != expected {
        return Err(value.tag().unexpected_error(Some(expected)).into());
    }
    SliceReader::new(value.value())
}

/// The kind (content of its `AlgorithmIdentifier`) and the bits of a key given as
/// SubjectPublicKeyInfo.
pub(crate) fn key_parts(spki: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut parts = sequence(spki)?;
    let mut kind = sequence(parts.tlv_bytes()?)?;
    let bits = BitStringRef::decode(&mut parts)?;
    parts.finish()?;
    let kind_bytes = kind.remaining_len();
    Ok((kind.read_slice(kind_bytes)?, bits.as_bytes().ok_or(der::ErrorKind::Failed)?))
}

/// The identifier of a key: SHA-1 over its bits.
///
/// # Source
/// RFC 5280, 4.2.1.2, method (1).
pub(crate) fn key_id(spki: &[u8]) -> der::Result<Vec<u8>> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    Ok(digest(&SHA1_FOR_LEGACY_USE_ONLY, key_parts(spki)?.1).as_ref().to_vec())
}

fn ascii(bytes: &[u8]) -> der::Result<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => Err(der::ErrorKind::Value { tag: Tag::Ia5String }.into()),
    }
}

fn instant(time: Time) -> der::Result<Timestamp> {
    i64::try_from(time.to_unix_duration().as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| der::ErrorKind::DateTime.into())
}

/// A big-endian number in decimal digits, as serial numbers are written. The work grows with the
/// square of its length, so that whoever reads a number from outside bounds it first.
pub fn decimal(big_endian: &[u8]) -> String {
    // Groups of nine digits, the lowest first.
    let mut groups = vec![0u64];
    for byte in big_endian {
        let mut carry = u64::from(*byte);
        for group in &mut groups {
            let value = *group * 256 + carry;
            *group = value % 1_000_000_000;
            carry = value / 1_000_000_000;
        }
        if carry > 0 {
            groups.push(carry);
        }
    }
    let mut groups = groups.into_iter().rev();
    let mut text = groups.next().unwrap_or_default().to_string();
    for group in groups {
        text.push_str(&format!("{group:09}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_written_in_decimal() {
        for number in [0u128, 7, 999_999_999, 1_000_000_000, u128::from(u64::MAX), u128::MAX] {
            assert_eq!(decimal(&number.to_be_bytes()), number.to_string());
        }
    }

    #[test]
    fn a_serial_number_without_measure_is_refused() {
        for (bytes, taken) in [(20, true), (MAX_SERIAL_BYTES, true), (MAX_SERIAL_BYTES + 1, false)]
        {
            let serial = format!("0x{}", "7f".repeat(bytes));
            let made = std::process::Command::new("openssl")
                .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(' '))
                .args("-keyout /dev/null -outform DER -subj /CN=x -set_serial".split(' '))
                .arg(&serial)
                .output()
                .expect("openssl is part of a test machine");
            assert!(made.status.success(), "{made:?}");
            assert_eq!(Certificate::read(&made.stdout).is_ok(), taken, "{bytes} bytes");
        }
    }
}
