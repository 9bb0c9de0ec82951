//! What an instance of Google Compute Engine can prove: that Google runs it.
//!
//! `gcp_iit`: the metadata server of the instance gives it a token that Google has signed, with the
//! instance's project, zone, name and number in it. The agent sends that token as it is. The server
//! checks it by the keys that Google publishes and, where it is told to, asks the Compute API about
//! the instance.
//!
//! The token is bound neither to a server nor to a key of the agent, and is good for an hour. So
//! only its first use counts, for each instance.

mod evidence;
mod metadata;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "server")]
mod api;
#[cfg(feature = "server")]
mod certificates;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod credentials;
#[cfg(feature = "server")]
mod resolver;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod token;

/// The name of the attestor, and the type of its selectors.
pub const NAME: &str = "gcp_iit";
