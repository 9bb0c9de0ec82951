//! The agent as a process: its surroundings, its signals, its end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use spire_core::VERSION;
use spire_core::clock::Clock;
use spire_core::grpc::make_folder;
use spire_core::os_error::reason;
use spire_core::process::{Asked, Signals, raise_open_files, tighten_umask};
use spire_core::telemetry::log::Logger;

use super::{Agent, AgentError};
use crate::config::AgentConfig;
use crate::endpoints::SOCKET_FOLDER_MODE;

/// Starts an agent and runs it until a signal, or its server, ends it.
///
/// # Errors
/// [`AgentError`]
pub async fn run(config: AgentConfig, logger: Logger) -> Result<(), AgentError> {
    let mut signals = Signals::listen()
        .map_err(|error| AgentError::Process(format!("unable to listen for signals: {error}")))?;
    let mut agent = tokio::select! {
        started = Agent::start(config, logger, Clock::system()) => started?,
        () = signals.end() => return Ok(()),
    };
    let ended = loop {
        tokio::select! {
            ended = agent.ended() => break Err(ended),
            asked = signals.next() => match asked {
                Asked::End => break Ok(()),
                Asked::Reconfigure => agent.reconfigure_plugins(),
                Asked::ReopenLog => agent.reopen_log(),
            },
        }
    };
    if !agent.stop().await {
        tracing::warn!("Tasks did not end in time and were cut off");
    }
    ended
}

/// Prepares what all parts rely on: folders, the umask, the limit of open files. The folder of the
/// workloads' socket comes before the umask, since every user must be able to enter it.
pub(super) fn prepare(config: &AgentConfig) -> Result<(), AgentError> {
    tracing::info!(
        data_dir = %config.data_dir.display(),
        launch_log_level = config.log.level.as_str(),
        "Configured"
    );
    tracing::info!(
        data_dir = %config.data_dir.display(),
        version = VERSION,
        "Starting agent"
    );
    make_folder(&config.socket_path, SOCKET_FOLDER_MODE)?;
    tighten_umask();
    raise_open_files();
    let data_dir = &config.data_dir;
    let made = DirBuilder::new().recursive(true).mode(0o755).create(data_dir);
    made.map_err(|error| {
        AgentError::Process(format!("mkdir {}: {}", data_dir.display(), reason(&error)))
    })
}
