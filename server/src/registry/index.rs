//! A set of pairs of numbers, ordered, of which copies are cheap: a B+ tree whose nodes are shared
//! by all copies and copied where a change meets them.
//!
//! It answers "what belongs to this?": the second numbers of all pairs with a given first. The
//! first is often a hash, so that whoever asks checks what was found.

use std::sync::Arc;

/// Pairs in a leaf: with its length and the counters of an `Arc` it fills a kibibyte.
const LEAF: usize = 125;
/// Nodes below a branch.
const BRANCH: usize = 24;

/// Pairs of numbers; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    root: Node,
}

/// A pair as one number that is ordered as the pair is.
type Pair = u64;

fn pair(first: u32, second: u32) -> Pair {
    u64::from(first) << 32 | u64::from(second)
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Arc<Leaf>),
    Branch(Arc<Branch>),
}

#[derive(Debug, Clone)]
struct Leaf {
    count: usize,
    pairs: [Pair; LEAF],
}

/// Nodes in order, each with a bound: its pairs are not less, and those of the nodes before are.
#[derive(Debug, Clone)]
struct Branch {
    bounds: Vec<Pair>,
    nodes: Vec<Node>,
}

impl Index {
    /// Adds a pair, unless it is there.
    pub(super) fn insert(&mut self, first: u32, second: u32) {
        if let Some((bound, right)) = self.root.insert(pair(first, second)) {
            let left = std::mem::take(&mut self.root);
            let root = Branch { bounds: vec![0, bound], nodes: vec![left, right] };
            self.root = Node::Branch(Arc::new(root));
        }
    }

    /// Removes a pair, where it is there.
    pub(super) fn remove(&mut self, first: u32, second: u32) {
        self.root.remove(pair(first, second));
        if let Node::Branch(branch) = &self.root
            && let [only] = &branch.nodes[..]
        {
            self.root = only.clone();
        }
    }

    /// The second numbers of all pairs with that `first`, in order.
    pub(super) fn of(&self, first: u32) -> Seconds<'_> {
        let (rest, next_leaf) = self.root.from(pair(first, 0));
        Seconds { root: &self.root, rest, next_leaf, last: pair(first, u32::MAX) }
    }

    /// The least pair.
    pub(super) fn least(&self) -> Option<(u32, u32)> {
        let (pairs, _) = self.root.from(0);
        pairs.first().map(|pair| ((pair >> 32) as u32, *pair as u32))
    }
}

/// The second numbers of pairs with the same first.
#[derive(Debug, Clone)]
pub(super) struct Seconds<'a> {
    root: &'a Node,
    rest: &'a [Pair],
    /// The bound of the leaf after `rest`, where there is one.
    next_leaf: Option<Pair>,
    last: Pair,
}

impl Iterator for Seconds<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some((pair, rest)) = self.rest.split_first() {
                self.rest = rest;
                if *pair <= self.last {
                    return Some(*pair as u32);
                }
                (self.rest, self.next_leaf) = (&[], None);
            }
            let bound = self.next_leaf.take().filter(|bound| *bound <= self.last)?;
            (self.rest, self.next_leaf) = self.root.from(bound);
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Arc::new(Leaf { count: 0, pairs: [0; LEAF] }))
    }
}

impl Node {
    /// The pairs not less than `pair` in the leaf where it belongs, and the next leaf's bound.
    fn from(&self, pair: Pair) -> (&[Pair], Option<Pair>) {
        let (mut node, mut next_leaf) = (self, None);
        loop {
            match node {
                Self::Leaf(leaf) => {
                    let pairs = leaf.pairs();
                    return (&pairs[pairs.partition_point(|it| *it < pair)..], next_leaf);
                }
                Self::Branch(branch) => {
                    let at = branch.place_of(pair);
                    next_leaf = branch.bounds.get(at + 1).copied().or(next_leaf);
                    node = &branch.nodes[at];
                }
            }
        }
    }

    /// Adds a pair. Where the node has no room, what comes after it is returned, with its bound.
    fn insert(&mut self, pair: Pair) -> Option<(Pair, Node)> {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.pairs().binary_search(&pair).err()?;
                let right = Arc::make_mut(leaf).insert_at(at, pair)?;
                Some((right.pairs[0], Self::Leaf(Arc::new(right))))
            }
            Self::Branch(branch) => {
                let at = branch.place_of(pair);
                let branch = Arc::make_mut(branch);
                let (bound, right) = branch.nodes[at].insert(pair)?;
                branch.bounds.insert(at + 1, bound);
                branch.nodes.insert(at + 1, right);
                if branch.nodes.len() <= BRANCH {
                    return None;
                }
                let right = branch.split_off(BRANCH / 2);
                Some((right.bounds[0], Self::Branch(Arc::new(right))))
            }
        }
    }

    fn remove(&mut self, pair: Pair) {
        match self {
            Self::Leaf(leaf) => {
                if let Ok(at) = leaf.pairs().binary_search(&pair) {
                    Arc::make_mut(leaf).remove_at(at);
                }
            }
            Self::Branch(branch) => {
                let at = branch.place_of(pair);
                let branch = Arc::make_mut(branch);
                branch.nodes[at].remove(pair);
                let left = at.saturating_sub(1);
                if branch.nodes[at].is_sparse()
                    && let [into, from, ..] = &mut branch.nodes[left..]
                {
                    match into.share_with(from) {
                        Some(bound) => branch.bounds[left + 1] = bound,
                        None => {
                            branch.bounds.remove(left + 1);
                            branch.nodes.remove(left + 1);
                        }
                    }
                }
            }
        }
    }

    fn is_sparse(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.count < LEAF / 4,
            Self::Branch(branch) => branch.nodes.len() < BRANCH / 4,
        }
    }

    /// Takes in all of the node after it where that leaves room to spare. Otherwise the two share
    /// evenly, and the bound of the node after it is returned.
    fn share_with(&mut self, right: &mut Node) -> Option<Pair> {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => {
                let all = [left.pairs(), right.pairs()].concat();
                let kept = if all.len() <= LEAF * 3 / 4 { all.len() } else { all.len() / 2 };
                Arc::make_mut(left).hold(&all[..kept]);
                Arc::make_mut(right).hold(&all[kept..]);
                all.get(kept).copied()
            }
            (Self::Branch(left), Self::Branch(right)) => {
                let (left, right) = (Arc::make_mut(left), Arc::make_mut(right));
                left.bounds.append(&mut right.bounds);
                left.nodes.append(&mut right.nodes);
                let count = left.nodes.len();
                if count > BRANCH * 3 / 4 {
                    *right = left.split_off(count / 2);
                }
                right.bounds.first().copied()
            }
            _ => unreachable!("all leaves have the same depth"),
        }
    }
}

impl Branch {
    /// Below which node a pair belongs.
    fn place_of(&self, pair: Pair) -> usize {
        self.bounds[1..].partition_point(|bound| *bound <= pair)
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { bounds: self.bounds.split_off(at), nodes: self.nodes.split_off(at) }
    }
}

impl Leaf {
    fn pairs(&self) -> &[Pair] {
        &self.pairs[..self.count]
    }

    /// Adds a pair where it belongs. A full leaf gives up its upper half; where the pair comes
    /// last, only the pair, so that pairs that arrive in order fill their leaves.
    fn insert_at(&mut self, at: usize, pair: Pair) -> Option<Leaf> {
        if self.count < LEAF {
            self.pairs.copy_within(at..self.count, at + 1);
            self.pairs[at] = pair;
            self.count += 1;
            return None;
        }
        let kept = if at == LEAF { LEAF } else { LEAF / 2 };
        let mut right = Leaf { count: 0, pairs: [0; LEAF] };
        right.hold(&self.pairs[kept..]);
        self.count = kept;
        match at.checked_sub(kept) {
            Some(at) => right.insert_at(at, pair),
            None => self.insert_at(at, pair),
        };
        Some(right)
    }

    fn hold(&mut self, pairs: &[Pair]) {
        self.pairs[..pairs.len()].copy_from_slice(pairs);
        self.count = pairs.len();
    }

    fn remove_at(&mut self, at: usize) {
        self.pairs.copy_within(at + 1..self.count, at);
        self.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Every rule that a tree keeps: order, bounds, widths, one depth.
    fn check(node: &Node, least: Pair, bound: Option<Pair>) -> usize {
        let fits = |pair: Pair| pair >= least && bound.is_none_or(|bound| pair < bound);
        match node {
            Node::Leaf(leaf) => {
                assert!(leaf.pairs().is_sorted() && leaf.pairs().iter().all(|pair| fits(*pair)));
                assert!(leaf.count > 0 || (least, bound) == (0, None));
                0
            }
            Node::Branch(branch) => {
                assert!((1..=BRANCH).contains(&branch.nodes.len()));
                assert_eq!(branch.bounds.len(), branch.nodes.len());
                let depths = branch.nodes.iter().enumerate().map(|(at, node)| {
                    let least = if at == 0 { least } else { branch.bounds[at] };
                    check(node, least, branch.bounds.get(at + 1).copied().or(bound))
                });
                let depths = BTreeSet::from_iter(depths);
                assert_eq!(depths.len(), 1);
                1 + depths.first().unwrap()
            }
        }
    }

    fn agrees(index: &Index, model: &BTreeSet<(u32, u32)>, firsts: u32) {
        check(&index.root, 0, None);
        assert_eq!(index.least(), model.first().copied());
        for first in 0..firsts {
            let expected = model.range((first, 0)..=(first, u32::MAX)).map(|(_, second)| *second);
            assert!(index.of(first).eq(expected), "{first}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pairs_are_those_of_a_set_and_copies_do_not_change(
            seed: u64, spread in 1u32..5000, firsts in 1u32..20,
        ) {
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            let mut state = seed;
            let mut random = |below: u32| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 33) % u64::from(below)) as u32
            };
            // More insertions at first, more removals at last: the tree grows high and falls away.
            for round in 0..8 {
                let (copy, model_of_copy) = (index.clone(), model.clone());
                for _ in 0..2000 {
                    let (first, second) = (random(firsts), random(spread));
                    if random(8) >= round {
                        index.insert(first, second);
                        model.insert((first, second));
                    } else {
                        index.remove(first, second);
                        model.remove(&(first, second));
                    }
                }
                agrees(&index, &model, firsts);
                agrees(&copy, &model_of_copy, firsts);
            }
            for (first, second) in model {
                index.remove(first, second);
            }
            agrees(&index, &BTreeSet::new(), firsts);
        }
    }

    #[test]
    fn pairs_in_order_fill_their_leaves() {
        let mut index = Index::default();
        (0..1000).for_each(|second| index.insert(7, second));
        let Node::Branch(branch) = &index.root else { panic!("1000 pairs in one leaf") };
        assert_eq!(branch.nodes.len(), 1000usize.div_ceil(LEAF));
    }
}
