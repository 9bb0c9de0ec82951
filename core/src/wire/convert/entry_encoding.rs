//! Writes an entry as protobuf straight from the vocabulary, for answers that carry hundreds of
//! entries again and again. The bytes are those that [`sent`](super::entry::sent) encodes to.

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::entry::{ALL_FIELDS, rounded_seconds, seconds_on_wire};
use crate::entry::Entry;
use crate::id::SpiffeId;
use crate::wire::types::EntryMask;

/// An entry, reduced to the fields that a mask names.
#[derive(Debug, Clone, Copy)]
pub struct MaskedEntry<'e> {
    entry: &'e Entry,
    mask: &'e EntryMask,
}

impl<'e> MaskedEntry<'e> {
    /// `entry` with the fields that `mask` names, or with all; the id always.
    pub fn new(entry: &'e Entry, mask: Option<&'e EntryMask>) -> Self {
        Self { entry, mask: mask.unwrap_or(&ALL_FIELDS) }
    }

    /// How many bytes it takes.
    pub fn encoded_length(self) -> usize {
        let mut length = Length(0);
        self.write(&mut length);
        length.0
    }

    /// Appends it to `buffer`.
    pub fn encode(self, buffer: &mut impl BufMut) {
        self.write(&mut Bytes(buffer));
    }

    fn write(self, sink: &mut impl Sink) {
        let Self { entry, mask } = self;
        sink.text(1, entry.id.as_str());
        if mask.spiffe_id {
            write_id(2, &entry.spiffe_id, sink);
        }
        if mask.parent_id {
            write_id(3, &entry.parent_id, sink);
        }
        if mask.selectors {
            for selector in entry.selectors.iter() {
                sink.pair(4, selector.kind(), selector.value());
            }
        }
        if mask.x509_svid_ttl {
            sink.number(5, i64::from(seconds_on_wire(entry.x509_svid_ttl)));
        }
        if mask.federates_with {
            for domain in &entry.federates_with {
                sink.text(6, domain.as_str());
            }
        }
        sink.number(7, i64::from(mask.admin && entry.admin));
        sink.number(8, i64::from(mask.downstream && entry.downstream));
        if mask.expires_at {
            sink.number(9, super::seconds(entry.expires_at));
        }
        if mask.dns_names {
            for name in &entry.dns_names {
                sink.text(10, name.as_str());
            }
        }
        if mask.revision_number {
            sink.number(11, entry.revision_number);
        }
        sink.number(12, i64::from(mask.store_svid && entry.store_svid));
        if mask.jwt_svid_ttl {
            sink.number(13, i64::from(seconds_on_wire(entry.jwt_svid_ttl)));
        }
        if mask.hint && !entry.hint.as_str().is_empty() {
            sink.text(14, entry.hint.as_str());
        }
        if mask.created_at {
            sink.number(15, rounded_seconds(entry.created_at));
        }
        if let Some(attributes) = entry.attributes.filter(|_| mask.additional_attributes) {
            let flags = [attributes.disable_x509_svid_prefetch, attributes.jwt_svid_include_jti];
            sink.message(16, flags.iter().filter(|flag| **flag).count() * 2);
            sink.number(1, i64::from(flags[0]));
            sink.number(2, i64::from(flags[1]));
        }
    }
}

fn write_id(tag: u32, id: &SpiffeId, sink: &mut impl Sink) {
    sink.pair(tag, id.trust_domain_name(), id.path());
}

/// Takes the fields of a message in the order of their tags.
trait Sink {
    /// An integer or a bool, left out where it is 0.
    fn number(&mut self, tag: u32, value: i64);
    /// A text, written even where it is empty.
    fn text(&mut self, tag: u32, value: &str);
    /// The beginning of a message of `length` bytes, whose fields follow.
    fn message(&mut self, tag: u32, length: usize);

    /// A message of two texts with the tags 1 and 2, each left out where it is empty.
    fn pair(&mut self, tag: u32, first: &str, second: &str) {
        let mut length = Length(0);
        let write = |sink: &mut dyn FnMut(u32, &str)| {
            for (tag, value) in [(1, first), (2, second)] {
                if !value.is_empty() {
                    sink(tag, value);
                }
            }
        };
        write(&mut |tag, value| length.text(tag, value));
        self.message(tag, length.0);
        write(&mut |tag, value| self.text(tag, value));
    }
}

/// Counts the bytes.
struct Length(usize);

impl Sink for Length {
    fn number(&mut self, tag: u32, value: i64) {
        if value != 0 {
            self.0 += key_len(tag) + encoded_len_varint(value.cast_unsigned());
        }
    }
    fn text(&mut self, tag: u32, value: &str) {
        self.message(tag, value.len());
        self.0 += value.len();
    }
    fn message(&mut self, tag: u32, length: usize) {
        self.0 += key_len(tag) + encoded_len_varint(length as u64);
    }
}

/// Writes them.
struct Bytes<'b, B>(&'b mut B);

impl<B: BufMut> Sink for Bytes<'_, B> {
    fn number(&mut self, tag: u32, value: i64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, self.0);
            encode_varint(value.cast_unsigned(), self.0);
        }
    }
    fn text(&mut self, tag: u32, value: &str) {
        self.message(tag, value.len());
        self.0.put_slice(value.as_bytes());
    }
    fn message(&mut self, tag: u32, length: usize) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(length as u64, self.0);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use prost::Message;

    use super::*;
    use crate::entry::AdditionalAttributes;
    use crate::selector::RequiredSelectors;
    use crate::wire::convert::entry::sent;

    prop_compose! {
        fn entries()(
            path in "(/[a-z]{1,40}){1,3}",
            selectors in prop::collection::vec("[a-z]{1,9}:[a-z:]{1,200}", 1..5),
            domains in prop::collection::btree_set("[a-z]{1,20}", 0..3),
            names in prop::collection::vec("[a-z]{1,20}", 0..3),
            ttls in any::<(u16, u16)>(),
            flags in any::<[bool; 6]>(),
            expires_at in prop::option::of(1i64..4_000_000_000),
            created_at in 0i64..4_000_000_000,
            revision_number in 0i64..1000,
            hint in "[a-z]{0,20}",
        ) -> Entry {
            let selectors = selectors.iter().map(|text| text.parse().unwrap());
            Entry {
                id: "entry".parse().unwrap(),
                spiffe_id: SpiffeId::parse(&format!("spiffe://td{path}")).unwrap(),
                parent_id: SpiffeId::parse("spiffe://td").unwrap(),
                selectors: RequiredSelectors::new(selectors).unwrap(),
                x509_svid_ttl: ttls.0.into(),
                jwt_svid_ttl: ttls.1.into(),
                federates_with: domains.iter().map(|name| name.parse().unwrap()).collect(),
                dns_names: names.iter().map(|name| name.parse().unwrap()).collect(),
                admin: flags[0],
                downstream: flags[1],
                store_svid: flags[2],
                expires_at: expires_at.map(|at| Timestamp::from_second(at).unwrap()),
                hint: hint.parse().unwrap(),
                revision_number,
                created_at: Timestamp::from_second(created_at).unwrap(),
                attributes: flags[3].then_some(AdditionalAttributes {
                    disable_x509_svid_prefetch: flags[4],
                    jwt_svid_include_jti: flags[5],
                }),
            }
        }
    }

    fn mask_of(bits: u16) -> EntryMask {
        let bit = |number: u16| bits >> number & 1 == 1;
        EntryMask {
            spiffe_id: bit(0),
            parent_id: bit(1),
            selectors: bit(2),
            x509_svid_ttl: bit(3),
            federates_with: bit(4),
            admin: bit(5),
            downstream: bit(6),
            expires_at: bit(7),
            dns_names: bit(8),
            revision_number: bit(9),
            store_svid: bit(10),
            jwt_svid_ttl: bit(11),
            hint: bit(12),
            created_at: bit(13),
            additional_attributes: bit(14),
        }
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_message(entry in entries(), bits in any::<u16>()) {
            let mask = mask_of(bits);
            let encoded = MaskedEntry::new(&entry, Some(&mask));
            let mut bytes = Vec::new();
            encoded.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), encoded.encoded_length());
            prop_assert_eq!(bytes, sent(&entry, Some(&mask)).encode_to_vec());
        }
    }

    #[test]
    fn without_a_mask_nothing_is_left_out() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let entry = entries().new_tree(&mut runner).unwrap().current();
        let mut bytes = Vec::new();
        MaskedEntry::new(&entry, None).encode(&mut bytes);
        assert_eq!(bytes, sent(&entry, None).encode_to_vec());
    }
}
