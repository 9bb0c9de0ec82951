//! Google Cloud, as far as `gcp_iit` sees it: the metadata server of an instance, the certificates
//! by which tokens are checked, the Compute API, and the endpoints that give access tokens.

mod aws_subject;
mod certificates;
mod compute;
mod keys;
mod metadata;
mod tokens;
mod vm;

use std::time::{SystemTime, UNIX_EPOCH};

pub use certificates::Certificates;
pub use compute::Compute;
pub use keys::SigningKey;
pub use metadata::Metadata;
pub use tokens::{SubjectSource, Tokens};
pub use vm::{AUDIENCE, Vm};

/// One cloud: what its parts have in common fits together.
#[derive(Debug, Clone)]
pub struct Google {
    /// Signs the tokens of instances.
    pub key: SigningKey,
    /// Publishes the key.
    pub certificates: Certificates,
    /// Describes instances to whoever has a token of `tokens`.
    pub compute: Compute,
    /// Gives access tokens.
    pub tokens: Tokens,
}

impl Google {
    /// Starts all of it, without an instance.
    pub async fn start() -> Self {
        let key = SigningKey::generate("google-1");
        let certificates = Certificates::start(&key).await;
        let tokens = Tokens::start().await;
        let compute = Compute::start(tokens.issued()).await;
        Self { key, certificates, compute, tokens }
    }

    /// Starts the metadata server of an instance, which the Compute API knows from then on.
    pub async fn launch(&self, vm: &Vm) -> Metadata {
        self.compute.add(vm);
        Metadata::start(vm, &self.key, self.tokens.issued()).await
    }

    /// The lines of a server's `gcp_iit` that lead here: its endpoints.
    pub fn server_endpoints(&self) -> String {
        format!(
            "endpoints {{ token_certificates = \"{}\", compute = \"{}\" }}",
            self.certificates.server().url(),
            self.compute.server().url()
        )
    }
}

/// The time in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
