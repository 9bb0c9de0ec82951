//! `run` and `validate`: the commands that read the agent's file.

use std::process::ExitCode;

use spire_core::command::{Command, Manner, serve, tell};
use spire_core::flags::{Flag, Values};
use tokio::runtime::Builder;

use crate::app;
use crate::config::{self, PluginLists, RunFlags};
use crate::plugins::{EVIDENCE_SOURCES, KEY_MANAGERS, WORKLOAD_ATTESTORS};

pub(super) const COMMANDS: &[Command] = &[
    Command::process("run", "Runs the agent until it is told to stop.", &[FLAGS], run)
        .example("spire-agent run -config conf/agent/agent.conf -joinToken <token>")
        .manner(Manner { mistake_again: Some(""), ..Manner::ERROR }),
    Command::process(
        "validate",
        "Checks the agent's file and names every mistake.",
        &[FLAGS],
        validate,
    )
    .example("spire-agent validate -config conf/agent/agent.conf")
    .manner(Manner {
        mistake_again: Some("SPIRE agent configuration file is invalid: "),
        ..Manner::ERROR
    }),
];

/// What these say beats the file.
const FLAGS: &[Flag] = &[
    Flag::text("config", "Path of the agent's file").default(config::DEFAULT_FILE),
    Flag::bool("expandEnv", "Expand environment variables in the file"),
    Flag::bool("allowUnauthenticatedVerifiers", "Stream bundles to callers without identity"),
    Flag::text("dataDir", "Where the agent keeps its identity"),
    Flag::bool("disableSDSAPI", "Do not serve the Secret Discovery Service"),
    Flag::bool("disableWorkloadAPI", "Do not serve the Workload API"),
    Flag::bool("insecureBootstrap", "Trust the server that answers first"),
    Flag::text("joinToken", "Token by which the node attests"),
    Flag::text("joinTokenFile", "File with such a token"),
    Flag::text("logFile", "File to write the log to"),
    Flag::text("logFormat", "Format of the log: text or json"),
    Flag::text("logLevel", "Least level that is logged: debug, info, warn or error"),
    Flag::bool("logSourceLocation", "Log file and function of each line"),
    Flag::text("rebootstrapDelay", "How long a server must be unknown before a re-bootstrap"),
    Flag::text(
        "rebootstrapMode",
        "Whether to begin anew where no server is known any more: never, auto or always",
    ),
    Flag::text("serverAddress", "Name or address of the server"),
    Flag::integer("serverPort", "Port of the server"),
    Flag::text("socketPath", "Socket of the Workload API"),
    Flag::text("trustBundle", "File with the CA certificates of the server"),
    Flag::text("trustBundleFormat", "Format of that file: pem or spiffe"),
    Flag::text("trustBundleUrl", "URL of the CA certificates of the server"),
    Flag::text("trustDomain", "Trust domain of this agent"),
    Flag::text("umask", "Has no effect").former(),
];

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

fn validate(values: &Values) -> ExitCode {
    let lists = PluginLists {
        key_managers: KEY_MANAGERS,
        node_attestors: EVIDENCE_SOURCES,
        workload_attestors: WORKLOAD_ATTESTORS,
    };
    tell(&config::validate(&run_flags(values), lists))
}

fn run(values: &Values) -> ExitCode {
    let loaded = config::load(&run_flags(values));
    // One thread is enough for the workloads of a node, and costs the node least.
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(1);
    serve("Agent", loaded, |config| config.log.clone(), runtime, app::run)
}
