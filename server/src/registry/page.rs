//! Up to [`WIDTH`] neighbouring records in one allocation.
//!
//! Each has a head of fixed length, and the heads lie side by side: whoever needs no more of each
//! record reads a few lines of memory in a row. After them comes where each record's rest ends, and
//! then these, end to end.

use std::sync::Arc;

use super::packing::joined;

/// Records on a full page.
pub(super) const WIDTH: u32 = 32;

/// The part of a record that lies beside those of its neighbours.
pub(super) type Head = [u8; 32];

/// A record apart from any page.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) head: Head,
    pub(super) rest: Vec<u8>,
}

/// Records in a row; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Page(Arc<[u8]>);

/// A page taken apart.
struct Parts<'a> {
    heads: &'a [Head],
    ends: &'a [[u8; 4]],
    rests: &'a [u8],
}

impl Page {
    /// A page of one record.
    pub(super) fn of(record: &Record) -> Self {
        Self([0].into()).with(0, record)
    }

    pub(super) fn len(&self) -> usize {
        self.0[0].into()
    }

    pub(super) fn heads(&self) -> &[Head] {
        self.parts().heads
    }

    /// What follows a record's head.
    pub(super) fn rest(&self, at: usize) -> &[u8] {
        let parts = self.parts();
        &parts.rests[parts.start(at)..parts.end(at)]
    }

    /// The page with `record` in place of another, or after the last one.
    pub(super) fn with(&self, at: usize, record: &Record) -> Self {
        let parts = self.parts();
        let count = self.len().max(at + 1);
        let (start, end) = (parts.start(at), parts.end(at));
        // Those before it end where they did, those after it move by what it grows.
        let mut ends = [[0; 4]; WIDTH as usize];
        let ends = &mut ends[at..count];
        for (place, to) in (at..).zip(ends.iter_mut()) {
            let moved = parts.end(place) - end + start + record.rest.len();
            *to = (moved as u32).to_le_bytes();
        }
        Self(joined(&[
            &[count as u8],
            parts.heads[..at].as_flattened(),
            &record.head,
            parts.heads.get(at + 1..).unwrap_or_default().as_flattened(),
            parts.ends[..at].as_flattened(),
            ends.as_flattened(),
            &parts.rests[..start],
            &record.rest,
            &parts.rests[end..],
        ]))
    }

    /// The page without its last record; `None` where no other is there.
    pub(super) fn without_last(&self) -> Option<Self> {
        let parts = self.parts();
        let last = self.len().checked_sub(2)? + 1;
        Some(Self(joined(&[
            &[last as u8],
            parts.heads[..last].as_flattened(),
            parts.ends[..last].as_flattened(),
            &parts.rests[..parts.start(last)],
        ])))
    }

    fn parts(&self) -> Parts<'_> {
        let (count, rest) = self.0.split_first().expect("a page begins with a count");
        let count = usize::from(*count);
        let (heads, rest) = rest.split_at(count * size_of::<Head>());
        let (ends, rests) = rest.split_at(count * size_of::<u32>());
        Parts { heads: heads.as_chunks().0, ends: ends.as_chunks().0, rests }
    }
}

impl Parts<'_> {
    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.end(at - 1) }
    }

    /// Where a record's rest ends; beyond the last record, where all do.
    fn end(&self, at: usize) -> usize {
        self.ends.get(at).map_or(self.rests.len(), |end| u32::from_le_bytes(*end) as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_are_those_of_a_vec_and_copies_do_not_change(
            changes in prop::collection::vec(
                (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..300)), 1..100)
        ) {
            let record = |rest: Vec<u8>| Record { head: [rest.len() as u8; 32], rest };
            let mut model = vec![record(b"first".to_vec())];
            let mut page = Page::of(&model[0]);
            for (at, rest) in changes {
                let before = page.clone();
                let before_rests: Vec<_> = model.iter().map(|it| it.rest.clone()).collect();
                if rest.len() % 5 == 0 && model.len() > 1 {
                    page = page.without_last().unwrap();
                    model.pop();
                } else {
                    let at = at.index((model.len() + 1).min(WIDTH as usize));
                    let changed = record(rest);
                    page = page.with(at, &changed);
                    match model.get_mut(at) {
                        Some(present) => *present = changed,
                        None => model.push(changed),
                    }
                }
                prop_assert_eq!(page.len(), model.len());
                for (at, expected) in model.iter().enumerate() {
                    prop_assert_eq!(page.heads()[at], expected.head);
                    prop_assert_eq!(page.rest(at), &*expected.rest);
                }
                prop_assert!(before_rests.iter().enumerate().all(|(at, it)| before.rest(at) == it));
            }
        }
    }

    #[test]
    fn the_only_record_leaves_no_page() {
        let page = Page::of(&Record { head: [0; 32], rest: Vec::new() });
        assert!(page.without_last().is_none());
    }
}
