//! The authorities above, each with a root that can be replaced.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use spire_core::bundle::certificate_pem;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, PrivateCa};
use spire_localstack_tests::nested::Place;
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::{Folder, command, packages};

pub(super) const REGION: &str = "us-west-2";

/// What the server's CA hangs below.
pub(super) trait Above {
    /// The block that hangs a server below it.
    fn plugin(&self) -> String;
    /// Its root, in PEM.
    async fn root(&self) -> String;
    /// Puts another root in the place of that.
    async fn replace_root(&mut self);
}

/// A CA in files.
pub(super) struct Files(pub(super) Folder);

impl Files {
    pub(super) async fn new() -> Self {
        let mut files = Self(Folder::new().unwrap());
        files.replace_root().await;
        files
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap().trim().to_owned()
    }
}

impl Above for Files {
    fn plugin(&self) -> String {
        let (certificate, key) = (self.0.join("ca.crt"), self.0.join("ca.key"));
        format!(
            "UpstreamAuthority \"disk\" {{ plugin_data {{\n cert_file_path = {certificate:?}\n \
             key_file_path = {key:?}\n}} }}"
        )
    }

    async fn root(&self) -> String {
        self.text("ca.crt")
    }

    async fn replace_root(&mut self) {
        let mut openssl = packages::command("openssl", "openssl").unwrap();
        openssl.current_dir(self.0.path()).args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout ca.key -out \
             ca.crt -days 30 -subj /O=above/CN=root"
                .split_whitespace(),
        );
        command::run(openssl).await.unwrap().success().unwrap();
        // OpenSSL lets nobody else read the key; the server may be another user.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(self.0.join("ca.key"), readable).unwrap();
    }
}

/// The same in Secrets Manager.
pub(super) struct Secrets {
    pub(super) files: Files,
    pub(super) aws: Aws,
}

impl Secrets {
    pub(super) fn tell(&self) {
        for (name, file) in [("cert", "ca.crt"), ("key", "ca.key")] {
            let place = (REGION.to_owned(), name.to_owned());
            self.aws.world().secrets.insert(place, self.files.text(file));
        }
    }
}

impl Above for Secrets {
    fn plugin(&self) -> String {
        format!(
            "UpstreamAuthority \"awssecret\" {{ plugin_data {{\n region = {REGION:?}\n \
             cert_file_arn = \"cert\"\n key_file_arn = \"key\"\n access_key_id = \"AKIA\"\n \
             secret_access_key = \"secret\"\n endpoints {{ secretsmanager = {:?} }}\n}} }}",
            self.aws.url()
        )
    }

    async fn root(&self) -> String {
        self.files.root().await
    }

    async fn replace_root(&mut self) {
        self.files.replace_root().await;
        self.tell();
    }
}

/// A CA of AWS Private CA.
pub(super) struct Pca(pub(super) Aws);

impl Pca {
    pub(super) fn bought(&self) -> usize {
        self.0.world().authorities[0].bought()
    }
}

impl Above for Pca {
    fn plugin(&self) -> String {
        format!(
            "UpstreamAuthority \"aws_pca\" {{ plugin_data {{\n region = {REGION:?}\n \
             certificate_authority_arn = {:?}\n access_key_id = \"AKIA\"\n \
             secret_access_key = \"secret\"\n endpoint = {:?}\n}} }}",
            self.0.world().authorities[0].arn,
            self.0.url()
        )
    }

    async fn root(&self) -> String {
        certificate_pem(self.0.world().authorities[0].root_certificate()).trim().to_owned()
    }

    async fn replace_root(&mut self) {
        let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, false);
        self.0.world().authorities[0].renew(PrivateCa::below(&root, REGION, 365));
    }
}

/// Another server, with an agent that vouches for the one below.
pub(super) struct Spire(pub(super) Place);

impl Spire {
    /// How many roots its agent knows.
    fn known_to_agent(&self) -> usize {
        let kept = fs::read(self.0.agent.data().join("agent-data.json")).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        kept["bundle"].as_array().unwrap().len()
    }
}

impl Above for Spire {
    fn plugin(&self) -> String {
        self.0.upstream_authority()
    }

    /// The one that signs: it was added last.
    async fn root(&self) -> String {
        let file = self.0.folder.join("root.pem");
        match self.0.server.bundle_pem().await {
            Ok(bundle) => {
                let begin = bundle.rfind("-----BEGIN").unwrap();
                fs::write(&file, bundle[begin..].trim()).unwrap();
            }
            // While it is away it has the root that it had.
            Err(_) => assert!(file.exists()),
        }
        fs::read_to_string(file).unwrap()
    }

    async fn replace_root(&mut self) {
        let above = &self.0.server;
        let (known, began) = (self.known_to_agent(), Instant::now());
        above.command(&["localauthority", "x509", "prepare"]).await.unwrap();
        // Else the agent would not know the server again that was away since then.
        while self.known_to_agent() == known {
            assert!(began.elapsed() < PATIENCE, "the agent does not learn of the new root");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let show = ["localauthority", "x509", "show", "-output", "json"];
        let shown: Value = serde_json::from_str(&above.command(&show).await.unwrap()).unwrap();
        let prepared = shown["prepared"]["authority_id"].as_str().unwrap();
        let activate = ["localauthority", "x509", "activate", "-authorityID", prepared];
        above.command(&activate).await.unwrap();
    }
}
