//! `join_token`: an operator's secret that admits one agent once. It is handled here, since its
//! proof is a row of the store that is spent in the transaction that records the agent.

use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::node::{Attested, JOIN_TOKEN};

use super::Error;

/// The ID of the agent that comes with `token`; `None` where no ID can hold the token.
pub fn agent_id_of(trust_domain: &TrustDomain, token: &str) -> Option<SpiffeId> {
    if token.contains('/') {
        return None;
    }
    trust_domain.member(&format!("/spire/agent/{JOIN_TOKEN}/{token}")).ok()
}

/// Whom the token names. Whether it is good is known once it is spent.
pub(super) fn verify(evidence: &[u8], trust_domain: &TrustDomain) -> Result<Attested, Error> {
    let token = std::str::from_utf8(evidence).map_err(|_| Error::NoSuchToken)?;
    let agent_id = agent_id_of(trust_domain, token).ok_or(Error::NoSuchToken)?;
    Ok(Attested { agent_id, can_reattest: false, resolver: Box::new(Vec::new()) })
}
