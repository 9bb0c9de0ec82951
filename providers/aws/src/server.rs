//! The server's half: evidence → an instance that its region has vouched for, that policy admits
//! and that EC2 knows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::id::SpiffeId;
use spire_core::node::{AttestError, Attested, Examination, NodeAttestor, Peer, check_age};
use spire_core::path_template::Value;

use crate::NAME;
use crate::api::{Account, AccountFile, Cloud, Found, Instance, Organization};
use crate::block_device;
use crate::config::{AccountSource, Config, OrganizationConfig, Policy};
use crate::document::{self, Document};
use crate::members::Members;
use crate::resolver::Resolver;

/// How long all questions to AWS may take on which it depends whether a node may attest, together,
/// and how long those for its selectors.
pub(crate) const QUESTIONS: Duration = Duration::from_secs(20);

/// `aws_iid` of the server.
pub const PLUGIN: Plugin<dyn NodeAttestor> = Plugin {
    name: NAME,
    build: |section, host| {
        let iid = Iid::new(section.decode()?, host).map_err(PluginError::Unusable)?;
        Ok(Arc::new(iid))
    },
};

struct Iid {
    config: Arc<Config>,
    host: Host,
    cloud: Cloud,
    organization: Option<Members>,
}

impl Iid {
    fn new(mut config: Config, host: &Host) -> Result<Self, String> {
        for sentence in config.keys.ending(host.clock.now()) {
            tracing::warn!(plugin_name = NAME, "{sentence}");
        }
        let organization = config.organization.take();
        let asked = std::mem::take(&mut config.cloud);
        let cloud = Cloud::new(asked, host.clock.clone())?;
        let organization = organization.map(|OrganizationConfig { accounts, good_for }| {
            let clock = host.clock.clone();
            match accounts {
                AccountSource::File(path) => {
                    Members::new(Arc::new(AccountFile(path)), good_for, clock)
                }
                AccountSource::Management(management) => {
                    let list = Organization { cloud: cloud.clone(), management };
                    Members::new(Arc::new(list), good_for, clock)
                }
            }
        });
        Ok(Self { config: Arc::new(config), host: host.clone(), cloud, organization })
    }
}

#[async_trait]
impl NodeAttestor for Iid {
    async fn verify(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError> {
        let document = self.prove(evidence, peer)?;
        self.check_policy(&document, peer)?;
        // The tags of an instance are known to EC2 alone.
        let early_id = match self.config.agent_path_template.mentions("Tags") {
            true => None,
            false => Some(self.identify(&document, None, peer).await?),
        };
        let account = self.cloud.account(&document.account_id, &document.region).await;
        let asked = self.ask(&document, &account, peer);
        let instance = match tokio::time::timeout(QUESTIONS, asked).await {
            Ok(instance) => instance?,
            Err(_) => peer.examination().check("instance", Err(too_late()))?,
        };
        let agent_id = match early_id {
            Some(agent_id) => agent_id,
            None => self.identify(&document, Some(&instance), peer).await?,
        };
        let selectors = self.config.selectors;
        let resolver = Resolver { document, instance, account, selectors };
        Ok(Attested { agent_id, can_reattest: false, resolver: Box::new(resolver) })
    }
}

impl Iid {
    /// What the evidence alone proves.
    fn prove(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Document, AttestError> {
        let examination = peer.examination();
        let evidence = examination.check("evidence", document::read_evidence(evidence))?;
        if let Ok(claimed) = document::read(evidence.document.as_bytes()) {
            let Document { account_id, region, instance_id, .. } = claimed;
            examination.claim(format_args!("{account_id}/{region}/{instance_id}"));
        }
        let policy = &self.config.policy;
        let signed = match evidence.rsa2048.is_empty() && !policy.allow_rsa1024_signature {
            true => Err(AttestError::Malformed(
                "no rsa2048 signature of the identity document; update the agent, or set \
                 allow_rsa1024_signature = true"
                    .to_owned(),
            )),
            false => document::verify(&evidence, &self.config.keys),
        };
        examination.check("document signature", signed)
    }

    fn check_policy(&self, document: &Document, peer: &mut dyn Peer) -> Result<(), AttestError> {
        let policy = &self.config.policy;
        let examination = peer.examination();
        if let Some(limit) = policy.max_instance_age {
            let age = check_age(document.pending_time, limit, self.host.clock.now());
            examination.check("instance age", age)?;
        }
        let listed = |list: &[String], key: &str, value: &str| match list.is_empty()
            || list.iter().any(|one| one == value)
        {
            true => Ok(()),
            false => Err(refused(format!("{value} is not in {key}"))),
        };
        let Policy { allowed_account_ids, allowed_regions, .. } = policy;
        let account = listed(allowed_account_ids, "allowed_account_ids", &document.account_id);
        examination.check("allowed account", account)?;
        let region = listed(allowed_regions, "allowed_regions", &document.region);
        examination.check("allowed region", region)
    }

    /// The agent's ID, once it is known that it may attest.
    async fn identify(
        &self,
        document: &Document,
        instance: Option<&Instance>,
        peer: &mut dyn Peer,
    ) -> Result<SpiffeId, AttestError> {
        let tags = instance.map(|instance| instance.tags.as_slice()).unwrap_or_default();
        let tags = tags.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str())));
        let fields = Value::map([
            ("PluginName", NAME.into()),
            ("AccountID", document.account_id.as_str().into()),
            ("Region", document.region.as_str().into()),
            ("InstanceID", document.instance_id.as_str().into()),
            ("TrustDomain", "".into()),
            ("Tags", Value::map(tags)),
        ]);
        let agent_id = self.config.agent_path_template.agent_id(&self.host.trust_domain, &fields);
        let agent_id = agent_id.map_err(|error| refused(error.to_string()));
        let agent_id = peer.examination().check("agent ID", agent_id)?;
        peer.admit(&agent_id, false).await?;
        Ok(agent_id)
    }

    /// What only AWS can say, as far as a refusal depends on it.
    async fn ask(
        &self,
        document: &Document,
        account: &Account,
        peer: &mut dyn Peer,
    ) -> Result<Arc<Instance>, AttestError> {
        let Document { account_id, instance_id, .. } = document;
        if let Some(organization) = &self.organization {
            let what = format!("account {account_id} is not an active one of the organization");
            let member = is_member(organization, account_id, what, peer.examination()).await;
            peer.examination().check("organization", member)?;
        }
        if let Some(clusters) = &account.clusters {
            let what = format!("instance {instance_id} is in no node group of the EKS clusters");
            let member = is_member(clusters, instance_id, what, peer.examination()).await;
            peer.examination().check("EKS cluster membership", member)?;
        }
        let answer = account.instances.describe(instance_id).await;
        let request_id = match &answer {
            Ok(answer) => answer.request_id.clone(),
            Err(error) => error.request_id.clone(),
        };
        peer.examination().asked(request_id.as_deref());
        let instance =
            answer.map_err(AttestError::from).and_then(|answer| the_one(answer.found, document));
        let instance = peer.examination().check("instance", instance)?;
        self.check_block_device(document, &instance, peer)?;
        Ok(instance)
    }

    fn check_block_device(
        &self,
        document: &Document,
        instance: &Instance,
        peer: &mut dyn Peer,
    ) -> Result<(), AttestError> {
        let policy = &self.config.policy;
        let examination = peer.examination();
        if policy.skip_block_device {
            examination.skip("block device", "skip_block_device is set");
            return Ok(());
        }
        if policy.exempt_account_ids.contains(&document.account_id) {
            let why = "the account is one of account_ids_for_local_validation";
            examination.skip("block device", why);
            return Ok(());
        }
        let checked = block_device::check(instance).map_err(|why| {
            refused(format!("failed to verify that the root volume is the first one: {why}"))
        });
        examination.check("block device", checked)
    }
}

async fn is_member(
    list: &Members,
    member: &str,
    sentence: String,
    examination: &mut Examination,
) -> Result<(), AttestError> {
    match list.contains(member).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused(sentence)),
        Err(error) => {
            examination.asked(error.request_id.as_deref());
            Err(error.into())
        }
    }
}

/// The instance that EC2 has found, provided that it is the one of the document.
fn the_one(found: Found, document: &Document) -> Result<Arc<Instance>, AttestError> {
    let Document { account_id, region, instance_id, .. } = document;
    match found {
        Found::One(instance) if instance.image_id == document.image_id => Ok(instance),
        Found::One(_) => {
            Err(refused(format!("instance {instance_id} has another image than its document says")))
        }
        Found::NotOne => {
            Err(refused(format!("EC2 knows no single pending or running instance {instance_id}")))
        }
        // A new instance is not known everywhere at once: its agent tries again.
        Found::Nothing => Err(AttestError::Unavailable(format!(
            "EC2 knows no instance {instance_id} in account {account_id}, region {region}; is \
             assume_role set for nodes of other accounts?"
        ))),
    }
}

/// AWS has not answered within [`QUESTIONS`].
pub(crate) fn too_late() -> AttestError {
    AttestError::Unavailable(format!("AWS did not answer within {} s", QUESTIONS.as_secs()))
}

fn refused(sentence: String) -> AttestError {
    AttestError::Refused(sentence)
}
