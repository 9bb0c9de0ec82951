//! Names of subjects.

use const_oid::ObjectIdentifier;
use der::asn1::AnyRef;
use der::{Decode, Reader, Tag, Tagged};

use super::der::{Writer, tag};
use super::read;

/// The subject of a certificate, attribute by attribute. Attributes that have no place here are
/// dropped where one is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// `C`
    pub country: Vec<String>,
    /// `O`
    pub organization: Vec<String>,
    /// `OU`
    pub organizational_unit: Vec<String>,
    /// `L`
    pub locality: Vec<String>,
    /// `ST`
    pub province: Vec<String>,
    /// `STREET`
    pub street_address: Vec<String>,
    /// `postalCode`
    pub postal_code: Vec<String>,
    /// `CN`
    pub common_name: Option<String>,
    /// `serialNumber`, which is no certificate's serial number but part of a name.
    pub serial_number: Option<String>,
}

/// The arcs that follow 2.5.4 in the attribute types, in the order in which they are written.
mod arc {
    pub(super) const COUNTRY: u8 = 6;
    pub(super) const ORGANIZATION: u8 = 10;
    pub(super) const ORGANIZATIONAL_UNIT: u8 = 11;
    pub(super) const LOCALITY: u8 = 7;
    pub(super) const PROVINCE: u8 = 8;
    pub(super) const STREET_ADDRESS: u8 = 9;
    pub(super) const POSTAL_CODE: u8 = 17;
    pub(super) const COMMON_NAME: u8 = 3;
    pub(super) const SERIAL_NUMBER: u8 = 5;
}

impl Subject {
    /// The subject of SVIDs: `C=US, O=SPIRE`.
    pub fn of_svids() -> Self {
        Self { country: vec!["US".into()], organization: vec!["SPIRE".into()], ..Self::default() }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Writes it as a `Name`: all values of one attribute form one set.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nested(tag::SEQUENCE, |names| {
            write_set(names, arc::COUNTRY, &self.country);
            write_set(names, arc::ORGANIZATION, &self.organization);
            write_set(names, arc::ORGANIZATIONAL_UNIT, &self.organizational_unit);
            write_set(names, arc::LOCALITY, &self.locality);
            write_set(names, arc::PROVINCE, &self.province);
            write_set(names, arc::STREET_ADDRESS, &self.street_address);
            write_set(names, arc::POSTAL_CODE, &self.postal_code);
            write_set(names, arc::COMMON_NAME, self.common_name.as_slice());
            write_set(names, arc::SERIAL_NUMBER, self.serial_number.as_slice());
        });
    }

    /// Reads a `Name`. Values that are no text are dropped.
    pub(super) fn read(name: &[u8]) -> der::Result<Self> {
        let mut subject = Self::default();
        let mut names = read::sequence(name)?;
        while !names.is_finished() {
            let mut attributes = read::content(AnyRef::decode(&mut names)?, Tag::Set)?;
            while !attributes.is_finished() {
                let (oid, value) = attributes.sequence(|attribute| -> der::Result<_> {
                    Ok((ObjectIdentifier::decode(attribute)?, AnyRef::decode(attribute)?))
                })?;
                if let Some(text) = text(value) {
                    subject.take(oid, text);
                }
            }
        }
        Ok(subject)
    }

    fn take(&mut self, oid: ObjectIdentifier, text: String) {
        let [0x55, 0x04, arc] = oid.as_bytes() else { return };
        match *arc {
            arc::COUNTRY => self.country.push(text),
            arc::ORGANIZATION => self.organization.push(text),
            arc::ORGANIZATIONAL_UNIT => self.organizational_unit.push(text),
            arc::LOCALITY => self.locality.push(text),
            arc::PROVINCE => self.province.push(text),
            arc::STREET_ADDRESS => self.street_address.push(text),
            arc::POSTAL_CODE => self.postal_code.push(text),
            arc::COMMON_NAME => self.common_name = Some(text),
            arc::SERIAL_NUMBER => self.serial_number = Some(text),
            _ => {}
        }
    }
}

fn write_set(names: &mut Writer, arc: u8, values: &[String]) {
    if values.is_empty() {
        return;
    }
    let mut attributes: Vec<Vec<u8>> = values
        .iter()
        .map(|value| {
            let kind = if value.bytes().all(is_printable) {
                tag::PRINTABLE_STRING
            } else {
                tag::UTF8_STRING
            };
            let mut writer = Writer::with_capacity(value.len() + 16);
            writer.nested(tag::SEQUENCE, |attribute| {
                attribute.value(tag::OBJECT_IDENTIFIER, &[0x55, 0x04, arc]);
                attribute.value(kind, value.as_bytes());
            });
            writer.finish()
        })
        .collect();
    // DER orders the members of a set by their encoding.
    attributes.sort();
    names.nested(tag::SET, |set| {
        for attribute in &attributes {
            set.raw(attribute);
        }
    });
}

/// Whether a `PrintableString` may hold the byte.
///
/// # Source
/// X.680, 41.4.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

fn text(value: AnyRef<'_>) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        // Deployed software fills it with Latin-1.
        Tag::TeletexString => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units = bytes.chunks(2).map(|pair| match *pair {
                [high, low] => u16::from_be_bytes([high, low]),
                _ => 0xfffd,
            });
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_survives_its_encoding() {
        let subject = Subject {
            country: vec!["US".into(), "DE".into()],
            organization: vec!["Müller & Söhne".into()],
            common_name: Some("acme.com".into()),
            serial_number: Some("123".into()),
            ..Subject::default()
        };
        let mut writer = Writer::default();
        subject.write(&mut writer);
        let read = Subject::read(&writer.finish()).unwrap();
        let sorted = Subject { country: vec!["DE".into(), "US".into()], ..subject };
        assert_eq!(read, sorted);
    }

    #[test]
    fn text_is_printable_where_it_can_be() {
        let mut writer = Writer::default();
        Subject::of_svids().write(&mut writer);
        assert_eq!(
            hex::encode(writer.finish()),
            "301d310b3009060355040613025553310e300c060355040a13055350495245"
        );
    }
}
