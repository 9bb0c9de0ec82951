//! What workloads may be handed after a restart.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use spire_agent::cache::{Bundles, Cache, JwtSvids};
use spire_agent::cache_file::{CacheFile, Contents, Owner};
use spire_agent::rotation::due::Renewal;
use spire_agent::storage::Storage;
use spire_core::clock::Clock;
use spire_core::wire::types;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::node::{Authority, Node};

const FILE: &str = "cache.json";

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn entry(path: &str) -> types::Entry {
    types::Entry {
        id: path.trim_start_matches('/').replace('/', "-"),
        spiffe_id: id(path),
        parent_id: id("/spire/agent/x"),
        selectors: vec![types::Selector { r#type: "test".into(), value: "any".into() }],
        ..types::Entry::default()
    }
}

/// The data folder of an agent with an SVID.
struct Folder {
    folder: TempDir,
    storage: Arc<Storage>,
}

impl Folder {
    async fn of(node: &Node) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(Storage::open(folder.path()).unwrap());
        let agent = node.signed(&entry("/spire/agent/x")).await;
        storage.store_svid(&agent.svid, true).unwrap();
        Self { folder, storage }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, cache: Arc<Cache>, jwt_svids: JwtSvids, clock: Clock) -> CacheFile {
        let trust_domain = cache.all_bundles().own.trust_domain.clone();
        CacheFile { trust_domain, storage: self.storage.clone(), cache, jwt_svids, clock }
    }

    fn file_of(&self, node: &Node) -> CacheFile {
        self.file(node.cache.clone(), node.jwt_svids.clone(), node.clock.clone())
    }

    /// The agent after a restart, whose server is away; and whether it has anything to serve.
    fn restart(&self, node: &Node) -> (Arc<Cache>, JwtSvids, bool) {
        let trust_domain = node.authority.bundle().trust_domain;
        let cache = Cache::new(trust_domain, 1000, Renewal::default(), node.clock.clone());
        let away = |_, _| async { Err(Status::failed_precondition("away").into()) }.boxed();
        let hit_timeout = Duration::from_secs(10);
        let jwt_svids = JwtSvids::new(Box::new(away), 1000, hit_timeout, node.clock.clone());
        let file = self.file(cache.clone(), jwt_svids.clone(), node.clock.clone());
        let recovered = file.recover();
        (cache, jwt_svids, recovered)
    }
}

/// A node with two identities, one of which federates, and a token.
async fn node() -> Node {
    let node = Node::start().await;
    node.federate([Authority::new("partner.test").await.bundle()]);
    let federates_with = vec!["partner.test".to_owned()];
    let partner = types::Entry { hint: "external".into(), federates_with, ..entry("/partner") };
    node.authorize([partner, types::Entry { revision_number: 7, ..entry("/app") }]).await;
    let app = node.cache.entries()["app"].clone();
    node.jwt_svids.fetch(&app, &["audience".to_owned()]).await.unwrap();
    node
}

/// Keeps the changes that `change` makes, as an agent does that is stopped right after them.
async fn written(file: CacheFile, change: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let keeping = file.keep(stop.clone());
    change.await;
    stop.cancel();
    keeping.await;
}

type Held = BTreeMap<String, (types::Entry, Option<(Vec<bytes::Bytes>, Vec<u8>, i64)>)>;

fn held(cache: &Cache) -> (Held, Bundles) {
    let (entries, bundles) = cache.contents();
    let plain = entries.iter().map(|(entry, svid)| {
        let wire = spire_core::wire::convert::entry::sent(entry, None);
        let svid = svid.as_ref().map(|it| {
            (it.svid.chain.clone(), it.key.as_pkcs8().to_vec(), it.revision) //
        });
        (entry.id.to_string(), (wire, svid))
    });
    (plain.collect(), bundles)
}

#[tokio::test]
async fn what_was_held_is_held_again_after_a_stop() {
    let node = node().await;
    let folder = Folder::of(&node).await;
    written(folder.file_of(&node), node.renew("/app")).await;
    let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (cache, jwt_svids, recovered) = folder.restart(&node);
    assert!(recovered && cache.can_serve());
    assert_eq!(held(&cache), held(&node.cache));
    assert_eq!(cache.synced_at(), None);
    let (app, audience) = (cache.entries()["app"].clone(), ["audience".to_owned()]);
    let token = jwt_svids.fetch(&app, &audience).await.unwrap();
    assert_eq!(token.token, node.jwt_svids.fetch(&app, &audience).await.unwrap().token);
}

#[tokio::test]
async fn many_changes_are_written_once_a_while_after_the_first() {
    let node = node().await;
    let folder = Folder::of(&node).await;
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(folder.file_of(&node).keep(stop.clone()));
    for _ in 0..3 {
        node.renew("/app").await;
        tokio::task::yield_now().await;
    }
    assert!(!folder.path().join(FILE).exists());
    // The task may not have begun to wait yet: whatever it waits for comes.
    let appears = async {
        while !folder.path().join(FILE).exists() {
            node.clock.advance(SignedDuration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), appears).await.unwrap();
    stop.cancel();
    keeping.await.unwrap();
}

#[tokio::test]
async fn what_has_expired_is_not_served() {
    let node = node().await;
    let folder = Folder::of(&node).await;
    let clock = &node.clock;
    written(folder.file_of(&node), async {
        clock.advance(SignedDuration::from_mins(30));
        node.renew("/app").await;
    })
    .await;
    clock.advance(SignedDuration::from_mins(40));
    let (cache, jwt_svids, recovered) = folder.restart(&node);
    assert!(recovered);
    assert_eq!((cache.counts().entries, cache.counts().x509_svids), (2, 1));
    assert_eq!(jwt_svids.count(), 0);
    clock.advance(SignedDuration::from_mins(40));
    let (cache, _, recovered) = folder.restart(&node);
    assert!(!recovered, "all of it has expired");
    assert_eq!(cache.counts().entries, 0);
}

#[tokio::test]
async fn the_file_of_another_agent_is_ignored() {
    let node = node().await;
    let folder = Folder::of(&node).await;
    written(folder.file_of(&node), node.renew("/app")).await;
    let agent = node.signed(&entry("/spire/agent/y")).await;
    folder.storage.store_svid(&agent.svid, true).unwrap();
    assert!(!folder.restart(&node).2);
}

#[tokio::test]
async fn without_an_svid_of_its_own_an_agent_keeps_nothing() {
    let node = node().await;
    let folder = Folder::of(&node).await;
    written(folder.file_of(&node), node.renew("/app")).await;
    folder.storage.delete_svid().unwrap();
    assert!(!folder.path().join(FILE).exists());
    written(folder.file_of(&node), node.renew("/app")).await;
    assert!(!folder.path().join(FILE).exists());
    fs::write(folder.path().join(FILE), "left behind").unwrap();
    assert!(!folder.restart(&node).2);
    assert!(!folder.path().join(FILE).exists());
}

#[tokio::test]
async fn a_file_that_is_too_large_is_neither_written_nor_read() {
    let node = node().await;
    let folder = Folder::of(&node).await;
    let path = folder.path().join(FILE);
    let larger = usize::try_from(spire_core::limits::MAX_CACHE_FILE_BYTES).unwrap() + 1;
    folder.storage.store_cache(&vec![b' '; larger]).unwrap_err();
    assert!(!path.exists());
    fs::File::create(&path).unwrap().set_len(larger as u64).unwrap();
    assert!(!folder.restart(&node).2);
}

/// A file, whose it is, and when it was written.
static WRITTEN: LazyLock<(Vec<u8>, Owner, jiff::Timestamp)> = LazyLock::new(|| {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let node = node().await;
        let owner = owner(&node);
        let text = Contents::write(&owner, &node.cache, &node.jwt_svids);
        (text.to_vec(), owner, node.clock.now())
    })
});

fn owner(node: &Node) -> Owner {
    let trust_domain = node.authority.bundle().trust_domain;
    let agent_id = trust_domain.member("/spire/agent/x").unwrap();
    Owner { trust_domain, agent_id }
}

fn refusal(text: &str) -> String {
    let (_, owner, now) = &*WRITTEN;
    Contents::read(text.as_bytes(), owner, *now).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let text = String::from_utf8(WRITTEN.0.clone()).unwrap();
    assert!(refusal("").starts_with("it is no cache: EOF"));
    assert_eq!(
        refusal(&text.replacen("\"version\":1", "\"version\":2", 1)),
        "its version is 2, and only 1 is read"
    );
    assert_eq!(
        refusal(&text.replacen("/spire/agent/x", "/spire/agent/y", 1)),
        "it belongs to spiffe://example.org/spire/agent/y, another agent"
    );
    // Messages have no field 0.
    let refused = refusal(&text.replacen("\"bundle\":\"", "\"bundle\":\"AAAA", 1));
    assert!(refused.starts_with("a message in it is malformed: "), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_come_back_as_they_were(
        entries in vec(
            ("[a-z]{1,8}", r"[^\x00]{0,20}", any::<(i64, bool, bool)>(), 0..1_000_000_i64),
            0..6,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let node = Node::start().await;
            let read = entries.into_iter().map(|(name, hint, (revision_number, admin, jti), at)| {
                let additional_attributes = Some(types::entry::AdditionalAttributes {
                    jwt_svid_include_jti: jti,
                    ..Default::default()
                });
                let entry = entry(&format!("/{name}"));
                let created_at = at;
                types::Entry { hint, revision_number, admin, additional_attributes, created_at, ..entry }
            });
            let by_id: BTreeMap<_, _> = read.map(|entry| (entry.id.clone(), entry)).collect();
            node.authorize(by_id.into_values()).await;
            let owner = owner(&node);
            let text = Contents::write(&owner, &node.cache, &node.jwt_svids);
            let contents = Contents::read(&text, &owner, node.clock.now()).unwrap();
            assert_eq!(contents.entries.len(), contents.x509_svids.len());
            let known = node.cache.entries();
            for entry in &contents.entries {
                assert_eq!(entry, &known[&entry.id]);
            }
        });
    }

    #[test]
    fn damaged_files_are_refused_or_read(changes in vec(any::<(Index, u8)>(), 1..4), end: Index) {
        let (text, owner, now) = &*WRITTEN;
        let mut content = text.clone();
        for (at, byte) in changes {
            let at = at.index(content.len());
            content[at] = byte;
        }
        let _ = Contents::read(&content, owner, *now);
        content.truncate(end.index(content.len()));
        prop_assert!(Contents::read(&content, owner, *now).is_err(), "a part of the file is no file");
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let (_, owner, now) = &*WRITTEN;
        prop_assert!(Contents::read(&bytes, owner, *now).is_err());
    }
}
