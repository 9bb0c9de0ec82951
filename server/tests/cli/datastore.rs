//! `datastore copy`, which needs no server.

use spire_server::store::{Settings, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;

/// The path of a database with a bundle in it, which nobody has open.
async fn database(folder: &Path) -> String {
    let path = folder.join("one.sqlite3").display().to_string();
    let store = Store::open(&Settings::new("sqlite3", &path).unwrap()).await.unwrap();
    let domain = "example.org".parse().unwrap();
    store.create_bundle(spire_core::bundle::Bundle::empty(domain)).await.unwrap();
    store.close().await;
    path
}

async fn copy(words: &str) -> Ran {
    run_at(Path::new("/nowhere"), &format!("datastore copy {words}")).await
}

#[tokio::test]
async fn a_copy_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let from = database(folder.path()).await;
    let to = folder.path().join("two.sqlite3").display().to_string();
    let words = format!("-from sqlite3:{from} -to sqlite3:{to}");

    let ran = copy(&format!("{words} -rehearsal -output json")).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stderr, "copying bundles: 1 of 1\ncomparing bundles: 1 of 1\n");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&report["outcome"], &report["source"]),
        (&"rehearsed".into(), &from.clone().into())
    );
    let bundles = serde_json::json!({"kind": "bundles", "read": 1, "copied": 1, "skipped": 0});
    assert_eq!((&report["records"][0], &report["unreadable"]), (&bundles, &0.into()));
    assert!(!Path::new(&to).exists());

    let ran = copy(&words).await;
    let expected = format!(
        "Source          : {from}\n\
         Holds           : tables of this server, version 5\n\
         Target          : {to}\n\
         Outcome         : copied\n\
         \n\
         Records                           read      copied     skipped\n\
         bundles                              1           1           0\n\
         federation relationships             0           0           0\n\
         entries                              0           0           0\n\
         agents                               0           0           0\n\
         join tokens                          0           0           0\n\
         CA journals                          0           0           0\n"
    );
    assert_eq!((ran.code, ran.stdout), (0, expected));
    let again = copy(&words).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stdout.contains("the target already holds the same, nothing was changed"));
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let from = database(folder.path()).await;
    let to = folder.path().join("two.sqlite3").display().to_string();
    for (words, told) in [
        ("", "-from is required, as TYPE:CONNECTION"),
        (
            "-from x",
            "-from must have the form sqlite3:PATH, postgres:CONNECTION or mysql:CONNECTION",
        ),
        ("-from oracle:x", "-from: unsupported database_type: oracle"),
        ("-from mysql:me@/x", "-from: invalid mysql config: missing parseTime=true param"),
        ("-from sqlite3:x", "-to is required"),
        ("-from sqlite3:x -to sqlite3:y -toRootCA z", "have no meaning for a file"),
        ("-from mysql:me@/x -fromClientCert y", "-fromClientCert and -fromClientKey go together"),
        (&format!("-from sqlite3:{to} -to sqlite3:y"), "holds nothing; check -from"),
        (&format!("-from sqlite3:{from} -to sqlite3:{from}"), "are the same database"),
        (
            &format!("-from sqlite3:{from} -to postgres://me:s3cret@127.0.0.1:1/x"),
            "unable to open the database at \"postgres://me@127.0.0.1:1/x\"",
        ),
    ] {
        let ran = copy(words).await;
        let error = ran.told();
        assert!(error.starts_with("Error: ") && error.contains(told), "{words}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let unnamed = format!("-from sqlite3:{from} -to postgres://me@127.0.0.1:1/x -toRootCA z");
    let warning = "warning: -to: Datastore may show a certificate with any name";
    let ran = copy(&unnamed).await;
    assert!(ran.code == 1 && ran.stderr.starts_with(warning), "{ran:?}");
}

#[tokio::test]
async fn a_server_on_spires_database_changes_nothing_and_names_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("my data");
    std::fs::create_dir(&data).unwrap();
    let database = data.join("datastore.sqlite3");
    let options = SqliteConnectOptions::new().filename(&database).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    let tables = "CREATE TABLE migrations (version integer, code_version varchar(255)); \
                  CREATE TABLE registered_entries (entry_id varchar(255))";
    sqlx::raw_sql(tables).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let before = std::fs::read(&database).unwrap();

    let (path, file) = (data.display(), folder.path().join("server.conf"));
    let text = format!(
        "server {{
            trust_domain = \"example.org\"
            data_dir = \"{path}\"
            socket_path = \"{path}/api.sock\"
            bind_address = \"127.0.0.1\"
        }}
        plugins {{
            DataStore \"sql\" {{ plugin_data {{
                database_type = \"sqlite3\"
                connection_string = \"{path}/datastore.sqlite3\"
            }} }}
            KeyManager \"memory\" {{ plugin_data {{}} }}
            NodeAttestor \"join_token\" {{ plugin_data {{}} }}
        }}"
    );
    std::fs::write(&file, text).unwrap();
    let words = ["run", "-config", file.to_str().unwrap()];
    let ran = run_words(Path::new("/nowhere"), &words, b"").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let word = format!("'sqlite3:{}", database.display());
    let command = format!("spire-server datastore copy -from {word}' -to {word}.copy'");
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains(&command), "{ran:?}");
    assert_eq!(std::fs::read(&database).unwrap(), before);
}
