//! The contract of workload attestation: a calling process → selectors.

use async_trait::async_trait;

use crate::selector::Selector;

/// A process as the kernel told of it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id in the agent's own pid namespace; never 0.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Finds properties of a process. All attestors of an agent are asked side by side.
#[async_trait]
pub trait WorkloadAttestor: Send + Sync {
    /// What this attestor finds; nothing where the process is none of its concern.
    ///
    /// # Errors
    /// [`WorkloadError`] where it should have found something but could not look.
    async fn attest(&self, process: &Process) -> Result<Vec<Selector>, WorkloadError>;
}

/// Why an attestor could not look at a process.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorkloadError(pub String);
