//! An array of byte strings of which copies are cheap: a copy shares all pages with the original,
//! and a change copies one page and the few branches above it.
//!
//! Neighbouring records lie in one allocation behind a table of where each ends, so that a record
//! costs its bytes and four more.

use std::sync::Arc;

/// Records in a page, and pages or branches below a branch.
const WIDTH: usize = 1 << WIDTH_BITS;
const WIDTH_BITS: u32 = 5;

/// Bytes that the table at the head of a page takes.
const TABLE: usize = WIDTH * size_of::<u32>();

/// Byte strings by number. Numbers should be dense; a record without bytes is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    root: Node,
    /// Branches between the root and a page.
    height: u32,
}

#[derive(Debug, Clone, Default)]
enum Node {
    #[default]
    Nothing,
    Page(Arc<[u8]>),
    Branch(Arc<[Node; WIDTH]>),
}

impl Records {
    /// The record of that number, empty where there is none.
    pub(super) fn read(&self, number: u32) -> &[u8] {
        if number >= self.capacity() {
            return &[];
        }
        let mut node = &self.root;
        let mut height = self.height;
        loop {
            match node {
                Node::Nothing => return &[],
                Node::Page(page) => return record(page, place(number, 0)),
                Node::Branch(below) => node = &below[place(number, height)],
            }
            height = height.saturating_sub(1);
        }
    }

    /// Makes `bytes` the record of that number; none removes it.
    pub(super) fn write(&mut self, number: u32, bytes: &[u8]) {
        while number >= self.capacity() {
            let mut below = [const { Node::Nothing }; WIDTH];
            below[0] = std::mem::take(&mut self.root);
            self.root = Node::Branch(Arc::new(below));
            self.height += 1;
        }
        let mut node = &mut self.root;
        for height in (1..=self.height).rev() {
            if matches!(node, Node::Nothing) {
                *node = Node::Branch(Arc::new([const { Node::Nothing }; WIDTH]));
            }
            let Node::Branch(below) = node else { unreachable!("pages lie at height 0") };
            node = &mut Arc::make_mut(below)[place(number, height)];
        }
        let page = match node {
            Node::Page(page) => page,
            _ => &[0; TABLE][..],
        };
        *node = Node::Page(with_record(page, place(number, 0), bytes));
    }

    /// The first number that does not fit below the root.
    fn capacity(&self) -> u32 {
        1u32.checked_shl(WIDTH_BITS * (self.height + 1)).unwrap_or(u32::MAX)
    }
}

/// Which way leads to `number` from a node at `height`.
fn place(number: u32, height: u32) -> usize {
    (number >> (WIDTH_BITS * height)) as usize % WIDTH
}

/// Where the record at `place` begins and ends, counted from the table's end.
fn bounds(page: &[u8], place: usize) -> (usize, usize) {
    let end = |place: usize| {
        let at = place * size_of::<u32>();
        let bytes = page[at..].first_chunk().expect("a page begins with its table");
        u32::from_le_bytes(*bytes) as usize
    };
    (if place == 0 { 0 } else { end(place - 1) }, end(place))
}

fn record(page: &[u8], place: usize) -> &[u8] {
    let (start, end) = bounds(page, place);
    &page[TABLE + start..TABLE + end]
}

fn with_record(page: &[u8], place: usize, bytes: &[u8]) -> Arc<[u8]> {
    let (start, end) = bounds(page, place);
    let mut changed = Vec::with_capacity(page.len() - (end - start) + bytes.len());
    changed.extend_from_slice(&page[..TABLE + start]);
    changed.extend_from_slice(bytes);
    changed.extend_from_slice(&page[TABLE + end..]);
    for (at, entry) in changed[..TABLE].chunks_exact_mut(size_of::<u32>()).enumerate().skip(place) {
        let end = bounds(page, at).1 - (end - start) + bytes.len();
        entry.copy_from_slice(&(end as u32).to_le_bytes());
    }
    changed.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_are_those_of_a_map_and_copies_do_not_change(
            changes in prop::collection::vec(
                (0..40_000u32, prop::collection::vec(any::<u8>(), 0..50)), 1..200)
        ) {
            let (mut records, mut model) = (Records::default(), HashMap::new());
            let (mut copy, mut model_of_copy) = (records.clone(), model.clone());
            for (at, (number, bytes)) in changes.into_iter().enumerate() {
                if at % 3 == 0 {
                    (copy, model_of_copy) = (records.clone(), model.clone());
                }
                records.write(number, &bytes);
                model.insert(number, bytes);
                for (records, model) in [(&records, &model), (&copy, &model_of_copy)] {
                    for number in (0..40_000).step_by(501).chain(model.keys().copied()) {
                        let expected = model.get(&number).map_or(&[][..], Vec::as_slice);
                        prop_assert_eq!(records.read(number), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_number_has_a_place() {
        let mut records = Records::default();
        records.write(u32::MAX - 1, b"last");
        records.write(0, b"first");
        assert_eq!((records.read(u32::MAX - 1), records.read(0)), (&b"last"[..], &b"first"[..]));
        assert_eq!(records.read(u32::MAX), b"");
    }
}
