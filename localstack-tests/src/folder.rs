//! A temporary folder that every user of the machine may enter, and addresses that nobody else has.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;
use tempfile::TempDir;

/// Where everything of one test lies. It goes away with its last owner.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    ///
    /// # Errors
    /// When there is no place for temporary files.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("spire-").tempdir();
        let folder = folder.context("cannot make a temporary folder; is TMPDIR writable?")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What lies in it under `name`.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Leaves the folder where it is.
    pub fn keep(self) -> PathBuf {
        self.0.keep()
    }
}

/// An address on this machine that no other test has, and that stays free while its server is
/// down: the IP address follows from this process's id, the port counts up.
pub fn own_address() -> SocketAddr {
    static PORTS: AtomicU16 = AtomicU16::new(10_000);
    let port = PORTS.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    // Process ids end at 2^22, so that the second byte stays below 128.
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 64 | a, b, c)), port)
}
