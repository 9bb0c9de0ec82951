//! What Azure says of a machine that has proven itself, and the selectors of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use spire_core::node::{AttestError, Examination, NodeResolver};
use spire_core::selector::Selector;

use super::NAME;
use super::machine::{Machine, Tenant};
use crate::api::{Answer, ApiError, Kind};
use crate::network::{Interface, Whole};
use crate::resource_id::{INTERFACE, ResourceId};

/// Interfaces of one machine that are read; Azure allows half as many.
const MAX_INTERFACES: usize = 16;

/// Asks for a machine's interfaces and turns all that is known into selectors.
pub(super) struct Resolver {
    pub(super) tenant: Arc<Tenant>,
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
    /// The interfaces of the machine: as Resource Graph tells them, if it knows them all.
    async fn interfaces(
        &self,
        examination: &mut Examination,
    ) -> Result<Vec<Interface>, AttestError> {
        let references = self.machine.interfaces.iter().take(MAX_INTERFACES);
        let ids = references.filter_map(|one| ResourceId::parse(&one.id, INTERFACE));
        let ids: Vec<ResourceId<'_>> = ids.collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let subscription = self.machine.parts()?.subscription.to_owned();
        let key = (subscription, self.machine.id.to_ascii_lowercase());
        match self.tenant.interfaces.get(key).await {
            Ok(Some(answer)) if answer.value.len() >= ids.len() => {
                examination.asked(answer.request_id.as_deref());
                Ok(answer.value)
            }
            Ok(_) => self.ask_manager(&ids, examination).await,
            Err(error) if error.kind == Kind::Forbidden => {
                self.ask_manager(&ids, examination).await
            }
            Err(error) => Err(error.about("unable to find the network interfaces", examination)),
        }
    }

    /// The interfaces that can be read; one in a subscription that the server does not see is
    /// passed over.
    async fn ask_manager(
        &self,
        ids: &[ResourceId<'_>],
        examination: &mut Examination,
    ) -> Result<Vec<Interface>, AttestError> {
        let asked = ids.iter().map(|id| async move {
            let path = format!("{}?api-version=2024-05-01", id.path(INTERFACE));
            let answer: Result<Answer<Whole<Interface>>, ApiError> =
                self.tenant.manager.get(&path).await;
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
        let machine = self.machine.parts()?;
        let mut values = BTreeSet::from([
            format!("subscription-id:{}", self.tenant.subscription),
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
