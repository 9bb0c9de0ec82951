//! Every case of attack and edge that is known of `aws_iid`, through the plugin's public face and
//! over real sockets, against a small AWS that signs with keys of its own. Tests bear the numbers
//! of the cases.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod cloud;
mod config;
mod credentials;
mod everywhere;
mod evidence;
mod metadata;
mod storm;
mod support;
