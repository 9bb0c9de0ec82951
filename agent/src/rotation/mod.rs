//! Replaces SVIDs before they expire: the agent's own, and those of its workloads.

pub mod due;
mod own;
mod workloads;

pub use own::OwnSvid;
pub use workloads::WorkloadSvids;
