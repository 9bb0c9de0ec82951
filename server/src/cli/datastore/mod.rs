//! `datastore`: the database itself, without a server.

mod check;
mod copy;
mod places;

use spire_core::command::Command;

pub(super) const COMMANDS: &[Command] = &[check::COMMAND, copy::COMMAND];
