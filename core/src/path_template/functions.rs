//! The functions of templates by name, and what reads their arguments.

use std::ops::RangeInclusive;

use super::value::Value;
use super::{lists, strings};

/// A function of templates.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// How many arguments it takes, the piped one included.
    pub(super) takes: RangeInclusive<usize>,
    pub(super) call: fn(&[Value]) -> Result<Value, String>,
}

pub(super) const fn function(
    name: &'static str,
    takes: RangeInclusive<usize>,
    call: fn(&[Value]) -> Result<Value, String>,
) -> Function {
    Function { name, takes, call }
}

/// More arguments than any template has.
pub(super) const MANY: usize = usize::MAX;

/// Finds a function; the `must…` variants are the functions themselves, since each of ours reports
/// its errors.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    let plain = name.strip_prefix("must").filter(|rest| rest.starts_with(char::is_uppercase));
    let lowered = plain.map(|rest| rest[..1].to_ascii_lowercase() + &rest[1..]);
    let name = lowered.as_deref().unwrap_or(name);
    strings::FUNCTIONS.iter().chain(lists::FUNCTIONS).find(|function| function.name == name)
}

/// The text at `at`; numbers and booleans count as their text, as in most of sprig.
pub(super) fn text(values: &[Value], at: usize) -> Result<String, String> {
    match values.get(at) {
        Some(value @ (Value::Text(_) | Value::Integer(_) | Value::Bool(_))) => Ok(value.to_text()),
        Some(_) => Err(format!("argument {} is not a text", at + 1)),
        None => Err(format!("argument {} is missing", at + 1)),
    }
}

pub(super) fn integer(values: &[Value], at: usize) -> Result<i64, String> {
    match values.get(at) {
        Some(Value::Integer(number)) => Ok(*number),
        _ => Err(format!("argument {} is not a number", at + 1)),
    }
}

/// A number that counts something, bounded so that no template can make much of it.
pub(super) fn count(values: &[Value], at: usize) -> Result<usize, String> {
    match usize::try_from(integer(values, at)?) {
        Ok(number) if number <= super::MAX_TEXT_BYTES => Ok(number),
        _ => Err(format!("argument {} is negative or too large", at + 1)),
    }
}

pub(super) fn list(values: &[Value], at: usize) -> Result<&[Value], String> {
    match values.get(at) {
        Some(Value::List(items)) => Ok(items),
        _ => Err(format!("argument {} is not a list", at + 1)),
    }
}
