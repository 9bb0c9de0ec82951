//! Where entries lie: each page belongs to one group, so that what is read together lies together.

use super::draft::Numbers;
use super::index::Index;
use super::records::WIDTH;

/// Pages of its own that a group looks through for a free place before it takes another.
const SEARCHED: usize = 16;

/// Which places of which pages are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    pages: Numbers,
    /// A bit for each place of each page.
    taken: Vec<u32>,
    /// For each group the page where a place was last free.
    open: Vec<Option<u32>>,
}

impl Places {
    /// A free number on a page of `group`. A page that it takes for that joins `pages`.
    pub(super) fn take(&mut self, group: u32, pages: &mut Index) -> u32 {
        if self.open.len() <= group as usize {
            self.open.resize(group as usize + 1, None);
        }
        let open = self.open[group as usize].into_iter();
        let mut candidates = open.chain(pages.of(group).take(SEARCHED));
        let page = candidates.find(|page| self.taken[*page as usize] != u32::MAX);
        let page = page.unwrap_or_else(|| {
            let page = self.pages.take();
            if self.taken.len() <= page as usize {
                self.taken.resize(page as usize + 1, 0);
            }
            pages.insert(group, page);
            page
        });
        self.open[group as usize] = Some(page);
        let taken = &mut self.taken[page as usize];
        let place = taken.trailing_ones();
        *taken |= 1 << place;
        page * WIDTH + place
    }

    /// Frees a number of `group`. A page that gets empty leaves `pages`.
    pub(super) fn give_back(&mut self, number: u32, group: u32, pages: &mut Index) {
        let (page, place) = (number / WIDTH, number % WIDTH);
        let taken = &mut self.taken[page as usize];
        *taken &= !(1 << place);
        let is_empty = *taken == 0;
        self.open[group as usize] = (!is_empty).then_some(page);
        if is_empty {
            pages.remove(group, page);
            self.pages.give_back(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_number_is_given_twice_and_no_page_is_shared(
            steps in prop::collection::vec((0..3u32, any::<prop::sample::Index>(), 0..5u8), 1..600)
        ) {
            let (mut places, mut pages) = (Places::default(), Index::default());
            let mut given = BTreeMap::new();
            for (group, at, kind) in steps {
                if kind == 0 && !given.is_empty() {
                    let (number, group) = *at.get(&given.clone().into_iter().collect::<Vec<_>>());
                    given.remove(&number);
                    places.give_back(number, group, &mut pages);
                } else {
                    let number = places.take(group, &mut pages);
                    prop_assert!(given.insert(number, group).is_none());
                }
                for group in 0..3 {
                    let own = given.iter().filter(|(_, owner)| **owner == group);
                    let own: BTreeSet<_> = own.map(|(number, _)| number / WIDTH).collect();
                    prop_assert!(pages.of(group).eq(own));
                }
            }
        }
    }

    #[test]
    fn a_place_that_is_free_again_is_found() {
        let (mut places, mut pages) = (Places::default(), Index::default());
        let numbers: Vec<u32> = (0..4 * WIDTH).map(|_| places.take(0, &mut pages)).collect();
        for number in [numbers[3], numbers[WIDTH as usize + 3]] {
            places.give_back(number, 0, &mut pages);
        }
        let again = BTreeSet::from([places.take(0, &mut pages), places.take(0, &mut pages)]);
        assert_eq!(again, BTreeSet::from([numbers[3], numbers[WIDTH as usize + 3]]));
        assert_eq!(pages.of(0).count(), 4);
    }
}
