//! What the agent offers on its sockets. One file per service.

mod connection;
pub mod socket;
pub mod workload_api;

pub use connection::Connections;
