//! The quick start that SPIRE's users know, by the commands that they give: an upstream of one's
//! own, a token, an agent, an entry, and a workload of another Unix user.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::time::Instant;

use spire_localstack_tests::command::{self, Answer};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile, packages};

const HOST: &str = "spiffe://example.org/host";
const WORKLOAD: &str = "spiffe://example.org/workload";
const UNAUTHORIZED: &str = "rpc error: code = PermissionDenied desc = no identity issued\n";

#[tokio::test]
async fn the_quick_start_of_spire_works_and_restarts_lose_nothing() {
    let folder = Folder::new().unwrap();
    let plugins = upstream_authority(&folder).await;
    let file = ServerFile { plugins, ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    let bundle = server.command(&["bundle", "show"]).await.unwrap();
    let token = server.join_token_for(HOST).await.unwrap();
    let mut agent = Agent::start(&folder, &server, &token, &AgentFile::default()).await.unwrap();
    let counted = server.command(&["agent", "count"]).await.unwrap();
    assert_eq!(counted, "1 attested agent\n");

    // Identities for the user who has an entry, and for nobody else.
    let (other, current) = (User::other().unwrap(), User::current());
    create_entry(&server, WORKLOAD, other).await;
    let workload = Workload::new(&folder, other);
    workload.fetches(&agent, WORKLOAD).await;
    workload.svid_is_verified_by_openssl(&bundle).await;
    workload.tokens_are_validated(&agent).await;
    let refused = agent.command(current, &["api", "fetch", "x509"]).await.unwrap();
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), UNAUTHORIZED));
    let why = agent.process().logged(&format!(" uid={}", current.uid)).await.unwrap();
    let lacked = format!("lacks unix:uid:{}", other.uid);
    for part in ["No identity issued", &format!("unix:uid:{}", current.uid), WORKLOAD, &lacked] {
        assert!(why.contains(part), "{part} is not in {why}");
    }

    // The agent comes back without a token.
    agent.process().stop().await.unwrap();
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("SVID loaded"), "the agent attested anew");
    workload.fetches(&agent, WORKLOAD).await;

    // The server comes back with everything, and goes on.
    let entries = server.command(&["entry", "show"]).await.unwrap();
    server.process().stop().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(server.command(&["bundle", "show"]).await.unwrap(), bundle);
    assert_eq!(server.command(&["entry", "show"]).await.unwrap(), entries);
    assert_eq!(server.command(&["agent", "count"]).await.unwrap(), counted);
    workload.fetches(&agent, WORKLOAD).await;
    create_entry(&server, "spiffe://example.org/later", current).await;
    Workload::new(&folder, current).fetches(&agent, "spiffe://example.org/later").await;

    agent.process().stop().await.unwrap();
    server.process().stop().await.unwrap();
}

/// The block of an upstream authority whose key and certificate OpenSSL makes in `folder`.
async fn upstream_authority(folder: &Folder) -> String {
    let (key, certificate) = (folder.join("upstream.key"), folder.join("upstream.crt"));
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let subject = "/C=/ST=/L=/O=/CN=acme.com";
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        subject,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])
    .await;
    format!(
        r#"UpstreamAuthority "disk" {{
        plugin_data {{
            key_file_path = "{key}"
            cert_file_path = "{certificate}"
        }}
    }}"#
    )
}

async fn create_entry(server: &Server, id: &str, user: User) {
    let selector = format!("unix:uid:{}", user.uid);
    let flags = ["-parentID", HOST, "-spiffeID", id, "-selector", &selector];
    let created = server.command(&[&["entry", "create"][..], &flags].concat()).await.unwrap();
    assert!(created.contains(&format!("SPIFFE ID               : {id}\n")), "{created}");
    assert!(created.contains(&format!("Selector                : {selector}\n")), "{created}");
}

/// A user who asks the agent, with a folder for what he gets.
struct Workload {
    user: User,
    folder: String,
}

impl Workload {
    fn new(folder: &Folder, user: User) -> Self {
        let own = folder.join(format!("user-{}", user.uid));
        fs::create_dir(&own).unwrap();
        chown(&own, Some(user.uid), Some(user.gid)).unwrap();
        Self { user, folder: own.display().to_string() }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// Fetches X.509-SVIDs until the agent has heard of the entry.
    async fn fetches(&self, agent: &Agent, id: &str) {
        let began = Instant::now();
        let answer = loop {
            let fetch = ["api", "fetch", "x509", "-write", &self.folder];
            let answer = agent.command(self.user, &fetch).await.unwrap();
            if answer.code == Some(0) {
                break answer;
            }
            assert_eq!(answer.stderr, UNAUTHORIZED);
            assert!(began.elapsed() < PATIENCE, "no {id} for {:?}", self.user);
        };
        let said = answer.stdout;
        assert!(said.starts_with("Received 1 svid after "), "{said}");
        assert!(said.contains(&format!("\nSPIFFE ID:\t\t{id}\n")), "{said}");
        let files = [("svid.0.pem", 0o644), ("svid.0.key", 0o600), ("bundle.0.pem", 0o644)];
        for (name, mode) in files {
            let path = self.file(name);
            assert!(said.contains(&format!(" to file {path}.\n")), "{said}");
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777), (self.user.uid, mode), "{name}");
        }
    }

    async fn svid_is_verified_by_openssl(&self, bundle: &str) {
        let [svid, key, roots] =
            ["svid.0.pem", "svid.0.key", "bundle.0.pem"].map(|name| self.file(name));
        assert_eq!(fs::read_to_string(&roots).unwrap(), bundle);
        let subject = openssl(&["x509", "-noout", "-subject", "-in", &roots]).await;
        assert!(subject.contains("acme.com"), "{subject}");
        let verified = openssl(&["verify", "-CAfile", &roots, "-untrusted", &svid, &svid]).await;
        assert_eq!(verified, format!("{svid}: OK\n"));
        let certified = openssl(&["x509", "-noout", "-pubkey", "-in", &svid]).await;
        assert_eq!(openssl(&["pkey", "-pubout", "-in", &key]).await, certified);
    }

    async fn tokens_are_validated(&self, agent: &Agent) {
        let fetch = ["api", "fetch", "jwt", "-audience", "backend"];
        let fetched = agent.command(self.user, &fetch).await.unwrap().success().unwrap();
        let mut lines = fetched.lines();
        assert_eq!(lines.next(), Some(format!("token({WORKLOAD}):").as_str()), "{fetched}");
        let token = lines.next().unwrap().trim();
        let valid = self.validates(agent, token, "backend").await.success().unwrap();
        let expected = format!("SVID is valid.\nSPIFFE ID : {WORKLOAD}\nClaims    : {{");
        assert!(valid.starts_with(&expected), "{valid}");
        let refused = self.validates(agent, token, "frontend").await;
        let why =
            "SVID is not valid: expected audience in [\"frontend\"] (audience=[\"backend\"])\n";
        assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), why));
    }

    async fn validates(&self, agent: &Agent, token: &str, audience: &str) -> Answer {
        let validate = ["api", "validate", "jwt", "-audience", audience, "-svid", token];
        agent.command(self.user, &validate).await.unwrap()
    }
}

async fn openssl(arguments: &[&str]) -> String {
    let mut openssl = packages::command("openssl", "openssl").unwrap();
    openssl.args(arguments);
    command::run(openssl).await.unwrap().success().unwrap()
}
