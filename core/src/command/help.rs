//! What the programs say about themselves.

use std::fmt::Write;

use super::Command;
use crate::flags;

/// `Usage of <command>:` and its flags.
pub(super) fn usage(command: &Command) -> String {
    flags::usage(command.name, &command.all_flags())
}

/// The usage, then what the command is for and how it is used.
pub(super) fn of_command(command: &Command) -> String {
    let mut text = usage(command);
    let _ = writeln!(text, "\n{}", command.synopsis);
    if !command.example.is_empty() {
        let _ = writeln!(text, "\nExample:");
        for line in command.example.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    let _ = writeln!(text, "\n{}", command.manner.help_end);
    text
}

/// What can follow `group`, which ends with a blank.
pub(super) fn of_group(commands: &[&Command], group: &str) -> String {
    let members = || commands.iter().filter(|command| command.words.starts_with(group));
    let mut text: String = members().map(|command| usage(command)).collect();
    text.push_str("This command is accessed by using one of the subcommands below.\n\n");
    text.push_str("Subcommands:\n");
    list(&mut text, members().map(|command| (&command.words[group.len()..], command.synopsis)));
    text
}

/// All commands.
pub(super) fn of_program(name: &str, commands: &[&Command]) -> String {
    let mut text = format!("Usage: {name} [--version] [--help] <command> [<args>]\n\n");
    text.push_str("Available commands are:\n");
    list(&mut text, commands.iter().map(|command| (command.words, command.synopsis)));
    let _ = writeln!(text, "\n`{name} <command> -h` shows a command's flags.");
    text
}

fn list<'c>(text: &mut String, lines: impl Iterator<Item = (&'c str, &'c str)> + Clone) {
    let width = lines.clone().map(|(words, _)| words.len()).max().unwrap_or_default();
    for (words, synopsis) in lines {
        let _ = writeln!(text, "    {words:width$}    {synopsis}");
    }
}
