//! The server as a process: its surroundings, its signals, its end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use spire_core::clock::Clock;
use spire_core::process::{Asked, Signals, raise_open_files, tighten_umask};
use spire_core::telemetry::log::Logger;

use super::{Server, StartError};
use crate::config::ServerConfig;

/// Starts a server and runs it until a signal ends it.
///
/// # Errors
/// [`StartError`]; a server that has started only ends by a signal.
pub async fn run(config: ServerConfig, logger: Logger) -> Result<(), StartError> {
    let ended = run_until_ended(config, logger).await;
    if let Err(error) = &ended {
        tracing::error!(%error, "Fatal run error");
    }
    ended
}

async fn run_until_ended(config: ServerConfig, logger: Logger) -> Result<(), StartError> {
    let mut signals = Signals::listen()
        .map_err(|error| StartError::Process(format!("unable to listen for signals: {error}")))?;
    let server = tokio::select! {
        started = Server::start(config, logger, Clock::system()) => started?,
        () = signals.end() => return Ok(()),
    };
    loop {
        match signals.next().await {
            Asked::End => break,
            Asked::Reconfigure => server.reconfigure_plugins(),
            Asked::ReopenLog => server.reopen_log(),
        }
    }
    if !server.stop().await {
        tracing::warn!("Calls did not end in time and were cut off");
    }
    Ok(())
}

/// Prepares what all parts rely on: the umask, the limit of open files, the data folder.
pub(super) fn prepare(config: &ServerConfig) -> Result<(), StartError> {
    let admin_ids: Vec<_> = config.admin_ids.iter().map(|id| id.as_str()).collect();
    tracing::info!(
        admin_ids = format!("[{}]", admin_ids.join(" ")),
        data_dir = %config.data_dir.display(),
        launch_log_level = config.log.level.as_str(),
        "Configured"
    );
    tighten_umask();
    raise_open_files();
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&config.data_dir);
    made.map_err(|error| {
        let reason = spire_core::os_error::reason(&error);
        StartError::Process(format!("mkdir {}: {reason}", config.data_dir.display()))
    })
}
