//! Where commands read and print.

use std::fs;
use std::io::{self, Read, Write};

use prost::{Message, Name};
use serde_json::Value;

use super::Failure;
use crate::flags::{Flag, Values};
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
/// Names the file and why it cannot be read.
pub fn read_file(path: &str) -> Result<Vec<u8>, Failure> {
    let read = if path == "-" {
        let mut content = Vec::new();
        io::stdin().lock().read_to_end(&mut content).map(|_| content)
    } else {
        fs::read(path)
    };
    read.map_err(|error| Failure::new(format!("open {path}: {}", reason(&error))))
}
