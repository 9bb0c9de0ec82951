//! Small clouds for the demo: in each one instance, how server and agent are configured for it, and
//! a selector that the cloud vouches for.

use std::fs;
use std::str::FromStr;

use spire_fakes::aws::{Aws, HOME_ACCOUNT, Imds, Instance, Mode, RegionSigner};
use spire_fakes::azure::{APP, APP_SECRET, Azure, DOMAIN, Machine};
use spire_fakes::gcp::{Google, Metadata, Vm};

use crate::folder::Folder;

const REGION: &str = "us-west-2";

/// Where a node may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Microsoft Azure.
    Azure,
}

/// A cloud with an instance. It is there until this goes away.
#[derive(Debug)]
pub struct Cloud {
    /// What it is called, and its instance.
    pub title: String,
    /// The block of the server's node attestor.
    pub of_server: String,
    /// The block of the agent's, on that instance.
    pub of_agent: String,
    /// A selector that the instance gets.
    pub selector: &'static str,
    _services: Services,
}

#[derive(Debug)]
#[expect(dead_code, reason = "services are held so that they go on")]
enum Services {
    Aws(Aws, Imds),
    Gcp(Google, Metadata),
    Azure(Azure),
}

impl FromStr for Provider {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match name {
            "aws" => Ok(Self::Aws),
            "gcp" => Ok(Self::Gcp),
            "azure" => Ok(Self::Azure),
            _ => anyhow::bail!("no cloud {name:?}: it is aws, gcp or azure"),
        }
    }
}

impl Cloud {
    /// Starts a cloud; what it hands out as files lies in `folder`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub async fn start(provider: Provider, folder: &Folder) -> anyhow::Result<Self> {
        match provider {
            Provider::Aws => aws(folder).await,
            Provider::Gcp => Ok(gcp().await),
            Provider::Azure => azure(folder).await,
        }
    }
}

async fn aws(folder: &Folder) -> anyhow::Result<Cloud> {
    let aws = Aws::start().await;
    let mut instance = Instance::new(HOME_ACCOUNT, REGION, "i-0b22a22eec53b9321");
    instance.tags = vec![("Role".to_owned(), "web".to_owned())];
    aws.launch([instance.clone()]);
    let imds = Imds::of(Mode::Version2, &instance).await;
    let certificates = folder.join("certificates");
    fs::create_dir_all(&certificates)?;
    RegionSigner::shared(REGION).write(&certificates)?;
    let of_server = format!(
        r#"NodeAttestor "aws_iid" {{
        plugin_data {{
            access_key_id = "AKIAEXAMPLE"
            secret_access_key = "secret"
            allowed_account_ids = ["{HOME_ACCOUNT}"]
            certificates_dir = "{}"
            {}
        }}
    }}"#,
        certificates.display(),
        aws.endpoints()
    );
    Ok(Cloud {
        title: format!("AWS: instance {} in {REGION}, tagged Role=web", instance.id),
        of_server,
        of_agent: attestor("aws_iid", &imds.endpoints()),
        selector: "aws_iid:tag:Role:web",
        _services: Services::Aws(aws, imds),
    })
}

async fn gcp() -> Cloud {
    let google = Google::start().await;
    let mut vm = Vm::new("web-1", 4_567_890_123_456_789);
    vm.labels = vec![("role".to_owned(), "web".to_owned())];
    let metadata = google.launch(&vm).await;
    let of_server = format!(
        r#"NodeAttestor "gcp_iit" {{
        plugin_data {{
            projectid_allow_list = ["{}"]
            {}
        }}
    }}"#,
        vm.project_id,
        google.server_endpoints()
    );
    let endpoints = format!("endpoints {{ metadata = {:?} }}", metadata.server().url());
    Cloud {
        title: format!("Google Cloud: instance {} in {}", vm.name, vm.project_id),
        of_server,
        of_agent: attestor("gcp_iit", &endpoints),
        selector: "gcp_iit:instance-name:web-1",
        _services: Services::Gcp(google, metadata),
    }
}

async fn azure(folder: &Folder) -> anyhow::Result<Cloud> {
    let azure = Azure::start().await;
    let machine = azure.add_machine(Machine::new("web"));
    let root = folder.join("azure-root.pem");
    fs::write(&root, azure.pki.root_pem())?;
    let of_server = format!(
        r#"NodeAttestor "azure_imds" {{
        plugin_data {{
            tenants = {{
                "{DOMAIN}" = {{ secret_auth = {{ app_id = "{APP}", app_secret = "{APP_SECRET}" }} }}
            }}
            trust_bundle_path = "{}"
            {}
        }}
    }}"#,
        root.display(),
        azure.server_endpoints_with_issuers()
    );
    let of_agent =
        format!("tenant_domain = \"{DOMAIN}\"\n            {}", azure.agent_endpoints(&machine));
    Ok(Cloud {
        title: format!("Azure: virtual machine {} in {}", machine.name, machine.group),
        of_server,
        of_agent: attestor("azure_imds", &of_agent),
        selector: "azure_imds:vm-name:web",
        _services: Services::Azure(azure),
    })
}

fn attestor(name: &str, settings: &str) -> String {
    format!(
        "NodeAttestor {name:?} {{\n        plugin_data {{\n            {settings}\n        }}\n    }}"
    )
}
