//! What is not copied: schemas that are not known, databases that are not whole.

use spire_test_databases::Engine;

use super::*;
use crate::each_database;

each_database! {
    case_22_later_schemas_are_copied_where_all_columns_are_known,
    case_22_schemas_from_before_bundles_are_refused,
    case_22_a_database_that_is_not_whole_is_refused,
    case_22_two_trust_domains_are_refused,
}

const AGENT: &str = "spiffe://example.org/spire/agent/x509pop/a";

async fn set_version(spire: &SpireDatabase, version: u32) {
    let set = format!("UPDATE migrations SET version = {version}, code_version = '1.16.0'");
    spire.execute(&set).await.unwrap();
}

async fn case_22_later_schemas_are_copied_where_all_columns_are_known(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    spire.entry("e", &format!("{OWN}/e"), AGENT, &["a:1"], &[]);
    spire.write().await.unwrap();
    set_version(&spire, 26).await;
    spire.execute("CREATE TABLE novelties (id integer)").await.unwrap();
    let copied = copied(&mut spire, kind).await;
    assert!(copied.report.source_title.starts_with("SPIRE 1.16.0, schema 26"));
    let [remark] = &copied.report.remarks.items[..] else { panic!("{:?}", copied.report.remarks) };
    assert_eq!(remark.name, "novelties");

    spire.execute("ALTER TABLE registered_entries ADD novelty integer").await.unwrap();
    let error = refusal(&spire).await;
    for part in ["schema version 26", "4 to 25", "registered_entries.novelty", "later version"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    // In a schema that is known the column means nothing.
    set_version(&spire, 25).await;
    copied_into(&mut spire, kind, None).await;
}

async fn case_22_schemas_from_before_bundles_are_refused(kind: Kind) {
    let spire = spire(kind, 15).await;
    set_version(&spire, 3).await;
    let error = refusal(&spire).await;
    for part in ["schema version 3", "4 to 25", "start later releases of SPIRE"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

async fn case_22_a_database_that_is_not_whole_is_refused(kind: Kind) {
    let empty = SpireDatabase::empty(spire_kind(kind)).await.unwrap();
    assert!(refusal(&empty).await.contains("holds nothing"));

    let migrations =
        "CREATE TABLE migrations (id integer, version integer, code_version varchar(255))";
    empty.execute(migrations).await.unwrap();
    let error = refusal(&empty).await;
    assert!(error.contains("no row in a table migrations"), "{error}");
    empty.execute("INSERT INTO migrations VALUES (1, 25, '1.15.3')").await.unwrap();
    let error = refusal(&empty).await;
    assert!(error.contains("schema version 25 but no table"), "{error}");

    let spire = spire(kind, 25).await;
    let error = refusal(&spire).await;
    assert!(error.contains("holds nothing"), "{error}");
    spire.execute("DELETE FROM migrations").await.unwrap();
    let error = refusal(&spire).await;
    assert!(error.contains("no row in a table migrations"), "{error}");
}

async fn case_22_two_trust_domains_are_refused(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    spire.agent("spiffe://other.org/spire/agent/a", "x509pop", "1", at(LATER), &[]);
    spire.entry("e", &format!("{OWN}/e"), AGENT, &["a:1"], &[]);
    spire.write().await.unwrap();
    let error = refusal(&spire).await;
    let expected = "an agent is of the trust domain other.org, and an entry of example.org";
    assert!(error.contains(expected), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_22_a_user_without_rights_is_told_so() {
    for (kind, engine) in [(Kind::Postgres, Engine::Postgres), (Kind::MySql, Engine::MariaDb)] {
        let mut spire = spire(kind, 25).await;
        spire.entry("e", &format!("{OWN}/e"), AGENT, &["a:1"], &[]);
        spire.write().await.unwrap();
        let user = format!("guest_{}", std::process::id());
        let (create, drop) = match kind {
            Kind::Postgres => (
                format!(
                    "CREATE ROLE {user} LOGIN PASSWORD 'x'; GRANT SELECT ON migrations TO {user}"
                ),
                format!("DROP OWNED BY {user}; DROP ROLE {user}"),
            ),
            _ => (
                format!(
                    "CREATE USER {user}@'%' IDENTIFIED BY 'x'; \
                     GRANT SELECT ON migrations TO {user}@'%'"
                ),
                format!("DROP USER {user}@'%'"),
            ),
        };
        spire.execute(&create).await.unwrap();
        let own = spire.connection_string();
        let (scheme, rest) = own.split_once("://").unwrap_or(("", &own));
        let place = rest.split_once('@').unwrap().1;
        let glue = if scheme.is_empty() { "" } else { "://" };
        let guest = format!("{scheme}{glue}{user}:x@{place}");
        let from = Settings::new(spire.database_type(), &guest).unwrap();
        let target = Location::new(Kind::Sqlite).await;
        let error = run(&order(from, &target)).await.unwrap_err().to_string();
        spire.execute(&drop).await.unwrap();
        assert!(error.contains("right") || error.contains("denied"), "{engine:?}: {error}");
    }
}
