//! Upstream authorities as the server uses them. CAs are made by OpenSSL or by a small AWS, and
//! OpenSSL judges the chains.

#![expect(clippy::unwrap_used, reason = "a test may fail so")]

mod above;
mod aws_pca;
mod awssecret;
mod ceremony;
mod depth;
mod disk;
mod harness;
mod spire;
