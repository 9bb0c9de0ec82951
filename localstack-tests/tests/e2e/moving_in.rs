//! SPIRE's server is stopped and ours goes on in its place: with its database, its keys, and an
//! agent that SPIRE's own agent left behind. No agent attests anew and no workload notices.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use spire_core::bundle::certificate_pem;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{Issuer, LeafTemplate, Subject, X509Svid, authority_id, self_sign_ca};
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::server::TRUST_DOMAIN;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile, command};
use spire_test_databases::Database;
use spire_test_databases::Engine as DatabaseEngine;
use spire_test_databases::spire::messages::{
    Bundle, Certificate, Entries, JwtKeyEntry, PublicKey, X509CaEntry, status,
};
use spire_test_databases::spire::{Kind, Origin, SpireDatabase};

use crate::offline::fetch;

const ALIAS: &str = "spiffe://example.org/host";
const AGENT: &str = "spiffe://example.org/spire/agent/join_token/2c6a7b1e";
const WORKLOAD: &str = "spiffe://example.org/workload";
const KID: &str = "kKJ0mYcTgYCPlxXq6R5oGmWyAfbzTuD3";
const CREATED: i64 = 1_790_000_000;

/// What a SPIRE server and its agent leave on their disks.
struct Left {
    spire: SpireDatabase,
    ca: Bytes,
    ca_id: String,
    svid: X509Svid,
    jwt_not_after: i64,
}

/// Writes the files of both into `folder`, where ours will look for them.
async fn left_in(folder: &Folder, kind: Kind) -> Left {
    let now = Timestamp::now();
    let [ca_key, jwt_key, agent_key] =
        [(); 3].map(|()| LocalKey::generate_blocking(KeyType::EcP256).unwrap());
    let keys = [("x509-CA-A", &ca_key), ("JWT-Signer-A", &jwt_key)];
    write_keys(&folder.join("server"), &keys);
    write_keys(&folder.join("agent/data"), &[("agent-svid-B", &agent_key)]);

    let issued_at = now.as_second() - 3600;
    let issued = Timestamp::from_second(issued_at).unwrap();
    let (subject, day) = (Subject::default(), Duration::from_secs(24 * 3600));
    let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let ca = self_sign_ca(&ca_key, &trust_domain, &subject, day, issued).await.unwrap();
    let ca_id = authority_id(&ca_key.public_key().spki).unwrap();
    let template = LeafTemplate {
        id: &AGENT.parse::<SpiffeId>().unwrap(),
        public_key: &agent_key.public_key().spki,
        dns_names: &[],
        subject: None,
        ttl: Duration::from_secs(12 * 3600),
    };
    let issuer = Issuer::root(ca.clone(), Arc::new(ca_key)).unwrap();
    let svid = issuer.sign_leaf(&template, now).await.unwrap();
    write_agent_data(&folder.join("agent/data/agent-data.json"), &svid, &ca);

    let jwt_not_after = issued_at + 24 * 3600;
    let public_key = jwt_key.public_key().spki.to_vec();
    let mut spire = SpireDatabase::new(kind, 25, Origin::Fresh).await.unwrap();
    spire.bundle(&Bundle {
        trust_domain_id: format!("spiffe://{TRUST_DOMAIN}"),
        root_cas: vec![Certificate { der_bytes: ca.to_vec(), tainted_key: false }],
        jwt_signing_keys: vec![PublicKey {
            pkix_bytes: public_key.clone(),
            kid: KID.to_owned(),
            not_after: jwt_not_after,
            tainted_key: false,
        }],
        sequence_number: 2,
        ..Bundle::default()
    });
    let partner = "spiffe://partner.test".to_owned();
    let partner = spire.bundle(&Bundle { trust_domain_id: partner, ..Bundle::default() });
    let version = [("agent_version", "1.15.3".into())];
    spire.agent(AGENT, "join_token", &svid.serial, svid.expires_at, &version);
    let made = [("created_at", Timestamp::from_second(CREATED).unwrap().into())];
    spire.entry("alias", ALIAS, AGENT, &[&format!("spiffe_id:{AGENT}")], &made);
    let more = [made[0].clone(), ("revision_number", 2.into()), ("hint", "internal".into())];
    let selector = format!("unix:uid:{}", User::current().uid);
    let workload = spire.entry("workload", WORKLOAD, ALIAS, &[&selector], &more);
    spire.dns_names(workload, &["z.example.org", "a.example.org"]);
    spire.federate(workload, partner);
    let ca_entry = X509CaEntry {
        slot_id: "A".to_owned(),
        issued_at,
        certificate: ca.to_vec(),
        status: status::ACTIVE,
        authority_id: ca_id.clone(),
        not_after: issued_at + 24 * 3600,
        ..X509CaEntry::default()
    };
    let jwt_entry = JwtKeyEntry {
        slot_id: "A".to_owned(),
        issued_at,
        not_after: jwt_not_after,
        kid: KID.to_owned(),
        public_key,
        status: status::ACTIVE,
        authority_id: KID.to_owned(),
    };
    let entries =
        Entries { x509_cas: vec![ca_entry], jwt_keys: vec![jwt_entry], wit_keys: Vec::new() };
    spire.ca_journal(&ca_id, &entries);
    spire.write().await.unwrap();
    Left { spire, ca, ca_id, svid, jwt_not_after }
}

/// The file of the key manager `disk`, as SPIRE writes it.
fn write_keys(folder: &Path, keys: &[(&str, &LocalKey)]) {
    fs::create_dir_all(folder).unwrap();
    let lines: Vec<_> = keys
        .iter()
        .map(|(id, key)| {
            format!("\t\t\"{id}\": \"{}\"", STANDARD.encode(&*key.to_pkcs8().unwrap()))
        })
        .collect();
    let text = format!("{{\n\t\"keys\": {{\n{}\n\t}}\n}}", lines.join(",\n"));
    let path = folder.join("keys.json");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

fn write_agent_data(path: &Path, svid: &X509Svid, ca: &Bytes) {
    let pem = |der: &Bytes| STANDARD.encode(certificate_pem(der));
    let svid: Vec<_> = svid.chain.iter().map(pem).collect();
    let data = json!({
        "svid": svid,
        "bundle": [pem(ca)],
        "reattestable": false,
        "bootstrap_use": 2,
        "bootstrap_start_time": "0001-01-01T00:00:00Z",
        "connection_attempts": 0,
    });
    fs::write(path, data.to_string()).unwrap();
}

fn data_store(kind: &str, connection: &str) -> Option<String> {
    Some(format!("database_type = \"{kind}\"\nconnection_string = \"{connection}\""))
}

async fn json_of(server: &Server, words: &[&str]) -> Value {
    let told = server.command(&[words, &["-output", "json"]].concat()).await.unwrap();
    serde_json::from_str(&told).unwrap()
}

/// Our server and agent on what was left: with `to`, the settings of the copy.
async fn goes_on(folder: &Folder, left: &Left, to: Option<String>) {
    let file = ServerFile { data_store: to, ..ServerFile::default() };
    let server = Server::start(folder, &file).await.unwrap();
    let mut agent = Agent::start(folder, &server, "", &AgentFile::default()).await.unwrap();
    let (svids, tokens) = fetch(&agent, 1).await;
    assert_eq!((svids[0].spiffe_id.as_str(), svids[0].hint.as_str()), (WORKLOAD, "internal"));
    assert_eq!(svids[0].bundle, left.ca, "the same CA signs");
    assert_eq!(tokens.len(), 1);
    let header = tokens[0].split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["kid"], KID);
    let log = agent.process().log();
    assert!(log.contains("SVID loaded"), "{log}");
    assert!(!log.contains("Node attestation was successful"), "{log}");

    let active = async |kind: &str| json_of(&server, &["localauthority", kind, "show"]).await;
    assert_eq!(active("x509").await["active"]["authority_id"], left.ca_id.as_str());
    assert_eq!(active("jwt").await["active"]["authority_id"], KID);
    let bundle = json_of(&server, &["bundle", "show"]).await;
    assert_eq!(bundle["sequence_number"], "2");
    assert_eq!(
        bundle["x509_authorities"],
        json!([{"asn1": STANDARD.encode(&left.ca), "tainted": false}])
    );
    let [key] = bundle["jwt_authorities"].as_array().unwrap().as_slice() else {
        panic!("{bundle}")
    };
    assert_eq!(key["key_id"], KID);
    assert_eq!(key["expires_at"], left.jwt_not_after.to_string());

    let id = |path: &str| json!({"path": path, "trust_domain": TRUST_DOMAIN});
    let agent_path = AGENT.strip_prefix("spiffe://example.org").unwrap();
    let (version, listed) = take_version(json_of(&server, &["agent", "list"]).await);
    assert!(!version.is_empty());
    assert_eq!(
        listed,
        json!({"agents": [{
            "attestation_type": "join_token",
            "banned": false,
            "can_reattest": false,
            "id": id(agent_path),
            "selectors": [],
            "x509svid_expires_at": left.svid.expires_at.as_second().to_string(),
            "x509svid_serial_number": left.svid.serial,
        }], "next_page_token": ""})
    );
    let entry = json!({
        "admin": false,
        "created_at": CREATED.to_string(),
        "dns_names": [],
        "downstream": false,
        "expires_at": "0",
        "federates_with": [],
        "hint": "",
        "id": "alias",
        "jwt_svid_ttl": 0,
        "parent_id": id(agent_path),
        "revision_number": "0",
        "selectors": [{"type": "spiffe_id", "value": AGENT}],
        "spiffe_id": id("/host"),
        "store_svid": false,
        "x509_svid_ttl": 0,
    });
    let mut workload = entry.clone();
    for (field, value) in [
        ("dns_names", json!(["z.example.org", "a.example.org"])),
        ("federates_with", json!(["partner.test"])),
        ("hint", json!("internal")),
        ("id", json!("workload")),
        ("parent_id", id("/host")),
        ("revision_number", json!("2")),
        ("selectors", json!([{"type": "unix", "value": format!("uid:{}", User::current().uid)}])),
        ("spiffe_id", id("/workload")),
    ] {
        workload[field] = value;
    }
    let shown = json_of(&server, &["entry", "show"]).await;
    assert_eq!(shown, json!({"entries": [entry, workload], "next_page_token": ""}));
}

/// The agent tells its own version as soon as it runs.
fn take_version(mut listed: Value) -> (String, Value) {
    let agent = listed["agents"][0].as_object_mut().unwrap();
    let version = agent.remove("agent_version").unwrap();
    (version.as_str().unwrap().to_owned(), listed)
}

async fn copy(arguments: &[&str]) -> String {
    let mut copy = User::current().command(&Binaries::find().unwrap().server).unwrap();
    copy.args(["datastore", "copy"]).args(arguments);
    command::run(copy).await.unwrap().success().unwrap()
}

/// The command is the one that the server prints when it finds the tables.
#[tokio::test]
async fn a_file_of_spire_is_left_alone_until_the_command_copies_it() {
    let folder = Folder::new().unwrap();
    let left = left_in(&folder, Kind::Sqlite).await;
    let before = left.spire.fingerprint().await.unwrap();
    let path = left.spire.connection_string();
    let file = ServerFile { data_store: data_store("sqlite3", &path), ..ServerFile::default() };
    let refused = format!("{:#}", Server::start(&folder, &file).await.unwrap_err());
    let flags = format!("-from sqlite3:{path} -to sqlite3:{path}.copy");
    let printed = format!("spire-server datastore copy {flags}");
    assert!(refused.contains(&printed), "{printed:?} is not in {refused}");
    assert_eq!(left.spire.fingerprint().await.unwrap(), before);

    let report = copy(&flags.split(' ').collect::<Vec<_>>()).await;
    let holds = "Holds           : SPIRE 1.15.3, schema 25, trust domain example.org";
    for line in [holds, "Outcome         : copied"] {
        assert!(report.contains(line), "{line:?} is not in {report}");
    }
    goes_on(&folder, &left, data_store("sqlite3", &format!("{path}.copy"))).await;
}

async fn moves_in(kind: Kind, engine: DatabaseEngine) {
    let folder = Folder::new().unwrap();
    let left = left_in(&folder, kind).await;
    let target = Database::new(engine).await.unwrap();
    let (name, connection) = (target.database_type(), target.connection_string());
    let from = format!("{}:{}", left.spire.database_type(), left.spire.connection_string());
    copy(&["-from", &from, "-to", &format!("{name}:{connection}")]).await;
    goes_on(&folder, &left, data_store(name, &connection)).await;
}

#[tokio::test]
async fn a_server_goes_on_where_spire_left_off_on_postgresql() {
    moves_in(Kind::Postgres, DatabaseEngine::Postgres).await;
}

#[tokio::test]
async fn a_server_goes_on_where_spire_left_off_on_mariadb() {
    moves_in(Kind::MySql, DatabaseEngine::MariaDb).await;
}
