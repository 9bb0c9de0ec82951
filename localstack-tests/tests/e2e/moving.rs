//! A server moves from its file to PostgreSQL, and the agents do not notice; and from a database
//! that lets nobody in without TLS.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::server::{agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile, command};
use spire_server::store::{Settings, Store};
use spire_test_databases::{Database, Engine, Server as DatabaseServer};

use crate::offline::fetch;

#[tokio::test]
async fn an_agent_goes_on_with_a_server_that_moved_to_postgresql() {
    let folder = Folder::new().unwrap();
    let mut server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let token = server.join_token().await.unwrap();
    let unused = server.join_token().await.unwrap();
    let parent = agent_path(&token);
    let selector = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry(&parent, "/first", &selector)).await.unwrap();
    let lines = "experimental { sync_interval = \"1s\" }".to_owned();
    let file = AgentFile { agent: lines, ..AgentFile::default() };
    let mut agent = Agent::start(&folder, &server, &token, &file).await.unwrap();
    let (before, _) = fetch(&agent, 1).await;
    let shown = [["bundle", "show"], ["agent", "list"], ["entry", "show"]];
    let mut told = Vec::new();
    for words in &shown {
        told.push(server.command(words).await.unwrap());
    }

    let database = Database::new(Engine::Postgres).await.unwrap();
    let file = server.data().join("datastore.sqlite3").display().to_string();
    let (from, to) =
        (format!("sqlite3:{file}"), format!("postgres:{}", database.connection_string()));
    let copy = async || {
        let mut copy = User::current().command(&Binaries::find().unwrap().server).unwrap();
        copy.args(["datastore", "copy", "-from", &from, "-to", &to]);
        command::run(copy).await.unwrap().success()
    };
    let refused = copy().await.unwrap_err().to_string();
    assert!(refused.contains("is in use"), "{refused}");
    server.process().stop().await.unwrap();
    let report = copy().await.unwrap();
    assert!(report.contains("Outcome         : copied"), "{report}");

    let path = folder.path().join("server.conf");
    let text = fs::read_to_string(&path).unwrap();
    let moved = text
        .replace("\"sqlite3\"", &format!("\"{}\"", database.database_type()))
        .replace(&file, &database.connection_string());
    fs::write(&path, moved).unwrap();
    fs::remove_file(&file).unwrap();
    server.start_again().await.unwrap();

    // The same authorities, the same serial number of the agent, the same entry.
    for (words, before) in shown.iter().zip(&told) {
        assert_eq!(&server.command(words).await.unwrap(), before, "{words:?}");
    }
    server.create_entry(entry(&parent, "/second", &selector)).await.unwrap();
    let (svids, tokens) = fetch(&agent, 2).await;
    assert_eq!((svids[0].bundle.clone(), tokens.len()), (before[0].bundle.clone(), 2));
    let log = agent.process().log();
    assert_eq!(log.matches("Node attestation was successful").count(), 1, "{log}");

    // A token that was made before the move admits an agent after it.
    let other = Folder::new().unwrap();
    Agent::start(&other, &server, &unused, &AgentFile::default()).await.unwrap();
}

#[tokio::test]
async fn a_database_is_read_over_tls_with_the_files_that_flags_name() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let server = Arc::new(DatabaseServer::start(engine).await.unwrap());
        let database = Database::on(&server).await.unwrap();
        let kind = database.database_type();
        let settings = Settings::new(kind, &database.connection_string()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        store.create_bundle(Bundle::empty(domain)).await.unwrap();
        store.close().await;
        demand_certificates(&database).await;

        let (address, name, folder) =
            (server.address().unwrap(), database.name(), Folder::new().unwrap());
        let (ip, port) = (address.ip(), address.port());
        let from = match engine {
            Engine::Postgres => format!(
                "postgres:host={ip} port={port} user=prover password=not-secret dbname={name} \
                 sslmode=verify-full"
            ),
            Engine::MariaDb => {
                format!("mysql:prover:not-secret@tcp({address})/{name}?parseTime=true&tls=custom")
            }
        };
        let to = format!("sqlite3:{}", folder.join("datastore.sqlite3").display());
        let copy = async |files: &[(&str, &PathBuf)]| {
            let mut copy = User::current().command(&Binaries::find().unwrap().server).unwrap();
            copy.args(["datastore", "copy", "-from", &from, "-to", &to]);
            for (flag, file) in files {
                copy.arg(flag).arg(file);
            }
            command::run(copy).await.unwrap().success()
        };
        let tls = server.tls().unwrap();
        let root = ("-fromRootCA", &tls.root);
        let own =
            [("-fromClientCert", &tls.client_certificate), ("-fromClientKey", &tls.client_key)];
        copy(&[root]).await.unwrap_err();
        let unknown = copy(&own).await.unwrap_err().to_string();
        assert!(unknown.contains("certificate"), "{unknown}");
        let report = copy(&[root, own[0], own[1]]).await.unwrap();
        assert!(report.contains("Outcome         : copied"), "{report}");
    }
}

/// Has the database let in the user `prover` over TLS with a certificate, and not otherwise.
async fn demand_certificates(database: &Database) {
    let demand = match database.server().engine() {
        Engine::Postgres => {
            "CREATE USER prover SUPERUSER PASSWORD 'not-secret'; \
             COPY (VALUES ('hostssl all prover all scram-sha-256 clientcert=verify-ca'), \
             ('host all prover all reject')) \
             TO PROGRAM 'cat - pg_hba.conf > demand && mv demand pg_hba.conf'; \
             SELECT pg_reload_conf()"
        }
        Engine::MariaDb => {
            "CREATE USER prover@'%' IDENTIFIED BY 'not-secret' REQUIRE X509; \
             GRANT ALL ON *.* TO prover@'%'"
        }
    };
    database.execute(demand).await.unwrap();
    if database.server().engine() == Engine::Postgres {
        let reloaded = "SELECT COUNT(*) FROM (SELECT pg_conf_load_time() AS at) AS conf \
                        WHERE at > pg_postmaster_start_time()";
        while database.number(reloaded).await.unwrap() == 0 {}
    }
}
