//! From the selectors of a caller to the entries that it earns, without a look at the others.

use std::collections::{BTreeSet, HashMap};

use spire_core::entry::{Entry, EntryId};
use spire_core::selector::Selector;

/// Files each entry under one of its selectors: a caller that earns the entry has that selector
/// too. The one under which the fewest entries stand is taken, so that a selector shared by all
/// (a cluster, a namespace) costs nobody anything.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_selector: HashMap<Selector, Vec<EntryId>>,
}

impl Index {
    /// Files an entry that is not filed yet.
    pub(super) fn insert(&mut self, entry: &Entry) {
        let filed_under =
            |selector: &&Selector| self.by_selector.get(*selector).map_or(0, Vec::len);
        if let Some(rarest) = entry.selectors.iter().min_by_key(filed_under) {
            self.by_selector.entry(rarest.clone()).or_default().push(entry.id.clone());
        }
    }

    /// Takes out an entry as it was when it was filed.
    pub(super) fn remove(&mut self, entry: &Entry) {
        for selector in entry.selectors.iter() {
            let Some(ids) = self.by_selector.get_mut(selector) else { continue };
            if let Some(position) = ids.iter().position(|id| *id == entry.id) {
                ids.swap_remove(position);
                if ids.is_empty() {
                    self.by_selector.remove(selector);
                }
                return;
            }
        }
    }

    /// The entries that a caller with `found` may earn; the remaining selectors are still to be
    /// compared.
    pub(super) fn candidates(&self, found: &BTreeSet<Selector>) -> impl Iterator<Item = &EntryId> {
        found.iter().filter_map(|selector| self.by_selector.get(selector)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{entry, selectors};
    use super::*;

    #[test]
    fn an_entry_is_found_by_a_caller_that_has_its_selectors() {
        let mut index = Index::default();
        for number in 0..10 {
            index.insert(&entry(&format!("e{number}"), &["k8s:ns:x", &format!("k8s:sa:{number}")]));
        }
        let candidates = |index: &Index, found: &[&str]| {
            index.candidates(&selectors(found)).map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        assert!(candidates(&index, &["k8s:ns:x", "k8s:sa:7"]).contains("e7"));
        assert!(candidates(&index, &["k8s:ns:x", "k8s:sa:7"]).len() <= 2);
        index.remove(&entry("e7", &["k8s:ns:x", "k8s:sa:7"]));
        assert!(!candidates(&index, &["k8s:ns:x", "k8s:sa:7"]).contains("e7"));
    }

    #[test]
    fn nothing_is_left_behind_by_entries_that_are_gone() {
        let mut index = Index::default();
        let gone = entry("e", &["unix:uid:1", "unix:gid:1"]);
        index.insert(&gone);
        index.remove(&gone);
        assert!(index.by_selector.is_empty());
    }
}
