//! What Azure says of a machine that has proven itself, and the selectors of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use spire_core::node::{AttestError, Examination, NodeResolver};
use spire_core::selector::Selector;

use super::NAME;
use super::document::Machine;
use super::scale_set::Member;
use super::tenant::{MachineRow, Tenant};
use crate::network::Interface;
use crate::resource_id::{ResourceId, SCALE_SET};

/// A machine as its tenant's credential sees it.
pub(super) struct Found {
    pub(super) tenant_id: Option<String>,
    pub(super) created: Option<Timestamp>,
    name: String,
    location: String,
    group: String,
    scale_set: Option<String>,
    tags: Value,
    interfaces: FoundInterfaces,
}

/// Its interfaces: known already, or those of the machine with this resource ID.
enum FoundInterfaces {
    Known(Vec<Interface>),
    Of(String),
}

/// Finds `machine`, which says that it is in the scale set `hint`.
pub(super) async fn find(
    tenant: &Tenant,
    machine: &Machine,
    hint: Option<&str>,
    examination: &mut Examination,
) -> Result<Found, AttestError> {
    let answer = tenant.machines.get(machine.clone()).await;
    let answer = answer.map_err(|error| error.about("unable to find the machine", examination))?;
    let (rows, request_id) = answer.map(|one| (one.value, one.request_id)).unwrap_or_default();
    examination.asked(request_id.as_deref());
    match (&rows[..], hint) {
        ([row], hint) => Found::of_row(row, hint),
        ([], None) => Err(AttestError::NotFound(format!(
            "no virtual machine {} is visible to the server's identity; give it the role Reader \
             on the subscription, or let the agent start again once Azure knows the machine",
            machine.vm_id
        ))),
        ([], Some(set)) => find_member(tenant, machine, set, examination).await,
        (_, _) => Err(AttestError::Refused(format!(
            "Azure knows more than one virtual machine {}",
            machine.vm_id
        ))),
    }
}

async fn find_member(
    tenant: &Tenant,
    machine: &Machine,
    set: &str,
    examination: &mut Examination,
) -> Result<Found, AttestError> {
    let sets = tenant.scale_sets.sets(machine, set).await;
    let sets = sets.map_err(|error| error.about("unable to list the scale set", examination))?;
    examination.asked(sets.request_id.as_deref());
    match sets.member(machine) {
        Some(member) => Ok(Found::of_member(member)),
        None if sets.count == 0 => Err(AttestError::NotFound(format!(
            "neither a virtual machine {} nor a scale set {set:?} is visible to the server's \
             identity",
            machine.vm_id
        ))),
        None => Err(AttestError::Refused(format!(
            "virtual machine {} is not in the scale set {set:?}",
            machine.vm_id
        ))),
    }
}

impl Found {
    fn of_row(row: &MachineRow, hint: Option<&str>) -> Result<Self, AttestError> {
        let set = row.scale_set.as_ref().and_then(|set| ResourceId::parse(&set.id, SCALE_SET));
        let set = set.map(|set| set.name().to_owned());
        if let Some(hint) = hint
            && !set.as_deref().is_some_and(|set| set.eq_ignore_ascii_case(hint))
        {
            return Err(AttestError::Refused(format!(
                "virtual machine {} is not in the scale set {hint:?}",
                row.name
            )));
        }
        Ok(Self {
            tenant_id: row.tenant_id.clone(),
            created: row.time_created.as_deref().and_then(|time| time.parse().ok()),
            name: row.name.clone(),
            location: row.location.clone(),
            group: row.resource_group.clone(),
            scale_set: set,
            tags: row.tags.clone(),
            interfaces: FoundInterfaces::Of(row.id.to_ascii_lowercase()),
        })
    }

    fn of_member(member: &Member) -> Self {
        Self {
            tenant_id: member.tenant_id.clone(),
            created: member.machine.time_created().and_then(|time| time.parse().ok()),
            name: member.machine.name.clone(),
            location: member.machine.location.clone(),
            group: member.group.clone(),
            scale_set: Some(member.set_name.clone()),
            tags: member.machine.tags.clone(),
            interfaces: FoundInterfaces::Known(member.machine.interfaces()),
        }
    }
}

/// Asks for a machine's interfaces and turns all that is known into selectors.
pub(super) struct Resolver {
    pub(super) tenant: Arc<Tenant>,
    pub(super) machine: Machine,
    pub(super) found: Found,
}

#[async_trait]
impl NodeResolver for Resolver {
    async fn selectors(&self, examination: &mut Examination) -> Result<Vec<Selector>, AttestError> {
        let asked = tokio::time::timeout(crate::ALL_CALLS, self.interfaces(examination));
        let interfaces = asked.await.unwrap_or_else(|_| Err(crate::late()));
        let interfaces = examination.check("network interfaces", interfaces)?;
        let values = self.values(&interfaces);
        let selectors = values.iter().map(|value| Selector::new(NAME, value));
        let selectors = selectors.collect::<Result<_, _>>();
        let selectors = selectors.map_err(|error| AttestError::Malformed(error.to_string()));
        examination.check("selectors", selectors)
    }
}

impl Resolver {
    /// The interfaces of the machine: one at least.
    async fn interfaces(
        &self,
        examination: &mut Examination,
    ) -> Result<Vec<Interface>, AttestError> {
        let interfaces = match &self.found.interfaces {
            FoundInterfaces::Known(interfaces) => interfaces.clone(),
            FoundInterfaces::Of(id) => {
                let key = (self.machine.subscription_id.clone(), id.clone());
                let answer = self.tenant.interfaces.get(key).await.map_err(|error| {
                    error.about("unable to find the network interfaces", examination)
                })?;
                answer.map(|answer| answer.value).unwrap_or_default()
            }
        };
        match interfaces.is_empty() {
            true => Err(AttestError::NotFound(format!(
                "no network interface of virtual machine {} is visible to the server's identity",
                self.found.name
            ))),
            false => Ok(interfaces),
        }
    }

    /// The values of the selectors, sorted, each once.
    fn values(&self, interfaces: &[Interface]) -> BTreeSet<String> {
        let Found { name, location, group, scale_set, .. } = &self.found;
        let mut values = BTreeSet::from([
            format!("subscription-id:{}", self.machine.subscription_id),
            format!("vm-name:{name}"),
            format!("vm-location:{location}"),
            format!("resource-group:{group}"),
        ]);
        values.extend(scale_set.as_ref().map(|set| format!("vmss-name:{set}")));
        values.extend(self.tags());
        for interface in interfaces {
            if let Some(group) = interface.security_group() {
                values.insert(format!("network-security-group:{}:{}", group.group, group.name()));
            }
            for subnet in interface.subnets() {
                let [network, name] = subnet.names[..] else { continue };
                values.insert(format!("virtual-network:{network}"));
                values.insert(format!("virtual-network-subnet:{network}:{name}"));
            }
        }
        values
    }

    /// The tags that the operator wants to see. Azure has texts there; what else there might be
    /// counts as the text of it, `null` as an empty one, and what has parts is left out.
    fn tags(&self) -> impl Iterator<Item = String> {
        let tags = self.found.tags.as_object().into_iter().flatten();
        let wanted = tags.filter(|(key, _)| self.tenant.tags.contains(*key));
        wanted.filter_map(|(key, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => return None,
            };
            Some(format!("vm-tag:{key}:{value}"))
        })
    }
}
