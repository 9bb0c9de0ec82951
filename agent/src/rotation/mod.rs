//! Replaces SVIDs before they expire: the agent's own, and those of its workloads.

pub mod due;
