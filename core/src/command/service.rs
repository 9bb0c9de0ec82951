//! `run` and `validate`, as far as server and agent do the same.

use std::error::Error;
use std::process::ExitCode;

use tokio::runtime::Builder;

use super::{print, print_error};
use crate::config::{LoadError, Loaded, Verdict};
use crate::telemetry::log::{LogSettings, Logger};

/// Prints what `validate` found.
pub fn tell(verdict: &Verdict) -> ExitCode {
    print_error(&verdict.stderr);
    ExitCode::from(u8::from(print(&verdict.stdout).is_err() || !verdict.valid))
}

/// Opens the log that `log` describes and runs a service on a runtime of its own until it ends.
/// `name` is what the log calls it: `Server` or `Agent`.
pub fn serve<C, F, E>(
    name: &str,
    loaded: Result<Loaded<C>, LoadError>,
    log: impl FnOnce(&C) -> LogSettings,
    mut runtime: Builder,
    run: impl FnOnce(C, Logger) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: Error,
{
    let Loaded { config, warnings } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    let logger = match Logger::start(log(&config)) {
        Ok(logger) => logger,
        Err(error) => return refuse(&error),
    };
    for warning in &warnings {
        warning.log();
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "{name} crashed");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(config, logger));
    runtime.shutdown_background();
    match ended {
        Ok(()) => {
            tracing::info!("{name} stopped gracefully");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "{name} crashed");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &dyn Error) -> ExitCode {
    print_error(&format!("{error}\n"));
    ExitCode::FAILURE
}
