//! The tree that both syntaxes are read into: keys in their order, each with its place.

use std::fmt;

use zeroize::Zeroizing;

/// A place in a file: line and column from 1, columns counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Position {
    /// Stands for every flag of the command line.
    pub const COMMAND_LINE: Self = Self { line: 0, column: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// A key with its value. `a "b" { … }` is an item `a` whose block holds an item `b`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) node: Node,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

impl Node {
    pub(super) fn is_block(&self) -> bool {
        matches!(self.value, Value::Block(_))
    }
}

/// Numbers stay as written, since a text key accepts them as text.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Text(Zeroizing<String>),
    Integer(String),
    Float(String),
    Boolean(bool),
    Null,
    List(Vec<Node>),
    Block(Vec<Item>),
}

impl Value {
    /// What the reader of HCL 1 calls this kind of value, for its error texts.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::List(_) => "*ast.ListType",
            Self::Block(_) => "*ast.ObjectType",
            _ => "*ast.LiteralType",
        }
    }
}

/// Texts may be secrets, so none is shown.
impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => formatter.write_str("Text"),
            Self::Integer(text) | Self::Float(text) => formatter.write_str(text),
            Self::Boolean(value) => write!(formatter, "{value}"),
            Self::Null => formatter.write_str("null"),
            Self::List(nodes) => formatter.debug_list().entries(nodes).finish(),
            Self::Block(items) => formatter.debug_list().entries(items).finish(),
        }
    }
}
