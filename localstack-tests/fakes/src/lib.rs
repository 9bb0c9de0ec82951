//! Clouds on ports of this machine: small servers that speak the real protocols, sign with keys of
//! their own, remember what they were asked, and can be told to fail. They know none of our types,
//! so that they judge us. Beside them is what tests share that need no cloud: a log to be read, and
//! a measure of time.

pub mod aws;
pub mod azure;
pub mod gcp;
pub mod http;
pub mod log;
pub mod time;
pub mod tls;
