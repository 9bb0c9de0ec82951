//! `aws_iid`: an EC2 instance proves itself with the identity document that its region has signed.
//!
//! What is proven: the document, and with it the instance's ID, account, region, image and zone,
//! by the signature of that region's key (`rsa2048`, a PKCS#7 message, or `signature`, a bare
//! signature by an older key of 1024 bits). The document never expires and whoever reads it once
//! can show it, which is why only its first use counts, and why the server asks EC2 whether the
//! instance runs and still has the volume that it started with. Tags, security groups and roles
//! are the word of EC2 and IAM; whoever may set them in the account decides what they say.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "server")]
mod api;
#[cfg(feature = "server")]
mod block_device;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod document;
mod evidence;
#[cfg(feature = "server")]
mod members;
#[cfg(feature = "agent")]
mod metadata;
#[cfg(feature = "server")]
mod regions;
#[cfg(feature = "server")]
mod resolver;
#[cfg(feature = "server")]
pub mod server;

/// The name of the attestor, and the type of its selectors.
pub const NAME: &str = "aws_iid";
