//! The machine that has a managed identity. Resource Graph is asked about many at once; where it
//! does not know a machine yet, or may not be asked, Resource Manager is, about one by one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use spire_core::node::{AttestError, Examination};
use spire_core::remote::{Client, Coalescer, Lookup};
use url::form_urlencoded;

use super::claims::ManagedIdentity;
use super::config;
use crate::api::{Answer, ApiError, Kind, ResourceManager, quoted};
use crate::cloud::Services;
use crate::credentials::Credential;
use crate::lookup::{Interfaces, by_key, together};
use crate::network::{Reference, Whole};
use crate::resource_id::{ResourceId, VIRTUAL_MACHINE};

/// A machine as Azure knows it.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) id: String,
    pub(super) created: Option<String>,
    pub(super) interfaces: Vec<Reference>,
}

impl Machine {
    /// The parts of its ID.
    ///
    /// # Errors
    /// `Refused` where it is something else than a virtual machine.
    pub(super) fn parts(&self) -> Result<ResourceId<'_>, AttestError> {
        parse(&self.id)
    }
}

fn parse(id: &str) -> Result<ResourceId<'_>, AttestError> {
    ResourceId::parse(id, VIRTUAL_MACHINE).ok_or_else(|| {
        AttestError::Refused(format!("{id:?} has the identity and is no virtual machine"))
    })
}

/// A tenant, ready to be asked.
pub(super) struct Tenant {
    pub(super) config: config::Tenant,
    /// Where its machines are.
    pub(super) subscription: String,
    pub(super) manager: Arc<ResourceManager>,
    pub(super) interfaces: Coalescer<Interfaces>,
    machines: Coalescer<Machines>,
}

impl Tenant {
    /// The tenant of `config`, whose machines are in `subscription`.
    ///
    /// # Errors
    /// What is wrong with its credential.
    pub(super) fn new(
        config: config::Tenant,
        subscription: String,
        services: &Services,
    ) -> Result<Self, String> {
        let credential = Credential::new(&config.identity, &config.tenant_id, services)?;
        let client = Client::new(&services.endpoints).map_err(|error| error.to_string())?;
        let manager = Arc::new(ResourceManager::new(services, client, credential));
        let machines = Machines { manager: manager.clone(), subscription: subscription.clone() };
        Ok(Self {
            config,
            subscription,
            interfaces: together(Interfaces::new(manager.clone())),
            machines: together(machines),
            manager,
        })
    }

    /// The one machine whose own identity is `identity`.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Refused` where there are more, `Unavailable` where Azure
    /// does not say.
    pub(super) async fn machine(
        &self,
        identity: &ManagedIdentity,
        examination: &mut Examination,
    ) -> Result<Machine, AttestError> {
        let principal = &identity.principal_id;
        match self.machines.get(principal.to_ascii_lowercase()).await {
            Ok(Some(answer)) if !answer.value.is_empty() => {
                examination.asked(answer.request_id.as_deref());
                self.the_one(answer.value, principal)
            }
            // A new machine is not known there at once.
            Ok(_) => self.ask_manager(principal, examination).await,
            Err(error) if error.kind == Kind::Forbidden => {
                examination.skip("Resource Graph", error.to_string());
                self.ask_manager(principal, examination).await
            }
            Err(error) => Err(error.about("unable to find the machine", examination)),
        }
    }

    async fn ask_manager(
        &self,
        principal: &str,
        examination: &mut Examination,
    ) -> Result<Machine, AttestError> {
        let filter = format!(
            "resourceType eq 'Microsoft.Compute/virtualMachines' and identity/principalId eq \
             '{principal}'"
        );
        let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        // Azure reads blanks of a query in either spelling, but `+` in a filter only as itself.
        let filter = filter.replace('+', "%20");
        let subscription = &self.subscription;
        let path = format!(
            "/subscriptions/{subscription}/resources?$filter={filter}&api-version=2021-04-01"
        );
        let found: Result<Answer<Vec<Reference>>, _> = self.manager.list(&path).await;
        let found =
            found.map_err(|error| error.about("unable to find the machine", examination))?;
        examination.asked(found.request_id.as_deref());
        let Reference { id } = self.the_one(found.value, principal)?;
        let path = parse(&id)?.path(VIRTUAL_MACHINE);
        let machine: Result<Answer<Whole<MachineProperties>>, _> =
            self.manager.get(&format!("{path}?api-version=2024-07-01")).await;
        let machine =
            machine.map_err(|error| error.about("unable to read the machine", examination))?;
        let MachineProperties { time_created, network_profile } = machine.value.properties;
        let interfaces = network_profile.network_interfaces;
        Ok(Machine { id, created: time_created, interfaces })
    }

    fn the_one<T>(&self, found: Vec<T>, principal: &str) -> Result<T, AttestError> {
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(machine), None) => Ok(machine),
            (None, _) => Err(AttestError::NotFound(format!(
                "no virtual machine in subscription {} has the identity {principal}; \
                 user-assigned identities and those of scale sets are not supported, and the \
                 server's identity needs the role Reader",
                self.subscription
            ))),
            (Some(_), Some(_)) => Err(AttestError::Refused(format!(
                "more than one virtual machine has the identity {principal}"
            ))),
        }
    }
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

/// Which machines of a subscription have some identity, by its ID in lower case: none, one, or more
/// than Azure should have.
struct Machines {
    manager: Arc<ResourceManager>,
    subscription: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MachineRow {
    principal: String,
    id: String,
    #[serde(default)]
    time_created: Option<String>,
    #[serde(default)]
    interfaces: Option<Vec<Reference>>,
}

#[async_trait]
impl Lookup for Machines {
    type Key = String;
    type Value = Answer<Vec<Machine>>;
    type Error = ApiError;

    async fn look_up(&self, keys: Vec<String>) -> Result<HashMap<String, Self::Value>, ApiError> {
        let principals = quoted(keys.iter().map(String::as_str));
        let query = format!(
            "resources | where type =~ 'microsoft.compute/virtualmachines' \
             | extend principal = tolower(tostring(identity.principalId)) \
             | where principal in ({principals}) | order by id asc \
             | project principal, id, timeCreated = tostring(properties.timeCreated), \
             interfaces = properties.networkProfile.networkInterfaces"
        );
        let subscriptions = BTreeSet::from([self.subscription.as_str()]);
        let rows: Answer<Vec<MachineRow>> = self.manager.query(&query, &subscriptions).await?;
        let mut found = by_key(&keys, &rows.request_id);
        for MachineRow { principal, id, time_created, interfaces } in rows.value {
            if let Some(answer) = found.get_mut(&principal) {
                let interfaces = interfaces.unwrap_or_default();
                answer.value.push(Machine { id, created: time_created, interfaces });
            }
        }
        Ok(found)
    }
}
