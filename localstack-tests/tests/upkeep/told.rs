//! What server and agent say in their logs while they live: the messages and fields that alerts
//! and runbooks match.

use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{BatchDeleteEntryRequest, BatchUpdateEntryRequest};
use spire_core::wire::local_authority::local_authority_client::LocalAuthorityClient;
use spire_core::wire::local_authority::*;
use spire_core::wire::types;
use spire_fakes::log::{Line, Log};
use spire_localstack_tests::server::entry;
use spire_localstack_tests::user::User;

use super::world::{By, World};
use super::{ban, end, evict, renewed};

/// Any value.
const ANY: &str = "*";

/// There is a line with this level, this message and these fields.
fn told(log: &Log, level: &str, message: &str, fields: &[(&str, &str)]) {
    let lines = log.with(message);
    let has = |line: &Line, (name, value): &(&str, &str)| match *value {
        ANY => !line.field(name).is_empty(),
        value => line.field(name) == value,
    };
    let fits =
        |line: &&Line| line.level.as_str() == level && fields.iter().all(|field| has(line, field));
    assert!(lines.iter().any(|line| fits(&line)), "{message:?} with {fields:?}: {lines:#?}");
}

#[tokio::test]
async fn the_start_of_a_server_and_the_life_of_an_agent() {
    let log = Log::read();
    let mut world = World::start("").await;
    let (tcp, unix) = (world.address().to_string(), world.folder.join("server.sock"));
    let unix = unix.display().to_string();
    let own = [("slot", "A"), ("expiration", ANY), ("local_authority_id", ANY)];
    told(&log, "INFO", "Configured", &[("data_dir", ANY)]);
    let plugin = [("plugin_name", "x509pop"), ("plugin_type", "NodeAttestor")];
    told(&log, "INFO", "Plugin loaded", &plugin);
    for message in ["X509 CA prepared", "X509 CA activated", "JWT key prepared"] {
        told(&log, "INFO", message, &own);
    }
    told(&log, "INFO", "JWT key activated", &own);
    let rotated = [("trust_domain_id", "spiffe://example.org"), ("ttl", "86400")];
    told(&log, "INFO", "Successfully rotated X.509 CA", &rotated);
    let listens = "Starting Server APIs";
    told(&log, "INFO", listens, &[("address", &tcp), ("network", "tcp")]);
    told(&log, "INFO", listens, &[("address", &unix), ("network", "unix")]);
    assert_eq!(log.with(listens).len(), 2);

    let mut node = world.node(By::Token, "").await;
    let id = node.id();
    let agent_id = format!("spiffe://example.org{}", id.path);
    told(&log, "INFO", "Starting agent", &[("data_dir", ANY), ("version", ANY)]);
    told(&log, "INFO", "SVID is not found. Starting node attestation", &[]);
    told(&log, "INFO", "Node attestation was successful", &[("spiffe_id", &*agent_id)]);
    told(&log, "INFO", "Starting agent APIs", &[("address", ANY), ("network", "unix")]);

    // An entry, and a workload that asks.
    let pid = std::process::id().to_string();
    let entry_id = log.with("Entry created")[0].field("entry").to_owned();
    let svid = [("entry_id", &*entry_id), ("spiffe_id", "spiffe://example.org/first")];
    told(&log, "DEBUG", "Entry created", &[("entry", &*entry_id), svid[1]]);
    told(&log, "INFO", "Creating X509-SVID", &svid);
    told(&log, "DEBUG", "SVID updated", &svid);
    let by = |method| [("method", method), ("pid", &*pid), ("registered", "true"), ("ttl", ANY)];
    let fetched = [&by("FetchX509SVID")[..], &[svid[1]]].concat();
    told(&log, "DEBUG", "Fetched X.509 SVID", &fetched);
    node.fetch_jwt().await.unwrap();
    let fetched = [&by("FetchJWTSVID")[..], &[svid[1]]].concat();
    told(&log, "DEBUG", "Fetched JWT SVID", &fetched);

    let mut entries = EntryClient::new(world.operator().await);
    let selector = format!("unix:uid:{}", User::current().uid);
    let later = types::Entry { id: entry_id.clone(), ..entry(&id.path, "/later", &selector) };
    let update = BatchUpdateEntryRequest { entries: vec![later], ..Default::default() };
    entries.batch_update_entry(update).await.unwrap();
    world.pass_until(async || log.with("Entry updated").pop()).await;
    let changed = [("entry", &*entry_id), ("spiffe_id", "spiffe://example.org/later")];
    told(&log, "DEBUG", "Entry updated", &changed);
    let delete = BatchDeleteEntryRequest { ids: vec![entry_id.clone()] };
    entries.batch_delete_entry(delete).await.unwrap();
    world.pass_until(async || node.fetch().await.is_none().then_some(())).await;
    told(&log, "DEBUG", "Entry removed", &changed);

    // Its end, and that of another.
    evict(&world, &node).await;
    end(&world, &mut node).await;
    node.stop().await;
    told(&log, "INFO", "Agent deleted", &[("spiffe_id", &*agent_id)]);
    let mut node = world.start_agent(By::Certificate, "").await.unwrap();
    let agent_id = format!("spiffe://example.org{}", node.id().path);
    ban(&world, &node).await;
    end(&world, &mut node).await;
    node.stop().await;
    told(&log, "INFO", "Agent banned", &[("spiffe_id", &*agent_id)]);
    told(&log, "ERROR", "Agent is banned: removing SVID and shutting down", &[]);
    world.stop_server().await;
}

#[tokio::test]
async fn authorities_that_are_given_up() {
    let log = Log::read();
    let world = World::start("").await;
    let mut node = world.node(By::Token, "").await;
    node.fetch_jwt().await.unwrap();
    let id = |message: &str| log.with(message)[0].field("local_authority_id").to_owned();
    let (former, former_key) = (id("X509 CA activated"), id("JWT key activated"));

    let mut authorities = LocalAuthorityClient::new(world.operator().await);
    let prepared = authorities.prepare_x509_authority(PrepareX509AuthorityRequest {}).await;
    let authority_id = prepared.unwrap().into_inner().prepared_authority.unwrap().authority_id;
    let prepared = authorities.prepare_jwt_authority(PrepareJwtAuthorityRequest {}).await;
    let key_id = prepared.unwrap().into_inner().prepared_authority.unwrap().authority_id;
    world.pass_until(async || (node.storage().data().bundle.len() == 2).then_some(())).await;
    let activate = ActivateX509AuthorityRequest { authority_id: authority_id.clone() };
    authorities.activate_x509_authority(activate).await.unwrap();
    let activate = ActivateJwtAuthorityRequest { authority_id: key_id.clone() };
    authorities.activate_jwt_authority(activate).await.unwrap();
    let second = |id| [("slot", "B"), ("expiration", ANY), ("local_authority_id", id)];
    told(&log, "INFO", "X509 CA activated", &second(&authority_id));
    told(&log, "INFO", "JWT key activated", &second(&key_id));

    let taint = TaintX509AuthorityRequest { authority_id: former.clone() };
    authorities.taint_x509_authority(taint).await.unwrap();
    let taint = TaintJwtAuthorityRequest { authority_id: former_key.clone() };
    authorities.taint_jwt_authority(taint).await.unwrap();
    renewed(&world, &mut node).await;
    let rotated = "Server SVID signed using a tainted authority, forcing rotation of the Server \
                   SVID";
    world.pass_until(async || log.with(rotated).pop()).await;
    let of = |id| [("local_authority_id", id), ("subsystem_name", "ca_manager")];
    told(&log, "INFO", "X.509 authority tainted successfully", &of(&former));
    told(&log, "INFO", "JWT authority tainted successfully", &of(&former_key));
    told(&log, "INFO", rotated, &[("subsystem_name", "svid_rotator")]);
    let tainted = [("subject_key_ids", &*former)];
    told(&log, "INFO", "New tainted X.509 authorities found", &tainted);
    let scheduled = "Scheduled rotation for SVID entries due to tainted X.509 authorities";
    told(&log, "INFO", scheduled, &[("count", "1")]);
    let forced = "Agent SVID is tainted by a root authority, forcing rotation";
    for message in [forced, "Rotating agent SVID", "Successfully rotated agent SVID"] {
        told(&log, "INFO", message, &[]);
    }
    let renewing = [("entry_id", ANY), ("spiffe_id", "spiffe://example.org/first")];
    world.pass_until(async || log.with("Renewing X509-SVID").pop()).await;
    told(&log, "INFO", "Renewing X509-SVID", &renewing);
    let removed = "JWT-SVIDs were removed from the JWT cache because they were issued by a \
                   tainted authority";
    let gone = [("count_jwt_svids", "1"), ("jwt_authority_key_ids", &*former_key)];
    told(&log, "INFO", removed, &gone);

    let revoke = RevokeX509AuthorityRequest { authority_id: former.clone() };
    authorities.revoke_x509_authority(revoke).await.unwrap();
    let revoke = RevokeJwtAuthorityRequest { authority_id: former_key.clone() };
    authorities.revoke_jwt_authority(revoke).await.unwrap();
    told(&log, "INFO", "X.509 authority revoked successfully", &of(&former));
    told(&log, "INFO", "JWT authority revoked successfully", &of(&former_key));
    node.stop().await;
}
