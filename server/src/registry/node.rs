//! How a node lies in a record, as far as calls of its agent depend on it, and how it is read from
//! there.

use std::collections::BTreeSet;

use jiff::Timestamp;
use spire_core::selector::Selector;

use super::packing::{Packer, Unpacker};
use crate::store::Node;

/// Packs a node; `hash` is the snapshot's for texts. Its agent's ID is known from where it lies.
pub(super) fn pack(node: &Node, hash: impl Fn(&str) -> u32) -> Packer {
    let selectors = node.selectors.iter().map(Selector::as_str);
    let mut packer = Packer::new();
    packer.integer(selectors.len() as u64);
    selectors.clone().for_each(|selector| packer.raw(&hash(selector).to_le_bytes()));
    packer.text(&node.serial);
    packer.text(&node.new_serial);
    packer.timestamp(node.expires_at);
    packer.raw(&[node.can_reattest.into()]);
    packer.sorted_texts(selectors.collect());
    packer
}

/// A node within a snapshot, read in place.
#[derive(Debug, Clone, Copy)]
pub struct NodeRef<'a> {
    selector_hashes: &'a [u8],
    serial: &'a str,
    new_serial: &'a str,
    expires_at: Timestamp,
    can_reattest: bool,
    selectors: Unpacker<'a>,
}

impl<'a> NodeRef<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        let mut record = Unpacker::new(record);
        let count = record.integer() as usize;
        Self {
            selector_hashes: record.raw(count * size_of::<u32>()),
            serial: record.text(),
            new_serial: record.text(),
            expires_at: record.timestamp(),
            can_reattest: record.array() != [0],
            selectors: record,
        }
    }

    /// Serial number of the agent's present SVID, decimal; empty means that the node is banned.
    pub fn serial(&self) -> &'a str {
        self.serial
    }

    /// Serial number of the SVID that a renewal made and the agent has not used yet.
    pub fn new_serial(&self) -> Option<&'a str> {
        Some(self.new_serial).filter(|serial| !serial.is_empty())
    }

    /// When the present SVID expires.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Whether the node may attest anew.
    pub fn can_reattest(&self) -> bool {
        self.can_reattest
    }

    /// Whether the node is banned.
    pub fn is_banned(&self) -> bool {
        self.serial.is_empty()
    }

    /// What is known of the node.
    pub fn selectors(&self) -> BTreeSet<Selector> {
        let mut selectors = self.selectors;
        selectors.texts().map(|text| text.parse().expect("packed from a selector")).collect()
    }

    pub(super) fn selector_hashes(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.selector_hashes.as_chunks().0.iter().map(|hash| u32::from_le_bytes(*hash))
    }

    /// Its selectors' texts in order.
    pub(super) fn selector_texts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut selectors = self.selectors;
        selectors.texts().bytes()
    }
}
