//! The authorities service: the whole tree of what signs in this trust domain, for operators of this
//! machine. SPIRE has nothing like it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::svid::x509;
use spire_core::wire::cloud_server::authorities_server::Authorities;
use spire_core::wire::cloud_server::*;
use tonic::{Request, Response, Status};

use super::status::failed;
use crate::authority::{Authority, AuthorityState, Kind, SlotStates};
use crate::store::{Node, NodeFilter, Page, Store};

/// Agents that are read from the store at a time.
const PAGE: u32 = 1000;

/// Agents that are named for each authority.
const NAMED: usize = 20;

/// The authorities service.
#[derive(Clone)]
pub struct AuthoritiesService {
    /// Knows the agents.
    pub store: Store,
    /// Whose authorities these are.
    pub authority: Arc<Authority>,
    /// The time.
    pub clock: Clock,
}

#[tonic::async_trait]
impl Authorities for AuthoritiesService {
    async fn get_authorities(
        &self,
        _: Request<GetAuthoritiesRequest>,
    ) -> Result<Response<GetAuthoritiesResponse>, Status> {
        let bundle = self.authority.bundle().borrow().clone();
        let roots = bundle.x509_authorities.iter();
        let roots = roots.map(|root| certificate(&root.certificate, root.tainted));
        let roots = roots.collect::<Result<_, _>>()?;
        let states = self.authority.states(Kind::X509);
        let x509 = slots(&states).map(|(slot, state)| x509_authority(slot, state));
        let mut x509 = x509.collect::<Result<Vec<_>, _>>()?;
        let other_agents = self.count_agents(&mut x509).await?;
        let jwt_authorities = jwt_authorities(&bundle, &self.authority.states(Kind::Jwt));
        Ok(Response::new(GetAuthoritiesResponse {
            trust_domain: bundle.trust_domain.as_str().to_owned(),
            roots,
            x509_authorities: x509,
            jwt_authorities,
            other_agents,
        }))
    }
}

impl AuthoritiesService {
    /// Finds out whose SVIDs each authority signed, by their serial numbers. Returns how many agents
    /// have SVIDs that none of them is known to have signed.
    async fn count_agents(&self, authorities: &mut [X509Authority]) -> Result<i64, Status> {
        let (now, mut others) = (self.clock.now(), 0);
        let mut page = Page { after: None, limit: Some(PAGE) };
        loop {
            let listed = self.store.list_nodes(&NodeFilter::default(), page).await;
            let listed = listed.map_err(|error| failed("failed to list agents", error))?;
            let is_trusted = |node: &&Node| node.expires_at > now && !node.is_banned();
            for node in listed.items.iter().filter(is_trusted) {
                let signer = authorities.iter_mut().find(|authority| {
                    let id = authority.certificate.as_ref().map(|certificate| &certificate.id);
                    id.is_some_and(|id| x509::is_signed_by(&node.serial, id))
                });
                let Some(signer) = signer else {
                    others += 1;
                    continue;
                };
                signer.agents += 1;
                if signer.agent_ids.len() < NAMED {
                    signer.agent_ids.push(node.agent_id.to_string());
                }
            }
            match listed.next {
                None => return Ok(others),
                after => page.after = after,
            }
        }
    }
}

fn slots(states: &SlotStates) -> impl Iterator<Item = (Slot, &AuthorityState)> {
    let SlotStates { active, prepared, old } = states;
    let slots = [(Slot::Active, active), (Slot::Prepared, prepared), (Slot::Old, old)];
    slots.into_iter().filter_map(|(slot, state)| state.as_ref().map(|state| (slot, state)))
}

fn x509_authority(slot: Slot, state: &AuthorityState) -> Result<X509Authority, Status> {
    let [own, upstream @ ..] = state.chain.as_slice() else {
        return Err(Status::internal("an X.509 authority has no certificate"));
    };
    let root_id = state.upstream_authority_id.clone();
    let root_id = root_id.unwrap_or_else(|| state.authority_id.clone());
    let upstream = upstream.iter().map(|der| certificate(der, false));
    let mut upstream = upstream.collect::<Result<Vec<_>, _>>()?;
    // Some upstreams hand out the root with the chain.
    upstream.retain(|certificate| certificate.id != root_id);
    let (prepares_next_at, activates_next_at) = next(slot, state);
    Ok(X509Authority {
        slot: slot.into(),
        certificate: Some(certificate(own, false)?),
        upstream,
        root_id,
        issued_at: state.issued_at.as_second(),
        prepares_next_at,
        activates_next_at,
        agents: 0,
        agent_ids: Vec::new(),
    })
}

fn jwt_authorities(bundle: &Bundle, states: &SlotStates) -> Vec<JwtAuthority> {
    let keys = bundle.jwt_authorities.iter().map(|key| {
        let held = slots(states).find(|(_, state)| state.authority_id == key.key_id);
        let (prepares_next_at, activates_next_at) =
            held.map_or((0, 0), |(slot, state)| next(slot, state));
        JwtAuthority {
            slot: held.map_or(Slot::Elsewhere, |(slot, _)| slot).into(),
            id: key.key_id.clone(),
            expires_at: key.expires_at.map(Timestamp::as_second).unwrap_or_default(),
            tainted: key.tainted,
            prepares_next_at,
            activates_next_at,
        }
    });
    keys.collect()
}

/// When the next authority is prepared, and when it takes over.
fn next(slot: Slot, state: &AuthorityState) -> (i64, i64) {
    match slot {
        Slot::Active => (state.prepares_next_at.as_second(), state.activates_next_at.as_second()),
        _ => (0, 0),
    }
}

fn certificate(der: &Bytes, tainted: bool) -> Result<Certificate, Status> {
    let described = x509::describe(der).map_err(|error| {
        failed("failed to read an authority", Status::internal(error.to_string()))
    })?;
    Ok(Certificate {
        id: described.authority_id,
        subject: described.subject,
        expires_at: described.expires_at.as_second(),
        tainted,
    })
}
