//! Questions to Resource Graph about many machines at once: how they are put together, and the one
//! that both attestors ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use spire_core::remote::{Coalescer, Lookup};

use crate::api::{Answer, ApiError, RequestId, ResourceManager, quoted};
use crate::network::Interface;

/// How long questions wait for others to go out with.
const WINDOW: Duration = Duration::from_millis(40);
/// Machines of one question, so that its answer has one page.
const MAX_MACHINES: usize = 200;
/// Questions of one kind under way at once.
const MAX_PARALLEL: usize = 4;

/// Puts the questions of `lookup` together.
pub(crate) fn together<L: Lookup>(lookup: L) -> Coalescer<L> {
    Coalescer::new(lookup, WINDOW, MAX_MACHINES, MAX_PARALLEL)
}

/// The interfaces of machines, which are named by their IDs in lower case and subscription.
pub(crate) struct Interfaces(Arc<ResourceManager>);

impl Interfaces {
    /// Interfaces as `manager` sees them.
    pub(crate) fn new(manager: Arc<ResourceManager>) -> Self {
        Self(manager)
    }
}

/// A machine by its resource ID in lower case, behind its subscription.
pub(crate) type MachineId = (String, String);

#[derive(Deserialize)]
struct InterfaceRow {
    machine: String,
    #[serde(default)]
    properties: Interface,
}

#[async_trait]
impl Lookup for Interfaces {
    type Key = MachineId;
    type Value = Answer<Vec<Interface>>;
    type Error = ApiError;

    async fn look_up(
        &self,
        keys: Vec<MachineId>,
    ) -> Result<HashMap<MachineId, Self::Value>, ApiError> {
        let ids = quoted(keys.iter().map(|(_, id)| id.as_str()));
        let subscriptions = keys.iter().map(|(subscription, _)| subscription.as_str()).collect();
        let query = format!(
            "resources | where type =~ 'microsoft.network/networkinterfaces' \
             | extend machine = tolower(tostring(properties.virtualMachine.id)) \
             | where machine in ({ids}) \
             | project machine, properties = pack(\
             'networkSecurityGroup', properties.networkSecurityGroup, \
             'ipConfigurations', properties.ipConfigurations)"
        );
        let rows: Answer<Vec<InterfaceRow>> = self.0.query(&query, &subscriptions).await?;
        let mut found = by_key(&keys, &rows.request_id);
        for row in rows.value {
            for ((_, id), answer) in &mut found {
                if id.eq_ignore_ascii_case(&row.machine) {
                    answer.value.push(row.properties.clone());
                }
            }
        }
        Ok(found)
    }
}

/// An empty answer for each of `keys`.
pub(crate) fn by_key<K: Clone + Eq + std::hash::Hash, T>(
    keys: &[K],
    request_id: &RequestId,
) -> HashMap<K, Answer<Vec<T>>> {
    let empty = || Answer { value: Vec::new(), request_id: request_id.clone() };
    keys.iter().map(|key| (key.clone(), empty())).collect()
}
