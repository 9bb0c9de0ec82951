//! Numbers for the selectors that nodes have and aliases ask for, so that whether an alias is an
//! agent's is seen from a few numbers.

use std::collections::HashMap;
use std::sync::Arc;

use spire_core::selector::Selector;

use super::numbers::Numbers;

/// An entry below the server's own ID, as far as agents find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alias {
    /// The number of the group below its SPIFFE ID.
    pub(super) group: u32,
    /// The numbers of its selectors, in order.
    pub(super) selectors: Arc<[u32]>,
}

/// The number of each selector, while it is in use.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    by_selector: HashMap<Selector, u32>,
    /// Each selector, and how many nodes and aliases use it.
    by_number: Vec<(Selector, u32)>,
    numbers: Numbers,
}

impl Selectors {
    /// The numbers of `selectors` in order, each of which is used once more.
    pub(super) fn take<'a>(&mut self, selectors: impl Iterator<Item = &'a Selector>) -> Vec<u32> {
        let mut numbers: Vec<u32> = selectors.map(|selector| self.take_one(selector)).collect();
        numbers.sort_unstable();
        numbers
    }

    fn take_one(&mut self, selector: &Selector) -> u32 {
        if let Some(number) = self.by_selector.get(selector) {
            self.by_number[*number as usize].1 += 1;
            return *number;
        }
        let number = self.numbers.take();
        let known = (selector.clone(), 1);
        match self.by_number.get_mut(number as usize) {
            Some(former) => *former = known,
            None => self.by_number.push(known),
        }
        self.by_selector.insert(selector.clone(), number);
        number
    }

    /// Takes one use from each.
    pub(super) fn give_back(&mut self, numbers: impl Iterator<Item = u32>) {
        for number in numbers {
            let (selector, uses) = &mut self.by_number[number as usize];
            *uses -= 1;
            if *uses == 0 {
                self.by_selector.remove(selector);
                self.numbers.give_back(number);
            }
        }
    }

    /// The number that the fewest nodes and aliases use.
    pub(super) fn rarest(&self, numbers: &[u32]) -> Option<u32> {
        numbers.iter().copied().min_by_key(|number| self.by_number[*number as usize].1)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_selector.is_empty() && self.numbers.taken() == 0
    }
}
