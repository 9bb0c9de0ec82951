//! The command line.

use std::process::ExitCode;

use spire_core::flags::{self, Flag, FlagError, Values};
use spire_core::telemetry::log::Logger;

use crate::app;
use crate::config::{self, PluginLists, RunFlags};
use crate::plugins::{EVIDENCE_SOURCES, KEY_MANAGERS, WORKLOAD_ATTESTORS};

const USAGE: &str = "usage: spire-agent run|validate [flags]";

/// The flags of `run`; `validate` takes the same.
const FLAGS: &[Flag] = &[
    Flag::text("config", config::DEFAULT_FILE, "path to the configuration file"),
    Flag::bool("expandEnv", "expand environment variables in the file"),
    Flag::bool("allowUnauthenticatedVerifiers", "stream bundles to callers without identity"),
    Flag::text("dataDir", "", "where the agent keeps its identity"),
    Flag::bool("disableSDSAPI", "do not serve the Secret Discovery Service"),
    Flag::bool("disableWorkloadAPI", "do not serve the Workload API"),
    Flag::bool("insecureBootstrap", "trust the server that answers first"),
    Flag::text("joinToken", "", "token by which the node attests"),
    Flag::text("joinTokenFile", "", "file with such a token"),
    Flag::text("logFile", "", "file to write the log to"),
    Flag::text("logFormat", "", "text or json"),
    Flag::text("logLevel", "", "debug, info, warn or error"),
    Flag::bool("logSourceLocation", "log file and function of each line"),
    Flag::text("rebootstrapDelay", "", "how long a server must be unknown before a re-bootstrap"),
    Flag::text("rebootstrapMode", "", "never, auto or always"),
    Flag::text("serverAddress", "", "name or address of the server"),
    Flag::integer("serverPort", "", "port of the server"),
    Flag::text("socketPath", "", "socket of the Workload API"),
    Flag::text("trustBundle", "", "file with the CA certificates of the server"),
    Flag::text("trustBundleFormat", "", "pem or spiffe"),
    Flag::text("trustBundleUrl", "", "URL of the CA certificates of the server"),
    Flag::text("trustDomain", "", "trust domain of this agent"),
    Flag::text("umask", "", "has no effect"),
];

/// Runs the command that `arguments` name (without the program's own name).
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments = Vec::from_iter(arguments);
    let (command, arguments) = match arguments.split_first() {
        Some((command, arguments)) => (command.as_str(), arguments),
        None => ("", &[][..]),
    };
    if !matches!(command, "run" | "validate") {
        eprintln!("{USAGE}");
        return ExitCode::from(127);
    }
    let flags = match flags::parse(FLAGS, arguments) {
        Ok(values) => run_flags(&values),
        Err(error) => {
            if matches!(error, FlagError::Bad(_)) {
                eprintln!("{error}");
            }
            eprint!("{}", flags::usage(command, FLAGS));
            return ExitCode::from(1);
        }
    };
    if command == "run" { run(&flags) } else { validate(&flags) }
}

fn run_flags(values: &Values) -> RunFlags {
    let text = |name| values.given_text(name).map(str::to_owned);
    RunFlags {
        config: values.given_text("config").map(Into::into),
        expand_env: values.bool("expandEnv"),
        allow_unauthenticated_verifiers: values.bool("allowUnauthenticatedVerifiers"),
        data_dir: text("dataDir"),
        disable_sds_api: values.bool("disableSDSAPI"),
        disable_workload_api: values.bool("disableWorkloadAPI"),
        insecure_bootstrap: values.bool("insecureBootstrap"),
        join_token: text("joinToken").map(Into::into),
        join_token_file: text("joinTokenFile"),
        log_file: text("logFile"),
        log_format: text("logFormat"),
        log_level: text("logLevel"),
        log_source_location: values.bool("logSourceLocation"),
        rebootstrap_delay: text("rebootstrapDelay"),
        rebootstrap_mode: text("rebootstrapMode"),
        server_address: text("serverAddress"),
        server_port: values.is_given("serverPort").then(|| values.integer("serverPort")),
        socket_path: text("socketPath"),
        trust_bundle: text("trustBundle"),
        trust_bundle_format: text("trustBundleFormat"),
        trust_bundle_url: text("trustBundleUrl"),
        trust_domain: text("trustDomain"),
        umask: text("umask"),
    }
}

fn validate(flags: &RunFlags) -> ExitCode {
    let verdict = config::validate(
        flags,
        PluginLists {
            key_managers: KEY_MANAGERS,
            node_attestors: EVIDENCE_SOURCES,
            workload_attestors: WORKLOAD_ATTESTORS,
        },
    );
    print!("{}", verdict.stdout);
    eprint!("{}", verdict.stderr);
    ExitCode::from(u8::from(!verdict.valid))
}

fn run(flags: &RunFlags) -> ExitCode {
    let loaded = match config::load(flags) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(1);
        }
    };
    let logger = match Logger::start(loaded.config.log.clone()) {
        Ok(logger) => logger,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(1);
        }
    };
    for warning in &loaded.warnings {
        warning.log();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "Agent crashed");
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(app::run(loaded.config, logger));
    runtime.shutdown_background();
    match ended {
        Ok(()) => {
            tracing::info!("Agent stopped gracefully");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "Agent crashed");
            ExitCode::from(1)
        }
    }
}
