//! The command line of `spire-agent`: one file for each group of commands.

mod api;
mod debug;
mod evidence;
mod healthcheck;
mod logger;
mod process;

use spire_core::command::{PathForm, Program, Socket, Template};
use spire_core::flags::Flag;

/// The program and all its commands.
pub const PROGRAM: Program = Program {
    name: "spire-agent",
    version: spire_core::VERSION,
    commands: &[
        api::FETCH,
        api::JWT,
        api::WATCH,
        debug::COMMANDS,
        evidence::COMMANDS,
        healthcheck::COMMANDS,
        logger::COMMANDS,
        process::COMMANDS,
    ],
};

/// The socket that workloads use.
const PUBLIC_SOCKET: Socket = Socket {
    default: "/tmp/spire-agent/public/api.sock",
    variable: Some("SPIRE_AGENT_PUBLIC_SOCKET"),
    template: Some(Template {
        variable: "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE",
        // Scripts know it with the blank in front.
        missing: " SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE environment variable must be defined when \
                  using the instance flag",
    }),
    shown: PathForm::Absolute,
};

/// The flags by which a command finds it.
const PUBLIC_CONNECTION: &[Flag] = &[
    Flag::text("socketPath", "Path of the agent's socket").default(PUBLIC_SOCKET.default),
    Flag::text("instance", "Name of the agent, put for %i in SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE"),
];

/// The socket for operators, which is there where the agent's file names it.
const ADMIN_SOCKET: Socket = Socket {
    default: "/tmp/spire-agent/private/admin.sock",
    variable: None,
    template: None,
    shown: PathForm::Target,
};

/// The flags by which a command finds it.
const ADMIN_CONNECTION: &[Flag] =
    &[Flag::text("socketPath", "Path of the agent's admin socket").default(ADMIN_SOCKET.default)];
