//! `entry`, by flags.

use std::os::unix::fs::PermissionsExt;

use super::*;

const CREATE: &str = "entry create -entryID e -parentID spiffe://example.org/p \
                      -spiffeID spiffe://example.org/w -selector unix:uid:1000";

const FULL: &str = "-x509SVIDTTL 3600 -jwtSVIDTTL 0x12c -downstream -admin -storeSVID \
                    -entryExpiry 4102444800 -dns app.internal -hint external \
                    -disableX509SVIDPrefetch -jwtSVIDIncludeJTI";

const BLOCK: &str = "\
Entry ID                : e
SPIFFE ID               : spiffe://example.org/w
Parent ID               : spiffe://example.org/p
Revision                : 0
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : unix:uid:1000

";

const FULL_BLOCK: &str = "\
Entry ID                : e
SPIFFE ID               : spiffe://example.org/w
Parent ID               : spiffe://example.org/p
Revision                : 0
Downstream              : true
X509-SVID TTL           : 3600
JWT-SVID TTL            : 300
Expiration time         : 2100-01-01 00:00:00 +0000 UTC
Selector                : unix:uid:1000
DNS name                : app.internal
Admin                   : true
StoreSvid               : true
Hint                    : external
DisableX509SvidPrefetch : true
JwtSvidIncludeJti       : true

";

#[tokio::test]
async fn an_entry_is_created_shown_updated_and_deleted() {
    let server = server().await;
    assert_eq!(run(&server, &format!("{CREATE} {FULL}")).await.printed(), FULL_BLOCK);
    let found = format!("Found 1 entry\n{FULL_BLOCK}");
    assert_eq!(run(&server, "entry show").await.printed(), found);
    assert_eq!(run(&server, "entry show -entryID e").await.printed(), found);
    assert_eq!(run(&server, "entry count").await.printed(), "1 registration entry\n");

    let update = CREATE.replace("create", "update");
    let one = run(&server, &format!("{update} -jwtSVIDIncludeJTI=false")).await.printed();
    assert!(one.contains("DisableX509SvidPrefetch : true\nJwtSvidIncludeJti       : true\n"));
    let bare = run(&server, &update).await.printed();
    assert_eq!(bare, BLOCK.replace("Revision                : 0", "Revision                : 2"));

    let deleted = run(&server, "entry delete -entryID e").await.printed();
    assert_eq!(deleted, "Deleted entry with ID: e\n\n\nDeleted 1 entries successfully");
    assert_eq!(run(&server, "entry show").await.printed(), "Found 0 entries\n");
    assert_eq!(run(&server, "entry count").await.printed(), "0 registration entries\n");
    server.stop().await;
}

#[tokio::test]
async fn json_has_every_field() {
    let server = server().await;
    let created = run(&server, &format!("{CREATE} -output json")).await.json();
    let id = |path: &str| serde_json::json!({"path": path, "trust_domain": "example.org"});
    let entry = serde_json::json!({
        "admin": false, "created_at": created["results"][0]["entry"]["created_at"],
        "dns_names": [], "downstream": false, "expires_at": "0", "federates_with": [], "hint": "",
        "id": "e", "jwt_svid_ttl": 0, "parent_id": id("/p"), "revision_number": "0",
        "selectors": [{"type": "unix", "value": "uid:1000"}], "spiffe_id": id("/w"),
        "store_svid": false, "x509_svid_ttl": 0,
    });
    let ok = serde_json::json!({"code": 0, "message": "OK"});
    assert_eq!(created, serde_json::json!({"results": [{"entry": entry, "status": ok}]}));
    let shown = serde_json::json!({"entries": [entry], "next_page_token": ""});
    for show in ["entry show -output json", "entry show -entryID e -output json"] {
        assert_eq!(run(&server, show).await.json(), shown);
    }
    let count = run(&server, "entry count -output json").await.json();
    assert_eq!(count, serde_json::json!({"count": 1}));

    let again = run(&server, &format!("{CREATE} -output json")).await.json();
    assert_eq!(again["results"][0]["status"]["code"], 6);
    assert_eq!(again["results"][0]["entry"]["created_at"], "0", "the entry as it was asked for");

    let deleted = run(&server, "entry delete -entryID e -output json").await.json();
    assert_eq!(deleted, serde_json::json!({"results": [{"id": "e", "status": ok}]}));
    let none = run(&server, "entry show -output json").await.json();
    assert_eq!(none, serde_json::json!({"entries": [], "next_page_token": ""}));
    server.stop().await;
}

#[tokio::test]
async fn lists_are_sorted_and_filtered() {
    let server = server().await;
    for (name, rest) in [("b", "-selector unix:gid:1"), ("a", "-downstream -hint h")] {
        let line = format!(
            "entry create -entryID {name} -node -spiffeID spiffe://example.org/{name} \
             -selector unix:uid:1 {rest}"
        );
        run(&server, &line).await.printed();
    }
    let ids = async |filter: &str| {
        let shown = run(&server, &format!("entry show {filter} -output json")).await.json();
        let count = run(&server, &format!("entry count {filter} -output json")).await.json();
        let entries = shown["entries"].as_array().unwrap().clone();
        assert_eq!(count["count"], entries.len());
        entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("").await, "a b");
    assert_eq!(ids("-parentID spiffe://example.org/spire/server").await, "a b");
    assert_eq!(ids("-spiffeID spiffe://example.org/b").await, "b");
    assert_eq!(ids("-downstream").await, "a");
    assert_eq!(ids("-downstream=false").await, "a b");
    assert_eq!(ids("-hint h").await, "a");
    assert_eq!(ids("-federatesWith partner.test").await, "");
    assert_eq!(ids("-selector unix:uid:1").await, "a b");
    assert_eq!(ids("-selector unix:uid:1 -matchSelectorsOn exact").await, "a");
    let shown = run(&server, "entry show -hint h").await.printed();
    assert!(shown.starts_with("Found 1 entry\nEntry ID                : a\n"), "{shown}");
    let both = run(&server, "entry show").await.printed();
    let sorted = "Selector                : unix:gid:1\nSelector                : unix:uid:1\n";
    assert!(both.starts_with("Found 2 entries\n") && both.contains(sorted), "{both}");
    server.stop().await;
}

#[tokio::test]
async fn a_refused_entry_is_told_with_its_block() {
    let server = server().await;
    run(&server, CREATE).await.printed();
    let told = run(&server, CREATE).await.told();
    let similar = "(code: AlreadyExists, msg: \"similar entry already exists\")";
    let failed = "Error: failed to create one or more entries\n";
    let block = format!("Failed to create the following entry {similar}:\n{BLOCK}{failed}");
    assert_eq!(told, block);

    let line = CREATE.replace("create -entryID e", "create").replace("/w", "/x");
    let told = run(&server, &format!("{line} -federatesWith partner.test")).await.told();
    let missing = "(code: InvalidArgument, msg: \"failed to create entry: unable to find federated bundle \
                   \\\"spiffe://partner.test\\\"\"):\nEntry ID                : (none)\n";
    assert!(told.contains(missing), "{told}");

    let update = CREATE.replace("create -entryID e", "update -entryID other");
    let told = run(&server, &update).await.told();
    let missing = "Failed to update the following entry (code: NotFound, msg: \"failed to update \
                   entry\"):\nEntry ID                : other\n";
    assert!(told.starts_with(missing), "{told}");
    assert!(told.ends_with("\n\nError: failed to update one or more entries\n"), "{told}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_told_before_anybody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let create = "entry create -selector a:b -parentID spiffe://t/p -spiffeID spiffe://t/w";
    let update = "entry update -entryID e -selector a:b -parentID spiffe://t/p";
    for (line, told) in [
        ("entry create", "at least one selector is required"),
        ("entry create -selector a:b", "a parent ID is required if the node flag is not set"),
        ("entry create -selector a:b -node -federatesWith x", "node entries can not federate"),
        ("entry create -selector a:b -node", "a SPIFFE ID is required"),
        (&format!("{create} -x509SVIDTTL -1"), "a positive x509-SVID TTL is required"),
        (&format!("{create} -jwtSVIDTTL -1"), "a positive JWT-SVID TTL is required"),
        (
            &format!("{create} -x509SVIDTTL 99999999999"),
            "invalid value for X509 SVID TTL: overflow converting int(99999999999) to int32",
        ),
        (
            &format!("{create} -ttl 5 -jwtSVIDTTL 5"),
            "the -ttl flag sets both TTLs and can't be combined with -x509SVIDTTL or -jwtSVIDTTL",
        ),
        (&format!("{create} -selector x"), "selector \"x\" must be formatted as type:value"),
        (&format!("{create} -spiffeID foo"), "scheme is missing or invalid (-spiffeID \"foo\")"),
        (
            &format!("{create} -parentID spiffe://t/a+b"),
            "path segment characters are limited to letters, numbers, dots, dashes, and \
             underscores (-parentID \"spiffe://t/a+b\")",
        ),
        ("entry update", "entry ID is required"),
        ("entry update -entryID e", "at least one selector is required"),
        ("entry update -entryID e -selector a:b", "a parent ID is required"),
        (update, "a SPIFFE ID is required"),
        ("entry delete", "an entry ID is required"),
        ("entry show -entryID e -hint h", "the -entryID flag can't be combined with others"),
        (
            "entry show -spiffeID foo",
            "error parsing SPIFFE ID \"foo\": scheme is missing or invalid",
        ),
        (
            "entry count -parentID foo",
            "error parsing parent ID \"foo\": scheme is missing or invalid",
        ),
        (
            "entry show -selector x",
            "error parsing selectors: selector \"x\" must be formatted as type:value",
        ),
        ("entry show -selector a:b -matchSelectorsOn x", "match behavior \"x\" unknown"),
        ("entry count -federatesWith t -matchFederatesWithOn y", "match behavior \"y\" unknown"),
    ] {
        let ran = run_at(&folder.path().join("nobody"), line).await;
        assert_eq!(ran.told(), format!("Error: {told}\n"), "{line}");
    }
}

#[tokio::test]
async fn the_former_flag_sets_both_lifetimes() {
    let server = server().await;
    let printed = run(&server, &format!("{CREATE} -ttl 60")).await.printed();
    assert!(printed.contains("X509-SVID TTL           : 60\nJWT-SVID TTL            : 60\n"));
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_entry_is_told_by_each_command() {
    let server = server().await;
    let not_found = "rpc error: code = NotFound desc = entry not found\n";
    let told = run(&server, "entry show -entryID x").await.told();
    assert_eq!(told, format!("Error: error fetching entry ID x: {not_found}"));
    let update = CREATE.replace("create", "update");
    let told = run(&server, &format!("{update} -jwtSVIDIncludeJTI")).await.told();
    let merge = "failed to fetch existing entry to merge additional attributes";
    assert_eq!(told, format!("Error: {merge}: {not_found}"));

    let ran = run(&server, "entry delete -entryID x").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "\n\nFailed to delete 1 entries"));
    let told = "Failed to delete entry with ID x (code: NotFound, msg: \"entry not found\")\n\
                Error: failed to delete one or more entries\n";
    assert_eq!(ran.stderr, told);
    let json = run(&server, "entry delete -entryID x -output json").await.json();
    assert_eq!(json["results"][0]["status"]["message"], "entry not found");
    server.stop().await;
}

#[tokio::test]
async fn who_may_not_open_the_socket_is_told_so() {
    // The socket's folder is closed to the user `nobody`, as whom the command runs.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_spire-server"));
    let copies = tempfile::tempdir().unwrap();
    std::fs::set_permissions(copies.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = copies.path().join("spire-server");
    std::fs::copy(binary, &copy).unwrap();
    let mut command = Command::new(copy);
    command.args(["entry", "count", "-socketPath"]).arg(&socket).uid(65_534).gid(65_534);
    let output = command.output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.ends_with(": connect: permission denied\"\n"), "{told}");
}
