//! Database servers that go away, and what the store does about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use spire_server::store::{EntryFilter, Settings, Store, StoreError};
use spire_test_databases::{Database, Engine, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{entry, private};

const ENGINES: [Engine; 2] = [Engine::Postgres, Engine::MariaDb];

async fn create(store: &Store, name: &str) -> Result<(), StoreError> {
    let one = entry(name, &format!("/{name}"), &["a:1"]);
    store.create_entries(vec![one]).await?.remove(0).map(drop)
}

async fn count(store: &Store) -> u64 {
    store.count_entries(&EntryFilter::default()).await.unwrap()
}

#[tokio::test]
async fn a_server_that_stops_refuses_writes_and_costs_none_once_it_is_back() {
    for engine in ENGINES {
        let server = Arc::new(Server::start(engine).await.unwrap());
        let database = Database::on(&server).await.unwrap();
        let text = database.connection_string();
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        create(&store, "before").await.unwrap();
        assert_eq!(count(&store).await, 1);
        server.stop().unwrap();
        for name in ["a", "b"] {
            let refused = create(&store, name).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        server.start_again().await.unwrap();
        create(&store, "after").await.unwrap();
        assert_eq!(count(&store).await, 2);
        server.kill().unwrap();
        server.start_again().await.unwrap();
        // The connections of before are lost, and nobody notices.
        create(&store, "again").await.unwrap();
        assert_eq!(count(&store).await, 3);

        server.stop().unwrap();
        let opening = tokio::spawn(async move { Store::open(&settings).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!opening.is_finished(), "a server that is away at the start is waited for");
        server.start_again().await.unwrap();
        assert_eq!(count(&opening.await.unwrap()).await, 3);
    }
}

/// When the connection is cut that a commit goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    /// The database does not get to know of it.
    BeforeCommit,
    /// Nobody gets to know that it took place.
    AfterCommit,
}

/// Passes connections on to `to`; `cut` tells which to cut, once.
async fn proxy(to: SocketAddr) -> (SocketAddr, watch::Sender<Cut>) {
    let (sender, cut) = watch::channel(Cut::Never);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = sender.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, to, cut.clone(), sent.clone()));
        }
    });
    (address, sender)
}

async fn pass(
    client: TcpStream,
    to: SocketAddr,
    cut: watch::Receiver<Cut>,
    sent: watch::Sender<Cut>,
) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
        let cut = *cut.borrow();
        let commits = bytes[..length].windows(6).any(|window| window == b"COMMIT");
        if commits && cut != Cut::Never {
            answers.abort();
            sent.send_replace(Cut::Never);
            if cut == Cut::AfterCommit {
                let _ = to_server.write_all(&bytes[..length]).await;
                // The database does what it was told before it sees that nobody is there.
                let _ = to_server.shutdown().await;
            }
            return;
        }
        if to_server.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_done_once() {
    for engine in ENGINES {
        let database = private(engine).await;
        let address = database.server().address().unwrap();
        let (through, cut) = proxy(address).await;
        let text = database.connection_string().replace(&address.to_string(), &through.to_string());
        let settings = Settings::new(database.database_type(), &text).unwrap();
        let store = Store::open(&settings).await.unwrap();
        for (number, kind) in [Cut::BeforeCommit, Cut::AfterCommit].into_iter().enumerate() {
            cut.send_replace(kind);
            let before = store.latest_revision().await.unwrap();
            create(&store, &format!("{number}")).await.unwrap();
            assert_eq!(*cut.borrow(), Cut::Never, "{engine:?} {kind:?}: nothing was cut");
            let after = store.latest_revision().await.unwrap();
            assert_eq!(after.0, before.0 + 1, "{engine:?} {kind:?}");
        }
        assert_eq!(count(&store).await, 2);
    }
}
