//! A set of pairs, ordered, of which copies are cheap: a tree whose nodes are shared by all copies
//! and copied where a change meets them.
//!
//! It answers "what belongs to this?": the places of all pairs with a given number. The number is
//! often a hash, so that whoever asks checks what was found.
//!
//! The next five bits of a pair say which way to go at a branch, so that a branch is not searched:
//! among a million pairs a leaf is three branches away, and each costs one line of memory.

use std::sync::Arc;

use super::group::Place;
use super::packing::joined;

/// A number, and what belongs to it.
type Pair = (u32, Place);

/// Pairs in a leaf, beyond which it becomes a branch.
const LEAF: usize = 128;

/// Room for pairs that a leaf gets beyond those it has, so that not each insertion makes another.
const SPARE: usize = 7;

/// Ways below a branch.
const WIDTH: usize = 1 << WIDTH_BITS;
const WIDTH_BITS: u32 = 5;

/// Pairs; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    root: Node,
}

#[derive(Debug, Clone, Default)]
enum Node {
    #[default]
    Nothing,
    Leaf(Leaf),
    Branch(Arc<[Node; WIDTH]>),
}

/// Pairs in order.
#[derive(Debug, Clone)]
struct Leaf {
    /// The pairs, and what is spare.
    room: Arc<[Pair]>,
    count: u32,
}

/// A pair as one number of [`KEY_BITS`] that is ordered as the pair is.
type Key = u128;
/// Those of a pair, and below them as many as make it a multiple of [`WIDTH_BITS`].
const KEY_BITS: u32 = 100;
/// The bits below those of a pair's number.
const PLACE_BITS: u32 = KEY_BITS - u32::BITS;

fn key((number, place): Pair) -> Key {
    let place = Key::from(place.group) << u32::BITS | Key::from(place.slot);
    Key::from(number) << PLACE_BITS | place << (PLACE_BITS - u64::BITS)
}

/// Which way leads to `key` from a branch below `depth` others.
fn way(key: Key, depth: u32) -> usize {
    (key >> (KEY_BITS - WIDTH_BITS * (depth + 1))) as usize % WIDTH
}

impl Index {
    /// Adds a pair, unless it is there.
    pub(super) fn insert(&mut self, number: u32, place: Place) {
        let pair = (number, place);
        let (mut node, mut depth) = (&mut self.root, 0);
        while let Node::Branch(below) = node {
            node = &mut Arc::make_mut(below)[way(key(pair), depth)];
            depth += 1;
        }
        match node {
            Node::Leaf(leaf) => {
                leaf.insert(pair);
                if leaf.pairs().len() > LEAF {
                    *node = split(leaf.pairs(), depth);
                }
            }
            _ => *node = Node::of(&[&[pair]]),
        }
    }

    /// Removes a pair, where it is there.
    pub(super) fn remove(&mut self, number: u32, place: Place) {
        self.root.remove((number, place), 0);
    }

    /// The places of all pairs with that number, in order.
    pub(super) fn of(&self, number: u32) -> Places<'_> {
        Places { root: &self.root, number, rest: &[], next: key((number, Place::default())) }
    }

    /// The least pair.
    pub(super) fn least(&self) -> Option<(u32, Place)> {
        let mut next = 0;
        while next >> KEY_BITS == 0 {
            let pairs;
            (pairs, next) = self.root.from(next);
            if let Some(pair) = pairs.first() {
                return Some(*pair);
            }
        }
        None
    }
}

/// Places of pairs with the same number.
#[derive(Debug, Clone)]
pub(super) struct Places<'a> {
    root: &'a Node,
    number: u32,
    rest: &'a [Pair],
    /// Where to look on after `rest`.
    next: Key,
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            if let Some(((number, place), rest)) = self.rest.split_first() {
                self.rest = rest;
                return (*number == self.number).then_some(*place);
            }
            if self.next >> PLACE_BITS != Key::from(self.number) {
                return None;
            }
            (self.rest, self.next) = self.root.from(self.next);
        }
    }
}

impl Node {
    /// The pairs not less than `least` in the leaf where it belongs, and the first key beyond all
    /// that belong there.
    fn from(&self, least: Key) -> (&[Pair], Key) {
        let (mut node, mut depth) = (self, 0);
        while let Self::Branch(below) = node {
            node = &below[way(least, depth)];
            depth += 1;
        }
        let pairs = if let Self::Leaf(leaf) = node { leaf.pairs() } else { &[] };
        let rest = &pairs[pairs.partition_point(|pair| key(*pair) < least)..];
        let below_bits = KEY_BITS - WIDTH_BITS * depth;
        (rest, ((least >> below_bits) + 1) << below_bits)
    }

    fn remove(&mut self, pair: Pair, depth: u32) {
        match self {
            Self::Nothing => {}
            Self::Leaf(leaf) => {
                let pairs = leaf.pairs();
                if let Ok(at) = pairs.binary_search(&pair) {
                    *self = Self::of(&[&pairs[..at], &pairs[at + 1..]]);
                }
            }
            Self::Branch(below) => {
                let below = Arc::make_mut(below);
                below[way(key(pair), depth)].remove(pair, depth + 1);
                if let Some(gathered) = gathered(below) {
                    *self = gathered;
                }
            }
        }
    }

    /// A leaf of these pairs, where there are any.
    fn of(parts: &[&[Pair]]) -> Self {
        let room = joined(parts);
        match room.len() as u32 {
            0 => Self::Nothing,
            count => Self::Leaf(Leaf { room, count }),
        }
    }
}

impl Leaf {
    fn pairs(&self) -> &[Pair] {
        &self.room[..self.count as usize]
    }

    fn insert(&mut self, pair: Pair) {
        let count = self.count as usize;
        let Err(at) = self.pairs().binary_search(&pair) else { return };
        match Arc::get_mut(&mut self.room).filter(|room| room.len() > count) {
            Some(room) => {
                room.copy_within(at..count, at + 1);
                room[at] = pair;
            }
            None => {
                let (before, after) = self.pairs().split_at(at);
                self.room = joined(&[before, &[pair], after, &[Pair::default(); SPARE]]);
            }
        }
        self.count += 1;
    }
}

/// The branch that takes the place of a leaf. All pairs may go the same way: then the leaf there
/// has too many as well, and becomes a branch when the next one comes.
fn split(pairs: &[Pair], depth: u32) -> Node {
    let way = |pair: &Pair| way(key(*pair), depth);
    let mut below = [const { Node::Nothing }; WIDTH];
    for part in pairs.chunk_by(|one, next| way(one) == way(next)) {
        below[way(&part[0])] = Node::of(&[part]);
    }
    Node::Branch(Arc::new(below))
}

/// What takes the place of a branch to which few pairs are left.
fn gathered(below: &[Node; WIDTH]) -> Option<Node> {
    let mut parts: [&[Pair]; WIDTH] = [&[]; WIDTH];
    for (part, node) in parts.iter_mut().zip(below) {
        match node {
            Node::Nothing => {}
            Node::Leaf(leaf) => *part = leaf.pairs(),
            Node::Branch(_) => return None,
        }
    }
    let count: usize = parts.iter().map(|part| part.len()).sum();
    (count <= LEAF / 2).then(|| Node::of(&parts))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Every rule that a tree keeps: order, prefixes, widths. Returns how many pairs there are.
    fn check(node: &Node, prefix: Key, depth: u32) -> usize {
        match node {
            Node::Nothing => 0,
            Node::Leaf(leaf) => {
                let pairs = leaf.pairs();
                assert!(!pairs.is_empty() && pairs.is_sorted_by(|one, next| one < next));
                let bits = KEY_BITS - WIDTH_BITS * depth;
                assert!(pairs.iter().all(|pair| key(*pair) >> bits == prefix));
                pairs.len()
            }
            Node::Branch(below) => {
                let below = below.iter().enumerate();
                let counts = below
                    .map(|(way, node)| check(node, prefix << WIDTH_BITS | way as Key, depth + 1));
                let count = counts.sum();
                assert!(count > LEAF / 2, "a branch of {count} pairs");
                count
            }
        }
    }

    fn agrees(index: &Index, model: &BTreeSet<Pair>, numbers: impl Iterator<Item = u32>) {
        assert_eq!(check(&index.root, 0, 0), model.len());
        assert_eq!(index.least(), model.first().copied());
        let last = Place { group: u32::MAX, slot: u32::MAX };
        for number in numbers {
            let expected = model.range((number, Place::default())..=(number, last));
            assert!(index.of(number).eq(expected.map(|(_, place)| *place)), "{number}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn pairs_are_those_of_a_set_and_copies_do_not_change(
            seed: u64, groups in 1u32..100, numbers in 1u32..200, spread: bool,
        ) {
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            let mut state = seed;
            let mut random = |below: u32| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 33) % u64::from(below)) as u32
            };
            // As hashes are, or side by side, the last number among them.
            let number = |at: u32| if spread { at.wrapping_mul(0x9e37_79b9) } else { !at };
            // More insertions at first, more removals at last: the tree grows and falls away.
            for round in 0..8 {
                let (copy, model_of_copy) = (index.clone(), model.clone());
                for _ in 0..3000 {
                    let place = Place { group: random(groups), slot: random(20) };
                    let pair = (number(random(numbers)), place);
                    if random(8) >= round {
                        index.insert(pair.0, pair.1);
                        model.insert(pair);
                    } else {
                        index.remove(pair.0, pair.1);
                        model.remove(&pair);
                    }
                }
                agrees(&index, &model, (0..numbers).map(number));
                agrees(&copy, &model_of_copy, (0..numbers).map(number));
            }
            for (number, place) in model {
                index.remove(number, place);
            }
            prop_assert!(matches!(index.root, Node::Nothing));
        }
    }
}
