//! The server's section, as checked.

use std::time::Duration;

use spire_core::config::{FromSection, Reader};
use spire_core::path_template::PathTemplate;

use super::DEFAULT_RESOURCE;
use crate::cloud::{Services, is_uuid};
use crate::credentials::Identity;
use crate::subscriptions::AllowedSubscriptions;

const AGENT_PATH: &str = "/{{ .PluginName }}/{{ .TenantID }}/{{ .PrincipalID }}";

/// How nodes are verified.
pub(super) struct Config {
    pub(super) tenants: Vec<Tenant>,
    pub(super) allowed_subscriptions: AllowedSubscriptions,
    pub(super) max_instance_age: Option<Duration>,
    pub(super) agent_path_template: PathTemplate,
    pub(super) services: Services,
}

/// A tenant whose machines are taken.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) tenant_id: String,
    /// Whom its tokens must be for.
    pub(super) resource_id: String,
    pub(super) identity: Identity,
    /// Where its machines are; `None` stands for where the server's own machine is.
    pub(super) subscription_id: Option<String>,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let services = Services::read(reader, &[]);
        let use_msi = read_use_msi(reader);
        let tenants = reader.labelled("tenants", |id, reader| read_tenant(id, use_msi, reader));
        if tenants.is_empty() && !reader.is_mistaken_below("tenants") {
            let remedy = "write tenants = { \"<tenant ID>\" = { … } }";
            reader.reject("tenants", "configuration must have at least one tenant", remedy);
        }
        if tenants.iter().any(|tenant| tenant.resource_id == DEFAULT_RESOURCE) {
            reader.warn(format!(
                "tokens for {DEFAULT_RESOURCE} prove their node, but whoever else gets one can act \
                 as that node in Azure; set resource_id here and on the agents to an application \
                 of your own, or use azure_imds"
            ));
        }
        let allowed_subscriptions = AllowedSubscriptions::read(reader);
        let max_instance_age = reader.duration("max_instance_age", "max_instance_age");
        let agent_path_template = PathTemplate::read(reader, AGENT_PATH);
        Some(Self {
            tenants,
            allowed_subscriptions,
            max_instance_age,
            agent_path_template: agent_path_template?,
            services: services?,
        })
    }
}

fn read_tenant(id: &str, use_msi: bool, reader: &mut Reader<'_>) -> Option<Tenant> {
    let use_msi = read_use_msi(reader) || use_msi;
    let resource_id = reader.string("resource_id");
    let subscription_id = reader.string("subscription_id");
    let app_id = reader.string("app_id");
    let secret = reader.secret("app_secret");
    let given = [subscription_id.is_some(), app_id.is_some(), secret.is_some()];
    if given.contains(&true) && given.contains(&false) {
        for (key, is_given) in ["subscription_id", "app_id", "app_secret"].into_iter().zip(given) {
            if !is_given && !reader.is_mistaken(key) {
                let sentence = format!("misconfigured tenant {id:?}: missing {key}");
                reader.reject(key, &sentence, &format!("set {key}, or none of the three"));
            }
        }
    }
    if use_msi && given.contains(&true) {
        let sentence =
            format!("misconfigured tenant {id:?}: use_msi and app credentials exclude each other");
        reader.reject_section(&sentence, "remove use_msi, or the three keys of the application");
    }
    if !is_uuid(id) {
        let sentence = format!("misconfigured tenant {id:?}: it is not the ID of a tenant");
        reader.reject_section(&sentence, "name the tenant by its ID, not by its domain");
    }
    let identity = match (app_id, secret) {
        (Some(app_id), Some(secret)) => Identity::Secret { app_id, secret },
        _ => Identity::Default,
    };
    Some(Tenant {
        tenant_id: id.to_ascii_lowercase(),
        resource_id: resource_id.unwrap_or_else(|| DEFAULT_RESOURCE.to_owned()),
        identity,
        subscription_id,
    })
}

/// `use_msi` says what is so anyway where no application is named.
fn read_use_msi(reader: &mut Reader<'_>) -> bool {
    let use_msi = reader.flag("use_msi");
    if reader.has("use_msi") {
        let sentence = "use_msi is deprecated; leave out the keys of an application instead";
        reader.deprecated(sentence, "use_msi");
    }
    use_msi
}

#[cfg(test)]
mod tests {
    use spire_core::config::Section;

    use super::*;

    fn warnings(tenant: &str) -> Vec<String> {
        let id = "8f2a7c11-9a4e-4f0b-8d6c-3b1d0f5e7a01";
        let section = Section::parse(&format!("tenants = {{ {id:?} = {{ {tenant} }} }}")).unwrap();
        let (config, findings) = section.read(Config::read);
        assert!(config.is_some() && findings.mistakes.is_empty(), "{findings:?}");
        findings.warnings.into_iter().map(|warning| warning.message).collect()
    }

    #[test]
    fn an_audience_that_manages_azure_is_warned_about() {
        for tenant in ["", r#"resource_id = "https://management.azure.com/""#] {
            let warnings = warnings(tenant);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("set resource_id here and on the agents"), "{warnings:?}");
        }
        assert_eq!(warnings(r#"resource_id = "api://spire""#), Vec::<String>::new());
    }
}
