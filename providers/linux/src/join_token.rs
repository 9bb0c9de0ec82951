//! The agent's half of `join_token`: the token itself is the evidence.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Plugin, refuse_settings};
pub use spire_core::node::JOIN_TOKEN as NAME;
use spire_core::node::{Evidence, EvidenceError, EvidenceSource};
use zeroize::Zeroizing;

/// `join_token` as the configuration file names it. The token itself comes with the agent's own
/// settings, so this one has nothing to show until the agent makes a [`JoinToken`] of it.
pub const PLUGIN: Plugin<dyn EvidenceSource> = Plugin {
    name: NAME,
    build: |section, _host| {
        refuse_settings(section)?;
        Ok(Arc::new(JoinToken(None)))
    },
};

/// A token for one attestation, or none.
pub struct JoinToken(Option<Zeroizing<String>>);

impl JoinToken {
    /// Evidence made of `token`.
    pub fn new(token: String) -> Self {
        Self(Some(Zeroizing::new(token)))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JoinToken")
    }
}

#[async_trait]
impl EvidenceSource for JoinToken {
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
        let token = self.0.clone().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| EvidenceError("join token was not provided".to_owned()))?;
        Ok(Box::new(Token(token)))
    }
}

struct Token(Zeroizing<String>);

#[async_trait]
impl Evidence for Token {
    fn payload(&self) -> &[u8] {
        self.0.as_bytes()
    }

    async fn answer(&mut self, _challenge: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        Err(EvidenceError("the server challenged a join token, which has no answer".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_is_all_that_is_sent() {
        let evidence = JoinToken::new("secret".to_owned()).collect().await.unwrap();
        assert_eq!(evidence.payload(), b"secret");
    }

    #[tokio::test]
    async fn no_token_is_no_evidence() {
        for source in [JoinToken(None), JoinToken::new(String::new())] {
            let Err(error) = source.collect().await else { panic!("no token is needed") };
            assert_eq!(error.to_string(), "join token was not provided");
        }
    }
}
