//! The gRPC services: one file for each, and [`call`], which every request passes.

pub mod call;
