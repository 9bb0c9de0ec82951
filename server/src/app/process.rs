//! The server as a process: its surroundings, its signals, its end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use spire_core::clock::Clock;
use spire_core::telemetry::log::Logger;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Server, StartError};
use crate::config::ServerConfig;

/// What no file of ours may be open to: writing by the group, and anything by others.
const FORBIDDEN: Mode = Mode::WGRP.union(Mode::RWXO);

/// Starts a server and runs it until a signal ends it.
///
/// # Errors
/// [`StartError`]; a server that has started only ends by a signal.
pub async fn run(config: ServerConfig, logger: Logger) -> Result<(), StartError> {
    let mut signals = Signals::listen()?;
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

/// What a signal asks for.
enum Asked {
    End,
    Reconfigure,
    ReopenLog,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reconfigure: Signal,
    reopen_log: Signal,
}

impl Signals {
    fn listen() -> Result<Self, StartError> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                StartError::Process(format!("unable to listen for signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            reconfigure: listen(SignalKind::user_defined1())?,
            reopen_log: listen(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.reconfigure.recv() => Asked::Reconfigure,
            _ = self.reopen_log.recv() => Asked::ReopenLog,
        }
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
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
        let reason = crate::endpoints::reason(&error);
        StartError::Process(format!("mkdir {}: {reason}", config.data_dir.display()))
    })
}

fn tighten_umask() {
    let before = umask(FORBIDDEN);
    let wanted = before.union(FORBIDDEN);
    umask(wanted);
    if wanted != before {
        tracing::warn!(
            "Current umask {:04o} is too permissive; setting umask {:04o}",
            before.bits(),
            wanted.bits()
        );
    }
}

/// Each connection is an open file; the soft limit of old is there for programs that use `select`.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "Cannot raise the limit of open files");
    }
}
