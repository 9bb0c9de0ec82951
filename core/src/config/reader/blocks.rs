//! Blocks inside a section: merged where they are repeated, read one by one where they are a list
//! or stand under labels.

use std::collections::HashMap;

use super::{Findings, FromSection, Reader};
use crate::config::Section;
use crate::config::tree::{Item, Node, Position, Value};

impl<'s> Reader<'s> {
    /// The block `key`; one written several times is one block.
    pub fn block<T: FromSection>(&mut self, key: &'static str) -> Option<T> {
        self.block_with(key, T::read)
    }

    /// As [`block`](Self::block), read by a function.
    pub fn block_with<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let items = self.block_items(key);
        if !node.is_block() {
            return None;
        }
        self.nested(items, self.path_of(key), Some(node.at), read)
    }

    /// As [`block_with`](Self::block_with), and an absent block is read as an empty one.
    pub fn block_or_empty<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> Option<T> {
        let at = self.node(key).map(|node| node.at);
        let items = self.block_items(key);
        self.nested(items, self.path_of(key), at, read)
    }

    /// Whether `key` is there and is a block.
    pub fn is_block(&mut self, key: &'static str) -> bool {
        self.node(key).is_some_and(Node::is_block)
    }

    /// Each of the blocks `key`, whether repeated or in a list.
    pub fn blocks<T: FromSection>(&mut self, key: &'static str) -> Vec<T> {
        self.blocks_with(key, T::read)
    }

    /// As [`blocks`](Self::blocks), each read by a function.
    pub fn blocks_with<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Reader<'s>) -> Option<T>,
    ) -> Vec<T> {
        let mut blocks: Vec<&'s Node> = Vec::new();
        for node in self.nodes(key) {
            match &node.value {
                Value::Block(_) => blocks.push(node),
                Value::List(nodes) => blocks.extend(nodes),
                _ => self.not_a_block(key, node),
            }
        }
        let mut values = Vec::new();
        for node in blocks {
            let Value::Block(items) = &node.value else {
                self.not_a_block(key, node);
                continue;
            };
            let path = self.path_of(key);
            values.extend(self.nested(items.iter().collect(), path, Some(node.at), &read));
        }
        values
    }

    /// Each block that stands under a label: `key "label" { … }`. A label written twice is one
    /// block.
    pub fn labelled<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Reader<'s>) -> Option<T>,
    ) -> Vec<T> {
        let mut labels: Vec<(&'s Item, Vec<&'s Item>)> = Vec::new();
        let mut index: HashMap<&'s str, usize> = HashMap::new();
        for item in self.block_items(key) {
            let Value::Block(items) = &item.node.value else {
                self.not_a_block(key, &item.node);
                continue;
            };
            let place = *index.entry(&item.key).or_insert(labels.len());
            if place == labels.len() {
                labels.push((item, Vec::new()));
            }
            labels[place].1.extend(items);
        }
        let mut values = Vec::new();
        for (label, items) in labels {
            let path = format!("{}[{:?}]", self.path_of(key), label.key);
            let read = |reader: &mut Reader<'s>| read(&label.key, reader);
            values.extend(self.nested(items, path, Some(label.at), read));
        }
        values
    }

    /// The block `key` as it is, to be read later.
    pub fn section(&mut self, key: &'static str) -> Option<Section> {
        let at = self.node(key)?.at;
        let items = self.block_items(key).into_iter().cloned().collect();
        Some(Section { items, path: self.path_of(key), at: Some(at) })
    }

    /// Takes over what was found while something below this section was read.
    pub(in crate::config) fn absorb<T>(
        &mut self,
        (value, findings): (Option<T>, Findings),
    ) -> Option<T> {
        self.findings.append(findings);
        value
    }

    fn nested<T>(
        &mut self,
        items: Vec<&'s Item>,
        path: String,
        at: Option<Position>,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> Option<T> {
        self.absorb(Reader::new(items, path, at).run(read))
    }

    /// The items of all blocks `key`, in order.
    pub(in crate::config) fn block_items(&mut self, key: &'static str) -> Vec<&'s Item> {
        let mut all = Vec::new();
        for node in self.nodes(key) {
            match &node.value {
                Value::Block(items) => all.extend(items),
                Value::Null => {}
                _ => self.not_a_block(key, node),
            }
        }
        all
    }

    fn not_a_block(&mut self, key: &'static str, node: &Node) {
        let message = format!("not an object type for struct ({})", node.value.kind());
        self.wrong_type(key, node.at, &message, &format!("write a block: {key} {{ … }}"));
    }
}
