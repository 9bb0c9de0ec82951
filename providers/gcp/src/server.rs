//! The server's half: a token → an instance that Google vouches for.

use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::id::SpiffeId;
use spire_core::jws::{Algorithm, Claims, Jws, KeyCache};
use spire_core::node::{AttestError, Attested, NodeAttestor, Peer, check_age};
use spire_core::path_template::Value;
use spire_core::remote::Client;

use crate::NAME;
use crate::api::{Compute, Described};
use crate::certificates::Certificates;
use crate::config::{LookupConfig, ServerConfig};
use crate::credentials::{self, Credentials, Origin};
use crate::metadata::{self, Metadata};
use crate::resolver;
use crate::token::{Instance, InstanceToken, check_standing};

/// The one algorithm that Google signs with.
const ALGORITHMS: [Algorithm; 1] = [Algorithm::Rs256];

/// `gcp_iit` of the server.
pub const PLUGIN: Plugin<dyn NodeAttestor> = Plugin {
    name: NAME,
    build: |section, host| {
        let config = section.decode()?;
        Ok(Arc::new(GcpIit::new(config, host).map_err(PluginError::Unusable)?))
    },
};

struct GcpIit {
    config: ServerConfig,
    host: Host,
    keys: KeyCache,
    compute: Option<Compute>,
}

impl GcpIit {
    fn new(config: ServerConfig, host: &Host) -> Result<Self, String> {
        let client = Client::new(&config.endpoints).map_err(|error| error.to_string())?;
        let certificates =
            Certificates::new(client.clone(), &config.endpoints, host.clock.clone())?;
        let keys = KeyCache::new(certificates, host.clock.clone());
        let compute = match &config.lookup {
            Some(lookup) => Some(compute(client, &config, lookup, host)?),
            None => None,
        };
        Ok(Self { config, host: host.clone(), keys, compute })
    }
}

fn compute(
    client: Client,
    config: &ServerConfig,
    lookup: &LookupConfig,
    host: &Host,
) -> Result<Compute, String> {
    let file = lookup.service_account_file.clone().or_else(credentials::file_of_environment);
    let origin = match file {
        Some(path) => Origin::File(path),
        None => {
            let endpoint = metadata::endpoint(None, metadata::host_of_environment())?;
            let client = Client::of_metadata(&config.endpoints);
            let client = client.map_err(|error| error.to_string())?;
            Origin::Metadata(Metadata::new(client, endpoint))
        }
    };
    let credentials = Credentials::new(origin, client.clone(), host.clock.clone());
    Compute::new(client, config.endpoints.get("compute"), credentials, lookup.clone())
}

#[async_trait]
impl NodeAttestor for GcpIit {
    async fn verify(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError> {
        let claims = self.check_signature(evidence, peer).await?;
        let examination = peer.examination();
        let standing = check_standing(&claims, self.host.clock.now());
        examination.check("audience, issuer and time", standing.map_err(Into::into))?;
        let token = InstanceToken::read(&claims).map_err(Into::into);
        let token = examination.check("instance", token)?;
        examination.check("project", self.check_project(&token.instance))?;
        examination.check("service account", self.check_service_account(&token))?;
        if let Some(limit) = self.config.max_instance_age {
            let age = check_age(Some(token.instance.created_at), limit, self.host.clock.now());
            examination.check("instance age", age)?;
        }
        let agent_id = examination.check("agent ID", self.agent_id(&token))?;
        peer.admit(&agent_id, false).await?;

        let described = self.describe(&token.instance, peer).await?;
        let longest = self.config.lookup.as_ref().map_or(0, |lookup| lookup.max_metadata_value);
        let selectors = resolver::selectors(&token, described.as_deref(), longest);
        let selectors = peer.examination().check("selectors", selectors)?;
        Ok(Attested { agent_id, can_reattest: false, resolver: Box::new(selectors) })
    }
}

impl GcpIit {
    /// What the token claims, once it is known to be Google's.
    async fn check_signature(
        &self,
        evidence: &[u8],
        peer: &mut dyn Peer,
    ) -> Result<Claims, AttestError> {
        let token = Jws::parse(evidence, &ALGORITHMS).map_err(Into::into);
        let token = peer.examination().check("token", token)?;
        let claimed = token.unverified_claims().map(|claims| InstanceToken::read(&claims));
        if let Some(Ok(claimed)) = claimed {
            peer.examination().claim(claimed.instance);
        }
        let key = self.keys.key(token.key_id()).await.map_err(Into::into);
        let key = peer.examination().check("key of the token", key)?;
        let claims = token.verify(&key).map_err(Into::into);
        peer.examination().check("signature of the token", claims)
    }

    fn check_project(&self, instance: &Instance) -> Result<(), AttestError> {
        if self.config.projects.contains(&instance.project_id) {
            return Ok(());
        }
        let project = &instance.project_id;
        Err(refused(format!("identity token project ID {project:?} is not in the allow list")))
    }

    fn check_service_account(&self, token: &InstanceToken) -> Result<(), AttestError> {
        let allowed = &self.config.service_accounts;
        if allowed.is_empty() || !token.subject.is_empty() && allowed.contains(&token.subject) {
            return Ok(());
        }
        if token.email_verified && !token.email.is_empty() && allowed.contains(&token.email) {
            return Ok(());
        }
        let InstanceToken { email, subject, .. } = token;
        Err(refused(format!(
            "service account {email:?} ({subject:?}) is not in service_account_allow_list"
        )))
    }

    fn agent_id(&self, token: &InstanceToken) -> Result<SpiffeId, AttestError> {
        let instance = &token.instance;
        let fields = Value::map([
            ("PluginName", NAME.into()),
            ("ServiceAccount", token.email.replace('@', "_").into()),
            ("ProjectID", instance.project_id.as_str().into()),
            ("ProjectNumber", Value::Integer(instance.project_number)),
            ("Zone", instance.zone.as_str().into()),
            ("InstanceID", instance.id.as_str().into()),
            ("InstanceName", instance.name.as_str().into()),
            ("InstanceCreationTimestamp", Value::Integer(instance.created_at.as_second())),
        ]);
        let template = &self.config.agent_path_template;
        let agent_id = template.agent_id(&self.host.trust_domain, &fields);
        agent_id.map_err(|error| refused(error.to_string()))
    }

    /// What the Compute API says of the instance; nothing where it is not to be asked.
    async fn describe(
        &self,
        instance: &Instance,
        peer: &mut dyn Peer,
    ) -> Result<Option<Arc<Described>>, AttestError> {
        const CHECK: &str = "instance at the Compute API";
        let Some(compute) = &self.compute else {
            peer.examination().skip(CHECK, "use_instance_metadata is not set");
            return Ok(None);
        };
        let found = match compute.describe(instance).await {
            Ok(described) => {
                peer.examination().asked(described.request_id.as_deref());
                confirm(instance, &described).map(|()| Some(described))
            }
            Err(error) => {
                peer.examination().asked(error.request_id());
                Err(error.verdict())
            }
        };
        peer.examination().check(CHECK, found)
    }
}

/// Makes sure that what the API describes is the instance of the token, not one that has its name
/// today, and that it runs.
fn confirm(instance: &Instance, described: &Described) -> Result<(), AttestError> {
    let Described { id, status, .. } = described;
    if *id != instance.id {
        return Err(refused(format!("{instance} is gone; instance {id} has its name now")));
    }
    if status != "RUNNING" {
        return Err(refused(format!("{instance} is {status}, not RUNNING")));
    }
    Ok(())
}

fn refused(reason: String) -> AttestError {
    AttestError::Refused(reason)
}
