//! How a node lies in a record, as far as calls of its agent depend on it, and how it is read from
//! there.

use jiff::Timestamp;

use super::packing::{Packer, Unpacker};
use crate::store::Node;

/// Packs a node whose selectors have these numbers. Its agent's ID is known from where it lies.
pub(super) fn pack(node: &Node, selectors: &[u32]) -> Packer {
    let mut packer = Packer::new();
    packer.integer(selectors.len() as u64);
    selectors.iter().for_each(|number| packer.raw(&number.to_le_bytes()));
    packer.text(&node.serial);
    packer.text(&node.new_serial);
    packer.timestamp(node.expires_at);
    packer.raw(&[node.can_reattest.into()]);
    packer
}

/// The numbers of a packed node's selectors, in order.
pub(super) fn selectors(record: &[u8]) -> impl Iterator<Item = u32> + Clone {
    take_selectors(&mut Unpacker::new(record)).iter().map(|number| u32::from_le_bytes(*number))
}

fn take_selectors<'a>(record: &mut Unpacker<'a>) -> &'a [[u8; 4]] {
    let count = record.integer() as usize;
    record.raw(count * size_of::<u32>()).as_chunks().0
}

/// A node within a snapshot, read in place.
#[derive(Debug, Clone, Copy)]
pub struct NodeRef<'a> {
    serial: &'a str,
    new_serial: &'a str,
    expires_at: Timestamp,
    can_reattest: bool,
}

impl<'a> NodeRef<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        let mut record = Unpacker::new(record);
        take_selectors(&mut record);
        Self {
            serial: record.text(),
            new_serial: record.text(),
            expires_at: record.timestamp(),
            can_reattest: record.array() != [0],
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
}
