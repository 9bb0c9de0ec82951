//! The entries below one parent, and the node where the parent is an agent.

use std::sync::Arc;

use super::page::{Page, Record, WIDTH};
use super::vector::Vector;

/// Where an entry lies: its group's number, and its own within the group. A group as such is at
/// its slot 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) slot: u32,
}

impl Place {
    pub(super) fn of_group(group: u32) -> Self {
        Self { group, slot: 0 }
    }
}

/// All that lies below one parent; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) number: u32,
    /// The time, as the draft counts it, when an entry last came, went or changed.
    pub(super) changed: u64,
    /// The parent's SPIFFE ID, shortened.
    pub(super) parent: Arc<str>,
    /// What is known of the node whose agent the parent is.
    pub(super) node: Option<Arc<[u8]>>,
    len: u32,
    /// All but the last are full.
    pages: Vector<Page>,
}

impl Group {
    pub(super) fn new(number: u32, changed: u64, parent: &str) -> Self {
        let pages = Vector::default();
        Self { number, changed, parent: parent.into(), node: None, len: 0, pages }
    }

    /// How many entries there are: their slots are the numbers below.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn pages(&self) -> impl Iterator<Item = &Page> {
        self.pages.iter()
    }

    /// The page of a slot that is taken, and the slot's place on it.
    pub(super) fn page(&self, slot: u32) -> (&Page, usize) {
        let page = self.pages.get(slot / WIDTH).expect("slots are taken one after the other");
        (page, (slot % WIDTH) as usize)
    }

    /// Adds an entry in the next slot.
    pub(super) fn push(&mut self, record: &Record) {
        if self.len.is_multiple_of(WIDTH) {
            self.pages.push(Page::of(record));
        } else {
            self.write(self.len, record);
        }
        self.len += 1;
    }

    /// Replaces the entry of a slot.
    pub(super) fn write(&mut self, slot: u32, record: &Record) {
        let page = self.pages.get_mut(slot / WIDTH).expect("slots are taken one after the other");
        *page = page.with((slot % WIDTH) as usize, record);
    }

    /// Removes the entry of a slot, which the last entry takes.
    pub(super) fn swap_remove(&mut self, slot: u32) {
        let last = self.len - 1;
        if slot != last {
            let (page, at) = self.page(last);
            let moved = Record { head: page.heads()[at], rest: page.rest(at).to_vec() };
            self.write(slot, &moved);
        }
        let page = self.pages.get_mut(last / WIDTH).expect("it was taken");
        match page.without_last() {
            Some(rest) => *page = rest,
            None => self.pages.pop(),
        }
        self.len = last;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u16) -> Record {
        let rest = vec![number as u8; usize::from(number % 50)];
        Record { head: [(number >> 8) as u8; 32], rest }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn entries_are_those_of_a_vec_and_copies_do_not_change(
            changes in prop::collection::vec(
                (0..8u8, any::<prop::sample::Index>(), any::<u16>()), 1..150),
            shrinks: bool,
        ) {
            let mut group = Group::new(7, 1, "/parent");
            let mut model: Vec<u16> = (0..100).collect();
            model.iter().for_each(|number| group.push(&record(*number)));
            for (kind, at, number) in changes {
                let (copy, model_of_copy) = (group.clone(), model.clone());
                let removed = if shrinks { 0..5 } else { 0..3 };
                if removed.contains(&kind) && !model.is_empty() {
                    let at = at.index(model.len());
                    group.swap_remove(at as u32);
                    model.swap_remove(at);
                } else if kind == 7 && !model.is_empty() {
                    let at = at.index(model.len());
                    group.write(at as u32, &record(number));
                    model[at] = number;
                } else {
                    group.push(&record(number));
                    model.push(number);
                }
                for (group, model) in [(&group, &model), (&copy, &model_of_copy)] {
                    prop_assert_eq!(group.len() as usize, model.len());
                    prop_assert_eq!(group.pages().map(Page::len).sum::<usize>(), model.len());
                    for (slot, number) in model.iter().enumerate() {
                        let (page, at) = group.page(slot as u32);
                        let expected = record(*number);
                        prop_assert_eq!(page.heads()[at], expected.head);
                        prop_assert_eq!(page.rest(at), expected.rest);
                    }
                }
            }
        }
    }
}
