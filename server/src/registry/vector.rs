//! A list of which copies are cheap: a copy shares everything with the original, and a change
//! copies the few branches above what changes.

use std::sync::Arc;

/// Ways below a branch. Whoever copies a branch counts a reference to everything right below it,
/// which lies in no cache: few ways make changes cheap.
const WIDTH: usize = 1 << WIDTH_BITS;
const WIDTH_BITS: u32 = 4;

/// Items by number, from 0 on without gaps.
#[derive(Debug, Clone)]
pub(super) struct Vector<T> {
    root: Node<T>,
    /// Branches between the root and an item.
    height: u32,
    len: u32,
}

#[derive(Debug, Clone, Default)]
enum Node<T> {
    #[default]
    Nothing,
    Item(T),
    Branch(Arc<[Node<T>; WIDTH]>),
}

impl<T: Clone> Vector<T> {
    /// How many items there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        if number >= self.len {
            return None;
        }
        let (mut node, mut height) = (&self.root, self.height);
        while let Node::Branch(below) = node {
            height -= 1;
            node = &below[way(number, height)];
        }
        node.item()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|number| self.get(number))
    }

    /// An item that is about to change.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        if number >= self.len {
            return None;
        }
        match self.node(number) {
            Node::Item(item) => Some(item),
            _ => None,
        }
    }

    /// Adds an item after the last one.
    pub(super) fn push(&mut self, item: T) {
        let capacity = 1u64 << (WIDTH_BITS * self.height);
        if u64::from(self.len) == capacity {
            let mut below = [const { Node::Nothing }; WIDTH];
            below[0] = std::mem::take(&mut self.root);
            self.root = Node::Branch(Arc::new(below));
            self.height += 1;
        }
        *self.node(self.len) = Node::Item(item);
        self.len += 1;
    }

    /// Takes the last item away.
    pub(super) fn pop(&mut self) {
        match self.len {
            0 => {}
            1 => *self = Self::default(),
            _ => {
                self.len -= 1;
                *self.node(self.len) = Node::Nothing;
            }
        }
    }

    /// Removes an item, whose number the last one takes.
    pub(super) fn swap_remove(&mut self, number: u32) {
        let last = self.len.checked_sub(1).and_then(|last| self.get(last)).cloned();
        if let (Some(item), Some(last)) = (self.get_mut(number), last) {
            *item = last;
            self.pop();
        }
    }

    /// Where an item of that number lies or will lie.
    fn node(&mut self, number: u32) -> &mut Node<T> {
        let mut node = &mut self.root;
        for height in (0..self.height).rev() {
            if matches!(node, Node::Nothing) {
                *node = Node::Branch(Arc::new([const { Node::Nothing }; WIDTH]));
            }
            let Node::Branch(below) = node else { unreachable!("items lie at height 0") };
            node = &mut Arc::make_mut(below)[way(number, height)];
        }
        node
    }
}

impl<T> Default for Vector<T> {
    fn default() -> Self {
        Self { root: Node::Nothing, height: 0, len: 0 }
    }
}

impl<T> Node<T> {
    fn item(&self) -> Option<&T> {
        if let Self::Item(item) = self { Some(item) } else { None }
    }
}

/// Which way leads to `number` from a branch whose ways are at `height`.
fn way(number: u32, height: u32) -> usize {
    (number >> (WIDTH_BITS * height)) as usize % WIDTH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn items_are_those_of_a_vec_and_copies_do_not_change(
            runs in prop::collection::vec((0..600usize, 0..500usize, any::<u32>()), 1..8),
        ) {
            let (mut vector, mut model) = (Vector::default(), Vec::new());
            for (pushes, pops, item) in runs {
                let (copy, model_of_copy) = (vector.clone(), model.clone());
                for number in 0..pushes as u32 {
                    vector.push(item ^ number);
                    model.push(item ^ number);
                }
                for _ in 0..pops {
                    vector.pop();
                    model.pop();
                }
                if !model.is_empty() {
                    let at = item as usize % model.len();
                    vector.swap_remove(at as u32);
                    model.swap_remove(at);
                }
                for at in (0..model.len()).step_by(7) {
                    model[at] ^= 1;
                    *vector.get_mut(at as u32).unwrap() ^= 1;
                }
                for (vector, model) in [(&vector, &model), (&copy, &model_of_copy)] {
                    prop_assert_eq!(vector.len() as usize, model.len());
                    prop_assert!(vector.iter().eq(model));
                    prop_assert_eq!(vector.get(vector.len()), None);
                }
                prop_assert_eq!(vector.get_mut(model.len() as u32), None);
            }
        }
    }
}
