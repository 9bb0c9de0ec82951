//! `run` and `validate`: the commands that read the server's file.

use std::process::ExitCode;

use spire_core::command::{Command, Manner, serve, tell};
use spire_core::flags::{Flag, Values};
use tokio::runtime::Builder;

use crate::app;
use crate::config::{self, PluginLists, RunFlags};
use crate::plugins::{KEY_MANAGERS, NODE_ATTESTORS, UPSTREAM_AUTHORITIES};

pub(super) const COMMANDS: &[Command] = &[
    Command::process("run", "Runs the server until it is told to stop.", &[FLAGS], run)
        .example("spire-server run -config conf/server/server.conf")
        .manner(Manner { mistake_again: Some(""), ..Manner::ERROR }),
    Command::process(
        "validate",
        "Checks the server's file and names every mistake.",
        &[FLAGS],
        validate,
    )
    .example("spire-server validate -config conf/server/server.conf")
    .manner(Manner {
        mistake_again: Some("SPIRE server configuration file is invalid: "),
        ..Manner::ERROR
    }),
];

/// What these say beats the file.
const FLAGS: &[Flag] = &[
    Flag::text("config", "Path of the server's file; conf/server/server.conf unless given"),
    Flag::bool("expandEnv", "Replace $VARIABLE in the file from the environment"),
    Flag::text("bindAddress", "IP address or name to listen at"),
    Flag::integer("serverPort", "TCP port to listen at"),
    Flag::text("dataDir", "Folder for what the server keeps"),
    Flag::text("logFile", "File to log to"),
    Flag::text("logFormat", "Format of the log: text or json"),
    Flag::text("logLevel", "Least level that is logged: debug, info, warn or error"),
    Flag::bool("logSourceLocation", "Log where in the code a line comes from"),
    Flag::text("socketPath", "Path of the admin socket"),
    Flag::text("registrationUDSPath", "Former name of -socketPath").former(),
    Flag::text("trustDomain", "Trust domain that is served"),
    Flag::text("umask", "Has no effect").former(),
    Flag::bool("upstreamBundle", "Has no effect").former(),
];

fn run_flags(values: &Values) -> RunFlags {
    let text = |name| values.given_text(name).map(ToOwned::to_owned);
    RunFlags {
        config: text("config").map(Into::into),
        expand_env: values.bool("expandEnv"),
        bind_address: text("bindAddress"),
        server_port: values.is_given("serverPort").then(|| values.integer("serverPort")),
        data_dir: text("dataDir"),
        log_file: text("logFile"),
        log_format: text("logFormat"),
        log_level: text("logLevel"),
        log_source_location: values.bool("logSourceLocation"),
        socket_path: text("socketPath").or_else(|| text("registrationUDSPath")),
        trust_domain: text("trustDomain"),
        umask: text("umask"),
        upstream_bundle: values.bool("upstreamBundle"),
    }
}

fn validate(values: &Values) -> ExitCode {
    let lists = PluginLists {
        key_managers: KEY_MANAGERS,
        node_attestors: NODE_ATTESTORS,
        upstream_authorities: UPSTREAM_AUTHORITIES,
    };
    tell(&config::validate(&run_flags(values), lists))
}

fn run(values: &Values) -> ExitCode {
    let loaded = config::load(&run_flags(values));
    let runtime = Builder::new_multi_thread();
    serve("Server", loaded, |config| config.log.clone(), runtime, app::run)
}
