//! The command line of `spire-server`: one file for each group of commands.

mod agent;
mod authority;
mod bundle;
mod datastore;
mod debug;
mod entry;
mod evidence;
mod healthcheck;
mod local_authority;
mod logger;
mod mint;
mod process;
mod token;
mod upstream_authority;
mod values;

use spire_core::command::{OUTPUT, PathForm, Program, Socket, Template};
use spire_core::flags::Flag;

/// The program and all its commands.
pub const PROGRAM: Program = Program {
    name: "spire-server",
    version: spire_core::VERSION,
    commands: &[
        agent::COMMANDS,
        authority::COMMANDS,
        bundle::COMMANDS,
        datastore::COMMANDS,
        debug::COMMANDS,
        entry::COMMANDS,
        evidence::COMMANDS,
        healthcheck::COMMANDS,
        local_authority::COMMANDS,
        logger::COMMANDS,
        mint::COMMANDS,
        process::COMMANDS,
        token::COMMANDS,
        upstream_authority::COMMANDS,
    ],
};

/// The admin socket, where every command asks that is not about a file or a database.
const SOCKET: Socket = Socket {
    default: "/tmp/spire-server/private/api.sock",
    variable: Some("SPIRE_SERVER_PRIVATE_SOCKET"),
    template: Some(Template {
        variable: "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE",
        missing: "you must define SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE to use the instance flag",
    }),
    shown: PathForm::Target,
};

/// The flags by which a command finds the server.
const CONNECTION: &[Flag] = &[
    Flag::text("socketPath", "Path of the server's admin socket").default(SOCKET.default),
    Flag::text("registrationUDSPath", "Former name of -socketPath").former(),
    Flag::text(
        "instance",
        "Name of the server, put for %i in SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE",
    ),
];

/// The flags of all commands that print what the server answers.
const COMMON: &[Flag] = &[CONNECTION[0], CONNECTION[1], CONNECTION[2], OUTPUT];
