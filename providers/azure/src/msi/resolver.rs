//! The machine of a managed identity, and the selectors of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use serde::Deserialize;
use spire_core::node::{AttestError, Examination, NodeResolver};
use spire_core::selector::Selector;
use url::form_urlencoded;

use super::NAME;
use super::claims::ManagedIdentity;
use crate::api::{Answer, ApiError, Kind, ResourceManager};
use crate::network::{Interface, Reference};
use crate::resource_id::{INTERFACE, ResourceId, VIRTUAL_MACHINE};

/// Interfaces of one machine that are read; Azure allows half as many.
const MAX_INTERFACES: usize = 16;

/// A machine as Azure knows it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: String,
    pub(super) created: Option<String>,
    interfaces: Vec<Reference>,
}

#[derive(Deserialize)]
struct Whole<T> {
    properties: T,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MachineProperties {
    time_created: Option<String>,
    network_profile: NetworkProfile,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetworkProfile {
    network_interfaces: Vec<Reference>,
}

/// Finds the one machine in `subscription` whose own identity is `identity`.
pub(super) async fn find(
    manager: &ResourceManager,
    subscription: &str,
    identity: &ManagedIdentity,
    examination: &mut Examination,
) -> Result<Machine, AttestError> {
    let principal = &identity.principal_id;
    let filter = format!(
        "resourceType eq 'Microsoft.Compute/virtualMachines' and identity/principalId eq \
         '{principal}'"
    );
    let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    // Azure reads blanks of a query in either spelling, but `+` in a filter only as itself.
    let filter = filter.replace('+', "%20");
    let path =
        format!("/subscriptions/{subscription}/resources?$filter={filter}&api-version=2021-04-01");
    let found: Result<Answer<Vec<Reference>>, _> = manager.list(&path).await;
    let found = found.map_err(|error| error.about("unable to find the machine", examination))?;
    examination.asked(found.request_id.as_deref());
    let id = match &found.value[..] {
        [machine] => machine.id.clone(),
        [] => {
            return Err(AttestError::NotFound(format!(
                "no virtual machine in subscription {subscription} has the identity {principal}; \
                 user-assigned identities and those of scale sets are not supported, and the \
                 server's identity needs the role Reader"
            )));
        }
        _ => {
            return Err(AttestError::Refused(format!(
                "more than one virtual machine has the identity {principal}"
            )));
        }
    };
    let path = parse(&id)?.path(VIRTUAL_MACHINE);
    let machine: Result<Answer<Whole<MachineProperties>>, _> =
        manager.get(&format!("{path}?api-version=2024-07-01")).await;
    let machine =
        machine.map_err(|error| error.about("unable to read the machine", examination))?;
    let MachineProperties { time_created, network_profile } = machine.value.properties;
    Ok(Machine { id, created: time_created, interfaces: network_profile.network_interfaces })
}

/// The parts of a machine's ID.
pub(super) fn parse(id: &str) -> Result<ResourceId<'_>, AttestError> {
    ResourceId::parse(id, VIRTUAL_MACHINE).ok_or_else(|| {
        AttestError::Refused(format!("{id:?} has the identity and is no virtual machine"))
    })
}

/// Asks for a machine's interfaces and turns all that is known into selectors.
pub(super) struct Resolver {
    pub(super) manager: Arc<ResourceManager>,
    pub(super) subscription: String,
    pub(super) machine: Machine,
}

#[async_trait]
impl NodeResolver for Resolver {
    async fn selectors(&self, examination: &mut Examination) -> Result<Vec<Selector>, AttestError> {
        let asked = tokio::time::timeout(crate::ALL_CALLS, self.interfaces(examination));
        let interfaces = asked.await.unwrap_or_else(|_| Err(crate::late()));
        let interfaces = examination.check("network interfaces", interfaces)?;
        let selectors = self.values(&interfaces).and_then(|values| {
            let selectors = values.iter().map(|value| Selector::new(NAME, value));
            let selectors = selectors.collect::<Result<_, _>>();
            selectors.map_err(|error| AttestError::Malformed(error.to_string()))
        });
        examination.check("selectors", selectors)
    }
}

impl Resolver {
    /// The interfaces that can be read; one in a subscription that the server does not see is
    /// passed over.
    async fn interfaces(
        &self,
        examination: &mut Examination,
    ) -> Result<Vec<Interface>, AttestError> {
        let interfaces = self.machine.interfaces.iter().take(MAX_INTERFACES);
        let ids = interfaces.filter_map(|one| ResourceId::parse(&one.id, INTERFACE));
        let asked = ids.map(|id| async move {
            let path = format!("{}?api-version=2024-05-01", id.path(INTERFACE));
            let answer: Result<Answer<Whole<Interface>>, ApiError> = self.manager.get(&path).await;
            answer
        });
        let mut found = Vec::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(answer) => found.push(answer.value.properties),
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Forbidden) => {
                    examination.skip("network interface", error.to_string());
                }
                Err(error) => {
                    return Err(error.about("unable to read a network interface", examination));
                }
            }
        }
        Ok(found)
    }

    /// The values of the selectors, sorted, each once.
    fn values(&self, interfaces: &[Interface]) -> Result<BTreeSet<String>, AttestError> {
        let machine = parse(&self.machine.id)?;
        let mut values = BTreeSet::from([
            format!("subscription-id:{}", self.subscription),
            format!("vm-name:{}:{}", machine.group, machine.name()),
        ]);
        for interface in interfaces {
            if let Some(group) = interface.security_group() {
                values.insert(format!("network-security-group:{}:{}", group.group, group.name()));
            }
            for subnet in interface.subnets() {
                let [network, name] = subnet.names[..] else { continue };
                values.insert(format!("virtual-network:{}:{network}", subnet.group));
                values.insert(format!("virtual-network-subnet:{}:{network}:{name}", subnet.group));
            }
        }
        Ok(values)
    }
}
