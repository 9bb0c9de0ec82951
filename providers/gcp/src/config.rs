//! The server's section, as checked.

use std::path::PathBuf;
use std::time::Duration;

use spire_core::config::{FromSection, Reader};
use spire_core::path_template::PathTemplate;
use spire_core::remote::Endpoints;

use crate::credentials::CredentialFile;

/// The services whose places may be configured.
const ENDPOINTS: [&str; 2] = ["token_certificates", "compute"];
const DEFAULT_PATH: &str = "/{{ .PluginName }}/{{ .ProjectID }}/{{ .InstanceID }}";
/// Longest value of an instance's metadata that becomes a selector, in bytes.
const MAX_METADATA_VALUE: usize = 128;

/// Which instances the server takes, and what it asks about them.
#[derive(Debug)]
pub(crate) struct ServerConfig {
    /// IDs of the projects whose instances are taken. Never empty.
    pub(crate) projects: Vec<String>,
    /// Emails or numbers of the service accounts whose tokens are taken; empty for all.
    pub(crate) service_accounts: Vec<String>,
    /// How long ago an instance may have been created.
    pub(crate) max_instance_age: Option<Duration>,
    pub(crate) agent_path_template: PathTemplate,
    /// What is asked of the Compute API, where it is asked.
    pub(crate) lookup: Option<LookupConfig>,
    /// `token_certificates` and `compute`, where they are configured.
    pub(crate) endpoints: Endpoints,
}

/// What is asked of the Compute API.
#[derive(Debug, Clone)]
pub(crate) struct LookupConfig {
    /// The file with the credentials; the usual places are searched where it is absent.
    pub(crate) service_account_file: Option<PathBuf>,
    /// Keys of labels that become selectors.
    pub(crate) labels: Vec<String>,
    /// Keys of metadata that become selectors.
    pub(crate) metadata: Vec<String>,
    /// Longest value of metadata that may become a selector, in bytes.
    pub(crate) max_metadata_value: usize,
}

impl FromSection for ServerConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.renamed("projectid_whitelist", "projectid_allow_list");
        let projects = read_projects(reader);
        let service_accounts = reader.strings("service_account_allow_list").unwrap_or_default();
        if service_accounts.is_empty() {
            reader.warn(
                "instances of the allowed projects can attest whatever service account they have, \
                 also those of tenants and of build systems; set service_account_allow_list",
            );
        }
        let max_instance_age = reader.duration("max_instance_age", "max_instance_age");
        let template = PathTemplate::read(reader, DEFAULT_PATH);
        let lookup = read_lookup(reader);
        let endpoints = Endpoints::read(reader, &ENDPOINTS);
        Some(Self {
            projects: projects?,
            service_accounts,
            max_instance_age,
            agent_path_template: template?,
            lookup,
            endpoints: endpoints?,
        })
    }
}

fn read_projects(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    const KEY: &str = "projectid_allow_list";
    let projects = reader.strings(KEY).unwrap_or_default();
    if projects.is_empty() {
        if !reader.is_mistaken(KEY) {
            let remedy = "name the projects whose instances may attest";
            reader.reject(KEY, "projectid_allow_list is required", remedy);
        }
        return None;
    }
    if projects.iter().any(String::is_empty) {
        reader.warn(format!("{} has an empty entry, which fits no project", reader.path_of(KEY)));
    }
    Some(projects)
}

fn read_lookup(reader: &mut Reader<'_>) -> Option<LookupConfig> {
    let asks = reader.flag("use_instance_metadata");
    let remedy = "name a readable JSON file with credentials";
    let service_account_file = reader.parsed("service_account_file", remedy, |path| {
        let path = PathBuf::from(path);
        CredentialFile::read(&path).map(|_| path)
    });
    let labels = reader.strings("allowed_label_keys").unwrap_or_default();
    let metadata = reader.strings("allowed_metadata_keys").unwrap_or_default();
    let longest = reader.integer::<usize>("max_metadata_value_size").filter(|size| *size != 0);
    if !asks {
        for key in ["service_account_file", "allowed_label_keys", "allowed_metadata_keys"] {
            if reader.has(key) {
                let path = reader.path_of(key);
                reader.warn(format!("{path} has no effect without use_instance_metadata = true"));
            }
        }
        return None;
    }
    Some(LookupConfig {
        service_account_file,
        labels,
        metadata,
        max_metadata_value: longest.unwrap_or(MAX_METADATA_VALUE),
    })
}

#[cfg(test)]
mod tests {
    use spire_core::config::{Findings, Section};

    use super::*;

    fn read(text: &str) -> (Option<ServerConfig>, Findings) {
        Section::parse(text).unwrap().read(ServerConfig::read)
    }

    fn messages(text: &str) -> (Vec<String>, Vec<String>) {
        let (_, findings) = read(text);
        (
            findings.mistakes.into_iter().map(|mistake| mistake.message).collect(),
            findings.warnings.into_iter().map(|warning| warning.message).collect(),
        )
    }

    #[test]
    fn defaults_are_those_of_spire() {
        let (config, findings) =
            read("projectid_allow_list = [\"p\"]\nservice_account_allow_list = [\"a@p.example\"]");
        assert_eq!(findings, Findings::default());
        let config = config.unwrap();
        assert_eq!(config.projects, ["p"]);
        assert!(config.lookup.is_none() && config.max_instance_age.is_none());
        let (config, _) = read(
            "projectid_allow_list = [\"p\"]\nuse_instance_metadata = true\n\
             max_metadata_value_size = 0",
        );
        assert_eq!(config.unwrap().lookup.unwrap().max_metadata_value, 128);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let (mistakes, _) = messages(
            "agent_path_template = \"{{\"\nservice_account_file = \"/nowhere\"\n\
             max_instance_age = \"old\"\nmax_metadata_value_size = -1\n\
             endpoints { compute = \"x\" }",
        );
        assert_eq!(mistakes.len(), 6, "{mistakes:?}");
        assert_eq!(mistakes[0], "projectid_allow_list is required");
    }

    #[test]
    fn the_former_spelling_warns_as_does_what_has_no_effect() {
        let (mistakes, warnings) = messages(
            "projectid_whitelist = [\"p\", \"\"]\nallowed_label_keys = [\"a\"]\nuse_metadata = true",
        );
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert!(warnings[0].starts_with("projectid_whitelist is deprecated"), "{warnings:?}");
        assert!(warnings[2].contains("set service_account_allow_list"), "{warnings:?}");
        assert!(warnings[4].contains("use_metadata"), "{warnings:?}");
    }
}
