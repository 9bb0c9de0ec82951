//! Opening databases that are servers: other people's tables, TLS, many that start at once.

use std::time::Duration;

use spire_server::store::{EntryFilter, OpenError, Settings, Store, TlsFiles, check};
use spire_test_databases::{Engine, Proxy};

use crate::{Fresh, Kind, Location, each_database, entry, private};

each_database! {
    tables_of_others_are_refused_and_left,
    a_later_schema_is_refused_and_an_earlier_one_where_it_must_stay,
    a_server_goes_on_and_starts_on_tables_of_the_next_version_that_it_can_use,
    servers_that_start_at_once_on_an_empty_database_all_start,
    servers_that_start_at_once_on_an_old_database_all_start,
    an_unfinished_creation_is_finished,
    a_look_makes_nothing,
}

/// How often servers start at once: more by hand.
fn rounds() -> usize {
    std::env::var("SPIRE_TEST_MIGRATIONS").map_or(10, |text| text.parse().unwrap())
}

async fn tables_of_others_are_refused_and_left(kind: Kind) {
    let database = Location::new(kind).await;
    database.execute("CREATE TABLE albums (title VARCHAR(9))").await;
    let error = Store::open(&database.settings()).await.err().unwrap();
    assert!(matches!(error, OpenError::ForeignTables(_)), "{error:?}");

    let database = Location::new(kind).await;
    let spire = "CREATE TABLE migrations (version INTEGER); \
                 CREATE TABLE registered_entries (entry_id VARCHAR(255))";
    database.execute(spire).await;
    let error = Store::open(&database.settings()).await.err().unwrap();
    assert!(matches!(error, OpenError::SpireTables { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("spire-server datastore copy -from "), "{message}");
    assert!(!message.contains("not-secret"), "{message}");
    assert_eq!(database.number("SELECT COUNT(*) FROM registered_entries").await, 0);
}

async fn a_later_schema_is_refused_and_an_earlier_one_where_it_must_stay(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    fresh.database.execute("UPDATE schema_version SET version = 6, readable_since = 6").await;
    let error = Store::open(&fresh.settings).await.err().unwrap();
    assert!(matches!(error, OpenError::TooNew { found: 6, known: 5 }), "{error:?}");
    fresh.database.execute("UPDATE schema_version SET version = 1").await;
    let kept = Settings { disable_migration: true, ..fresh.settings.clone() };
    let error = Store::open(&kept).await.err().unwrap();
    assert!(matches!(error, OpenError::MigrationDisabled { found: 1, .. }), "{error:?}");
}

async fn a_server_goes_on_and_starts_on_tables_of_the_next_version_that_it_can_use(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    let create = async |store: &Store, name: &str| {
        let created = store.create_entries(vec![entry(name, &format!("/{name}"), &["a:1"])]).await;
        created.unwrap().remove(0).unwrap();
    };
    create(&fresh.store, "before").await;
    let next = "ALTER TABLE entries ADD COLUMN of_the_next_version BIGINT; \
                UPDATE schema_version SET version = 6, readable_since = 5";
    fresh.database.execute(next).await;
    create(&fresh.store, "meanwhile").await;
    for disable_migration in [false, true] {
        let settings = Settings { disable_migration, ..fresh.settings.clone() };
        let store = Store::open(&settings).await.unwrap();
        create(&store, &format!("after-{disable_migration}")).await;
    }
    let look = Store::look(&fresh.settings).await.unwrap();
    assert_eq!(look.count_entries(&EntryFilter::default()).await, Ok(4));
    let report = check::check(&fresh.settings, Duration::from_hours(1)).await.unwrap();
    let of_version = |problem: &&check::Problem| problem.what.contains("version");
    assert_eq!(report.problems.iter().find(of_version), None);
    assert_eq!(fresh.database.number("SELECT version FROM schema_version").await, 6);
}

async fn servers_that_start_at_once_on_an_empty_database_all_start(kind: Kind) {
    for _ in 0..rounds() {
        start_at_once(&Location::new(kind).await).await;
    }
}

async fn servers_that_start_at_once_on_an_old_database_all_start(kind: Kind) {
    let (tables, version) = match kind {
        Kind::Sqlite => (include_str!("../../src/store/migrations/sqlite/1.sql"), 1),
        Kind::Postgres => (include_str!("../../src/store/migrations/postgres/2.sql"), 2),
        Kind::MySql => (include_str!("../../src/store/migrations/mysql/2.sql"), 2),
    };
    for _ in 0..rounds() {
        let database = Location::new(kind).await;
        if kind == Kind::Sqlite {
            database.execute("PRAGMA journal_mode = WAL").await;
        }
        database.execute(tables).await;
        let noted = "CREATE TABLE schema_version \
                     (version BIGINT NOT NULL, code_version VARCHAR(255) NOT NULL)";
        let note = format!("INSERT INTO schema_version VALUES ({version}, '1.15.0')");
        database.execute(&format!("{noted}; {note}")).await;
        start_at_once(&database).await;
        let report = check::check(&database.settings(), Duration::from_hours(1)).await.unwrap();
        let is_missing = |problem: &&check::Problem| problem.what.contains("missing");
        assert_eq!(report.problems.iter().find(is_missing), None);
    }
}

/// Six servers start at once on a database without entries, and each writes.
async fn start_at_once(database: &Location) {
    let settings = database.settings();
    let stores = (0..6).map(|_| Store::open(&settings));
    let stores = futures::future::try_join_all(stores).await.unwrap();
    for (number, store) in stores.iter().enumerate() {
        let one = entry(&format!("{number}"), &format!("/{number}"), &["a:1"]);
        assert!(store.create_entries(vec![one]).await.unwrap()[0].is_ok());
    }
    for store in &stores {
        assert_eq!(store.count_entries(&EntryFilter::default()).await, Ok(6));
        store.close().await;
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM schema_version").await, 1);
}

/// MySQL keeps each table that was created before a crash.
async fn an_unfinished_creation_is_finished(kind: Kind) {
    let fresh = Fresh::new(kind).await;
    fresh.store.close().await;
    if kind == Kind::MySql {
        fresh.database.execute("DROP TABLE changes, nodes; DELETE FROM schema_version").await;
    }
    let store = Store::open(&fresh.settings).await.unwrap();
    store.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    assert_eq!(store.count_entries(&EntryFilter::default()).await, Ok(1));
}

async fn a_look_makes_nothing(kind: Kind) {
    let database = Location::new(kind).await;
    let missing = Store::look(&database.settings()).await.err().unwrap();
    assert!(missing.to_string().contains("it holds no tables yet"), "{missing}");
    let store = Store::open(&database.settings()).await.unwrap();
    store.create_entries(vec![entry("1", "/1", &["a:1"])]).await.unwrap();
    let look = Store::look(&database.settings()).await.unwrap();
    assert_eq!(look.count_entries(&EntryFilter::default()).await, Ok(1));
    assert!(look.create_entries(vec![entry("2", "/2", &["a:1"])]).await.is_err());
}

#[tokio::test]
async fn a_user_that_may_not_create_tables_can_start_a_server_on_those_that_are_there() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let database = private(engine).await;
        let text = database.connection_string();
        let administrator = Settings::new(database.database_type(), &text).unwrap();
        Store::open(&administrator).await.unwrap().close().await;
        let name = database.name();
        let user = format!("user_{}", &name[name.len() - 20..]);
        let rights = match engine {
            Engine::Postgres => format!(
                "CREATE ROLE {user} LOGIN PASSWORD 'p'; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
                 GRANT USAGE ON SCHEMA public TO {user}; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
            ),
            Engine::MariaDb => format!(
                "CREATE USER {user} IDENTIFIED BY 'p'; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {user}"
            ),
        };
        database.execute(&rights).await.unwrap();
        let text = match engine {
            Engine::Postgres => text.replace("postgres:not-secret@", &format!("{user}:p@")),
            Engine::MariaDb => text.replace("spire:not-secret@", &format!("{user}:p@")),
        };
        for disable_migration in [false, true] {
            let settings = Settings::new(database.database_type(), &text).unwrap();
            let store = Store::open(&Settings { disable_migration, ..settings }).await.unwrap();
            let one = entry(&format!("{disable_migration}"), "/one", &["a:1"]);
            store.create_entries(vec![one]).await.unwrap().remove(0).unwrap();
        }
    }
}

async fn opens(settings: Settings) -> Result<(), String> {
    Store::open(&settings).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn postgres_proves_itself_where_it_must() {
    let database = private(Engine::Postgres).await;
    let tls = database.server().tls().unwrap();
    let address = database.server().address().unwrap();
    let open = async |end: &str| {
        let text = format!(
            "host={} port={}\n user=postgres password='not-secret' dbname={} {end}",
            address.ip(),
            address.port(),
            database.name()
        );
        opens(Settings::new("postgres", &text).unwrap()).await
    };
    let root = tls.root.display();
    open("").await.unwrap();
    open("sslmode=require").await.unwrap();
    open(&format!("sslmode=verify-full sslrootcert={root}")).await.unwrap();
    let (certificate, key) = (tls.client_certificate.display(), tls.client_key.display());
    open(&format!("sslrootcert={root} sslcert={certificate} sslkey={key}")).await.unwrap();
    let foreign = tls.client_certificate.display();
    for unknown in ["sslmode=verify-full", "sslmode=verify-ca", &format!("sslrootcert={foreign}")] {
        let refused = open(unknown).await.unwrap_err();
        assert!(refused.contains("certificate"), "{unknown}: {refused}");
    }
    // The certificate is not for the address of the proxy.
    let proxy = Proxy::to(address).await.unwrap();
    let (ip, port) = (proxy.address().ip(), proxy.address().port());
    let other = format!("host={ip} port={port} sslrootcert={root}");
    open(&format!("{other} sslmode=verify-ca")).await.unwrap();
    open(&format!("{other} sslmode=require")).await.unwrap();
    let name = open(&format!("{other} sslmode=verify-full")).await.unwrap_err();
    assert!(name.contains("not valid for name"), "{name}");
    let password = open("password=wrong").await.unwrap_err();
    assert!(password.contains("check user and password"), "{password}");
    let absent = open("dbname=nowhere").await.unwrap_err();
    assert!(absent.contains("create the database"), "{absent}");
}

#[tokio::test]
async fn mysql_proves_itself_where_it_must() {
    let database = private(Engine::MariaDb).await;
    let files = database.server().tls().unwrap();
    let plain = database.connection_string().replace("&tls=false", "");
    let open = async |end: &str, tls: TlsFiles| {
        let text = format!("{plain}{end}");
        opens(Settings { tls, ..Settings::new("mysql", &text).unwrap() }).await
    };
    let none = TlsFiles::default();
    let root = TlsFiles { root_ca_path: Some(files.root.clone()), ..TlsFiles::default() };
    let client = TlsFiles {
        client_cert_path: Some(files.client_certificate.clone()),
        client_key_path: Some(files.client_key.clone()),
        ..root.clone()
    };
    open("", none.clone()).await.unwrap();
    open("&tls=skip-verify", none.clone()).await.unwrap();
    open("", root).await.unwrap();
    open("&tls=custom", client).await.unwrap();
    let unknown = open("&tls=true", none).await.unwrap_err();
    assert!(unknown.contains("certificate"), "{unknown}");
    let wrong = plain.replace("not-secret", "wrong");
    let password = opens(Settings::new("mysql", &wrong).unwrap()).await.unwrap_err();
    assert!(password.contains("check user and password"), "{password}");
}
