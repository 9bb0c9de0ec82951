//! Who is at the other end of a Unix socket, held fast so that no other process can take the
//! place of the one that connected.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, getegid, geteuid, getpid, pidfd_open};
use spire_core::workload::Process;
use tokio::net::UnixStream;

/// The process that connected. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    process: Process,
    pin: Arc<OwnedFd>,
}

/// Why a connection has no caller, or its caller is no longer there.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The kernel does not tell, or the caller is in a pid namespace that the agent cannot see.
    #[error("unable to determine the caller's process id (is it in another pid namespace?)")]
    Unknown,
    /// The process has ended, or its id belongs to another one already.
    #[error("caller exit suspected: process {0} is gone or another has its id")]
    Gone(u32),
    /// The kernel refused to look.
    #[error("unable to look at process {pid}")]
    System {
        /// Its id.
        pid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Caller {
    /// The process at the other end of `stream`.
    ///
    /// # Errors
    /// [`CallerError`].
    pub fn of(stream: &UnixStream) -> Result<Self, CallerError> {
        let peer = stream.peer_cred().map_err(|_| CallerError::Unknown)?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or(CallerError::Unknown)?;
        let process = Process { pid, uid: peer.uid(), gid: peer.gid() };
        let pin = match getsockopt(stream, PeerPidfd) {
            Ok(pin) => pin,
            Err(Errno::ENOPROTOOPT) => pin_by_id(&process)?, // Linux before 6.5
            Err(Errno::ESRCH | Errno::EINVAL) => return Err(CallerError::Gone(pid)),
            Err(error) => return Err(CallerError::System { pid, source: error.into() }),
        };
        let caller = Self { process, pin: Arc::new(pin) };
        caller.check()?;
        Ok(caller)
    }

    /// The agent itself, which attests itself to see whether attestation works.
    ///
    /// # Errors
    /// [`CallerError`].
    pub fn this_process() -> Result<Self, CallerError> {
        let pid = std::process::id();
        let pin = pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|error| CallerError::System { pid, source: error.into() })?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Ok(Self { process: Process { pid, uid, gid }, pin: Arc::new(pin) })
    }

    /// What the kernel told of it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Checks that it still runs, and with it that its id is still its own.
    ///
    /// # Errors
    /// [`CallerError`].
    pub fn check(&self) -> Result<(), CallerError> {
        let pid = self.process.pid;
        let mut watched = [PollFd::new(&*self.pin, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut watched, Some(&at_once)) {
            Ok(0) => Ok(()),
            Ok(_) => Err(CallerError::Gone(pid)),
            Err(error) => Err(CallerError::System { pid, source: error.into() }),
        }
    }
}

/// A pidfd of the process that has the id now. The id may have been reused since the connection
/// was made, so that it must belong to the user that the kernel noted then.
fn pin_by_id(process: &Process) -> Result<OwnedFd, CallerError> {
    let pid = process.pid;
    let named = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(CallerError::Unknown)?;
    let pin = pidfd_open(named, PidfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::SRCH => CallerError::Gone(pid),
        error => CallerError::System { pid, source: error.into() },
    })?;
    let owner = fs::metadata(proc_folder(pid)).map_err(|_| CallerError::Gone(pid))?;
    // Root owns the folder of a process that may not be inspected (set-user-id and the like).
    if owner.uid() != process.uid && owner.uid() != 0 {
        return Err(CallerError::Gone(pid));
    }
    Ok(pin)
}

/// The folder in which the kernel shows a process; `HOST_PROC` moves the mount point.
pub(crate) fn proc_folder(pid: u32) -> PathBuf {
    let root = std::env::var_os("HOST_PROC").filter(|root| !root.is_empty());
    PathBuf::from(root.unwrap_or_else(|| "/proc".into())).join(pid.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use tokio::net::UnixListener;

    use super::*;

    /// Runs itself once more, as a process with another environment.
    #[test]
    fn a_variable_moves_the_folder_of_processes() {
        let host = "/host/proc";
        if std::env::var_os("HOST_PROC").is_some_and(|root| root == host) {
            assert_eq!(proc_folder(7), Path::new("/host/proc/7"));
            return;
        }
        let here = module_path!().split_once("::").unwrap().1;
        let name = format!("{here}::a_variable_moves_the_folder_of_processes");
        let told = |root: &str| {
            let mut again = Command::new(std::env::current_exe().unwrap());
            let output = again.args(["--exact", &name]).env("HOST_PROC", root).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(told(host).contains("1 passed"), "{}", told(host));
        assert_eq!(proc_folder(7), Path::new("/proc/7"));
    }

    #[tokio::test]
    async fn the_caller_is_the_process_that_connected() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let caller = Caller::of(&stream).unwrap();
        assert_eq!(caller.process().pid, std::process::id());
        assert_eq!(caller.process().uid, rustix::process::geteuid().as_raw());
        assert!(caller.check().is_ok());
    }

    #[tokio::test]
    async fn a_caller_that_has_ended_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let connect = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                       sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", connect])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let caller = Caller::of(&stream).unwrap();
        assert_eq!(caller.process().pid, child.id());
        assert!(caller.check().is_ok());
        assert!(pin_by_id(caller.process()).is_ok());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(matches!(caller.check(), Err(CallerError::Gone(_))));
        assert!(matches!(Caller::of(&stream), Err(CallerError::Gone(_))));
        assert!(matches!(pin_by_id(caller.process()), Err(CallerError::Gone(_))));
    }
}
