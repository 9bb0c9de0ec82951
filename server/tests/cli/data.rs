//! `entry`, by files.

use super::*;

fn file(entries: impl IntoIterator<Item = Value>) -> String {
    serde_json::json!({"entries": Vec::from_iter(entries)}).to_string()
}

fn entry(name: usize) -> Value {
    serde_json::json!({
        "entry_id": format!("e{name}"),
        "selectors": [{"type": "unix", "value": format!("uid:{name}")}],
        "parent_id": "spiffe://example.org/p",
        "spiffe_id": format!("spiffe://example.org/w/{name}"),
        "dns_names": null,
    })
}

async fn create(server: &TestServer, content: &str) -> Ran {
    run_words(&server.socket, &["entry", "create", "-data", "-"], content.as_bytes()).await
}

#[tokio::test]
async fn a_thousand_entries_come_from_one_file_and_go_by_another() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("entries.json").display().to_string();
    // With 4,000 bytes of padding each, they are too much for one call in bytes as well.
    let padded = (0..1200).map(|name| {
        let mut entry = entry(name);
        let padding = format!("pod:{}", "x".repeat(4000));
        let selectors = entry["selectors"].as_array_mut().unwrap();
        selectors.push(serde_json::json!({"type": "k8s", "value": padding}));
        entry
    });
    std::fs::write(&path, file(padded)).unwrap();
    let printed = run(&server, &format!("entry create -data {path}")).await.printed();
    assert_eq!(printed.matches("Entry ID  ").count(), 1200);
    let count = run(&server, "entry count").await.printed();
    assert_eq!(count, "1200 registration entries\n");
    let shown = run(&server, "entry show -output json").await.json();
    assert_eq!(shown["entries"].as_array().unwrap().len(), 1200);

    let ids: Vec<_> = (0..1201).map(|name| format!("e{name}")).collect();
    std::fs::write(&path, serde_json::json!({"ids": ids}).to_string()).unwrap();
    let ran = run(&server, &format!("entry delete -entryID other -file {path}")).await;
    assert_eq!(ran.code, 1);
    let summary = "\n\n\n\n\nDeleted 1200 entries successfully, but failed to delete 1 entries";
    assert!(ran.stdout.ends_with(summary), "{:?}", &ran.stdout[ran.stdout.len() - 100..]);
    assert!(ran.stderr.starts_with("Failed to delete entry with ID e1200 ("), "{}", ran.stderr);
    server.stop().await;
}

#[tokio::test]
async fn what_goes_well_and_what_does_not_are_told_apart() {
    let server = server().await;
    let ran = create(&server, &file([entry(1), entry(1), entry(2)])).await;
    assert_eq!((ran.code, ran.stdout.matches("Entry ID  ").count()), (1, 2));
    assert!(ran.stderr.starts_with("Failed to create the following entry (code: AlreadyExists, "));
    assert!(ran.stderr.ends_with("\n\nError: failed to create one or more entries\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_file_without_entries_says_nothing() {
    let server = server().await;
    assert_eq!(create(&server, "{}").await.printed(), "");
    let words = ["entry", "create", "-data", "-", "-output", "json"];
    let ran = run_words(&server.socket, &words, b"{\"entries\":[]}").await;
    assert_eq!(ran.printed(), "{\"results\":[]}\n");
    let words = ["entry", "delete", "-file", "-"];
    let ran = run_words(&server.socket, &words, b"{\"ids\":[]}").await;
    assert_eq!(ran.printed(), "Deleted 0 entries successfully");
    server.stop().await;
}

#[tokio::test]
async fn a_bad_file_is_refused_as_a_whole_and_says_where() {
    let server = server().await;
    for (content, told) in [
        ("", "unexpected end of JSON input"),
        ("junk", "invalid character 'j' looking for beginning of value (line 1, column 1)"),
        (
            &file([entry(1), serde_json::json!({"spiffe_id": "foo"})]),
            "invalid SPIFFE ID: scheme is missing or invalid (entries[1].spiffe_id = \"foo\")",
        ),
        (
            &file([serde_json::json!({"spiffe_id": "spiffe://example.org/w"})]),
            "invalid parent ID: cannot be empty (entries[0].parent_id = \"\")",
        ),
        (
            "{\"entries\":[{\"hint\":5}]}",
            "invalid type: integer `5`, expected a string at line 1 column 21",
        ),
    ] {
        assert_eq!(create(&server, content).await.told(), format!("Error: {told}\n"), "{content}");
    }
    let told = run(&server, "entry create -data /nowhere.json").await.told();
    assert_eq!(told, "Error: open /nowhere.json: no such file or directory\n");
    assert_eq!(run(&server, "entry count").await.printed(), "0 registration entries\n");
    server.stop().await;
}

#[tokio::test]
async fn unknown_keys_are_passed_over() {
    let server = server().await;
    let mut one = entry(1);
    one["lifetime"] = 60.into();
    one["entry_expiry"] = 5.into();
    let printed = create(&server, &file([one])).await.printed();
    assert!(printed.contains("X509-SVID TTL           : default\n"), "{printed}");
    assert!(!printed.contains("Expiration time"), "{printed}");
    server.stop().await;
}

#[tokio::test]
async fn files_of_old_servers_keep_their_lifetimes() {
    let server = server().await;
    let mut one = entry(1);
    one["ttl"] = 60.into();
    let printed = create(&server, &file([one])).await.printed();
    let lifetimes = "X509-SVID TTL           : 60\nJWT-SVID TTL            : 60\n";
    assert!(printed.contains(lifetimes), "{printed}");
    server.stop().await;
}

#[tokio::test]
async fn entries_are_replaced_by_those_of_a_file() {
    let server = server().await;
    create(&server, &file([entry(1), entry(2)])).await.printed();
    let mut changed = entry(1);
    changed["hint"] = "new".into();
    let words = ["entry", "update", "-data", "-"];
    let ran = run_words(&server.socket, &words, file([changed, entry(3)]).as_bytes()).await;
    assert_eq!((ran.code, ran.stdout.matches("Entry ID  ").count()), (1, 1));
    assert!(ran.stdout.contains("Hint                    : new\n"), "{}", ran.stdout);
    let missing = "Failed to update the following entry (code: NotFound, ";
    assert!(ran.stderr.starts_with(missing), "{}", ran.stderr);
    let shown = run(&server, "entry show -hint new -output json").await.json();
    assert_eq!(shown["entries"][0]["id"], "e1");
    assert_eq!(run(&server, "entry count").await.printed(), "2 registration entries\n");
    server.stop().await;
}
