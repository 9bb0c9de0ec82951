//! The quick start that SPIRE's users know: an upstream of one's own, a token, an agent, an entry,
//! and a workload of another Unix user.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

#[tokio::test]
async fn a_workload_of_another_user_gets_what_openssl_verifies_and_restarts_lose_nothing() {
    let folder = Folder::new().unwrap();
    let (key, certificate) = (folder.join("upstream.key"), folder.join("upstream.crt"));
    let mut request = Command::new("openssl");
    request.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]);
    request.args(["-subj", "/C=/ST=/L=/O=/CN=acme.com", "-keyout"]).arg(&key);
    succeeds(request.arg("-out").arg(&certificate));
    let plugins = format!(
        r#"UpstreamAuthority "disk" {{
        plugin_data {{
            key_file_path = "{}"
            cert_file_path = "{}"
        }}
    }}"#,
        key.display(),
        certificate.display()
    );
    let file = ServerFile { plugins, ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    let bundle = server.bundle_pem().await.unwrap();
    let token = server.join_token().await.unwrap();
    let mut agent = Agent::start(&folder, &server, &token, &AgentFile::default()).await.unwrap();

    let (other, current) = (User::other().unwrap(), User::current());
    let of = |user: User| format!("unix:uid:{}", user.uid);
    let parent = agent_path(&token);
    server.create_entry(entry(&parent, "/workload", &of(other))).await.unwrap();
    let workload = Workload::new(&folder);
    workload.gets(&agent, other, "/workload").await;
    let (svid, roots) = (workload.file("svid.pem"), workload.file("bundle.pem"));
    assert_eq!(fs::read_to_string(&roots).unwrap(), bundle);
    assert_eq!(fs::read_to_string(&roots).unwrap(), server.bundle_pem().await.unwrap());
    let subject =
        succeeds(Command::new("openssl").args(["x509", "-noout", "-subject", "-in"]).arg(&roots));
    assert!(subject.contains("acme.com"), "{subject}");
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-CAfile"]).arg(&roots).arg("-untrusted").arg(&svid).arg(&svid);
    assert!(succeeds(&mut verify).contains("svid.pem: OK"));

    let refused = workload.asks(&agent, current).await;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(said.contains("no identity issued"), "{said}");

    agent.process().stop().await.unwrap();
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("SVID loaded"), "the agent attested anew");
    workload.gets(&agent, other, "/workload").await;

    server.process().stop().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(server.bundle_pem().await.unwrap(), bundle);
    workload.gets(&agent, other, "/workload").await;
    server.create_entry(entry(&parent, "/later", &of(current))).await.unwrap();
    workload.gets(&agent, current, "/later").await;

    agent.process().stop().await.unwrap();
    server.process().stop().await.unwrap();
}

/// A program that asks the agent for its identities; every user may run it.
struct Workload {
    program: PathBuf,
    folder: PathBuf,
}

impl Workload {
    fn new(folder: &Folder) -> Self {
        let own = folder.join("workload");
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, Permissions::from_mode(0o777)).unwrap();
        // Others may not enter the folder where it was built.
        let program = folder.join("ask");
        fs::copy(env!("CARGO_BIN_EXE_workload"), &program).unwrap();
        Self { program, folder: own }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn asks(&self, agent: &Agent, user: User) -> Output {
        let mut command = user.command(&self.program).unwrap();
        command.arg(agent.endpoint()).arg(&self.folder);
        let output = tokio::process::Command::from(command).output().await.unwrap();
        for file in fs::read_dir(&self.folder).unwrap() {
            // Whoever asks next may write them too.
            fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o666)).unwrap();
        }
        output
    }

    /// Asks until the agent has heard of the entry, and sees both kinds of SVID.
    async fn gets(&self, agent: &Agent, user: User, path: &str) {
        let expected =
            format!("X.509 spiffe://example.org{path}\nJWT spiffe://example.org{path}\n");
        let began = Instant::now();
        loop {
            let output = self.asks(agent, user).await;
            if output.status.success() {
                return assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(began.elapsed() < PATIENCE, "no {path} for {user:?}: {said}");
        }
    }
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("openssl runs (apt-get install openssl)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
