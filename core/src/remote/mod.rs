//! Calls to services outside of the trust domain, such as those of a cloud: where they are, a
//! client that bounds what they may answer, and questions of many that are put together or shared.
//!
//! Which services there are is known to the providers alone.

mod client;
mod coalesce;
mod endpoint;
mod flight;
mod retry;

pub use client::{Answer, Client, RemoteError};
pub use coalesce::{Coalescer, Lookup, Pace};
pub use endpoint::{Endpoint, Endpoints};
pub use flight::Flight;
pub use retry::until_answered;
