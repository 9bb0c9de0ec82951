//! The gRPC services: one file for each, and the gate that every request passes.

pub mod agent;
pub mod audit;
pub mod call;
pub mod entry;
pub mod gate;
mod listing;
pub mod router;
pub mod status;
