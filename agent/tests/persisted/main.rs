//! Files that an agent left behind: it goes on with them, or, where something else has damaged
//! them, refuses or ignores them. No content makes it panic.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod agent_data;
mod cache;
#[path = "../workload_endpoint/node.rs"]
#[allow(dead_code, reason = "the tests of the Workload Endpoint use the rest")]
mod node;
