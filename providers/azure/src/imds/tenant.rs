//! A tenant whose machines are taken: what its credential sees of them, asked about together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use moka::future::Cache;
use serde::Deserialize;
use serde_json::Value;
use spire_core::remote::{Client, Coalescer, Lookup, until_answered};

use super::config;
use super::document::Machine;
use super::scale_set::Members;
use crate::api::{Answer, ApiError, ResourceManager, quoted};
use crate::cloud::Services;
use crate::credentials::Credential;
use crate::lookup::{Interfaces, by_key, together};
use crate::network::Reference;
use crate::startup::ANSWER;

/// How long the tenant of a subscription is remembered.
const TENANT_KEPT: Duration = Duration::from_secs(60 * 60);
/// Subscriptions that are remembered.
const MAX_SUBSCRIPTIONS: u64 = 10_000;

/// Largest answer of the login service in bytes that is read.
const MAX_DISCOVERY_BYTES: usize = 64 << 10;

/// A tenant, ready to be asked.
pub(super) struct Tenant {
    pub(super) tenant_id: String,
    pub(super) subscriptions: BTreeSet<String>,
    pub(super) tags: BTreeSet<String>,
    pub(super) manager: Arc<ResourceManager>,
    pub(super) machines: Coalescer<Machines>,
    pub(super) interfaces: Coalescer<Interfaces>,
    pub(super) scale_sets: Members,
    owners: Cache<String, Answer<String>>,
}

impl Tenant {
    /// The tenant of `config`, whose ID is `tenant_id`.
    ///
    /// # Errors
    /// What is wrong with its credential.
    pub(super) fn new(
        config: &config::Tenant,
        tenant_id: String,
        services: &Services,
    ) -> Result<Self, String> {
        let credential = Credential::new(&config.identity, &tenant_id, services)?;
        let client = Client::new(&services.endpoints).map_err(|error| error.to_string())?;
        let manager = Arc::new(ResourceManager::new(services, client, credential));
        let owners = Cache::builder().max_capacity(MAX_SUBSCRIPTIONS).time_to_live(TENANT_KEPT);
        Ok(Self {
            tenant_id,
            subscriptions: config.subscriptions.clone(),
            tags: config.tags.clone(),
            machines: together(Machines(manager.clone())),
            interfaces: together(Interfaces::new(manager.clone())),
            scale_sets: Members::new(manager.clone()),
            owners: owners.build(),
            manager,
        })
    }

    /// The ID of the tenant that owns a subscription.
    ///
    /// # Errors
    /// [`ApiError`]
    pub(super) async fn owner(&self, subscription: &str) -> Result<Answer<String>, ApiError> {
        #[derive(Deserialize)]
        struct Subscription {
            #[serde(rename = "tenantId")]
            tenant_id: String,
        }
        let path = format!("/subscriptions/{subscription}?api-version=2022-12-01");
        let ask = async {
            let answer: Answer<Subscription> = self.manager.get(&path).await?;
            Ok(Answer { value: answer.value.tenant_id, request_id: answer.request_id })
        };
        let kept = self.owners.try_get_with(subscription.to_owned(), ask).await;
        kept.map_err(|error: Arc<ApiError>| ApiError::clone(&error))
    }
}

/// The ID of the tenant with that domain, as the login service publishes it.
///
/// # Errors
/// Why it cannot be had.
pub(super) async fn resolve(
    domain: &str,
    services: &Services,
    client: &Client,
) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
    }
    let failed = |why: String| format!("unable to resolve tenant {domain:?}: {why}");
    let url = services.login.url(&format!("/{domain}/.well-known/openid-configuration"));
    let attempt =
        || client.send(client.request(Method::GET, url.clone()), ANSWER, MAX_DISCOVERY_BYTES);
    let answer = until_answered(attempt, ANSWER).await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    if answer.status != StatusCode::OK {
        return Err(failed(format!("the login service answered {}", answer.status)));
    }
    let discovery: Discovery =
        serde_json::from_slice(&answer.body).map_err(|error| failed(error.to_string()))?;
    let tenant = services.cloud.tenant_of(&discovery.issuer);
    tenant.map(str::to_ascii_lowercase).ok_or_else(|| {
        failed(format!("issuer {:?} is not one of this cloud's tenants", discovery.issuer))
    })
}

/// A machine of its own, as Resource Graph tells it; members of Flexible scale sets are such.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachineRow {
    vm_id: String,
    subscription_id: String,
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) location: String,
    #[serde(default)]
    pub(super) resource_group: String,
    #[serde(default)]
    pub(super) tenant_id: Option<String>,
    #[serde(default)]
    pub(super) tags: Value,
    #[serde(default)]
    pub(super) time_created: Option<String>,
    #[serde(default)]
    pub(super) scale_set: Option<Reference>,
}

/// Which machines have some ID: none, one, or more than Azure should have.
pub(super) struct Machines(Arc<ResourceManager>);

#[async_trait]
impl Lookup for Machines {
    type Key = Machine;
    type Value = Answer<Vec<MachineRow>>;
    type Error = ApiError;

    async fn look_up(&self, keys: Vec<Machine>) -> Result<HashMap<Machine, Self::Value>, ApiError> {
        let ids = quoted(keys.iter().map(|machine| machine.vm_id.as_str()));
        let subscriptions = keys.iter().map(|machine| machine.subscription_id.as_str()).collect();
        let query = format!(
            "resources | where type =~ 'microsoft.compute/virtualmachines' \
             | where tostring(properties.vmId) in~ ({ids}) | order by id asc \
             | project id, name, location, tags, resourceGroup, subscriptionId, tenantId, \
             vmId = tostring(properties.vmId), timeCreated = tostring(properties.timeCreated), \
             scaleSet = properties.virtualMachineScaleSet"
        );
        let rows: Answer<Vec<MachineRow>> = self.0.query(&query, &subscriptions).await?;
        let mut found = by_key(&keys, &rows.request_id);
        for row in rows.value {
            for (machine, answer) in &mut found {
                let is_it = machine.vm_id.eq_ignore_ascii_case(&row.vm_id)
                    && machine.subscription_id.eq_ignore_ascii_case(&row.subscription_id);
                if is_it {
                    answer.value.push(row.clone());
                }
            }
        }
        Ok(found)
    }
}
