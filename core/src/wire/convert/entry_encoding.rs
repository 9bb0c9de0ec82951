//! Writes an entry as protobuf straight from the vocabulary, for answers that carry hundreds of
//! entries again and again. The bytes are those that [`sent`](super::entry::sent) encodes to.

use bytes::BufMut;
use jiff::Timestamp;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::entry::{ALL_FIELDS, rounded_seconds, seconds_on_wire};
use crate::entry::AdditionalAttributes;
use crate::id::SpiffeId;
use crate::wire::types::EntryMask;

/// An entry as it is read in place, wherever it lies. `T` walks the texts of a list.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of an entry")]
pub struct EntryView<'e, T> {
    pub id: &'e str,
    pub spiffe_id: IdView<'e>,
    pub parent_id: IdView<'e>,
    /// Each as `type:value`, in any order.
    pub selectors: T,
    pub x509_svid_ttl: u32,
    pub jwt_svid_ttl: u32,
    pub federates_with: T,
    pub dns_names: T,
    pub admin: bool,
    pub downstream: bool,
    pub store_svid: bool,
    pub expires_at: Option<Timestamp>,
    pub hint: &'e str,
    pub revision_number: i64,
    pub created_at: Timestamp,
    pub attributes: Option<AdditionalAttributes>,
}

/// The two parts of a SPIFFE ID.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are those of a SPIFFE ID")]
pub struct IdView<'e> {
    pub trust_domain: &'e str,
    pub path: &'e str,
}

impl<'e> From<&'e SpiffeId> for IdView<'e> {
    fn from(id: &'e SpiffeId) -> Self {
        Self { trust_domain: id.trust_domain_name(), path: id.path() }
    }
}

impl<'e, T: Iterator<Item = &'e str>> EntryView<'e, T> {
    /// Appends to `buffer` the fields that `mask` names, or all without a mask; the id always.
    pub fn encode(self, mask: Option<&EntryMask>, buffer: &mut impl BufMut) {
        let mask = mask.unwrap_or(&ALL_FIELDS);
        let mut sink = Bytes(buffer);
        sink.text(1, self.id);
        if mask.spiffe_id {
            sink.pair(2, self.spiffe_id.trust_domain, self.spiffe_id.path);
        }
        if mask.parent_id {
            sink.pair(3, self.parent_id.trust_domain, self.parent_id.path);
        }
        if mask.selectors {
            for (kind, value) in self.selectors.filter_map(|text| text.split_once(':')) {
                sink.pair(4, kind, value);
            }
        }
        if mask.x509_svid_ttl {
            sink.number(5, i64::from(seconds_on_wire(self.x509_svid_ttl)));
        }
        if mask.federates_with {
            self.federates_with.for_each(|domain| sink.text(6, domain));
        }
        sink.number(7, i64::from(mask.admin && self.admin));
        sink.number(8, i64::from(mask.downstream && self.downstream));
        if mask.expires_at {
            sink.number(9, super::seconds(self.expires_at));
        }
        if mask.dns_names {
            self.dns_names.for_each(|name| sink.text(10, name));
        }
        if mask.revision_number {
            sink.number(11, self.revision_number);
        }
        sink.number(12, i64::from(mask.store_svid && self.store_svid));
        if mask.jwt_svid_ttl {
            sink.number(13, i64::from(seconds_on_wire(self.jwt_svid_ttl)));
        }
        if mask.hint && !self.hint.is_empty() {
            sink.text(14, self.hint);
        }
        if mask.created_at {
            sink.number(15, rounded_seconds(self.created_at));
        }
        if let Some(attributes) = self.attributes.filter(|_| mask.additional_attributes) {
            let flags = [attributes.disable_x509_svid_prefetch, attributes.jwt_svid_include_jti];
            sink.message(16, flags.iter().filter(|flag| **flag).count() * 2);
            sink.number(1, i64::from(flags[0]));
            sink.number(2, i64::from(flags[1]));
        }
    }
}

/// Writes the fields of a message in the order of their tags.
struct Bytes<'b, B>(&'b mut B);

impl<B: BufMut> Bytes<'_, B> {
    /// An integer or a bool, left out where it is 0.
    fn number(&mut self, tag: u32, value: i64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, self.0);
            encode_varint(value.cast_unsigned(), self.0);
        }
    }

    /// A text, written even where it is empty.
    fn text(&mut self, tag: u32, value: &str) {
        self.message(tag, value.len());
        self.0.put_slice(value.as_bytes());
    }

    /// The beginning of a message of `length` bytes, whose fields follow.
    fn message(&mut self, tag: u32, length: usize) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(length as u64, self.0);
    }

    /// A message of two texts with the tags 1 and 2, each left out where it is empty.
    fn pair(&mut self, tag: u32, first: &str, second: &str) {
        let fields = [(1, first), (2, second)];
        let fields = fields.iter().filter(|(_, text)| !text.is_empty());
        let length = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
        self.message(tag, fields.clone().map(|(_, text)| length(text)).sum());
        fields.for_each(|(tag, text)| self.text(*tag, text));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use prost::Message;

    use super::*;
    use crate::entry::{DnsName, Entry};
    use crate::id::TrustDomain;
    use crate::selector::{RequiredSelectors, Selector};
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

    fn view(entry: &Entry) -> EntryView<'_, std::vec::IntoIter<&str>> {
        let domains = entry.federates_with.iter().map(TrustDomain::as_str);
        EntryView {
            id: entry.id.as_str(),
            spiffe_id: (&entry.spiffe_id).into(),
            parent_id: (&entry.parent_id).into(),
            selectors: Vec::from_iter(entry.selectors.iter().map(Selector::as_str)).into_iter(),
            x509_svid_ttl: entry.x509_svid_ttl,
            jwt_svid_ttl: entry.jwt_svid_ttl,
            federates_with: Vec::from_iter(domains).into_iter(),
            dns_names: Vec::from_iter(entry.dns_names.iter().map(DnsName::as_str)).into_iter(),
            admin: entry.admin,
            downstream: entry.downstream,
            store_svid: entry.store_svid,
            expires_at: entry.expires_at,
            hint: entry.hint.as_str(),
            revision_number: entry.revision_number,
            created_at: entry.created_at,
            attributes: entry.attributes,
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
            let mut bytes = Vec::new();
            view(&entry).encode(Some(&mask), &mut bytes);
            prop_assert_eq!(bytes, sent(&entry, Some(&mask)).encode_to_vec());
        }
    }

    #[test]
    fn without_a_mask_nothing_is_left_out() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let entry = entries().new_tree(&mut runner).unwrap().current();
        let mut bytes = Vec::new();
        view(&entry).encode(None, &mut bytes);
        assert_eq!(bytes, sent(&entry, None).encode_to_vec());
    }
}
