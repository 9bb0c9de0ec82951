//! What a plain Linux node can prove.
//!
//! - [`x509pop`]: possession of the private key of an X.509 certificate that an operator's PKI, or
//!   this trust domain itself, has issued.
//! - [`join_token`]: possession of a token that the server made for one use (the agent's half; the
//!   server's half burns a row of its store and lives there).

#[cfg(feature = "agent")]
pub mod join_token;
pub mod x509pop;
