//! A small AWS whose instances may join once each.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Instance, RegionSigner};

use crate::Folder;

const REGION: &str = "us-west-2";

/// A region in which instances are launched.
pub(super) struct Instances {
    aws: Aws,
    signer: Arc<RegionSigner>,
    certificates: PathBuf,
}

impl Instances {
    /// An empty region, whose certificates lie in `folder`.
    pub(super) async fn new(folder: &Folder) -> Result<Self> {
        let (signer, certificates) = (RegionSigner::shared(REGION), folder.join("certificates"));
        fs::create_dir_all(&certificates)?;
        signer.write(&certificates)?;
        Ok(Self { aws: Aws::start().await, signer, certificates })
    }

    /// The block of a server that admits them.
    pub(super) fn node_attestor(&self) -> String {
        format!(
            r#"NodeAttestor "aws_iid" {{
        plugin_data {{
            access_key_id = "AKIAEXAMPLE"
            secret_access_key = "secret"
            certificates_dir = {:?}
            {}
        }}
    }}"#,
            self.certificates,
            self.aws.endpoints()
        )
    }

    /// Launches the instance with this number, and returns what its agent would show.
    pub(super) fn launch(&self, number: usize) -> Vec<u8> {
        let instance = Instance::new(HOME_ACCOUNT, REGION, &format!("i-{number:017x}"));
        let evidence = self.signer.evidence(&instance, false).payload();
        self.aws.launch([instance]);
        evidence
    }
}
