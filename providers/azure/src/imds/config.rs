//! The server's section, as checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spire_core::config::{FromSection, Reader};
use spire_core::path_template::PathTemplate;

use super::roots::Roots;
use crate::cloud::Services;
use crate::credentials::Identity;
use crate::subscriptions::AllowedSubscriptions;

const AGENT_PATH: &str = "/{{ .PluginName }}/{{ .TenantID }}/{{ .SubscriptionID }}/{{ .VMID }}";

/// The service that gives away certificates of CAs, as a key of the block `endpoints`.
pub(super) const ISSUER_CERTIFICATES: &str = "issuer_certificates";

/// How nodes are verified.
pub(super) struct Config {
    pub(super) tenants: Vec<Tenant>,
    /// What the names of a document's signer end in.
    pub(super) metadata_domains: Vec<String>,
    pub(super) roots: Roots,
    pub(super) allowed_subscriptions: AllowedSubscriptions,
    pub(super) max_instance_age: Option<Duration>,
    pub(super) agent_path_template: PathTemplate,
    pub(super) services: Services,
}

/// A tenant whose machines are taken.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) domain: String,
    pub(super) identity: Identity,
    /// The subscriptions whose machines are taken; empty takes all.
    pub(super) subscriptions: BTreeSet<String>,
    /// The tags that become selectors.
    pub(super) tags: BTreeSet<String>,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let services = Services::read(reader, &[ISSUER_CERTIFICATES]);
        let tenants = reader.labelled("tenants", read_tenant);
        if tenants.is_empty() && !reader.is_mistaken_below("tenants") {
            let remedy = "write tenants = { \"example.onmicrosoft.com\" = { … } }";
            reader.reject("tenants", "at least one tenant must be configured", remedy);
        }
        let metadata_domains = read_domains(reader);
        let read = |path: &str| Roots::read(Path::new(path));
        let remedy = "name a readable PEM file of CA certificates";
        let extra = reader.parsed("trust_bundle_path", remedy, read).unwrap_or_default();
        let agent_path_template = read_template(reader);
        let allowed_subscriptions = AllowedSubscriptions::read(reader);
        if allowed_subscriptions.is_empty() {
            warn_of_unbounded(&tenants, reader);
        }
        let max_instance_age = reader.duration("max_instance_age", "max_instance_age");
        let services = services?;
        let default_domain = || vec![services.cloud.metadata_domain().to_owned()];
        Some(Self {
            tenants,
            metadata_domains: metadata_domains.unwrap_or_else(default_domain),
            roots: Roots::embedded().with(extra),
            allowed_subscriptions,
            max_instance_age,
            agent_path_template: agent_path_template?,
            services,
        })
    }
}

/// Every machine that the server's identity sees is taken, unless somebody says which.
fn warn_of_unbounded(tenants: &[Tenant], reader: &mut Reader<'_>) {
    let unbounded = tenants.iter().filter(|tenant| tenant.subscriptions.is_empty());
    let unbounded: Vec<&str> = unbounded.map(|tenant| tenant.domain.as_str()).collect();
    if !unbounded.is_empty() {
        reader.warn(format!(
            "machines of every subscription that this server's identity sees in {} can attest; \
             set restrict_to_subscriptions or allowed_subscription_ids",
            unbounded.join(", ")
        ));
    }
}

fn read_template(reader: &mut Reader<'_>) -> Option<PathTemplate> {
    let template = PathTemplate::read(reader, AGENT_PATH)?;
    if template.mentions(".Nonce") {
        let sentence = "the agent path template must not use .Nonce, by which a node would get \
                        another ID each time";
        reader.reject("agent_path_template", sentence, "leave the field out");
    }
    Some(template)
}

fn read_domains(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let domains = reader.strings("allowed_metadata_domains")?;
    if domains.iter().any(|domain| domain.trim().is_empty()) {
        let sentence = "allowed_metadata_domains must not hold an empty domain";
        reader.reject("allowed_metadata_domains", sentence, "remove it");
    }
    let lower = |domain: &String| domain.trim().to_ascii_lowercase();
    (!domains.is_empty()).then(|| domains.iter().map(lower).collect())
}

fn read_tenant(domain: &str, reader: &mut Reader<'_>) -> Option<Tenant> {
    // SPIRE knows this key too, and does nothing with it.
    reader.know("auth_type");
    let subscriptions = read_names(reader, "restrict_to_subscriptions");
    let tags = reader.strings("allowed_vm_tags").unwrap_or_default();
    let identity = read_identity(reader);
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b".-".contains(&letter);
    if domain.is_empty() || !domain.bytes().all(plain) {
        let sentence = format!("tenant {domain:?} is not a domain");
        reader.reject_section(&sentence, "name the tenant by its domain");
        return None;
    }
    Some(Tenant {
        domain: domain.to_owned(),
        identity: identity?,
        subscriptions,
        tags: tags.into_iter().collect(),
    })
}

fn read_identity(reader: &mut Reader<'_>) -> Option<Identity> {
    let (with_secret, with_token) = (reader.has("secret_auth"), reader.has("token_auth"));
    if with_secret && with_token {
        let sentence = "only one of secret_auth and token_auth can be configured";
        reader.reject("token_auth", sentence, "remove one of them");
    }
    if with_secret {
        return reader.block_with("secret_auth", |reader| {
            let app_id = reader.required("app_id", "secret_auth requires app_id");
            let secret = reader.secret("app_secret");
            if secret.is_none() && !reader.is_mistaken("app_secret") {
                reader.reject("app_secret", "secret_auth requires app_secret", "set app_secret");
            }
            Some(Identity::Secret { app_id: app_id?, secret: secret? })
        });
    }
    if with_token {
        return reader.block_with("token_auth", |reader| {
            let app_id = reader.required("app_id", "token_auth requires app_id");
            let path = reader.required("token_path", "token_auth requires token_path");
            Some(Identity::TokenFile { app_id: app_id?, path: PathBuf::from(path?) })
        });
    }
    reader.know("secret_auth");
    reader.know("token_auth");
    Some(Identity::Default)
}

/// A list of names, none of which may be empty.
fn read_names(reader: &mut Reader<'_>, key: &'static str) -> BTreeSet<String> {
    let names = reader.strings(key).unwrap_or_default();
    let names: BTreeSet<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    if names.contains("") {
        reader.reject(key, &format!("{key} must not hold an empty entry"), "remove it");
    }
    names
}

#[cfg(test)]
mod tests {
    use spire_core::config::Section;

    use super::*;

    fn warnings(tenants: &[(&str, &str)], more: &str) -> Vec<String> {
        let tenants = tenants.iter().map(|(domain, body)| format!("{domain:?} = {{ {body} }}\n"));
        let text = format!("tenants = {{\n{}}}\n{more}", tenants.collect::<String>());
        let section = Section::parse(&text).unwrap();
        let (config, findings) = section.read(Config::read);
        assert!(config.is_some() && findings.mistakes.is_empty(), "{findings:?}");
        findings.warnings.into_iter().map(|warning| warning.message).collect()
    }

    #[test]
    fn tenants_without_a_list_of_subscriptions_are_named() {
        let bounded = ("a.example", r#"restrict_to_subscriptions = ["s"]"#);
        let warned = warnings(&[bounded, ("b.example", ""), ("c.example", "")], "");
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].contains("sees in b.example, c.example can attest"), "{warned:?}");
        assert_eq!(warnings(&[bounded], ""), Vec::<String>::new());
        let for_all = r#"allowed_subscription_ids = ["s"]"#;
        assert_eq!(warnings(&[("b.example", "")], for_all), Vec::<String>::new());
    }
}
