//! An array of byte strings of which copies are cheap: a copy shares all pages with the original,
//! and a change copies one page and the few branches above it.
//!
//! Neighbouring records lie in one allocation behind a table of where each ends, so that a record
//! costs its bytes and four more, and whoever reads it has its neighbours at hand.

use std::sync::Arc;

/// Records in a page, and pages or branches below a branch.
pub(super) const WIDTH: u32 = 1 << WIDTH_BITS;
const WIDTH_BITS: u32 = 5;

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
    Branch(Arc<[Node; WIDTH as usize]>),
}

impl Records {
    /// The record of that number, empty where there is none.
    pub(super) fn read(&self, number: u32) -> &[u8] {
        self.page(number / WIDTH).record(place(number, 0))
    }

    /// The records whose numbers are [`WIDTH`] × `page` and following.
    pub(super) fn read_page(&self, page: u32) -> impl Iterator<Item = &[u8]> {
        let page = self.page(page);
        (0..page.ends.len()).map(move |place| page.record(place)).filter(|it| !it.is_empty())
    }

    /// Makes `bytes` the record of that number; none removes it.
    pub(super) fn write(&mut self, number: u32, bytes: &[u8]) {
        while number >= self.capacity() {
            let mut below = [const { Node::Nothing }; WIDTH as usize];
            below[0] = std::mem::take(&mut self.root);
            self.root = Node::Branch(Arc::new(below));
            self.height += 1;
        }
        let mut node = &mut self.root;
        for height in (1..=self.height).rev() {
            if matches!(node, Node::Nothing) {
                *node = Node::Branch(Arc::new([const { Node::Nothing }; WIDTH as usize]));
            }
            let Node::Branch(below) = node else { unreachable!("pages lie at height 0") };
            node = &mut Arc::make_mut(below)[place(number, height)];
        }
        *node = match node.page().with_record(place(number, 0), bytes) {
            Some(page) => Node::Page(page),
            None => Node::Nothing,
        };
    }

    fn page(&self, page: u32) -> Page<'_> {
        let Some(number) = page.checked_mul(WIDTH).filter(|number| *number < self.capacity())
        else {
            return Page::default();
        };
        let (mut node, mut height) = (&self.root, self.height);
        while let Node::Branch(below) = node {
            node = &below[place(number, height)];
            height -= 1;
        }
        node.page()
    }

    /// The first number that does not fit below the root.
    fn capacity(&self) -> u32 {
        1u32.checked_shl(WIDTH_BITS * (self.height + 1)).unwrap_or(u32::MAX)
    }
}

/// Which way leads to `number` from a node at `height`.
fn place(number: u32, height: u32) -> usize {
    (number >> (WIDTH_BITS * height)) as usize % WIDTH as usize
}

impl Node {
    fn page(&self) -> Page<'_> {
        if let Self::Page(bytes) = self { Page::of(bytes) } else { Page::default() }
    }
}

/// A page taken apart: a count, as many ends, and the records, end to end.
#[derive(Clone, Copy, Default)]
struct Page<'a> {
    ends: &'a [[u8; 4]],
    records: &'a [u8],
}

impl<'a> Page<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let (count, rest) = bytes.split_first().expect("a page begins with a count");
        let (ends, records) = rest.split_at(usize::from(*count) * size_of::<u32>());
        Self { ends: ends.as_chunks().0, records }
    }

    /// Where the records from `place` on begin.
    fn start(&self, place: usize) -> usize {
        if place == 0 { 0 } else { self.end(place - 1) }
    }

    fn end(&self, place: usize) -> usize {
        self.ends.get(place).map_or(self.records.len(), |end| u32::from_le_bytes(*end) as usize)
    }

    fn record(&self, place: usize) -> &'a [u8] {
        &self.records[self.start(place)..self.end(place)]
    }

    /// The page with `record` at `place`; `None` where no record is left.
    fn with_record(&self, place: usize, record: &[u8]) -> Option<Arc<[u8]>> {
        let (start, end) = (self.start(place), self.end(place));
        let total = self.records.len() - (end - start) + record.len();
        if total == 0 {
            return None;
        }
        let count = self.ends.len().max(place + 1);
        let mut bytes = Vec::with_capacity(1 + count * size_of::<u32>() + total);
        bytes.push(count as u8);
        for at in 0..count {
            let moved = if at < place { 0 } else { record.len() as isize - (end - start) as isize };
            let end = self.end(at).wrapping_add_signed(moved) as u32;
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        bytes.extend_from_slice(&self.records[..start]);
        bytes.extend_from_slice(record);
        bytes.extend_from_slice(&self.records[end..]);
        Some(bytes.into())
    }
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
                    let pages = (0..40_000 / WIDTH).flat_map(|page| records.read_page(page));
                    let count = model.values().filter(|bytes| !bytes.is_empty()).count();
                    prop_assert_eq!(pages.count(), count);
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
