//! What a process that runs for long asks of the system: signals, its umask, open files.

use std::io;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What no file of ours may be open to: writing by the group, and anything by others.
const FORBIDDEN: Mode = Mode::WGRP.union(Mode::RWXO);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `SIGINT`, `SIGTERM`: an orderly end.
    End,
    /// `SIGUSR1`: read the files of plugins anew.
    Reconfigure,
    /// `SIGUSR2`: open the log file anew.
    ReopenLog,
}

/// The signals that a process of ours listens to.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reconfigure: Signal,
    reopen_log: Signal,
}

impl Signals {
    /// Begins to listen: from now on none of them ends the process by itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reconfigure: signal(SignalKind::user_defined1())?,
            reopen_log: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. Dropping the future loses none.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.reconfigure.recv() => Asked::Reconfigure,
            _ = self.reopen_log.recv() => Asked::ReopenLog,
        }
    }

    /// Waits for one that asks for the end, whatever else is asked for.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Takes care that files that this process makes are closed to others, and says so where they were
/// not.
pub fn tighten_umask() {
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

/// Lets this process open as many files as the system allows. Each connection is an open file; the
/// soft limit of old is there for programs that use `select`.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "Cannot raise the limit of open files");
    }
}
