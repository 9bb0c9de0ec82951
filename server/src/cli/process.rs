//! `run` and `validate`: the commands that read the server's file.

use std::process::ExitCode;

use spire_core::command::{Command, Manner, print, print_error};
use spire_core::flags::{Flag, Values};
use spire_core::telemetry::log::Logger;

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
    let verdict = config::validate(&run_flags(values), lists);
    print_error(&verdict.stderr);
    ExitCode::from(u8::from(print(&verdict.stdout).is_err() || !verdict.valid))
}

fn run(values: &Values) -> ExitCode {
    let loaded = match config::load(&run_flags(values)) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    let logger = match Logger::start(loaded.config.log.clone()) {
        Ok(logger) => logger,
        Err(error) => return refuse(&error),
    };
    for warning in &loaded.warnings {
        warning.log();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "Server crashed");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(app::run(loaded.config, logger));
    runtime.shutdown_background();
    match ended {
        Ok(()) => {
            tracing::info!("Server stopped gracefully");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "Fatal run error");
            tracing::error!(%error, "Server crashed");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    print_error(&format!("{error}\n"));
    ExitCode::FAILURE
}
