//! Questions to Resource Graph about many machines at once: how they are put together, and the one
//! that both attestors ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use spire_core::remote::{Coalescer, Lookup, Pace};

use crate::api::{Answer, ApiError, RequestId, ResourceManager, quoted};
use crate::network::Interface;

/// How long questions wait for others to go out with.
const WINDOW: Duration = Duration::from_millis(40);
/// Machines of one question, so that its answer has one page.
const MAX_MACHINES: usize = 200;
/// Questions of one kind under way at once.
const MAX_PARALLEL: usize = 4;
/// Three questions of one kind go out at once, then one each second, unless there are enough
/// machines to fill one. Both kinds together stay below the 15 questions within five seconds that
/// Resource Graph answers to one identity, however long a stream of machines is.
const PACE: Pace = Pace { burst: 3, interval: Duration::from_secs(1) };

/// Puts the questions of `lookup` together.
pub(crate) fn together<L: Lookup>(lookup: L) -> Coalescer<L> {
    Coalescer::new(lookup, WINDOW, MAX_MACHINES, MAX_PARALLEL).paced(PACE)
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
             | where machine in ({ids}) | order by id asc \
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::join_all;
    use tokio::time::Instant;

    use super::*;

    /// Remembers when it was asked.
    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<Vec<Instant>>>);

    #[async_trait]
    impl Lookup for Asked {
        type Key = u32;
        type Value = u32;
        type Error = ApiError;

        async fn look_up(&self, keys: Vec<u32>) -> Result<HashMap<u32, u32>, ApiError> {
            self.0.lock().unwrap().push(Instant::now());
            Ok(keys.into_iter().map(|key| (key, key)).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_machines_within_a_minute_stay_below_what_resource_graph_answers() {
        let asked = Asked::default();
        let coalescer = together(asked.clone());
        join_all((0..1000).map(|number| {
            let coalescer = &coalescer;
            async move {
                tokio::time::sleep(Duration::from_millis(60) * number).await;
                let began = Instant::now();
                assert_eq!(coalescer.get(number).await.unwrap(), Some(number));
                assert!(began.elapsed() < Duration::from_millis(1100), "{:?}", began.elapsed());
            }
        }))
        .await;
        let calls = asked.0.lock().unwrap().clone();
        assert!(calls.len() <= 64, "{} calls", calls.len());
        for first in &calls {
            let soon = calls.iter().filter(|call| **call >= *first);
            let soon = soon.filter(|call| **call - *first < Duration::from_secs(5)).count();
            assert!(2 * soon <= 15, "{soon} calls of one kind within five seconds");
        }
    }
}
