//! `gcp_iit` as server and agent see it, over real sockets against a cloud of its own. Tests are
//! named after the cases of the attack catalogue: `g…` those of this attestor, `x…` those of all.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod agent;
mod bounds;
mod claims;
mod compute;
mod credentials;
mod environment;
mod keys;
mod signature;
mod world;
