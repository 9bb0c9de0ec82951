//! Clients of the Workload API that others wrote fetch, watch and validate: the crate `spiffe`, and
//! Python's package `spiffe`.

use std::path::Path;
use std::process::Command;

use spiffe::{BundleSource, JwtSvid, SpiffeId, WorkloadApiClient, X509Source};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Process, Server, ServerFile, command};

const HOST: &str = "spiffe://example.org/host";
const FIRST: &str = "spiffe://example.org/first";
const SECOND: &str = "spiffe://example.org/second";

#[tokio::test]
async fn the_crate_spiffe_fetches_watches_and_validates() {
    let world = World::start().await;
    let client = WorkloadApiClient::connect_to(world.agent.endpoint()).await.unwrap();
    let svid = client.fetch_x509_svid().await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), FIRST);
    let trust_domain = svid.spiffe_id().trust_domain().clone();
    let bundles = client.fetch_x509_bundles().await.unwrap();
    assert_eq!(bundles.get(&trust_domain).unwrap().authorities().len(), 1);

    let token = client.fetch_jwt_svid(["backend"], None).await.unwrap();
    let bundles = client.fetch_jwt_bundles().await.unwrap();
    let checked = JwtSvid::parse_and_validate(token.token(), &bundles, &["backend"]).unwrap();
    assert_eq!(checked.spiffe_id().to_string(), FIRST);
    let checked = client.validate_jwt_token("backend", token.token()).await.unwrap();
    assert_eq!(checked.spiffe_id().to_string(), FIRST);
    client.validate_jwt_token("frontend", token.token()).await.unwrap_err();
    let foreign = SpiffeId::new(SECOND).unwrap();
    let refused = client.fetch_jwt_svid(["backend"], Some(&foreign)).await.unwrap_err();
    assert!(refused.to_string().contains("no identity issued"), "{refused}");

    let source = X509Source::builder().endpoint(world.agent.endpoint()).build().await.unwrap();
    let mut updates = source.updated();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), FIRST);
    world.update_entry().await;
    let renamed = async {
        while source.svid().unwrap().spiffe_id().to_string() != SECOND {
            updates.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, renamed).await.expect("the change comes by itself");
    assert!(source.bundle_for_trust_domain(&trust_domain).unwrap().is_some());
    source.shutdown().await;
}

#[tokio::test]
async fn the_python_package_spiffe_fetches_watches_and_validates() {
    let world = World::start().await;
    let fetched = command::run(python("fetch", &world.agent)).await.unwrap().success().unwrap();
    let lines: Vec<_> = fetched.lines().collect();
    let [x509, by_agent, by_bundle, refused] = lines[..] else { panic!("{fetched}") };
    assert_eq!(x509, format!("X.509 {FIRST}"));
    assert_eq!([by_agent, by_bundle], [format!("JWT {FIRST}"), format!("JWT {FIRST}")]);
    assert!(refused.starts_with("refused ") && refused.contains("audience"), "{refused}");

    let watch = Process::start("python", &mut python("watch", &world.agent)).unwrap();
    watch.logged(&format!("update {FIRST} ")).await.unwrap();
    world.update_entry().await;
    watch.logged(&format!("update {SECOND} ")).await.unwrap();
    assert!(!watch.log().contains("gap"), "{}", watch.log());
}

/// The program `workload.py`, which is a workload of `agent`.
pub(crate) fn python(what: &str, agent: &Agent) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/workload.py");
    let python = spire_localstack_tests::python::python().unwrap();
    let mut command = User::current().command(&python).unwrap();
    command.arg(program).arg(what).arg(agent.endpoint());
    command
}

/// A server and an agent, where the current user is [`FIRST`].
struct World {
    server: Server,
    agent: Agent,
    entry: String,
    selector: String,
    _folder: Folder,
}

impl World {
    async fn start() -> Self {
        let folder = Folder::new().unwrap();
        let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
        let token = server.join_token_for(HOST).await.unwrap();
        let selector = format!("unix:uid:{}", User::current().uid);
        let flags = ["-parentID", HOST, "-spiffeID", FIRST, "-selector", &selector];
        let created = server.command(&[&["entry", "create"][..], &flags].concat()).await.unwrap();
        let id = created.lines().find_map(|line| line.strip_prefix("Entry ID                : "));
        let entry = id.expect("the entry has an id").to_owned();
        let agent = Agent::start(&folder, &server, &token, &AgentFile::default()).await.unwrap();
        Self { server, agent, entry, selector, _folder: folder }
    }

    /// Makes the current user [`SECOND`].
    async fn update_entry(&self) {
        let Self { entry, selector, .. } = self;
        let flags = ["-entryID", entry, "-parentID", HOST, "-spiffeID", SECOND];
        let update = [&["entry", "update"], &flags[..], &["-selector", selector]].concat();
        self.server.command(&update).await.unwrap();
    }
}
