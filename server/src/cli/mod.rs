//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use spire_core::telemetry::log::Logger;

use crate::app;
use crate::config::{self, PluginLists, RunFlags};
use crate::plugins::{KEY_MANAGERS, NODE_ATTESTORS, UPSTREAM_AUTHORITIES};

const USAGE: &str = "usage: spire-server run|validate [-config FILE] [-expandEnv]";

/// Runs the command that `arguments` name (without the program's own name).
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let command = arguments.next().unwrap_or_default();
    let flags = match flags(arguments) {
        Ok(flags) => flags,
        Err(mistake) => {
            eprintln!("{mistake}\n{USAGE}");
            return ExitCode::from(1);
        }
    };
    match command.as_str() {
        "run" => run(&flags),
        "validate" => validate(&flags),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(127)
        }
    }
}

fn flags(mut arguments: impl Iterator<Item = String>) -> Result<RunFlags, String> {
    let mut flags = RunFlags::default();
    while let Some(argument) = arguments.next() {
        match argument.trim_start_matches('-') {
            "config" => {
                let path = arguments.next().ok_or("flag needs an argument: -config")?;
                flags.config = Some(PathBuf::from(path));
            }
            "expandEnv" => flags.expand_env = true,
            _ => return Err(format!("flag provided but not defined: {argument}")),
        }
    }
    Ok(flags)
}

fn validate(flags: &RunFlags) -> ExitCode {
    let verdict = config::validate(
        flags,
        PluginLists {
            key_managers: KEY_MANAGERS,
            node_attestors: NODE_ATTESTORS,
            upstream_authorities: UPSTREAM_AUTHORITIES,
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
            tracing::error!(%error, "Server crashed");
            return ExitCode::from(1);
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
            ExitCode::from(1)
        }
    }
}
