//! Nodes as the agent service sends them, and the filters by which it lists them.

use jiff::Timestamp;
use jiff::fmt::strtime;
use spire_core::selector::Selector;
use spire_core::wire::agent::{count_agents_request, list_agents_request};
use spire_core::wire::types::{self, AgentMask, SelectorMatch};
use tonic::Status;

use crate::api::audit::Fields;
use crate::api::listing;
use crate::store::{Node, NodeFilter, SetMatch};

const ALL_FIELDS: AgentMask = AgentMask {
    attestation_type: true,
    x509svid_serial_number: true,
    x509svid_expires_at: true,
    selectors: true,
    banned: true,
    can_reattest: true,
    agent_version: true,
};

/// Writes the fields of a node that `mask` names, or all without a mask; the ID always.
pub(super) fn sent(node: &Node, mask: Option<&AgentMask>) -> types::Agent {
    let mask = mask.unwrap_or(&ALL_FIELDS);
    let mut agent = types::Agent { id: Some((&node.agent_id).into()), ..Default::default() };
    if mask.attestation_type {
        agent.attestation_type = node.attestation_type.clone();
    }
    if mask.x509svid_serial_number {
        agent.x509svid_serial_number = node.serial.clone();
    }
    if mask.x509svid_expires_at {
        agent.x509svid_expires_at = node.expires_at.as_second();
    }
    if mask.selectors {
        agent.selectors = node.selectors.iter().map(Into::into).collect();
    }
    if mask.agent_version {
        agent.agent_version = node.agent_version.clone();
    }
    agent.banned = mask.banned && node.is_banned();
    agent.can_reattest = mask.can_reattest && node.can_reattest;
    agent
}

/// The filter of both requests that have one.
#[derive(Debug, Default)]
pub(super) struct Filter {
    attestation_type: String,
    selectors: Option<SelectorMatch>,
    banned: Option<bool>,
    can_reattest: Option<bool>,
    expires_before: String,
}

macro_rules! from_wire {
    ($wire:ty) => {
        impl From<$wire> for Filter {
            fn from(wire: $wire) -> Self {
                Self {
                    attestation_type: wire.by_attestation_type,
                    selectors: wire.by_selector_match,
                    banned: wire.by_banned,
                    can_reattest: wire.by_can_reattest,
                    expires_before: wire.by_expires_before,
                }
            }
        }
    };
}
from_wire!(list_agents_request::Filter);
from_wire!(count_agents_request::Filter);

impl Filter {
    /// Tells the audit log what is asked for.
    pub(super) fn note(&self, fields: &mut Fields) {
        if !self.attestation_type.is_empty() {
            fields.add("by_attestation_type", &self.attestation_type);
        }
        if let Some(wanted) = &self.selectors {
            let selectors = wanted.selectors.iter();
            let selectors = selectors.map(|one| format!("{}:{}", one.r#type, one.value));
            fields.add_list("by_selectors", selectors);
            fields.add("by_selector_match", wanted.r#match().as_str_name());
        }
        if let Some(banned) = self.banned {
            fields.add_value("by_banned", banned);
        }
        if let Some(can_reattest) = self.can_reattest {
            fields.add_value("by_can_reattest", can_reattest);
        }
        if !self.expires_before.is_empty() {
            fields.add("by_expires_before", &self.expires_before);
        }
    }

    /// The filter as the store takes it.
    pub(super) fn checked(self) -> Result<NodeFilter, Status> {
        let kind = self.attestation_type;
        Ok(NodeFilter {
            attestation_type: (!kind.is_empty()).then_some(kind),
            selectors: self.selectors.as_ref().map(selectors).transpose()?,
            banned: self.banned,
            can_reattest: self.can_reattest,
            expires_before: expires_before(&self.expires_before)?,
        })
    }
}

fn selectors(wire: &SelectorMatch) -> Result<SetMatch<Selector>, Status> {
    listing::selector_match("failed to parse selectors", wire)
}

fn expires_before(text: &str) -> Result<Option<Timestamp>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_expires_before(text).map(Some).ok_or_else(|| {
        Status::invalid_argument(format!(
            "by_expires_before {text:?} is not of the form \"2006-01-02 15:04:05 -0700 -07\""
        ))
    })
}

/// Reads a time as SPIRE's clients write it, the offset twice: `2006-01-02 15:04:05 -0700 -07`.
pub(crate) fn parse_expires_before(text: &str) -> Option<Timestamp> {
    let (time, zone) = text.rsplit_once(' ')?;
    let is_zone =
        zone.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-".contains(letter));
    let time = strtime::parse("%Y-%m-%d %H:%M:%S %z", time).ok()?.to_timestamp().ok()?;
    is_zone.then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_clients_of_spire_write_them() {
        let time = |text| expires_before(text).unwrap();
        let noon = Some("2026-01-01T12:00:00Z".parse().unwrap());
        assert_eq!(time("2026-01-01 12:00:00 +0000 +00"), noon);
        assert_eq!(time("2026-01-01 12:00:00 +0000 UTC"), noon);
        assert_eq!(time("2026-01-01 05:00:00 -0700 -07"), noon);
        assert_eq!(time(""), None);
        for wrong in ["tomorrow", "2026-01-01 12:00:00", "2026-13-01 12:00:00 +0000 +00"] {
            assert_eq!(expires_before(wrong).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn an_empty_selector_set_is_refused() {
        let empty = Filter { selectors: Some(SelectorMatch::default()), ..Filter::default() };
        assert_eq!(empty.checked().unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
