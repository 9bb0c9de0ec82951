//! Drives the real binaries as real processes, each test in a temporary folder of its own: what the
//! end-to-end tests, the demo and the load programs share.
//!
//! The machine is a Debian or Ubuntu with Rust and root, such as a container. Other programs that a
//! test needs are installed once, where that is possible; else the error names the package.

pub mod agent;
pub mod binaries;
pub mod cloud;
pub mod command;
pub mod disk;
pub mod folder;
pub mod hostile;
pub mod load;
pub mod localstack;
pub mod moto;
pub mod nested;
pub mod process;
pub mod python;
pub mod region_keys;
pub mod reliability;
pub mod remote;
pub mod server;
pub mod user;

pub use agent::{Agent, AgentFile};
pub use folder::Folder;
pub use process::Process;
pub use server::{Server, ServerFile};
pub use spire_test_databases::packages;
