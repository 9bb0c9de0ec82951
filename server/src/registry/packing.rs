//! How values lie in a record: integers in as few bytes as they need, texts behind their length.
//! Records never leave the process, so that there is no version and no error: what is read was
//! written by the same code.

use std::iter::repeat_n;
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::id::{SpiffeId, TrustDomain};

/// Parts end to end in one shared allocation, into which they are copied once.
pub(super) fn joined<T: Copy + Default>(parts: &[&[T]]) -> Arc<[T]> {
    let count = parts.iter().map(|part| part.len()).sum();
    let mut all: Arc<[T]> = repeat_n(T::default(), count).collect();
    let mut room = Arc::get_mut(&mut all).expect("nobody else has it yet");
    for part in parts {
        let (here, behind) = room.split_at_mut(part.len());
        here.copy_from_slice(part);
        room = behind;
    }
    all
}

/// An ID as records hold it: without what all IDs of the trust domain begin with.
pub(super) fn short<'a>(id: &'a SpiffeId, trust_domain: &TrustDomain) -> &'a str {
    if id.is_member_of(trust_domain) { id.path() } else { id.as_str() }
}

/// The ID that [`short`] shortened.
pub(super) fn long(short: &str, trust_domain: &TrustDomain) -> SpiffeId {
    let id = if short.is_empty() || short.starts_with('/') {
        trust_domain.member(short)
    } else {
        SpiffeId::parse(short)
    };
    id.expect("IDs were shortened from IDs")
}

/// Room for most records.
const USUAL_BYTES: usize = 256;

/// Writes one record.
#[derive(Debug)]
pub(super) struct Packer(Vec<u8>);

impl Packer {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(USUAL_BYTES))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Seven bits a byte, lowest first; the highest bit says that more follow.
    pub(super) fn integer(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// The sign goes to the lowest bit, so that small negative numbers stay short.
    pub(super) fn signed(&mut self, value: i64) {
        self.integer(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.integer(text.len() as u64);
        self.raw(text.as_bytes());
    }

    pub(super) fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.integer(texts.len() as u64);
        texts.for_each(|text| self.text(text));
    }

    /// Texts in order of their bytes, which may differ from their own.
    pub(super) fn sorted_texts(&mut self, mut texts: Vec<&str>) {
        texts.sort_unstable();
        self.texts(texts.into_iter());
    }

    pub(super) fn timestamp(&mut self, time: Timestamp) {
        self.signed(time.as_second());
        self.signed(time.subsec_nanosecond().into());
    }
}

/// Reads a record in the order in which it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self(record)
    }

    pub(super) fn raw(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self.0.split_first_chunk().expect("records are whole");
        self.0 = rest;
        *bytes
    }

    pub(super) fn integer(&mut self) -> u64 {
        let [byte] = self.array();
        let mut value = u64::from(byte & 0x7f);
        let (mut more, mut shift) = (byte >= 0x80, 7);
        while more {
            let [byte] = self.array();
            value |= u64::from(byte & 0x7f) << shift;
            (more, shift) = (byte >= 0x80, shift + 7);
        }
        value
    }

    pub(super) fn signed(&mut self) -> i64 {
        let value = self.integer();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    pub(super) fn text(&mut self) -> &'a str {
        std::str::from_utf8(self.text_bytes()).expect("texts were packed from texts")
    }

    /// A text that is only compared.
    pub(super) fn text_bytes(&mut self) -> &'a [u8] {
        let count = self.integer() as usize;
        self.raw(count)
    }

    /// Texts that are read later; they are passed over.
    pub(super) fn texts(&mut self) -> Texts<'a> {
        let count = self.integer();
        let texts = Texts { count, rest: *self };
        for _ in 0..count {
            self.text_bytes();
        }
        texts
    }

    pub(super) fn timestamp(&mut self) -> Timestamp {
        let (second, nanosecond) = (self.signed(), self.signed());
        Timestamp::new(second, nanosecond as i32).expect("times were packed from times")
    }
}

/// Some texts of a record.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    count: u64,
    rest: Unpacker<'a>,
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.count = self.count.checked_sub(1)?;
        Some(self.rest.text())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(
            integer: u64, signed: i64, texts: Vec<String>, second in -9_999_999i64..9_999_999_999,
        ) {
            let time = Timestamp::new(second, 0).unwrap();
            let mut packer = Packer::new();
            packer.integer(integer);
            packer.signed(signed);
            packer.texts(texts.iter().map(String::as_str));
            packer.timestamp(time);
            let mut unpacker = Unpacker::new(packer.bytes());
            prop_assert_eq!(unpacker.integer(), integer);
            prop_assert_eq!(unpacker.signed(), signed);
            prop_assert_eq!(unpacker.texts().collect::<Vec<_>>(), texts);
            prop_assert_eq!(unpacker.timestamp(), time);
            prop_assert!(unpacker.0.is_empty());
        }
    }

    #[test]
    fn instants_before_the_epoch_keep_their_fraction() {
        let time = Timestamp::new(-5, -250_000_000).unwrap();
        let mut packer = Packer::new();
        packer.timestamp(time);
        assert_eq!(Unpacker::new(packer.bytes()).timestamp(), time);
    }
}
