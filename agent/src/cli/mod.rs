//! The command line of `spire-agent`: one file for each group of commands.

mod process;

use spire_core::command::Program;

/// The program and all its commands.
pub const PROGRAM: Program =
    Program { name: "spire-agent", version: spire_core::VERSION, commands: &[process::COMMANDS] };
