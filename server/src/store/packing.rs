//! How lists are kept in one column, and the hashes by which rows are found.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};
use spire_core::id::SpiffeId;
use spire_core::selector::Selector;

use super::StoreError;

/// A hash that stands for a text in an index: the first half of its SHA-256. It saves space, and
/// two texts with the same one cannot be found.
pub(super) type Fingerprint = [u8; 16];

/// What finds records by a selector.
pub(super) fn of_selector(selector: &Selector) -> Fingerprint {
    first_half(&digest(&SHA256, selector.as_str().as_bytes()))
}

/// What entries have in common that would be the same entry.
pub(super) fn of_identity<'s>(
    parent_id: &'s SpiffeId,
    spiffe_id: &'s SpiffeId,
    selectors: impl Iterator<Item = &'s Selector>,
) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    let ids = [parent_id.as_str(), spiffe_id.as_str()];
    for text in ids.into_iter().chain(selectors.map(Selector::as_str)) {
        // The length keeps texts apart that would read the same in a row.
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    first_half(&context.finish())
}

/// SHA-256, whole.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn first_half(digest: &Digest) -> Fingerprint {
    digest.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes")
}

/// Selectors one after the other: the length in 7-bit groups, lowest first, then the text.
pub(super) fn pack<'s>(selectors: impl Iterator<Item = &'s Selector>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for selector in selectors {
        let mut length = selector.as_str().len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(selector.as_str().as_bytes());
    }
    bytes
}

/// Reads what [`pack`] wrote.
pub(super) fn unpack(mut bytes: &[u8]) -> Result<BTreeSet<Selector>, StoreError> {
    let corrupt = || StoreError::Corrupt("a list of selectors cannot be read".into());
    let mut selectors = BTreeSet::new();
    while !bytes.is_empty() {
        let mut length = 0usize;
        let mut shift = 0;
        loop {
            let (&byte, rest) = bytes.split_first().ok_or_else(corrupt)?;
            bytes = rest;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(corrupt());
            }
        }
        let (text, rest) = bytes.split_at_checked(length).ok_or_else(corrupt)?;
        bytes = rest;
        let text = std::str::from_utf8(text).map_err(|_| corrupt())?;
        selectors.insert(text.parse().map_err(|_| corrupt())?);
    }
    Ok(selectors)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn selectors_come_back_as_they_went(
            texts in proptest::collection::btree_set("[a-z]{1,9}:(?s:.{1,200})", 0..9)
        ) {
            let selectors: BTreeSet<Selector> =
                texts.iter().map(|text| text.parse().unwrap()).collect();
            prop_assert_eq!(unpack(&pack(selectors.iter())).unwrap(), selectors);
        }

        #[test]
        fn foreign_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = unpack(&bytes);
        }
    }

    #[test]
    fn the_parts_of_an_identity_do_not_run_into_each_other() {
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let selectors: Vec<Selector> = vec!["a:b".parse().unwrap()];
        let one = of_identity(&id("spiffe://a/b"), &id("spiffe://a/c"), selectors.iter());
        let two = of_identity(&id("spiffe://a/c"), &id("spiffe://a/b"), selectors.iter());
        assert_ne!(one, two);
    }
}
