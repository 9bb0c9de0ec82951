//! `datastore check`.

use spire_server::store::{Settings, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;

#[tokio::test]
async fn a_check_tells_what_is_there_and_fails_where_something_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("datastore.sqlite3");
    let file = folder.path().join("server.conf");
    let text = format!(
        r#"server {{
            trust_domain = "example.org"
            data_dir = "{path}/data"
        }}
        plugins {{
            DataStore "sql" {{ plugin_data {{
                database_type = "sqlite3"
                connection_string = "$DATABASE"
            }} }}
            KeyManager "memory" {{ plugin_data {{}} }}
            NodeAttestor "join_token" {{ plugin_data {{}} }}
        }}"#,
        path = folder.path().display()
    );
    let text = text.replace("$DATABASE", &database.display().to_string());
    std::fs::write(&file, text).unwrap();
    let check = async |rest: &str| {
        let line = format!("datastore check -config {} {rest}", file.display());
        run_at(Path::new("/nowhere"), &line).await
    };
    let ran = check("").await;
    assert_eq!((ran.code, &*ran.stderr), (1, "Error: the datastore has a problem\n"), "{ran:?}");
    assert!(ran.stdout.contains("\nProblem               : "), "{ran:?}");
    assert!(!database.exists());

    let settings = Settings::new("sqlite3", &database.display().to_string()).unwrap();
    Store::open(&settings).await.unwrap().close().await;
    let text = check("").await.printed();
    assert!(text.starts_with(&format!("Database              : {}\n", database.display())));
    assert!(text.contains("\nTable                 : entries "), "{text}");
    assert!(
        text.contains("list entries by parent                 entries_by_parent_id\n"),
        "{text}"
    );
    assert!(text.ends_with("\nVerdict               : fine\n"), "{text}");
    let json = check("-output json").await.json();
    assert_eq!(members(&json), ["database", "facts", "tables", "statements", "problems"]);
    assert_eq!(json["problems"], Value::Array(Vec::new()));

    let options = SqliteConnectOptions::new().filename(&database);
    let mut connection = options.connect().await.unwrap();
    sqlx::query("DROP INDEX nodes_by_expiry").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let ran = check("-output json").await;
    assert_eq!((ran.code, &*ran.stderr), (1, "Error: the datastore has a problem\n"), "{ran:?}");
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["problems"][0]["what"], "index nodes_by_expiry of table nodes is missing");
    let remedy = "run \"CREATE INDEX nodes_by_expiry ON nodes (expires_at)\"";
    assert_eq!(json["problems"][0]["remedy"], remedy);
}
