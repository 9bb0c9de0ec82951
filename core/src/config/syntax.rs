//! Tokens → tree, for HCL 1 and for JSON.
//!
//! HCL 1 and not HCL 2: operators' files use its compact blocks (several keys on a line, the first
//! key beside the brace, quoted keys and block names), which readers of HCL 2 refuse.

use std::fmt;

use super::lexer::{Grammar, Lexer, Token};
use super::tree::{Item, Node, Position, Value};

/// Largest file in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Most tokens in a file.
pub const MAX_TOKENS: usize = 200_000;
/// Deepest nesting of blocks and lists; a block's labels count as levels.
pub const MAX_DEPTH: usize = 64;

/// What breaks the syntax of a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where reading stopped.
    pub at: Position,
    /// What is wrong there.
    pub message: String,
    /// What may have caused it.
    pub remedy: Option<String>,
}

impl SyntaxError {
    pub(super) fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), remedy: None }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "At {}: {}", self.at, self.message)?;
        match &self.remedy {
            Some(remedy) => write!(formatter, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SyntaxError {}

/// Reads a whole file. A text that begins with a brace is JSON.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    if text.len() > MAX_FILE_BYTES {
        let at = Position { line: 1, column: 1 };
        return Err(SyntaxError::new(at, format!("more than {MAX_FILE_BYTES} bytes")));
    }
    let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    let grammar = if is_json { Grammar::Json } else { Grammar::Hcl };
    let mut parser = Parser::new(text, grammar)?;
    let items = match grammar {
        Grammar::Hcl => parser.items(0, Token::End),
        Grammar::Json => parser.document(),
    };
    items.map_err(|error| parser.explain(error))
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    token: Token,
    at: Position,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, grammar: Grammar) -> Result<Self, SyntaxError> {
        let mut lexer = Lexer::new(text, grammar);
        let (token, at) = lexer.next()?;
        Ok(Self { lexer, token, at })
    }

    /// Takes the present token and reads the next one.
    fn take(&mut self) -> Result<Token, SyntaxError> {
        let (next, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError::new(self.at, message))
    }

    fn check_depth(&self, depth: usize) -> Result<(), SyntaxError> {
        if depth > MAX_DEPTH {
            return self.error(format!("blocks and lists nested more than {MAX_DEPTH} deep"));
        }
        Ok(())
    }

    fn explain(&self, mut error: SyntaxError) -> SyntaxError {
        error.remedy = match (&*error.message, self.lexer.long_text) {
            (_, Some(at)) if at < error.at => {
                Some(format!("the text that begins at {at} may lack its closing quote"))
            }
            ("illegal char", _) => {
                Some("write key = \"value\": double quotes, and = between key and value".to_owned())
            }
            ("literal not terminated", _) => Some("add the closing double quote".to_owned()),
            _ => None,
        };
        error
    }

    /// The items of a block of HCL up to `end`, which is passed over.
    fn items(&mut self, depth: usize, end: Token) -> Result<Vec<Item>, SyntaxError> {
        self.check_depth(depth)?;
        let mut items = Vec::new();
        while self.token != end {
            if self.token == Token::End {
                return self.error("object expected closing RBRACE got: EOF");
            }
            items.push(self.item(depth)?);
            if self.token == Token::Comma {
                self.take()?;
            }
        }
        if end != Token::End {
            self.take()?;
        }
        Ok(items)
    }

    /// `key = value`, `key { … }` or `key "label" { … }`.
    fn item(&mut self, depth: usize) -> Result<Item, SyntaxError> {
        let mut keys: Vec<(String, Position)> = Vec::new();
        let node = loop {
            self.check_depth(depth + keys.len())?;
            match &mut self.token {
                Token::Name(key) => keys.push((std::mem::take(key), self.at)),
                Token::Text(key) => keys.push((std::mem::take(&mut **key), self.at)),
                Token::Assign if keys.len() == 1 => {
                    self.take()?;
                    break self.value(depth + 1)?;
                }
                Token::Assign if keys.len() > 1 => {
                    return self.error("nested object expected: LBRACE got: ASSIGN");
                }
                Token::LeftBrace if !keys.is_empty() => break self.value(depth + keys.len())?,
                Token::Assign | Token::LeftBrace => {
                    return self
                        .error(format!("expected: IDENT | STRING got: {}", self.token.name()));
                }
                Token::End => {
                    let key = keys.last().map_or("", |(key, _)| key);
                    return self.error(format!(
                        "key '{key}' expected start of object ('{{') or assignment ('=')"
                    ));
                }
                other => {
                    let name = other.name();
                    return self
                        .error(format!("expected: IDENT | STRING | ASSIGN | LBRACE got: {name}"));
                }
            }
            self.take()?;
        };
        let nested = keys.into_iter().rev().fold(node, |node, (key, at)| Node {
            at,
            value: Value::Block(vec![Item { key, at, node }]),
        });
        match nested.value {
            Value::Block(mut items) if items.len() == 1 => Ok(items.remove(0)),
            _ => self.error("no object keys found"),
        }
    }

    /// A value of either syntax.
    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        let at = self.at;
        let value = match &mut self.token {
            Token::Text(text) | Token::Heredoc(text) => Value::Text(std::mem::take(text)),
            Token::Integer(text) => Value::Integer(std::mem::take(text)),
            Token::Float(text) => Value::Float(std::mem::take(text)),
            Token::Boolean(value) => Value::Boolean(*value),
            Token::Null => Value::Null,
            Token::LeftBracket => {
                return Ok(Node { at, value: Value::List(self.list(depth)?) });
            }
            Token::LeftBrace => {
                let items = if self.lexer.is_json() {
                    self.object(depth)?
                } else {
                    self.take()?;
                    self.items(depth, Token::RightBrace)?
                };
                return Ok(Node { at, value: Value::Block(items) });
            }
            Token::End => return self.error("unexpected end of file, expected a value"),
            other => {
                let name = other.name();
                return self.error(format!("Unknown token: {at} {name}"));
            }
        };
        self.take()?;
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        self.check_depth(depth)?;
        self.take()?;
        let mut nodes = Vec::new();
        while self.token != Token::RightBracket {
            nodes.push(self.value(depth + 1)?);
            match self.token {
                Token::Comma => drop(self.take()?),
                Token::RightBracket => {}
                _ => {
                    let name = self.token.name();
                    return self.error(format!(
                        "error parsing list, expected comma or list end, got: {name}"
                    ));
                }
            }
        }
        self.take()?;
        Ok(nodes)
    }

    /// A file of JSON: one object and nothing after it.
    fn document(&mut self) -> Result<Vec<Item>, SyntaxError> {
        let items = self.object(0)?;
        match self.token {
            Token::End => Ok(items),
            _ => self.error(format!("expected end of file got: {}", self.token.name())),
        }
    }

    /// An object of JSON. A member that is a list of objects stands for repeated blocks.
    fn object(&mut self, depth: usize) -> Result<Vec<Item>, SyntaxError> {
        self.check_depth(depth)?;
        self.take()?;
        let mut items = Vec::new();
        while self.token != Token::RightBrace {
            let at = self.at;
            let key = match &mut self.token {
                Token::Text(key) => std::mem::take(&mut **key),
                other => {
                    let name = other.name();
                    return self.error(format!("expected: STRING got: {name}"));
                }
            };
            self.take()?;
            if self.token != Token::Colon {
                return self.error(format!("expected: COLON got: {}", self.token.name()));
            }
            self.take()?;
            let node = self.value(depth + 1)?;
            match node.value {
                Value::List(nodes) if !nodes.is_empty() && nodes.iter().all(Node::is_block) => {
                    let repeated = |node| Item { key: key.clone(), at, node };
                    items.extend(nodes.into_iter().map(repeated));
                }
                _ => items.push(Item { key, at, node }),
            }
            match self.token {
                Token::Comma => drop(self.take()?),
                Token::RightBrace => {}
                _ => {
                    let name = self.token.name();
                    return self.error(format!("object expected closing RBRACE got: {name}"));
                }
            }
        }
        self.take()?;
        Ok(items)
    }
}

#[cfg(test)]
mod tests;
