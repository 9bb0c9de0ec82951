//! Drives the real binaries as real processes, each test in a temporary folder of its own: what the
//! end-to-end tests, the demo and the load programs share.
//!
//! The machine is a Debian or Ubuntu with Rust, Python 3, OpenSSL and root. What is missing is
//! named in the error, with the package that brings it.

pub mod agent;
pub mod binaries;
pub mod folder;
pub mod load;
pub mod process;
pub mod server;
pub mod user;

pub use agent::{Agent, AgentFile};
pub use folder::Folder;
pub use process::Process;
pub use server::{Server, ServerFile};
