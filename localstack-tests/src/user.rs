//! Programs that run as some user of this machine and never outlive the one that started them.

use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure};

/// A Unix user, who need not have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The only group.
    pub gid: u32,
}

impl User {
    /// The user who runs this.
    pub fn current() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { uid: uid.as_raw(), gid: gid.as_raw() }
    }

    /// A user other than the one who runs this, without rights.
    ///
    /// # Errors
    /// Without root nobody can run a program as another user.
    pub fn other() -> anyhow::Result<Self> {
        if Self::current().uid != 0 {
            bail!(
                "running a program as another Unix user takes root: run the tests as root, for \
                 example in a container"
            );
        }
        Ok(Self { uid: 60_123, gid: 60_123 })
    }

    /// A command that runs `program` as this user. The kernel ends it when the thread that started
    /// it ends, however that comes about.
    ///
    /// # Errors
    /// Names the package that brings `setpriv`.
    pub fn command(self, program: &Path) -> anyhow::Result<Command> {
        const SETPRIV: &str = "/usr/bin/setpriv";
        ensure!(
            Path::new(SETPRIV).exists(),
            "{SETPRIV} is missing; install the package util-linux (apt-get install util-linux)"
        );
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL"]);
        if self != Self::current() {
            let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        }
        command.arg("--").arg(program);
        Ok(command)
    }
}
