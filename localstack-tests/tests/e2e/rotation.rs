//! Everything turns over while workloads listen: their entry, their SVIDs, the CA, the key of
//! JWT-SVIDs. Whatever they hold is valid at every moment.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{Stream, StreamExt};
use spiffe::{JwtBundleSet, JwtSvid, WorkloadApiClient, WorkloadApiError, X509Context};
use spire_core::wire::entry::BatchUpdateEntryRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_localstack_tests::server::member;
use spire_localstack_tests::{Folder, Process};

use crate::clients::python;
use crate::turnover::{self, Held, LIMIT};

const BEFORE: &str = "spiffe://example.org/before";
const AFTER: &str = "spiffe://example.org/after";

#[tokio::test]
async fn live_streams_see_no_gap_while_entry_svids_and_ca_turn_over() {
    let folder = Folder::new().unwrap();
    let server = turnover::server(&folder).await;
    let (agent, mut entry) = turnover::agent(&folder, &server, "/before").await;
    let client = WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap();
    let mut listener = Listener::new(client.stream_x509_contexts().await.unwrap()).await;
    assert_eq!(listener.svid().id.to_string(), BEFORE);
    let roots = listener.held.bundle.clone();
    // The same stream, read and judged by another library in another language.
    let python = Process::start("python", &mut python("watch", &agent)).unwrap();
    python.logged(&format!("update {BEFORE}")).await.unwrap();

    entry.spiffe_id = Some(member("/after"));
    let update = BatchUpdateEntryRequest { entries: vec![entry], ..Default::default() };
    let mut entries = EntryClient::new(server.connect().await.unwrap());
    entries.batch_update_entry(update).await.unwrap();
    listener.until(|held| held.assert_valid().id.to_string() == AFTER).await;
    let (leaf, seen) = (listener.held.chain[0].clone(), listener.leaves.len());
    listener.until(|held| held.chain[0] != leaf).await;
    listener.until(|held| held.is_by_a_later_ca(&roots)).await;

    // Two rotations at least lie between the entry's change and the new CA. An update brings a new
    // SVID or new roots, but for one at most: the next key of JWT-SVIDs changes the bundle too.
    let Listener { leaves, updates, repeated, .. } = &listener;
    let rotated = leaves.len() - seen;
    assert!((2..20).contains(&rotated), "{rotated} rotations in {updates} updates");
    assert!(*repeated <= 1, "{repeated} of {updates} updates say nothing new");
    let last = listener.svid();
    assert_eq!(last.id.to_string(), AFTER);
    python.logged(&format!("update {AFTER} {}", last.serial)).await.unwrap();
    let said = python.log();
    assert!(said.lines().all(|line| line.starts_with("update ")), "{said}");
    let missed: Vec<_> = leaves.iter().filter(|serial| !said.contains(*serial)).collect();
    assert!(missed.is_empty(), "{missed:?} are not in {said}");
}

#[tokio::test]
async fn fresh_tokens_are_valid_by_the_bundle_that_is_held_while_keys_turn_over() {
    let folder = Folder::new().unwrap();
    let server = turnover::server(&folder).await;
    let (agent, _) = turnover::agent(&folder, &server, "/before").await;
    let client = WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap();
    let mut updates = client.stream_jwt_bundles().await.unwrap();
    let mut held: JwtBundleSet = updates.next().await.unwrap().unwrap();
    let (mut keys, mut tokens, mut bundles) = (BTreeSet::new(), BTreeSet::new(), 1);
    let mut moments = tokio::time::interval(Duration::from_millis(100));
    let followed = async {
        while keys.len() < 2 {
            tokio::select! {
                next = updates.next() => {
                    held = next.unwrap().unwrap();
                    bundles += 1;
                }
                _ = moments.tick() => {
                    let svid = client.fetch_jwt_svid(["backend"], None).await.unwrap();
                    let checked = JwtSvid::parse_and_validate(svid.token(), &held, &["backend"]);
                    assert_eq!(checked.unwrap().spiffe_id().to_string(), BEFORE);
                    client.validate_jwt_token("backend", svid.token()).await.unwrap();
                    keys.insert(svid.key_id().to_owned());
                    tokens.insert(svid.token().to_owned());
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, followed).await.expect("the key turns over in time");
    // The next key is known before it signs; a token is used again for half of its life.
    assert!(bundles >= 2, "{bundles} bundles");
    assert!((3..30).contains(&tokens.len()), "{} tokens", tokens.len());
}

/// Who follows a stream of X.509-SVIDs.
struct Listener<S> {
    answers: S,
    held: Held,
    /// Serial numbers of the SVIDs.
    leaves: BTreeSet<String>,
    updates: usize,
    /// Updates that said what the last one had said.
    repeated: usize,
}

impl<S: Stream<Item = Result<X509Context, WorkloadApiError>> + Unpin> Listener<S> {
    async fn new(mut answers: S) -> Self {
        let held = Held::of(&answers.next().await.unwrap().unwrap());
        let leaves = BTreeSet::from([held.assert_valid().serial]);
        Self { answers, held, leaves, updates: 1, repeated: 0 }
    }

    fn svid(&self) -> spire_core::svid::x509::X509Svid {
        self.held.assert_valid()
    }

    /// Follows the stream until `what`; whatever is held is valid until the next answer is there.
    async fn until(&mut self, what: impl Fn(&Held) -> bool) {
        let followed = async {
            while !what(&self.held) {
                let next = Held::of(&self.answers.next().await.unwrap().unwrap());
                self.held.assert_valid();
                let is_same = next.chain == self.held.chain && next.bundle == self.held.bundle;
                self.repeated += usize::from(is_same);
                self.updates += 1;
                self.held = next;
                self.leaves.insert(self.svid().serial);
            }
        };
        tokio::time::timeout(LIMIT, followed).await.expect("it turns over in time");
    }
}
