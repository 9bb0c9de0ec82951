//! The gRPC services: one file for each, and [`call`], which every request passes.

pub mod agent;
pub mod call;
mod status;
