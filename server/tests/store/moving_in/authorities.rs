//! CA journals, and whether a server goes on with the authorities in them.

use spire_core::clock::Clock;
use spire_core::keys::memory::MemoryKeyManager;
use spire_core::keys::{KeyManager, KeyType};
use spire_core::svid::x509::{CaTemplate, Issuer, authority_id};
use spire_core::tasks::Tasks;
use spire_server::authority::{self, Authority, Parts};
use spire_test_databases::spire::messages::{Entries, JwtKeyEntry, PublicKey, X509CaEntry, status};
use tokio::sync::watch;
use x509_cert::der::pem::{LineEnding, encode_string};

use super::*;
use crate::each_database;

each_database! {
    case_16_each_server_goes_on_with_its_own_authorities,
    case_16_what_older_releases_did_not_write_follows_from_the_certificates,
    case_16_journals_that_ended_long_ago_are_skipped,
    case_16_a_ca_that_was_revoked_is_not_used_again,
    case_17_a_journal_in_the_data_folder_is_copied_too,
    case_18_a_ca_below_an_upstream_needs_no_root_of_its_own,
}

/// A server of SPIRE's: its keys, its journal, and what of it is in the bundle.
struct SpireServer {
    keys: Arc<MemoryKeyManager>,
    journal: Entries,
    roots: Vec<Certificate>,
    jwt_keys: Vec<PublicKey>,
    /// By which it finds its journal.
    id: String,
}

impl SpireServer {
    async fn new() -> Self {
        let mut server = Self {
            keys: Arc::new(MemoryKeyManager::new()),
            journal: Entries::default(),
            roots: Vec::new(),
            jwt_keys: Vec::new(),
            id: String::new(),
        };
        server.id = server.prepare("A", status::ACTIVE, NOW - 3600).await;
        server
    }

    /// Makes authorities in a slot, as of `issued_at`; returns the id of the CA.
    async fn prepare(&mut self, slot: &str, status: i32, issued_at: i64) -> String {
        let key = self.generate(&format!("x509-CA-{slot}")).await;
        let ca = ca_from(&key, at(issued_at)).await;
        self.roots.push(root(&ca, false));
        self.add_ca(slot, status, issued_at, &key, ca, Vec::new());

        let key = self.generate(&format!("JWT-Signer-{slot}")).await;
        let public_key = key.public_key().spki.to_vec();
        let (kid, not_after) = (format!("kid-{slot}-{issued_at}"), issued_at + 24 * 3600);
        self.jwt_keys.push(PublicKey {
            pkix_bytes: public_key.clone(),
            kid: kid.clone(),
            not_after,
            tainted_key: false,
        });
        self.journal.jwt_keys.push(JwtKeyEntry {
            slot_id: slot.to_owned(),
            issued_at,
            not_after,
            kid: kid.clone(),
            public_key,
            status,
            authority_id: kid,
        });
        self.journal.x509_cas.last().unwrap().authority_id.clone()
    }

    async fn generate(&self, id: &str) -> Arc<dyn SigningKey> {
        self.keys.generate(id, KeyType::EcP256).await.unwrap()
    }

    fn add_ca(
        &mut self,
        slot: &str,
        status: i32,
        issued_at: i64,
        key: &Arc<dyn SigningKey>,
        certificate: Bytes,
        upstream_chain: Vec<Vec<u8>>,
    ) {
        self.journal.x509_cas.push(X509CaEntry {
            slot_id: slot.to_owned(),
            issued_at,
            certificate: certificate.to_vec(),
            upstream_chain,
            status,
            authority_id: authority_id(&key.public_key().spki).unwrap(),
            not_after: issued_at + 24 * 3600,
            upstream_authority_id: String::new(),
        });
    }

    fn kid(&self) -> String {
        self.journal.jwt_keys[0].kid.clone()
    }

    /// Starts a server of ours with these keys: what it signs X.509-SVIDs and JWT-SVIDs with.
    async fn goes_on(&self, store: &Store) -> [String; 2] {
        let settings = authority::Settings {
            trust_domain: domain("example.org"),
            ca_key_type: KeyType::EcP256,
            jwt_key_type: KeyType::EcP256,
            ca_subject: Subject::default(),
            ca_ttl: Duration::from_secs(24 * 3600),
            default_x509_svid_ttl: Duration::from_secs(3600),
            default_jwt_svid_ttl: Duration::from_secs(300),
            agent_ttl: Duration::from_secs(3600),
            jwt_issuer: None,
            disable_jwt_svids: false,
            rotation_check_interval: Duration::from_secs(10),
        };
        let parts = Parts {
            settings,
            store: store.clone(),
            keys: self.keys.clone(),
            upstream: None,
            bundle: watch::Sender::new(Arc::new(Bundle::empty(domain("example.org")))),
            clock: Clock::standing_at(at(NOW)),
        };
        let tasks = Tasks::new();
        let started = Authority::start(parts, &tasks).await.unwrap();
        let states = [authority::Kind::X509, authority::Kind::Jwt].map(|kind| started.states(kind));
        assert!(tasks.drain(Duration::from_secs(10)).await);
        states.map(|states| states.active.as_ref().unwrap().authority_id.clone())
    }
}

/// The bundle with the authorities of all these servers.
fn bundle_of(servers: &[&SpireServer]) -> messages::Bundle {
    messages::Bundle {
        root_cas: servers.iter().flat_map(|server| server.roots.clone()).collect(),
        jwt_signing_keys: servers.iter().flat_map(|server| server.jwt_keys.clone()).collect(),
        sequence_number: 7,
        ..empty("example.org")
    }
}

async fn case_16_each_server_goes_on_with_its_own_authorities(kind: Kind) {
    let (mut one, mut two) = (SpireServer::new().await, SpireServer::new().await);
    let nameless = SpireServer::new().await;
    one.prepare("B", status::PREPARED, NOW - 60).await;
    two.prepare("B", status::OLD, NOW - 7200).await;
    two.journal.x509_cas.rotate_right(1);
    let mut spire = spire(kind, schema_of(kind, 16)).await;
    spire.bundle(&bundle_of(&[&one, &two, &nameless]));
    spire.ca_journal(&one.id, &one.journal);
    spire.ca_journal(&two.id, &two.journal);
    // Some releases leave the column empty for a while.
    spire.ca_journal("", &nameless.journal);
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();
    assert!(copied.report.source_title.contains("trust domain example.org"));
    let before = copied.dump().await;
    let ids: Vec<_> =
        before.journals.iter().map(|journal| journal.active_x509_authority_id.as_str()).collect();
    assert_eq!(ids, [one.id.as_str(), &two.id, &nameless.id]);
    assert_eq!(before.journals[0].expires_at, at(NOW - 60 + 24 * 3600));
    for server in [&one, &two, &nameless] {
        let expected = [server.id.clone(), server.kid()];
        assert_eq!(server.goes_on(&copied.store).await, expected);
    }
    assert_eq!(copied.dump().await, before, "nothing was made anew");

    // A server without the keys has authorities of its own.
    let stranger = SpireServer { keys: Arc::new(MemoryKeyManager::new()), ..one };
    assert_ne!(stranger.goes_on(&copied.store).await[0], stranger.id);
    let after = copied.bundles().await.pop().unwrap();
    assert_eq!(after.x509_authorities.len(), before.bundles[0].x509_authorities.len() + 1);
}

async fn case_16_what_older_releases_did_not_write_follows_from_the_certificates(kind: Kind) {
    let mut server = SpireServer::new().await;
    server.prepare("B", status::UNKNOWN, NOW - 60).await;
    let newest = server.journal.x509_cas[1].authority_id.clone();
    for entry in &mut server.journal.x509_cas {
        (entry.status, entry.not_after) = (status::UNKNOWN, 0);
        entry.authority_id.clear();
    }
    for entry in &mut server.journal.jwt_keys {
        entry.status = status::UNKNOWN;
        entry.authority_id.clear();
    }
    let mut spire = spire(kind, 23).await;
    spire.bundle(&bundle_of(&[&server]));
    spire.ca_journal("", &server.journal);
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();
    let before = copied.dump().await;
    assert_eq!(before.journals[0].active_x509_authority_id, newest);
    assert_eq!(before.journals[0].expires_at, at(NOW - 60 + 24 * 3600));
    let kid = server.journal.jwt_keys[1].kid.clone();
    assert_eq!(server.goes_on(&copied.store).await, [newest, kid]);
    assert_eq!(copied.dump().await, before);
}

async fn case_16_journals_that_ended_long_ago_are_skipped(kind: Kind) {
    const DAY: i64 = 24 * 3600;
    let ended = async |days: i64| {
        let mut server = SpireServer::new().await;
        server.journal = Entries::default();
        server.prepare("A", status::ACTIVE, NOW - days * DAY - DAY).await;
        server
    };
    let (recent, long_ago) = (ended(13).await, ended(15).await);
    let mut spire = spire(kind, schema_of(kind, 16)).await;
    spire.bundle(&bundle_of(&[&recent, &long_ago]));
    spire.ca_journal(&recent.id, &recent.journal);
    let old = spire.ca_journal(&long_ago.id, &long_ago.journal);
    let none = spire.ca_journal("00", &Entries::default());
    let data = ("data", b"\xff\xff".to_vec().into());
    let broken = spire.row("ca_journals", &[data, ("active_x509_authority_id", "ff".into())]);
    let copied = copied(&mut spire, kind).await;
    let names = [old, none, broken].map(|row| format!("row {row}"));
    let causes = [Cause::Expired, Cause::Expired, Cause::Unreadable];
    let expected: Vec<_> = names.iter().map(String::as_str).zip(causes).collect();
    assert_eq!(copied.skipped("ca_journals"), expected);
    assert_eq!(copied.dump().await.journals.len(), 1);
    // Its CA has ended.
    assert_ne!(recent.goes_on(&copied.store).await[0], recent.id);
}

async fn case_16_a_ca_that_was_revoked_is_not_used_again(kind: Kind) {
    let server = SpireServer::new().await;
    let mut spire = spire(kind, schema_of(kind, 16)).await;
    spire.bundle(&messages::Bundle { root_cas: Vec::new(), ..bundle_of(&[&server]) });
    spire.ca_journal(&server.id, &server.journal);
    let copied = copied(&mut spire, kind).await;
    let [x509, jwt] = server.goes_on(&copied.store).await;
    assert_ne!(x509, server.id);
    assert_eq!(jwt, server.kid());
}

/// Until 1.8 the journal was in a file alone; 1.9 wrote both.
async fn case_17_a_journal_in_the_data_folder_is_copied_too(kind: Kind) {
    let server = SpireServer::new().await;
    let folder = tempfile::tempdir().unwrap();
    let data = prost::Message::encode_to_vec(&server.journal);
    let pem = encode_string("SPIRE CA JOURNAL", LineEnding::LF, &data).unwrap();
    let file = folder.path().join("journal.pem");
    let data_dir = || Some(folder.path().to_owned());

    let mut spire = spire(kind, 23).await;
    spire.bundle(&bundle_of(&[&server]));
    let nothing = copied_into(&mut spire, kind, data_dir()).await;
    assert_eq!(nothing.report.remarks.total(), 1, "the folder holds no journal");
    std::fs::write(&file, pem).unwrap();
    let copied = copied_into(&mut spire, kind, data_dir()).await;
    copied.is_complete();
    let before = copied.dump().await;
    assert_eq!(before.journals.len(), 1);
    assert_eq!(server.goes_on(&copied.store).await, [server.id.clone(), server.kid()]);
    assert_eq!(copied.dump().await, before);

    spire.ca_journal(&server.id, &server.journal);
    let both = copied_into(&mut spire, kind, data_dir()).await;
    assert_eq!(both.dump().await.journals.len(), 1);
    let [remark] = &both.report.remarks.items[..] else { panic!("{:?}", both.report.remarks) };
    assert!(remark.text.contains("is in the database"), "{}", remark.text);

    std::fs::write(&file, "-----BEGIN X-----\nAAAA\n-----END X-----\n").unwrap();
    let target = Location::new(kind).await;
    let order = Order { data_dir: data_dir(), ..order(source(&spire), &target) };
    let error = run(&order).await.unwrap_err().to_string();
    assert!(error.contains("journal.pem: it holds a block \"X\""), "{error}");
}

async fn case_18_a_ca_below_an_upstream_needs_no_root_of_its_own(kind: Kind) {
    let upstream = key();
    let top = ca(&upstream).await;
    let issuer = Issuer::root(top.clone(), upstream).unwrap();
    let mut server = SpireServer::new().await;
    server.journal.x509_cas.clear();
    let key = server.generate("x509-CA-A").await;
    let template = CaTemplate {
        trust_domain: &domain("example.org"),
        public_key: &key.public_key().spki,
        subject: &Subject::default(),
        ttl: Duration::from_secs(12 * 3600),
    };
    let chain = issuer.sign_ca(&template, at(NOW - 3600)).await.unwrap();
    let chain_bytes = chain.iter().map(|der| der.to_vec()).collect();
    server.add_ca("A", status::ACTIVE, NOW - 3600, &key, chain[0].clone(), chain_bytes);
    server.id = server.journal.x509_cas[0].authority_id.clone();
    server.roots = vec![root(&top, false)];
    let mut spire = spire(kind, schema_of(kind, 18)).await;
    spire.bundle(&bundle_of(&[&server]));
    spire.ca_journal(&server.id, &server.journal);
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();
    let before = copied.dump().await;
    // The id of the upstream's authority follows from the certificate.
    let top_id = issuer.authority_id().as_bytes();
    let data = &before.journals[0].data;
    assert!(data.windows(top_id.len()).any(|part| part == top_id));
    assert_eq!(server.goes_on(&copied.store).await, [server.id.clone(), server.kid()]);
    assert_eq!(copied.dump().await, before);
}
