//! Clients and machines that mean no good.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{BatchCreateEntryRequest, CountEntriesRequest};
use spire_localstack_tests::server::entry;
use spire_localstack_tests::{Folder, Server, ServerFile};
use tonic::Code;
use tonic::transport::Channel;

const TROUBLE: &str = "Datastore cannot be written";

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_harms_nobody() {
    let folder = Folder::new().unwrap();
    let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let mut client = EntryClient::new(server.connect().await.unwrap());
    let large = entry("/spire/server", "/large", &format!("unix:user:{}", "x".repeat(4 << 20)));
    let refused = create(&mut client, large).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("larger than max"), "{refused:?}");
    create(&mut client, entry("/spire/server", "/small", "unix:uid:0")).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_the_server_recovers_by_itself() {
    let folder = Folder::new().unwrap();
    let file = ServerFile { disk: Some("4m"), ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    let mut client = EntryClient::new(server.connect().await.unwrap());

    // The disk is in the server's mount namespace.
    let id = server.process().id();
    let data = PathBuf::from(format!("/proc/{id}/root{}", server.data().display()));
    let filler = data.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}

    let mut count = 0;
    let refused = loop {
        let next = entry("/spire/server", &format!("/{count}"), "unix:uid:0");
        match create(&mut client, next).await {
            Ok(()) => count += 1,
            Err(refused) => break refused,
        }
        assert!(count < 10_000, "a full disk takes everything");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    server.process().logged(TROUBLE).await.unwrap();
    assert_eq!(count_entries(&mut client).await, count);

    drop(file); // an open file keeps its space
    fs::remove_file(filler).unwrap();
    create(&mut client, entry("/spire/server", "/after", "unix:uid:0")).await.unwrap();
    assert_eq!(count_entries(&mut client).await, count + 1);
    server.process().stop().await.unwrap();
    // The disk went with the server.
}

#[tokio::test]
async fn a_locked_database_refuses_writes_and_the_server_recovers_by_itself() {
    let folder = Folder::new().unwrap();
    let mut server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let mut client = EntryClient::new(server.connect().await.unwrap());
    create(&mut client, entry("/spire/server", "/before", "unix:uid:0")).await.unwrap();

    let lock = "import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute('BEGIN IMMEDIATE')
print('locked', flush=True)
sys.stdin.read()";
    let mut other = Command::new("python3")
        .args(["-c", lock])
        .arg(server.data().join("datastore.sqlite3"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs (apt-get install python3)");
    // Open until the end: Python dies where its line finds no reader, and the lock goes with it.
    let mut told = other.stdout.take().unwrap();
    told.read_exact(&mut [0; 6]).unwrap();
    let refused = create(&mut client, entry("/spire/server", "/during", "unix:uid:0")).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    server.process().logged(TROUBLE).await.unwrap();
    assert_eq!(count_entries(&mut client).await, 1);

    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    drop(told);
    create(&mut client, entry("/spire/server", "/after", "unix:uid:0")).await.unwrap();
    assert_eq!(count_entries(&mut client).await, 2);
    server.process().stop().await.unwrap();
}

/// Creates one entry: what the call, or the entry in it, was refused with.
async fn create(
    client: &mut EntryClient<Channel>,
    entry: spire_core::wire::types::Entry,
) -> Result<(), tonic::Status> {
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let answer = client.batch_create_entry(request).await?.into_inner();
    let status = answer.results[0].status.clone().unwrap();
    if status.code == 0 {
        Ok(())
    } else {
        Err(tonic::Status::new(status.code.into(), status.message))
    }
}

async fn count_entries(client: &mut EntryClient<Channel>) -> i32 {
    client.count_entries(CountEntriesRequest::default()).await.unwrap().into_inner().count
}
