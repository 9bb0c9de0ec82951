//! Clouds on ports of this machine: small servers that speak the real protocols, sign with keys of
//! their own, remember what they were asked, and can be told to fail. They know none of our types,
//! so that they judge us.

pub mod aws;
pub mod azure;
pub mod gcp;
pub mod http;
pub mod time;
pub mod tls;
