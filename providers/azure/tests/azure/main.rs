//! Both attestors, through their plugins' public face and over real sockets, against a small Azure
//! of our own. What a case must come to is in its name's place in the list of attacks; the server's
//! own part of them (first use, bans, limits of messages) is tested where the server is.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod agent;
mod config;
mod imds;
mod imds_documents;
mod imds_lookup;
mod imds_nonces;
mod msi;
mod properties;
mod sovereign;
mod support;
mod trouble;
