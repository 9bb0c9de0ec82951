//! The server below, whose authorities are made to rotate.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::{Folder, Server, ServerFile, command, packages};

use super::above::Above;

/// The next CA is due after 20 s, it is alarming after 30 s that there is none, and it was to take
/// over after 33 s.
const LIVES: &str = "ca_ttl = \"40s\"\ndisable_jwt_svids = true\n\
                     experimental { rotation_check_interval = \"1s\" }";

const ALARM: &str = "Unable to rotate, and an authority in use ends soon";

/// A server below an upstream.
pub(super) struct Below {
    pub(super) server: Server,
    folder: Folder,
}

impl Below {
    pub(super) async fn start(plugins: String) -> Self {
        let folder = Folder::new().unwrap();
        let file = ServerFile { server: LIVES.to_owned(), plugins, ..ServerFile::default() };
        Self { server: Server::start(&folder, &file).await.unwrap(), folder }
    }

    /// How many authorities there were: the first one, and those since the restart.
    pub(super) fn prepared(&mut self) -> usize {
        1 + self.server.process().log().matches("X509 CA prepared").count()
    }

    pub(super) async fn prepare(&self) {
        self.server.command(&["localauthority", "x509", "prepare"]).await.unwrap();
    }

    pub(super) async fn activate(&self) {
        let prepared = self.authority("prepared").await;
        let activate = ["localauthority", "x509", "activate", "-authorityID", &prepared];
        self.server.command(&activate).await.unwrap();
    }

    pub(super) async fn rotate(&self) {
        self.prepare().await;
        self.activate().await;
    }

    /// The ID of an authority by its state.
    pub(super) async fn authority(&self, state: &str) -> String {
        self.authorities().await[state]["authority_id"].as_str().unwrap_or_default().to_owned()
    }

    async fn authorities(&self) -> Value {
        let show = ["localauthority", "x509", "show", "-output", "json"];
        serde_json::from_str(&self.server.command(&show).await.unwrap()).unwrap()
    }

    /// Taints the root above the former authority, and revokes it.
    pub(super) async fn give_up_former_root(&self) {
        let old = &self.authorities().await["old"];
        let root = old["upstream_authority_subject_key_id"].as_str().unwrap();
        for (word, message) in [
            ("taint", "X.509 upstream authority tainted successfully"),
            ("revoke", "X.509 upstream authority successfully revoked"),
        ] {
            let command = ["upstreamauthority", word, "-subjectKeyID", root];
            self.server.command(&command).await.unwrap();
            let line = self.server.logged(message).await.unwrap();
            assert!(line.contains(&format!("subject_key_id={root}")), "{line}");
        }
    }

    /// An SVID that is made now leads to this root.
    pub(super) async fn verify(&self, root: &str) {
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
    pub(super) async fn goes_on_without(&self, above: &impl Above) -> String {
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
    pub(super) async fn replaces(&mut self, former: &str) {
        let began = Instant::now();
        while self.authority("active").await == former {
            let log = self.server.process().log();
            assert!(began.elapsed() < PATIENCE, "{former} signs for ever:\n{log}");
        }
    }

    /// Changes the database behind the server's back.
    pub(super) fn sql(&self, statement: &str) {
        let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(self.server.data().join("datastore.sqlite3"));
        let output = python.arg(statement).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
