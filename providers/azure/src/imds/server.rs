//! The server's half: a nonce out, a signed document back, and what Azure says of its machine.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::id::SpiffeId;
use spire_core::node::{
    AttestError, Attested, Examination, NodeAttestor, Peer, check_age, read_envelope,
};
use spire_core::path_template::Value;
use spire_core::pkcs7::SignedData;
use spire_core::remote::Client;

use super::NAME;
use super::config::{Config, ISSUER_CERTIFICATES};
use super::document::{self, Machine, message, nonce};
use super::evidence::{Answer, Hints};
use super::issuer::{Issuer, Issuers};
use super::resolver::{Found, Resolver, find};
use super::scale_set;
use super::signer::Signer;
use super::tenant::{Tenant, resolve};
use crate::startup;

/// `azure_imds` of the server.
pub const PLUGIN: Plugin<dyn NodeAttestor> = Plugin {
    name: NAME,
    build: |section, host| Ok(Arc::new(AzureImds::new(section.decode()?, host.clone())?)),
};

struct AzureImds {
    config: Config,
    host: Host,
    /// By domain, in lower case.
    tenants: HashMap<String, Arc<Tenant>>,
    issuers: Issuers,
}

#[async_trait]
impl NodeAttestor for AzureImds {
    async fn verify(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError> {
        let nonce = nonce()?;
        let answer = match peer.challenge(nonce.clone()).await {
            Ok(answer) => answer,
            Err(error) => return peer.examination().check("challenge", Err(error)),
        };
        let (answer, nonce) = match &answer {
            Some(answer) => (answer.as_slice(), Some(nonce)),
            None => (evidence, None),
        };
        let answer = peer.examination().check("evidence", read_answer(answer))?;
        let address = peer.address();
        let document = self.check_document(&answer, address, peer.examination()).await?;
        let machine = peer.examination().check("machine", document.machine())?;
        match nonce {
            Some(nonce) => peer.examination().check("nonce", document.check_nonce(&nonce))?,
            None => peer.examination().skip("nonce", "only a challenged node can answer it"),
        }
        let fresh = document.check_expiry(self.host.clock.now());
        peer.examination().check("expiry", fresh)?;

        let tenant = peer.examination().check("tenant", self.tenant(&answer.metadata))?;
        let allowed = self.check_subscription(&tenant, &machine);
        peer.examination().check("subscription", allowed)?;
        let agent_id = peer.examination().check("agent ID", self.agent_id(&tenant, &machine))?;
        peer.admit(&agent_id, false).await?;

        let hint = answer.metadata.vmss_name.as_deref();
        let asked = self.ask_azure(&tenant, &machine, hint, peer.examination());
        let found = match tokio::time::timeout(crate::ALL_CALLS, asked).await {
            Ok(found) => found?,
            Err(_) => peer.examination().check("virtual machine", Err(crate::late()))?,
        };
        let resolver = Box::new(Resolver { tenant, machine, found });
        Ok(Attested { agent_id, can_reattest: false, resolver })
    }
}

impl AzureImds {
    /// Makes the attestor; domains of tenants are resolved at once, as all depends on them.
    fn new(config: Config, host: Host) -> Result<Self, PluginError> {
        let unusable =
            |error: spire_core::remote::RemoteError| PluginError::Unusable(error.to_string());
        let services = &config.services;
        let ids = startup::answer(async {
            // A client belongs to the runtime that it was used in.
            let client = Client::new(&services.endpoints).map_err(|error| error.to_string())?;
            let asked = config.tenants.iter().map(|one| resolve(&one.domain, services, &client));
            try_join_all(asked).await
        })?;
        let mut tenants = HashMap::new();
        for (tenant, id) in config.tenants.iter().zip(ids) {
            let ready = Tenant::new(tenant, id, services).map_err(|error| {
                PluginError::Unusable(format!("tenant {:?}: {error}", tenant.domain))
            })?;
            tenants.insert(tenant.domain.to_ascii_lowercase(), Arc::new(ready));
        }
        let client = Client::new(&services.endpoints).map_err(unusable)?;
        let endpoint = services.endpoints.get(ISSUER_CERTIFICATES).cloned();
        let issuers =
            Issuers::new(client, services.cloud.issuer_hosts(), endpoint, host.clock.clone());
        Ok(Self { config, host, tenants, issuers })
    }

    /// The document of `answer`, once its one signer has been found, has signed it, and is a
    /// metadata service of Microsoft's.
    async fn check_document(
        &self,
        answer: &Answer,
        peer: Option<IpAddr>,
        examination: &mut Examination,
    ) -> Result<document::Attested, AttestError> {
        let message = examination.check("document", message(&answer.document))?;
        let message = SignedData::parse(&message).map_err(malformed);
        let message = examination.check("document encoding", message)?;
        let claimed = document::Attested::read(message.unverified_content());
        if let Ok(machine) = claimed.and_then(|document| document.machine()) {
            examination.claim(machine);
        }
        let signer = Signer::of(&message).map_err(malformed);
        let signer = examination.check("document signer", signer)?;
        let content = signer.signed(&message).map_err(malformed);
        let content = examination.check("document signature", content)?;
        examination.check("signer's name", self.check_name(&signer))?;
        let issuer = self.issuer(&signer, peer).await;
        let issuer = examination.check("signer's issuer", issuer)?;
        let now = self.host.clock.now();
        let chain = self.config.roots.check(&signer.der, &issuer.der, now);
        let chain = chain.map_err(|error| {
            malformed(format!("the signer's certificate is not to be trusted: {error}"))
        });
        examination.check("signer's chain", chain)?;
        self.issuers.prove(&issuer).await;
        examination.check("document content", document::Attested::read(content))
    }

    fn check_name(&self, signer: &Signer) -> Result<(), AttestError> {
        if !signer.is_named_in(&self.config.metadata_domains) {
            let names = signer.dns_names().join(", ");
            return Err(malformed(format!(
                "the signer's names ({names}) are not in {}",
                self.config.metadata_domains.join(" or ")
            )));
        }
        if !signer.is_of_server() {
            return Err(malformed("the signer's certificate is not for servers"));
        }
        Ok(())
    }

    async fn issuer(
        &self,
        signer: &Signer,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Issuer>, AttestError> {
        let address = signer.issuer_address();
        let address = address.ok_or_else(|| {
            malformed("the signer does not say where its issuer's certificate is")
        })?;
        self.issuers.certificate(&address, peer).await
    }

    fn tenant(&self, hints: &Hints) -> Result<Arc<Tenant>, AttestError> {
        let tenant = self.tenants.get(&hints.agent_domain.to_ascii_lowercase()).cloned();
        tenant.ok_or_else(|| {
            let domain: String = hints.agent_domain.chars().take(256).collect();
            AttestError::Refused(format!("tenant {domain:?} is not authorized"))
        })
    }

    fn check_subscription(&self, tenant: &Tenant, machine: &Machine) -> Result<(), AttestError> {
        let (of_tenant, id) = (&tenant.subscriptions, &machine.subscription_id);
        let is_of_tenant = of_tenant.is_empty() || of_tenant.contains(id);
        if is_of_tenant && self.config.allowed_subscriptions.admit(id) {
            return Ok(());
        }
        Err(AttestError::Refused(format!("subscription {id} is not authorized")))
    }

    fn agent_id(&self, tenant: &Tenant, machine: &Machine) -> Result<SpiffeId, AttestError> {
        let fields = Value::map([
            ("PluginName", NAME.into()),
            ("TenantID", tenant.tenant_id.as_str().into()),
            ("SubscriptionID", machine.subscription_id.as_str().into()),
            ("VMID", machine.vm_id.as_str().into()),
        ]);
        let template = &self.config.agent_path_template;
        template
            .agent_id(&self.host.trust_domain, &fields)
            .map_err(|error| AttestError::Refused(error.to_string()))
    }

    /// What Azure must say for the node to be taken: that the machine is there, in a subscription
    /// of the tenant that its agent names, and young enough.
    async fn ask_azure(
        &self,
        tenant: &Tenant,
        machine: &Machine,
        hint: Option<&str>,
        examination: &mut Examination,
    ) -> Result<Found, AttestError> {
        let found = find(tenant, machine, hint, examination).await;
        let found = examination.check("virtual machine", found)?;
        let owner = match &found.tenant_id {
            Some(id) => Ok(id.clone()),
            None => tenant.owner(&machine.subscription_id).await.map(|answer| {
                examination.asked(answer.request_id.as_deref());
                answer.value
            }),
        };
        let owner = owner.map_err(|error| {
            error.about("unable to find the tenant of the subscription", examination)
        });
        let owner = owner.and_then(|owner| match owner.eq_ignore_ascii_case(&tenant.tenant_id) {
            true => Ok(()),
            false => Err(AttestError::Refused(format!(
                "subscription {} is not of the tenant that the agent names",
                machine.subscription_id
            ))),
        });
        examination.check("tenant of the subscription", owner)?;
        if let Some(limit) = self.config.max_instance_age {
            let age = check_age(found.created, limit, self.host.clock.now());
            examination.check("instance age", age)?;
        }
        Ok(found)
    }
}

fn read_answer(answer: &[u8]) -> Result<Answer, AttestError> {
    if answer.is_empty() {
        return Err(malformed("missing challenge response"));
    }
    let answer: Answer = read_envelope(answer, "challenge response")?;
    if answer.metadata.vmss_name.as_deref().is_some_and(|name| !scale_set::is_name(name)) {
        return Err(malformed("the name of the scale set is not one that Azure allows"));
    }
    Ok(answer)
}

fn malformed(reason: impl std::fmt::Display) -> AttestError {
    AttestError::Malformed(reason.to_string())
}
