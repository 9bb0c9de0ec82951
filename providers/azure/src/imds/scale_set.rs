//! Members of Uniform scale sets, which are no machines of their own: a set is listed once for all
//! of its members that ask within a while.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;
use serde::Deserialize;
use serde_json::Value;

use super::document::Machine;
use crate::api::{Answer, ApiError, RequestId, ResourceManager, quoted};
use crate::network::Interface;
use crate::resource_id::{ResourceId, SCALE_SET};

/// How long a list is kept. A member that it lacks has it made anew.
const KEPT: Duration = Duration::from_secs(60);
/// Lists that are kept.
const MAX_KEPT: u64 = 100;

/// Whether `name` can be that of a scale set.
///
/// # Source
/// "Naming rules and restrictions for Azure resources", Microsoft.Compute.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let (first, last) = (name.bytes().next(), name.bytes().last());
    (1..=64).contains(&name.len())
        && name.bytes().all(allowed)
        && first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && last.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A member of a set.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) set_name: String,
    pub(super) group: String,
    pub(super) tenant_id: Option<String>,
    pub(super) machine: MemberMachine,
}

/// A member as Azure lists it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MemberMachine {
    pub(super) name: String,
    pub(super) location: String,
    pub(super) tags: Value,
    properties: MemberProperties,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MemberProperties {
    vm_id: String,
    time_created: Option<String>,
    network_profile_configuration: Option<NetworkProfile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetworkProfile {
    network_interface_configurations: Vec<InterfaceConfiguration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct InterfaceConfiguration {
    properties: Interface,
}

impl MemberMachine {
    /// When it was made.
    pub(super) fn time_created(&self) -> Option<&str> {
        self.properties.time_created.as_deref()
    }

    /// Its interfaces.
    pub(super) fn interfaces(&self) -> Vec<Interface> {
        let profile = self.properties.network_profile_configuration.iter();
        let configurations = profile.flat_map(|profile| &profile.network_interface_configurations);
        configurations.map(|configuration| configuration.properties.clone()).collect()
    }
}

/// What is known of the sets of one name in one subscription.
pub(super) struct Sets {
    /// How many sets have the name: one in a resource group at most.
    pub(super) count: usize,
    pub(super) request_id: RequestId,
    members: HashMap<String, Member>,
    asked_at: Instant,
}

impl Sets {
    /// The member with that ID.
    pub(super) fn member(&self, machine: &Machine) -> Option<&Member> {
        self.members.get(&machine.vm_id)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetRow {
    id: String,
    #[serde(default)]
    tenant_id: Option<String>,
}

/// Scale sets with their members, by subscription and name.
pub(super) struct Members {
    manager: Arc<ResourceManager>,
    kept: Cache<(String, String), Arc<Sets>>,
}

impl Members {
    pub(super) fn new(manager: Arc<ResourceManager>) -> Self {
        let kept = Cache::builder().max_capacity(MAX_KEPT).time_to_live(KEPT).build();
        Self { manager, kept }
    }

    /// The sets called `name` in the subscription of `machine`; where they are not known to have
    /// it, as they are now.
    ///
    /// # Errors
    /// [`ApiError`]
    pub(super) async fn sets(&self, machine: &Machine, name: &str) -> Result<Arc<Sets>, ApiError> {
        let asked_at = Instant::now();
        let key = (machine.subscription_id.clone(), name.to_ascii_lowercase());
        let known = self.listed(&key).await?;
        if known.member(machine).is_some() || known.asked_at >= asked_at {
            return Ok(known);
        }
        self.kept.invalidate(&key).await;
        self.listed(&key).await
    }

    async fn listed(&self, key: &(String, String)) -> Result<Arc<Sets>, ApiError> {
        let (subscription, name) = key;
        let listed = self.kept.try_get_with_by_ref(key, self.list(subscription, name)).await;
        listed.map_err(|error: Arc<ApiError>| ApiError::clone(&error))
    }

    async fn list(&self, subscription: &str, name: &str) -> Result<Arc<Sets>, ApiError> {
        let asked_at = Instant::now();
        let query = format!(
            "resources | where type =~ 'microsoft.compute/virtualmachinescalesets' \
             | where name =~ {} | order by id asc | project id, tenantId",
            quoted([name])
        );
        let rows: Answer<Vec<SetRow>> =
            self.manager.query(&query, &BTreeSet::from([subscription])).await?;
        let mut sets = Sets {
            count: rows.value.len(),
            request_id: rows.request_id,
            members: HashMap::new(),
            asked_at,
        };
        for row in rows.value {
            let Some(set) = ResourceId::parse(&row.id, SCALE_SET) else { continue };
            let path = format!("{}/virtualMachines?api-version=2024-07-01", set.path(SCALE_SET));
            let listed: Answer<Vec<MemberMachine>> = self.manager.list(&path).await?;
            sets.request_id = listed.request_id;
            for machine in listed.value {
                let member = Member {
                    set_name: set.name().to_owned(),
                    group: set.group.to_owned(),
                    tenant_id: row.tenant_id.clone(),
                    machine,
                };
                let vm_id = member.machine.properties.vm_id.to_ascii_lowercase();
                sets.members.insert(vm_id, member);
            }
        }
        Ok(Arc::new(sets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scale_sets() {
        for good in ["a", "web-1", "Web_", "9.a", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a.", "_a", "a'b", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
