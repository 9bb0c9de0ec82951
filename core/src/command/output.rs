//! Where commands read and print.

use std::fs::File;
use std::io::{self, Read, Write};

use prost::{Message, Name};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;
use crate::flags::{Flag, Values};
use crate::limits::MAX_OPERATOR_FILE_BYTES;
use crate::os_error::reason;
use crate::wire::json;

/// How a command prints what it was told.
pub const OUTPUT: Flag =
    Flag::checked("output", check_format, "Output format: pretty or json. The default is pretty");

fn check_format(earlier: Option<&str>, value: &str) -> Result<(), String> {
    match (earlier, value) {
        (_, value) if !matches!(value, "pretty" | "json") => {
            Err(format!("bad formatter flag: unknown format option: {value:?}"))
        }
        (Some(earlier), value) if earlier != value => {
            Err(format!("the output format has already been set to {earlier:?}"))
        }
        _ => Ok(()),
    }
}

/// Whether `-output json` was given.
pub fn is_json(values: &Values) -> bool {
    values.text(OUTPUT.name) == "json"
}

/// Prints the answer of a call as `-output` asks for: the message as JSON, or what `pretty` makes.
///
/// # Errors
/// Those of [`print`].
pub fn answer<M: Message + Name>(
    values: &Values,
    message: &M,
    pretty: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if is_json(values) { print_json(&json::to_json(message)) } else { print(&pretty()) }
}

/// Prints one line of JSON.
///
/// # Errors
/// Those of [`print`].
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&(json::line(value) + "\n"))
}

/// Prints `text` as it stands to the standard output.
///
/// # Errors
/// The output is closed or cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| Failure::new(format!("write to standard output: {}", reason(&error))))
}

/// Prints `text` as it stands to the standard error.
pub fn print_error(text: &str) {
    // Where even this is closed, nobody is left to be told.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The content of a file that the operator names; `-` is the standard input.
///
/// # Errors
/// Names the file and why it cannot be read, or that it is too large.
pub fn read_file(path: &str) -> Result<Vec<u8>, Failure> {
    let open = || -> io::Result<Box<dyn Read>> {
        if path == "-" { Ok(Box::new(io::stdin())) } else { Ok(Box::new(File::open(path)?)) }
    };
    let mut content = Vec::new();
    open()
        .and_then(|file| file.take(MAX_OPERATOR_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(|error| Failure::new(format!("open {path}: {}", reason(&error))))?;
    if content.len() as u64 > MAX_OPERATOR_FILE_BYTES {
        let limit = MAX_OPERATOR_FILE_BYTES;
        return Err(Failure::new(format!("{path} is larger than {limit} bytes; split it")));
    }
    Ok(content)
}

/// Reads JSON that the operator wrote.
///
/// # Errors
/// What is wrong, in the words that scripts match where there are such, and where.
pub fn parse_json<T: DeserializeOwned>(content: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(content).map_err(|error| {
        if error.is_eof() {
            return Failure::new("unexpected end of JSON input");
        }
        let text = error.to_string();
        let what = if text.starts_with("expected value") {
            "looking for beginning of value"
        } else if text.starts_with("key must be a string") {
            "looking for beginning of object key string"
        } else {
            return Failure::new(text);
        };
        let (line, column) = (error.line(), error.column());
        let byte = content
            .split(|byte| *byte == b'\n')
            .nth(line.saturating_sub(1))
            .and_then(|line| line.get(column.saturating_sub(1)));
        let letter = byte.map_or(char::REPLACEMENT_CHARACTER, |byte| char::from(*byte));
        let place = format!("line {line}, column {column}");
        Failure::new(format!("invalid character {letter:?} {what} ({place})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        assert_eq!(
            read_file("/dev/zero").unwrap_err().to_string(),
            "/dev/zero is larger than 268435456 bytes; split it"
        );
        let missing = read_file("/nowhere/entries.json").unwrap_err().to_string();
        assert_eq!(missing, "open /nowhere/entries.json: no such file or directory");
    }

    #[test]
    fn broken_json_is_told_in_known_words_with_its_place() {
        let refused = |text: &str| parse_json::<Value>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused(""), "unexpected end of JSON input");
        assert_eq!(refused("{\"a\":"), "unexpected end of JSON input");
        let value = "looking for beginning of value";
        assert_eq!(refused("junk"), format!("invalid character 'j' {value} (line 1, column 1)"));
        assert_eq!(
            refused("{\n \"a\": x}"),
            format!("invalid character 'x' {value} (line 2, column 7)")
        );
        let key = "looking for beginning of object key string";
        assert_eq!(refused("{a:1}"), format!("invalid character 'a' {key} (line 1, column 2)"));
        assert_eq!(refused("[1,] 2"), "trailing comma at line 1 column 4");
    }
}
