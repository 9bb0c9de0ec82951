//! One story for each upstream authority: a first start below it, a restart, a rotation, a new root
//! above, the upstream away until after the next authority was to take over, and back. OpenSSL
//! judges each chain.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use spire_core::bundle::certificate_pem;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Malice, PrivateCa};
use spire_localstack_tests::nested::{Place, Settings};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::{Folder, Server, ServerFile, command, packages};

const REGION: &str = "us-west-2";

/// The next CA is due after 20 s, it is alarming after 30 s that there is none, and it was to take
/// over after 33 s.
const LIVES: &str = "ca_ttl = \"40s\"\ndisable_jwt_svids = true\n\
                     experimental { rotation_check_interval = \"1s\" }";

const ALARM: &str = "Unable to rotate, and an authority in use ends soon";

/// What the server's CA hangs below.
trait Above {
    /// The block that hangs a server below it.
    fn plugin(&self) -> String;
    /// Its root, in PEM.
    async fn root(&self) -> String;
    /// Puts another root in the place of that.
    async fn replace_root(&mut self);
}

#[tokio::test]
async fn disk() {
    let mut above = Files::new().await;
    let below = settled(&mut above).await;
    // What was read before goes on.
    fs::remove_file(above.0.join("ca.key")).unwrap();
    below.rotate().await;
    below.rotate().await;
    below.server.logged("Unable to read the upstream CA; the one that was read").await.unwrap();
    below.verify(&above.root().await).await;
    above.replace_root().await;
    below.rotate().await;
    below.verify(&above.root().await).await;
}

#[tokio::test]
async fn awssecret() {
    let mut above = Secrets { files: Files::new().await, aws: Aws::start().await };
    above.tell();
    let below = settled(&mut above).await;
    let forbidden = "GetSecretValue".to_owned();
    above.aws.world().forbidden.insert(forbidden.clone());
    below.rotate().await;
    below.rotate().await;
    below.server.logged("Unable to read the upstream CA; the one that was read").await.unwrap();
    below.verify(&above.root().await).await;
    above.replace_root().await;
    above.aws.world().forbidden.remove(&forbidden);
    below.rotate().await;
    below.verify(&above.root().await).await;
}

#[tokio::test]
async fn aws_pca() {
    let aws = Aws::start().await;
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, true);
    aws.world().authorities.push(PrivateCa::below(&root, REGION, 365));
    let mut above = Pca(aws);
    let mut below = settled(&mut above).await;
    assert_eq!(above.bought(), below.prepared());

    // What was bought is used as soon as the database takes it.
    below.sql(
        "CREATE TRIGGER obstacle BEFORE UPDATE ON ca_journals BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    let prepare = ["localauthority", "x509", "prepare"];
    below.server.command(&prepare).await.unwrap_err();
    assert_eq!(above.bought(), below.prepared() + 1);
    below.sql("DROP TRIGGER obstacle");
    below.rotate().await;
    assert_eq!(above.bought(), below.prepared());

    above.0.world().authorities[0].status = "DISABLED".to_owned();
    let active = below.goes_on_without(&above).await;
    above.0.world().authorities[0].status = "ACTIVE".to_owned();
    below.replaces(&active).await;
    below.verify(&above.root().await).await;
    assert_eq!(above.bought(), below.prepared());

    // What it should not have signed is not used.
    let active = below.authority("active").await;
    above.0.world().authorities[0].malice = Some(Malice::OtherKey);
    below.server.command(&prepare).await.unwrap_err();
    let sentence = "its first certificate carries another key than the request";
    below.server.logged(sentence).await.unwrap();
    assert_eq!(below.authority("active").await, active);
    below.verify(&above.root().await).await;
    // The first one was bought before the restart.
    let line = format!("issued={}", above.bought() - 1);
    below.server.logged(&line).await.unwrap();
    let issued = below.server.process().log().matches(" issued=").count();
    assert_eq!(issued, above.bought() - 1);
}

#[tokio::test]
async fn spire() {
    let place = Place::start("above", None, "/below", true, &Settings::default()).await.unwrap();
    let mut above = Spire(place);
    let mut below = settled(&mut above).await;
    above.0.server.process().kill().unwrap();
    let active = below.goes_on_without(&above).await;
    above.0.server.start_again().await.unwrap();
    below.replaces(&active).await;
    below.verify(&above.root().await).await;
}

/// A first start, a restart, a rotation, and a new root.
async fn settled(above: &mut impl Above) -> Below {
    let mut below = Below::start(above.plugin()).await;
    let root = above.root().await;
    below.verify(&root).await;
    let first = below.authority("active").await;

    below.server.process().stop().await.unwrap();
    below.server.start_again().await.unwrap();
    assert_eq!(below.authority("active").await, first);
    assert!(!below.server.process().log().contains("X509 CA prepared"));
    below.verify(&root).await;
    below.rotate().await;
    assert_ne!(below.authority("active").await, first);
    below.verify(&root).await;

    above.replace_root().await;
    let next = above.root().await;
    assert_ne!(next, root);
    below.prepare().await;
    // Everyone knows the new root before it counts.
    let bundle = below.server.bundle_pem().await.unwrap();
    assert!(bundle.contains(&root) && bundle.contains(&next), "{bundle}");
    below.verify(&root).await;
    below.activate().await;
    below.verify(&next).await;
    below
}

/// A server below an upstream.
struct Below {
    server: Server,
    folder: Folder,
}

impl Below {
    async fn start(plugins: String) -> Self {
        let folder = Folder::new().unwrap();
        let file = ServerFile { server: LIVES.to_owned(), plugins, ..ServerFile::default() };
        Self { server: Server::start(&folder, &file).await.unwrap(), folder }
    }

    /// How many authorities there were: the first one, and those since the restart.
    fn prepared(&mut self) -> usize {
        1 + self.server.process().log().matches("X509 CA prepared").count()
    }

    async fn prepare(&self) {
        self.server.command(&["localauthority", "x509", "prepare"]).await.unwrap();
    }

    async fn activate(&self) {
        let prepared = self.authority("prepared").await;
        let activate = ["localauthority", "x509", "activate", "-authorityID", &prepared];
        self.server.command(&activate).await.unwrap();
    }

    async fn rotate(&self) {
        self.prepare().await;
        self.activate().await;
    }

    /// The ID of an authority by its state.
    async fn authority(&self, state: &str) -> String {
        let show = ["localauthority", "x509", "show", "-output", "json"];
        let shown: Value =
            serde_json::from_str(&self.server.command(&show).await.unwrap()).unwrap();
        shown[state]["authority_id"].as_str().unwrap_or_default().to_owned()
    }

    /// An SVID that is made now leads to this root.
    async fn verify(&self, root: &str) {
        let svid = self.folder.join("svid");
        fs::create_dir_all(&svid).unwrap();
        let (to, id) = (svid.display().to_string(), "spiffe://example.org/workload");
        self.server.command(&["x509", "mint", "-spiffeID", id, "-write", &to]).await.unwrap();
        fs::write(svid.join("root.pem"), root).unwrap();
        let mut openssl = packages::command("openssl", "openssl").unwrap();
        openssl.current_dir(&svid);
        openssl.args("verify -CAfile root.pem -untrusted svid.pem svid.pem".split(' '));
        command::run(openssl).await.unwrap().success().unwrap();
    }

    /// When the authority in use was to make way for the next one.
    async fn activates_next_at(&self) -> Timestamp {
        let show = ["authority", "show", "-output", "json"];
        let shown: Value =
            serde_json::from_str(&self.server.command(&show).await.unwrap()).unwrap();
        let authorities = shown["x509_authorities"].as_array().unwrap();
        let active = authorities.iter().find(|one| one["slot"] == "ACTIVE").unwrap();
        let seconds = active["activates_next_at"].as_str().unwrap().parse().unwrap();
        Timestamp::from_second(seconds).unwrap()
    }

    /// Until after the next authority was to take over, the one in use signs what leads to the root
    /// of `above`. Returns its ID.
    async fn goes_on_without(&self, above: &impl Above) -> String {
        let (active, root) = (self.authority("active").await, above.root().await);
        let due = self.activates_next_at().await;
        self.server.logged(ALARM).await.unwrap();
        // A second may have been cut off.
        let wait = due.as_second() + 1 - Timestamp::now().as_second();
        tokio::time::sleep(Duration::from_secs(u64::try_from(wait).unwrap_or_default())).await;
        self.verify(&root).await;
        assert_eq!(self.authority("active").await, active);
        active
    }

    /// Waits until another authority signs than the one with the ID `former`.
    async fn replaces(&mut self, former: &str) {
        let began = Instant::now();
        while self.authority("active").await == former {
            let log = self.server.process().log();
            assert!(began.elapsed() < PATIENCE, "{former} signs for ever:\n{log}");
        }
    }

    /// Changes the database behind the server's back.
    fn sql(&self, statement: &str) {
        let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(self.server.data().join("datastore.sqlite3"));
        let output = python.arg(statement).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// A CA in files.
struct Files(Folder);

impl Files {
    async fn new() -> Self {
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
struct Secrets {
    files: Files,
    aws: Aws,
}

impl Secrets {
    fn tell(&self) {
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
struct Pca(Aws);

impl Pca {
    fn bought(&self) -> usize {
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
struct Spire(Place);

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
