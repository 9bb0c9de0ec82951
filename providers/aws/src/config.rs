//! The server's section, as checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spire_aws_client::StaticKey;
use spire_core::config::{FromSection, Reader};
use spire_core::path_template::PathTemplate;
use spire_core::remote::Endpoints;

use crate::api::{CloudConfig, SERVICES, read_accounts};
use crate::regions::{RegionKeys, is_region};

const AGENT_PATH: &str = "/{{ .PluginName }}/{{ .AccountID }}/{{ .Region }}/{{ .InstanceID }}";
const PARTITIONS: [&str; 8] =
    ["aws", "aws-cn", "aws-us-gov", "aws-eusc", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f"];
const MANAGEMENT_REGION: &str = "us-west-2";
const ACCOUNT_LIST_GOOD_FOR: Duration = Duration::from_secs(180);
const SHORTEST_ACCOUNT_LIST: Duration = Duration::from_secs(60);

/// Which nodes are taken, and what is found out about them.
pub(crate) struct Config {
    pub(crate) policy: Policy,
    pub(crate) agent_path_template: PathTemplate,
    pub(crate) keys: RegionKeys,
    pub(crate) organization: Option<OrganizationConfig>,
    pub(crate) selectors: SelectorConfig,
    pub(crate) cloud: CloudConfig,
}

/// What a node must fulfil.
pub(crate) struct Policy {
    /// Whether a bare signature by a key of 1024 bits is enough.
    pub(crate) allow_rsa1024_signature: bool,
    /// Empty where all are taken.
    pub(crate) allowed_account_ids: Vec<String>,
    /// Empty where all are taken.
    pub(crate) allowed_regions: Vec<String>,
    /// How long ago an instance may have been launched.
    pub(crate) max_instance_age: Option<Duration>,
    pub(crate) skip_block_device: bool,
    /// Accounts whose instances may have any root volume.
    pub(crate) exempt_account_ids: Vec<String>,
}

/// Which selectors there are beside those that always are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SelectorConfig {
    /// Those of IAM roles.
    pub(crate) roles: bool,
    /// Those of VPC, subnet, instance type and Auto Scaling group.
    pub(crate) extra: bool,
}

/// The organization to which a node's account must belong.
pub(crate) struct OrganizationConfig {
    pub(crate) accounts: AccountSource,
    /// How long the list of accounts is good.
    pub(crate) good_for: Duration,
}

/// Where the accounts of an organization are listed.
pub(crate) enum AccountSource {
    Management(ManagementAccount),
    File(PathBuf),
}

/// The account that manages an organization.
#[derive(Debug, Clone)]
pub(crate) struct ManagementAccount {
    pub(crate) account_id: String,
    /// The name of the role that is assumed there.
    pub(crate) role: String,
    pub(crate) region: String,
}

/// Whether `text` is the ID of an account.
pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let cloud = read_cloud(reader);
        let policy = read_policy(reader);
        let organization = match reader.has("verify_organization") {
            true => reader.block_with("verify_organization", read_organization).map(Some),
            false => Some(None),
        };
        check_partition(reader);
        let restricted =
            !policy.allowed_account_ids.is_empty() || !matches!(organization, Some(None));
        let assumes = cloud.as_ref().is_some_and(|cloud| cloud.assume_role.is_some());
        if assumes && !restricted {
            reader.warn(
                "assume_role is set, but neither allowed_account_ids nor verify_organization: any \
                 AWS account that has a role of that name can attest its instances, with tags of \
                 its choice; set allowed_account_ids",
            );
        }
        let agent_path_template = PathTemplate::read(reader, AGENT_PATH);
        let selectors = SelectorConfig {
            roles: !reader.flag("disable_instance_profile_selectors"),
            extra: reader.flag("extra_selectors"),
        };
        Some(Self {
            policy,
            agent_path_template: agent_path_template?,
            keys: read_keys(reader),
            organization: organization?,
            selectors,
            cloud: cloud?,
        })
    }
}

fn read_cloud(reader: &mut Reader<'_>) -> Option<CloudConfig> {
    let static_key = StaticKey::read(reader, None);
    let eks_clusters = match reader.has("validate_eks_cluster_membership") {
        true => reader.block_with("validate_eks_cluster_membership", read_clusters),
        false => Some(Vec::new()),
    };
    let assume_role = reader.string("assume_role");
    let endpoints = Endpoints::read(reader, &SERVICES);
    Some(CloudConfig {
        static_key,
        assume_role,
        eks_clusters: eks_clusters?,
        endpoints: endpoints?,
    })
}

fn read_clusters(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let names = reader.strings("eks_cluster_names").unwrap_or_default();
    if names.is_empty() && !reader.is_mistaken("eks_cluster_names") {
        let sentence = "eks_cluster_names is empty, so that no node would be a member";
        reader.reject("eks_cluster_names", sentence, "name the clusters of the nodes");
    }
    Some(names)
}

fn read_policy(reader: &mut Reader<'_>) -> Policy {
    let allow_rsa1024_signature = reader.boolean("allow_rsa1024_signature").unwrap_or(true);
    if allow_rsa1024_signature {
        reader.warn(
            "allow_rsa1024_signature is true: a node may prove itself with the signature of a key \
             of 1024 bits alone, as agents of SPIRE 0.12 do; set it to false once there are none",
        );
    }
    let allowed_account_ids = accounts(reader, "allowed_account_ids");
    let allowed_regions = reader.strings("allowed_regions").unwrap_or_default();
    if let Some(wrong) = allowed_regions.iter().find(|region| !is_region(region)) {
        let sentence = format!("{wrong:?} is not the name of a region");
        reader.reject("allowed_regions", &sentence, "write names such as us-west-2");
    }
    Policy {
        allow_rsa1024_signature,
        allowed_account_ids,
        allowed_regions,
        max_instance_age: reader.duration("max_instance_age", "max_instance_age"),
        skip_block_device: reader.flag("skip_block_device"),
        exempt_account_ids: accounts(reader, "account_ids_for_local_validation"),
    }
}

fn accounts(reader: &mut Reader<'_>, key: &'static str) -> Vec<String> {
    let accounts = reader.strings(key).unwrap_or_default();
    if let Some(wrong) = accounts.iter().find(|account| !is_account(account)) {
        let sentence = format!("{wrong:?} is not the ID of an account");
        reader.reject(key, &sentence, "write the 12 digits of each account in quotes");
    }
    accounts
}

/// The partition follows from the region of each node; the key is checked all the same.
fn check_partition(reader: &mut Reader<'_>) {
    let Some(partition) = reader.string("partition") else { return };
    reader.warn("partition has no effect: it follows from the region of each node");
    if !PARTITIONS.contains(&partition.as_str()) {
        let sentence = format!("invalid partition {partition:?}, must be one of: {PARTITIONS:?}");
        reader.reject("partition", &sentence, "remove it: it follows from each node's region");
    }
}

fn read_organization(reader: &mut Reader<'_>) -> Option<OrganizationConfig> {
    if reader.is_empty() {
        reader.reject_section(
            "verify_organization is empty",
            "set management_account_id and assume_org_role, or account_list_file",
        );
        return None;
    }
    let good_for = reader.duration("org_account_map_ttl", "org_account_map_ttl");
    if good_for.is_some_and(|good_for| good_for < SHORTEST_ACCOUNT_LIST) {
        let sentence = "org_account_map_ttl must be at least 1m";
        reader.reject("org_account_map_ttl", sentence, "set it to 1m or more");
    }
    let good_for = good_for.unwrap_or(ACCOUNT_LIST_GOOD_FOR);
    let region = reader.string("management_account_region");
    let accounts = match reader.string("account_list_file") {
        Some(file) => read_file(reader, &file)?,
        None => read_management(reader, region.unwrap_or(MANAGEMENT_REGION.to_owned()))?,
    };
    Some(OrganizationConfig { accounts, good_for })
}

fn read_file(reader: &mut Reader<'_>, file: &str) -> Option<AccountSource> {
    let others = ["management_account_id", "assume_org_role"];
    if let Some(other) = others.into_iter().find(|key| reader.has(key)) {
        let sentence = format!("{other} and account_list_file cannot both be configured");
        reader.reject(other, &sentence, "remove one of them");
    }
    if let Err(sentence) = read_accounts(Path::new(file)) {
        let remedy = "name a readable JSON file: an array of account IDs";
        reader.reject("account_list_file", &sentence, remedy);
    }
    Some(AccountSource::File(file.into()))
}

fn read_management(reader: &mut Reader<'_>, region: String) -> Option<AccountSource> {
    let key = "management_account_id";
    let account_id = reader.required(key, "management_account_id is required");
    let role = reader.required("assume_org_role", "assume_org_role is required");
    if account_id.as_ref().is_some_and(|account| !is_account(account)) {
        reader.reject(key, "management_account_id is not the ID of an account", "write 12 digits");
    }
    if !is_region(&region) {
        let sentence = "management_account_region is not the name of a region";
        reader.reject("management_account_region", sentence, "write a name such as us-west-2");
    }
    let (account_id, role) = (account_id?, role?);
    Some(AccountSource::Management(ManagementAccount { account_id, role, region }))
}

fn read_keys(reader: &mut Reader<'_>) -> RegionKeys {
    let mut keys = RegionKeys::published();
    let remedy = "name a folder with files <region>.pem of AWS's certificates";
    let replace = |folder: &str| keys.replace_from(Path::new(folder));
    reader.parsed("certificates_dir", remedy, replace);
    keys
}
