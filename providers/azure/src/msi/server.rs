//! The server's half: a token of a managed identity, and the machine that has it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::id::SpiffeId;
use spire_core::jws::{Algorithm, Claims, Jws, KeyCache};
use spire_core::node::{
    AttestError, Attested, Examination, NodeAttestor, Peer, check_age, read_envelope,
};
use spire_core::path_template::Value;
use spire_core::remote::Client;

use super::NAME;
use super::claims::{EntraKeys, ManagedIdentity, check_issuer, check_use, fields};
use super::config::Config;
use super::evidence::Payload;
use super::machine::{Machine, Tenant};
use super::resolver::Resolver;
use crate::metadata::Metadata;
use crate::startup;

/// `azure_msi` of the server.
pub const PLUGIN: Plugin<dyn NodeAttestor> = Plugin {
    name: NAME,
    build: |section, host| Ok(Arc::new(AzureMsi::new(section.decode()?, host.clone())?)),
};

struct AzureMsi {
    config: Config,
    host: Host,
    /// By ID, in lower case.
    tenants: HashMap<String, Arc<Tenant>>,
    keys: KeyCache,
}

#[async_trait]
impl NodeAttestor for AzureMsi {
    async fn verify(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError> {
        let token = peer.examination().check("evidence", read_token(evidence))?;
        let claims = self.check_token(&token, peer.examination()).await?;
        let identity = ManagedIdentity::of(&claims).map_err(AttestError::from);
        let identity = peer.examination().check("managed identity", identity)?;
        let tenant = peer.examination().check("tenant", self.tenant(&identity))?;
        let issuer = check_issuer(&claims, &tenant.config, self.config.services.cloud);
        peer.examination().check("issuer", issuer.map_err(AttestError::from))?;
        let usable = check_use(&claims, &tenant.config, self.host.clock.now());
        peer.examination().check("audience and time", usable.map_err(AttestError::from))?;
        let agent_id = peer.examination().check("agent ID", self.agent_id(&identity, &claims))?;
        peer.admit(&agent_id, false).await?;

        let asked = self.ask_azure(&tenant, &identity, peer.examination());
        let machine = match tokio::time::timeout(crate::ALL_CALLS, asked).await {
            Ok(machine) => machine?,
            Err(_) => peer.examination().check("virtual machine", Err(crate::late()))?,
        };
        let resolver = Box::new(Resolver { tenant, machine });
        Ok(Attested { agent_id, can_reattest: false, resolver })
    }
}

impl AzureMsi {
    /// Makes the attestor. Where a tenant's machines are is asked of the metadata service at once,
    /// unless the section says it.
    fn new(mut config: Config, host: Host) -> Result<Self, PluginError> {
        let mut own = None;
        let mut tenants = HashMap::new();
        for tenant in std::mem::take(&mut config.tenants) {
            let subscription = match (&tenant.subscription_id, &own) {
                (Some(id), _) | (None, Some(id)) => String::clone(id),
                (None, None) => own.insert(own_subscription(&config)?).clone(),
            };
            let id = tenant.tenant_id.clone();
            let ready = Tenant::new(tenant, subscription, &config.services)
                .map_err(|error| PluginError::Unusable(format!("tenant {id:?}: {error}")))?;
            tenants.insert(id, Arc::new(ready));
        }
        let client = Client::new(&config.services.endpoints)
            .map_err(|error| PluginError::Unusable(error.to_string()))?;
        let (services, clock) = (config.services.clone(), host.clock.clone());
        let keys = EntraKeys { client, services, clock: clock.clone() };
        Ok(Self { config, host, tenants, keys: KeyCache::new(keys, clock) })
    }

    /// The claims of a token that Entra has signed.
    async fn check_token(
        &self,
        token: &str,
        examination: &mut Examination,
    ) -> Result<Claims, AttestError> {
        let token = Jws::parse(token.as_bytes(), &Algorithm::ALL).map_err(AttestError::from);
        let token = examination.check("token", token)?;
        let claimed = token.unverified_claims().and_then(|one| ManagedIdentity::of(&one).ok());
        if let Some(ManagedIdentity { tenant_id, principal_id }) = claimed {
            examination.claim(format_args!("identity {principal_id} in tenant {tenant_id}"));
        }
        let key = self.keys.key(token.key_id()).await.map_err(AttestError::from);
        let key = examination.check("token key", key)?;
        examination.check("token signature", token.verify(&key).map_err(AttestError::from))
    }

    fn tenant(&self, identity: &ManagedIdentity) -> Result<Arc<Tenant>, AttestError> {
        let id = &identity.tenant_id;
        let tenant = self.tenants.get(&id.to_ascii_lowercase()).cloned();
        tenant.ok_or_else(|| AttestError::Refused(format!("tenant {id:?} is not authorized")))
    }

    fn agent_id(
        &self,
        identity: &ManagedIdentity,
        claims: &Claims,
    ) -> Result<SpiffeId, AttestError> {
        let mut fields = fields(claims).map_err(AttestError::from)?;
        fields.extend([
            ("PluginName", NAME.into()),
            ("TenantID", identity.tenant_id.as_str().into()),
            ("PrincipalID", identity.principal_id.as_str().into()),
        ]);
        let template = &self.config.agent_path_template;
        template
            .agent_id(&self.host.trust_domain, &Value::map(fields))
            .map_err(|error| AttestError::Refused(error.to_string()))
    }

    /// What Azure must say for the node to be taken: which machine has the identity, that it is in
    /// a subscription that is allowed, and young enough.
    async fn ask_azure(
        &self,
        tenant: &Tenant,
        identity: &ManagedIdentity,
        examination: &mut Examination,
    ) -> Result<Machine, AttestError> {
        let machine = tenant.machine(identity, examination).await;
        let machine = examination.check("virtual machine", machine)?;
        let allowed = self.check_subscription(&machine);
        examination.check("subscription", allowed)?;
        if let Some(limit) = self.config.max_instance_age {
            let created = machine.created.as_deref().and_then(|time| time.parse().ok());
            let age = check_age(created, limit, self.host.clock.now());
            examination.check("instance age", age)?;
        }
        Ok(machine)
    }

    fn check_subscription(&self, machine: &Machine) -> Result<(), AttestError> {
        let id = machine.parts()?.subscription;
        if self.config.allowed_subscriptions.admit(id) {
            return Ok(());
        }
        Err(AttestError::Refused(format!("subscription {id} is not authorized")))
    }
}

/// The subscription that the server's own machine is in.
fn own_subscription(config: &Config) -> Result<String, PluginError> {
    startup::answer(async {
        let metadata =
            Metadata::new(&config.services.endpoints).map_err(|error| error.to_string())?;
        let compute = metadata.instance().await.map_err(|error| {
            format!(
                "unable to find the subscription of this server, which a tenant without \
                 subscription_id, app_id and app_secret needs: {error}"
            )
        })?;
        Ok(compute.subscription_id)
    })
}

fn read_token(evidence: &[u8]) -> Result<String, AttestError> {
    let payload: Payload = read_envelope(evidence, "data payload")?;
    match payload.token.is_empty() {
        true => Err(AttestError::Malformed("missing token from attestation data".to_owned())),
        false => Ok(payload.token),
    }
}
