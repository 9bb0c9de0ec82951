//! Four servers on three levels, all of whose authorities rotate, or whose root falls into wrong
//! hands, while a workload below one leaf and one below the other shake hands and check each
//! other's tokens. Nothing ever fails.
//!
//! `SPIRE_ROTATIONS` says how many rotations of each authority are waited for: 3 without it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use spiffe::{WorkloadApiClient, X509Source};
use spiffe_rustls::{TlsStatus, authorizer, mtls_client, mtls_server};
use spire_core::svid::x509::{VerifyError, verify};
use spire_core::wire::local_authority::local_authority_client::LocalAuthorityClient;
use spire_core::wire::local_authority::{
    GetJwtAuthorityStateRequest, GetX509AuthorityStateRequest,
};
use spire_localstack_tests::folder::own_address;
use spire_localstack_tests::nested::{Nested, Place, Settings, WORKLOADS};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::TRUST_DOMAIN;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Folder, Process, command, packages};

use crate::mutual_tls::Handshakes;
use crate::turnover::Held;

/// Each authority lives so long, and makes way for the next after half of that.
const CA_TTL: Duration = Duration::from_secs(90);

#[tokio::test]
async fn nothing_fails_below_different_leaves_while_all_levels_rotate() {
    let wanted = std::env::var("SPIRE_ROTATIONS").map_or(3, |count| count.parse().unwrap());
    let settings = Settings {
        server: format!(
            r#"ca_ttl = "{}s"
    agent_ttl = "15s"
    default_x509_svid_ttl = "15s"
    default_jwt_svid_ttl = "15s"
    experimental {{ rotation_check_interval = "1s" }}"#,
            CA_TTL.as_secs()
        ),
        agent: "experimental { sync_interval = \"1s\" }".to_owned(),
    };
    let nested = Nested::start(&settings, |_| {}).await.unwrap();
    let mut workloads = Workloads::new(&nested).await;
    let mut seen = Rotations::default();
    // Rotations begin after half a life, and the chain of causes from the root down takes another.
    let limit = CA_TTL * (2 + wanted);
    let began = Instant::now();
    let mut moments = tokio::time::interval(Duration::from_millis(100));
    while seen.fewest() < wanted as usize {
        for _ in 0..20 {
            moments.tick().await;
            workloads.shake_hands();
        }
        workloads.check_tokens().await;
        for place in nested.places() {
            seen.look(place).await;
        }
        if began.elapsed().as_secs() / 10 > workloads.openssl_turns {
            workloads.shake_hands_with_openssl().await;
        }
        assert!(began.elapsed() < limit, "{seen:?} after {:?}", began.elapsed());
    }
    let Workloads { handshakes, tokens, openssl_turns, .. } = &workloads;
    println!(
        "{} handshakes, {openssl_turns} of them with OpenSSL, and {tokens} checks of tokens in \
         {:?}: {seen:?}",
        handshakes.done,
        began.elapsed()
    );
    workloads.assert_done(300);
    assert!(*tokens > 30 && *openssl_turns > 3);
    nested.stop().await.unwrap();
}

/// What `docs/nested.md` tells an operator to do, step by step.
#[tokio::test]
async fn everything_below_leaves_a_root_in_wrong_hands_and_nothing_fails() {
    let settings = Settings {
        server: "experimental { rotation_check_interval = \"1s\" }".to_owned(),
        agent: "experimental { sync_interval = \"1s\" }".to_owned(),
    };
    let nested = Nested::start(&settings, |_| {}).await.unwrap();
    let mut workloads = Workloads::new(&nested).await;
    let began = Instant::now();
    let stolen = workloads.held();
    let root = async |words: &str| {
        let words: Vec<_> = words.split(' ').chain(["-output", "json"]).collect();
        let answer = nested.root.server.command(&words).await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let id =
        |answer: &Value, field: &str| answer[field]["authority_id"].as_str().unwrap().to_owned();

    let prepared = id(&root("localauthority x509 prepare").await, "prepared_authority");
    workloads.until(|held| held.bundle.x509_authorities.len() == 2).await;
    root(&format!("localauthority x509 activate -authorityID {prepared}")).await;
    let former = id(&root("localauthority x509 show").await, "old");
    root(&format!("localauthority x509 taint -authorityID {former}")).await;
    workloads.until(|held| held.is_by_a_later_ca(&stolen[0].bundle)).await;
    for place in nested.places() {
        while agents_below_old(place).await > 0 {
            workloads.shake_hands();
            assert!(began.elapsed() < PATIENCE * 2, "agents of the {} stay", place.name);
        }
    }
    root(&format!("localauthority x509 revoke -authorityID {former}")).await;
    workloads.until(|held| held.bundle.x509_authorities.len() == 1).await;
    let prepares = "Current root CA is signed by a tainted upstream authority, preparing rotation";
    nested.middle.server.logged(prepares).await.unwrap();
    let line = nested.middle.server.logged("msg=\"X.509 authority revoked\"").await.unwrap();
    assert!(line.contains(&format!("subject_key_id={former}")), "{line}");
    for (held, stolen) in workloads.held().iter().zip(&stolen) {
        held.assert_valid();
        let refused = verify(&stolen.chain, &held.bundle, Timestamp::now());
        assert_eq!(refused, Err(VerifyError::UnknownAuthority));
    }
    workloads.check_tokens().await;

    println!("all in {:?}", began.elapsed());
    workloads.assert_done(100);
    nested.stop().await.unwrap();
}

/// How many agents of a server have an SVID that its former authority signed.
async fn agents_below_old(place: &Place) -> usize {
    let show = ["authority", "show", "-output", "json"];
    let tree: Value = serde_json::from_str(&place.server.command(&show).await.unwrap()).unwrap();
    let authorities = tree["x509_authorities"].as_array().unwrap();
    let old = authorities.iter().find(|one| one["slot"] == "OLD").unwrap();
    old["agents"].as_str().unwrap().parse().unwrap()
}

/// Which authorities have signed so far, by server and kind.
#[derive(Debug, Default)]
struct Rotations(BTreeMap<(&'static str, &'static str), BTreeSet<String>>);

impl Rotations {
    async fn look(&mut self, place: &Place) {
        let mut client = LocalAuthorityClient::new(place.server.connect().await.unwrap());
        let x509 = client.get_x509_authority_state(GetX509AuthorityStateRequest {}).await.unwrap();
        let jwt = client.get_jwt_authority_state(GetJwtAuthorityStateRequest {}).await.unwrap();
        let (x509, jwt) = (x509.into_inner().active, jwt.into_inner().active);
        for (kind, active) in [("X.509", x509), ("JWT", jwt)] {
            let ids = self.0.entry((place.name, kind)).or_default();
            ids.insert(active.unwrap().authority_id);
        }
    }

    fn fewest(&self) -> usize {
        self.0.values().map(|ids| ids.len() - 1).min().unwrap_or_default()
    }
}

/// The two workloads, and what they have done.
struct Workloads<'n> {
    nested: &'n Nested,
    tls: [(Arc<rustls::ClientConfig>, TlsStatus); 2],
    listeners: [(Arc<rustls::ServerConfig>, TlsStatus); 2],
    sources: Vec<X509Source>,
    clients: [WorkloadApiClient; 2],
    folders: [Folder; 2],
    handshakes: Handshakes,
    openssl_turns: u64,
    tokens: usize,
    /// Tokens that were refused.
    failures: Vec<String>,
}

impl<'n> Workloads<'n> {
    async fn new(nested: &'n Nested) -> Self {
        let (mut tls, mut listeners) = (Vec::new(), Vec::new());
        let (mut sources, mut clients) = (Vec::new(), Vec::new());
        for (leaf, other) in nested.leaves.iter().zip(WORKLOADS.into_iter().rev()) {
            let endpoint = leaf.agent.endpoint();
            let source = X509Source::builder().endpoint(&endpoint).build().await.unwrap();
            let other = format!("spiffe://{TRUST_DOMAIN}{other}");
            let allowed = || authorizer::exact([other.as_str()]).unwrap();
            let (client, status) =
                mtls_client(source.clone()).authorize(allowed()).build_with_status().unwrap();
            tls.push((Arc::new(client), status));
            let (server, status) =
                mtls_server(source.clone()).authorize(allowed()).build_with_status().unwrap();
            listeners.push((Arc::new(server), status));
            sources.push(source);
            clients.push(WorkloadApiClient::connect_to(&endpoint).await.unwrap());
        }
        let mut workloads = Self {
            nested,
            tls: tls.try_into().ok().unwrap(),
            listeners: listeners.try_into().ok().unwrap(),
            sources,
            clients: clients.try_into().ok().unwrap(),
            folders: [Folder::new().unwrap(), Folder::new().unwrap()],
            handshakes: Handshakes::default(),
            openssl_turns: 0,
            tokens: 0,
            failures: Vec::new(),
        };
        workloads.settle().await;
        workloads
    }

    /// Waits until the keys of leaves that have just started are known to each other, which is the
    /// one moment at which a key signs that nobody had time to learn.
    async fn settle(&mut self) {
        let limit = Duration::from_secs(60);
        let began = Instant::now();
        loop {
            self.check_tokens().await;
            if self.failures.is_empty() {
                self.tokens = 0;
                return;
            }
            assert!(began.elapsed() < limit, "{:#?}", self.failures);
            self.failures.clear();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What both hold.
    fn held(&self) -> Vec<Held> {
        self.sources.iter().map(|source| Held::of(&source.x509_context().unwrap())).collect()
    }

    /// Shakes hands until `what` holds for both.
    async fn until(&mut self, what: impl Fn(&Held) -> bool) {
        let began = Instant::now();
        let mut moments = tokio::time::interval(Duration::from_millis(50));
        while !self.held().iter().all(&what) {
            moments.tick().await;
            self.shake_hands();
            assert!(began.elapsed() < PATIENCE, "it takes longer than {PATIENCE:?}");
        }
    }

    /// Both are client once and server once.
    fn shake_hands(&mut self) {
        for (client, server) in [(0, 1), (1, 0)] {
            self.handshakes.shake(&self.tls[client], &self.listeners[server]);
        }
    }

    /// More than `least` handshakes were done, and nothing failed.
    fn assert_done(&self, least: usize) {
        self.handshakes.assert_done(least);
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
    }

    /// Each makes a token for the other, which has its own agent check it.
    async fn check_tokens(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let audience = WORKLOADS[to];
            let token = self.clients[from].fetch_jwt_svid([audience], None).await.unwrap();
            match self.clients[to].validate_jwt_token(audience, token.token()).await {
                Ok(svid) => {
                    let expected = format!("spiffe://{TRUST_DOMAIN}{}", WORKLOADS[from]);
                    assert_eq!(svid.spiffe_id().to_string(), expected);
                    self.tokens += 1;
                }
                Err(error) => self.failures.push(format!("token: {error}")),
            }
        }
    }

    /// The same by what OpenSSL makes of the files that the command writes.
    async fn shake_hands_with_openssl(&mut self) {
        self.openssl_turns += 1;
        for (leaf, folder) in self.nested.leaves.iter().zip(&self.folders) {
            let path = folder.path().display().to_string();
            let fetch = ["api", "fetch", "x509", "-write", &path];
            leaf.agent.command(User::current(), &fetch).await.unwrap().success().unwrap();
        }
        let [client, server] = &self.folders;
        let address = own_address().to_string();
        let mut listening = openssl("s_server", server);
        listening.args(["-accept", &address, "-naccept", "1", "-Verify", "8", "-www"]);
        let mut listening = Process::start("openssl s_server", &mut listening).unwrap();
        listening.logged("ACCEPT").await.unwrap();
        let mut connecting = openssl("s_client", client);
        connecting.args(["-connect", &address, "-verify", "8"]);
        let answer = command::run(connecting).await.unwrap();
        listening.ended().await.unwrap();
        // A client of TLS 1.3 has ended before the server looks at its certificate.
        let is_accepted = listening.log().contains(" 1 server accepts that finished");
        if answer.code == Some(0) && is_accepted {
            self.handshakes.done += 1;
        } else {
            self.handshakes.failures.push(format!("OpenSSL: {answer:?} {}", listening.log()));
        }
    }
}

/// A side of a handshake by OpenSSL, with the files of `folder`.
fn openssl(side: &str, folder: &Folder) -> Command {
    let file = |name: &str| folder.join(name).display().to_string();
    let (svid, key, roots) = (file("svid.0.pem"), file("svid.0.key"), file("bundle.0.pem"));
    let mut command = packages::command("openssl", "openssl").unwrap();
    command.args([side, "-cert", &svid, "-cert_chain", &svid, "-key", &key, "-CAfile", &roots]);
    command.arg("-verify_return_error").stdin(std::process::Stdio::null());
    command
}
