//! Text → nodes.

use super::functions::{self, Function};
use super::value::Value;

/// How deep parentheses may nest.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
}

/// Commands, each fed with the value of the one before as its last argument.
#[derive(Debug, Clone)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

#[derive(Debug, Clone)]
pub(super) enum Command {
    Value(Operand),
    Call(&'static Function, Vec<Operand>),
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Literal(Value),
    Field(Vec<String>),
    Nested(Pipeline, Vec<String>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut nodes = Vec::new();
    let mut rest = text;
    let mut trim_left = false;
    loop {
        let (literal, action) = match rest.split_once("{{") {
            Some((literal, action)) => (literal, Some(action)),
            None => (rest, None),
        };
        let literal = if trim_left { literal.trim_start() } else { literal };
        let action = action.map(|action| match action.strip_prefix("- ") {
            Some(action) => (true, action),
            None => (false, action),
        });
        let literal = if matches!(action, Some((true, _))) { literal.trim_end() } else { literal };
        if !literal.is_empty() {
            nodes.push(Node::Text(literal.to_owned()));
        }
        let Some((_, action)) = action else { return Ok(nodes) };
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let (_, after) = comment.split_once("*/").ok_or("unclosed comment")?;
            rest = after
                .trim_start()
                .strip_prefix("-}}")
                .or(after.strip_prefix("}}"))
                .ok_or("a comment must be all of an action")?;
            trim_left = after.trim_start().starts_with('-');
            continue;
        }
        let mut reader = Reader { rest: action, depth: 0 };
        nodes.push(Node::Action(reader.pipeline()?));
        (rest, trim_left) = reader.close()?;
    }
}

struct Reader<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let mut commands = vec![self.command(false)?];
        loop {
            self.skip_space();
            let Some(rest) = self.rest.strip_prefix('|') else { return Ok(Pipeline(commands)) };
            self.rest = rest;
            commands.push(self.command(true)?);
        }
    }

    fn command(&mut self, is_fed: bool) -> Result<Command, String> {
        self.skip_space();
        let name = self.word();
        if !name.is_empty() && name != "true" && name != "false" {
            let function = functions::find(name).ok_or_else(|| unknown(name))?;
            self.rest = &self.rest[name.len()..];
            let mut arguments = Vec::new();
            while let Some(operand) = self.operand()? {
                arguments.push(operand);
            }
            let count = arguments.len() + usize::from(is_fed);
            if !function.takes.contains(&count) {
                return Err(format!("wrong number of arguments for {name}: {count}"));
            }
            return Ok(Command::Call(function, arguments));
        }
        if is_fed {
            return Err(format!("a function must follow \"|\", found {:?}", self.excerpt()));
        }
        let operand = self.operand()?.ok_or_else(|| {
            format!("missing value or unexpected {:?} in command", self.excerpt())
        })?;
        if self.operand()?.is_some() {
            return Err("a value cannot have arguments".to_owned());
        }
        Ok(Command::Value(operand))
    }

    fn operand(&mut self) -> Result<Option<Operand>, String> {
        self.skip_space();
        let Some(first) = self.rest.chars().next() else { return Err("unclosed action".into()) };
        let operand = match first {
            '.' => Operand::Field(self.fields()?),
            '"' => Operand::Literal(self.quoted()?.into()),
            '`' => {
                let (text, rest) =
                    self.rest[1..].split_once('`').ok_or("unterminated raw quoted string")?;
                self.rest = rest;
                Operand::Literal(text.into())
            }
            '(' => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(format!("parentheses nest deeper than {MAX_DEPTH}"));
                }
                self.rest = &self.rest[1..];
                let pipeline = self.pipeline()?;
                self.skip_space();
                self.rest = self.rest.strip_prefix(')').ok_or("unclosed left paren")?;
                self.depth -= 1;
                let fields = if self.rest.starts_with('.') { self.fields()? } else { Vec::new() };
                Operand::Nested(pipeline, fields)
            }
            '0'..='9' | '+' | '-' if !self.rest.starts_with("-}}") => self.number()?,
            letter if letter.is_ascii_alphabetic() => match self.word() {
                "true" => self.literal("true", true),
                "false" => self.literal("false", false),
                name => {
                    let function = functions::find(name).ok_or_else(|| unknown(name))?;
                    if !function.takes.contains(&0) {
                        return Err(format!("{name} needs parentheses around its call"));
                    }
                    self.rest = &self.rest[name.len()..];
                    let call = Command::Call(function, Vec::new());
                    Operand::Nested(Pipeline(vec![call]), Vec::new())
                }
            },
            _ => return Ok(None),
        };
        Ok(Some(operand))
    }

    fn literal(&mut self, word: &str, value: bool) -> Operand {
        self.rest = &self.rest[word.len()..];
        Operand::Literal(Value::Bool(value))
    }

    /// `.A.B`, or `.` alone for everything.
    fn fields(&mut self) -> Result<Vec<String>, String> {
        let mut path = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            let name = self.word();
            if name.is_empty() && (!path.is_empty() || self.rest.starts_with('.')) {
                return Err(format!("unexpected <.> before {:?}", self.excerpt()));
            }
            if name.is_empty() {
                break;
            }
            path.push(name.to_owned());
            self.rest = &self.rest[name.len()..];
        }
        Ok(path)
    }

    fn number(&mut self) -> Result<Operand, String> {
        let ends = |letter: char| !(letter.is_ascii_alphanumeric() || "+-._".contains(letter));
        let text = &self.rest[..self.rest.find(ends).unwrap_or(self.rest.len())];
        let number = text.parse().map_err(|_| format!("bad number syntax: {text:?}"))?;
        self.rest = &self.rest[text.len()..];
        Ok(Operand::Literal(Value::Integer(number)))
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut letters = self.rest[1..].char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match letters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => return Err("unknown escape sequence in a quoted string".to_owned()),
                },
                _ => text.push(letter),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    /// The end of the action; whether it takes the white space after it along.
    fn close(&mut self) -> Result<(&'t str, bool), String> {
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix("-}}") {
            return Ok((rest, true));
        }
        match self.rest.strip_prefix("}}") {
            Some(rest) => Ok((rest, false)),
            None if self.rest.is_empty() => Err("unclosed action".to_owned()),
            None => Err(format!("unexpected {:?} in action", self.excerpt())),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn word(&self) -> &'t str {
        let ends = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
        let word = &self.rest[..self.rest.find(ends).unwrap_or(self.rest.len())];
        if word.starts_with(|letter: char| letter.is_ascii_digit()) { "" } else { word }
    }

    fn excerpt(&self) -> String {
        self.rest.chars().take(20).collect()
    }
}

fn unknown(name: &str) -> String {
    match name {
        "if" | "else" | "end" | "range" | "with" | "define" | "template" | "block" | "break"
        | "continue" => {
            format!("{{{{{name}}}}} is not supported: only fields, pipes and functions are")
        }
        "uuidv4" | "env" | "expandenv" | "now" => {
            format!("function {name:?} is not supported: a path must follow from the node alone")
        }
        _ => format!("function {name:?} not defined"),
    }
}
