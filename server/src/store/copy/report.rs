//! What a copy did.

use super::records::{Batch, Cause, Kind, Remark, Skipped};

/// How many skipped rows, and how many remarks, are told one by one.
const MOST: usize = 10_000;

/// What became of a copy that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target holds it.
    Copied,
    /// All was done but the commit; the target is as it was.
    Rehearsed,
    /// The target held the same before; nothing was changed.
    AlreadyThere,
}

/// How many rows of a kind's own table were read, and how many became records of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The kind.
    pub kind: Kind,
    /// Rows read.
    pub read: u64,
    /// Records in the target.
    pub copied: u64,
}

/// Things told one by one, up to a bound, and how many more there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded<T> {
    /// The first ones.
    pub items: Vec<T>,
    /// How many more.
    pub more: u64,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { items: Vec::new(), more: 0 }
    }
}

impl<T> Bounded<T> {
    fn extend(&mut self, items: Vec<T>) {
        let room = MOST.saturating_sub(self.items.len());
        self.more += items.len().saturating_sub(room) as u64;
        self.items.extend(items.into_iter().take(room));
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.items.len() as u64 + self.more
    }
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where the source is, without secrets.
    pub source: String,
    /// What it is, and of which version.
    pub source_title: String,
    /// Where the target is, without secrets.
    pub target: String,
    /// Who else used the source, where it was rehearsed all the same.
    pub in_use: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// All kinds in order.
    pub counts: Vec<Count>,
    /// What is not in the target.
    pub skipped: Bounded<Skipped>,
    /// How many of them hold what no server takes.
    pub unreadable: u64,
    /// What there is to say about what is.
    pub remarks: Bounded<Remark>,
}

impl Report {
    /// Takes in what was read and copied.
    pub(super) fn add(&mut self, batch: Batch) {
        let kind = batch.records.kind();
        if let Some(count) = self.counts.iter_mut().find(|count| count.kind == kind) {
            count.read += batch.read;
            count.copied += batch.records.len() as u64;
        }
        let is_unreadable = |skipped: &&Skipped| skipped.cause == Cause::Unreadable;
        self.unreadable += batch.skipped.iter().filter(is_unreadable).count() as u64;
        self.skipped.extend(batch.skipped);
        self.remarks.extend(batch.remarks);
    }

    /// Adds a remark of the copy's own.
    pub(super) fn remark(&mut self, remark: Remark) {
        self.remarks.extend(vec![remark]);
    }
}

/// A count of nothing for each kind.
pub(super) fn no_counts() -> Vec<Count> {
    Kind::ALL.into_iter().map(|kind| Count { kind, read: 0, copied: 0 }).collect()
}
