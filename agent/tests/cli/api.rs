//! `api fetch` and `api validate`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::command::utc_time;
use tokio::net::UnixListener;

use super::*;

/// The lines about the roots of a bundle.
fn roots(label: &str, bundle: &Bundle) -> String {
    let lines = (1..).zip(&bundle.x509_authorities).map(|(number, root)| {
        let (from, until) = root.validity().unwrap();
        let (from, until) = (utc_time(from.as_second()), utc_time(until.as_second()));
        format!(
            "{label}CA #{number} Valid After:\t{from}\n{label}CA #{number} Valid Until:\t{until}\n"
        )
    });
    lines.collect()
}

#[tokio::test]
async fn x509_svids_are_reported() {
    let node = Node::start().await;
    let partner = Authority::new("partner.test").await.bundle();
    node.federate([partner.clone()]);
    let federates_with = vec!["partner.test".to_owned()];
    let app = types::Entry { hint: "external".into(), federates_with, ..entry("/app") };
    node.authorize([app]).await;
    for line in ["api fetch", "api fetch x509 -timeout 0"] {
        let printed = run(&node.socket, line).await.printed();
        let (first, rest) = printed.split_once("\n\n").unwrap();
        assert!(first.starts_with("Received 1 svid after ") && first.ends_with("ms"), "{first}");
        let rest = rest.strip_prefix(
            "SPIFFE ID:\t\tspiffe://example.org/app\nHint:\t\t\texternal\nSVID Valid After:\t",
        );
        let mut labels = Vec::new();
        let (times, known) = rest.unwrap().split_at(rest.unwrap().find("CA #1").unwrap());
        for line in times.lines() {
            let (label, time) = line.split_once('\t').unwrap_or(("", line));
            assert!(time.ends_with(" +0000 UTC") && time.len() == 29, "{time}");
            labels.push(label);
        }
        assert_eq!(
            labels,
            [
                "",
                "SVID Valid Until:",
                "Intermediate #1 Valid After:",
                "Intermediate #1 Valid Until:"
            ]
        );
        let own = roots("", &node.authority.bundle());
        let other = roots("[spiffe://partner.test] ", &partner);
        assert_eq!(known, format!("{own}{other}\n"));
    }
}

#[tokio::test]
async fn several_svids_are_counted() {
    let node = Node::start().await;
    node.authorize([entry("/a"), entry("/b")]).await;
    let printed = run(&node.socket, "api fetch x509").await.printed();
    assert!(printed.starts_with("Received 2 svids after "), "{printed}");
    let blocks: Vec<_> = printed.split("\n\n").collect();
    assert_eq!(blocks.len(), 4, "{printed}");
    assert!(blocks[1].starts_with("SPIFFE ID:\t\tspiffe://example.org/a\nSVID Valid After:"));
    assert!(blocks[2].starts_with("SPIFFE ID:\t\tspiffe://example.org/b\n"));
}

#[tokio::test]
async fn written_files_are_ones_that_openssl_accepts() {
    let node = node_with_a_partner().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let key = folder.path().join("svid.0.key");
    fs::write(&key, "an older key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let line = format!("api fetch x509 -silent -write {path}/");
    let expected = format!(
        "Writing SVID #0 to file {path}/svid.0.pem.\nWriting key #0 to file {path}/svid.0.key.\n\
         Writing bundle #0 to file {path}/bundle.0.pem.\nWriting federated bundle #0 for trust \
         domain spiffe://partner.test to file {path}/federated_bundle.0.0.pem.\n"
    );
    assert_eq!(run(&node.socket, &line).await.printed(), expected);
    let svid = format!("{path}/svid.0.pem");
    openssl(&format!("verify -CAfile {path}/bundle.0.pem -untrusted {svid} {svid}"));
    let public_key = openssl(&format!("pkey -in {path}/svid.0.key -pubout"));
    assert_eq!(openssl(&format!("x509 -in {svid} -noout -pubkey")), public_key);
    openssl(&format!("x509 -in {path}/federated_bundle.0.0.pem -noout"));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&key).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));

    let ran = run(&node.socket, "api fetch x509 -silent -write /nowhere").await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (1, "Writing SVID #0 to file /nowhere/svid.0.pem.\n")
    );
    assert_eq!(ran.stderr, "open /nowhere/svid.0.pem: no such file or directory\n");
}

#[track_caller]
fn openssl(arguments: &str) -> String {
    let output = std::process::Command::new("openssl").args(arguments.split(' ')).output();
    let output = output.expect("openssl is part of a test machine");
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn x509_svids_are_json_as_scripts_know_it() {
    let node = node_with_a_partner().await;
    let json = run(&node.socket, "api fetch x509 -silent -output json").await.json();
    assert_eq!(members(&json), ["crl", "federated_bundles", "svids"]);
    assert_eq!(members(&json["federated_bundles"]), ["spiffe://partner.test"]);
    let svid = &json["svids"][0];
    assert_eq!(members(svid), ["bundle", "hint", "spiffe_id", "x509_svid", "x509_svid_key"]);
    assert_eq!(
        (&svid["hint"], &svid["spiffe_id"]),
        (&"external".into(), &"spiffe://example.org/app".into())
    );
}

#[tokio::test]
async fn tokens_are_fetched_with_the_keys_that_prove_them() {
    let node = node_with_a_partner().await;
    let printed =
        run(&node.socket, "api fetch jwt -audience ignored -audience a,b").await.printed();
    let rest = printed.strip_prefix("token(spiffe://example.org/app):\n\tey").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let rest = rest.strip_prefix("hint(spiffe://example.org/app):\n\texternal\n").unwrap();
    let keys = node.authority.bundle().to_jwks();
    let start =
        format!("bundle(spiffe://example.org):\n\t{keys}\nbundle(spiffe://partner.test):\n\t{{\n");
    assert!(rest.starts_with(&start), "{rest}");

    for spelling in ["-output", "-format"] {
        let line = format!("api fetch jwt -audience a {spelling} json");
        let json = run(&node.socket, &line).await.json();
        assert_eq!(members(&json[0]["svids"][0]), ["hint", "spiffe_id", "svid"]);
        assert_eq!(members(&json[1]["bundles"]), ["spiffe://example.org", "spiffe://partner.test"]);
    }
    for (flags, told) in [
        ("", "audience must be specified"),
        (
            "-audience a -spiffeID spiffe://example.org/x",
            "rpc error: code = PermissionDenied desc = no identity issued",
        ),
        (
            "-audience a -spiffeID foo",
            "rpc error: code = InvalidArgument desc = invalid requested SPIFFE ID: scheme is \
             missing or invalid",
        ),
    ] {
        let ran = run(&node.socket, &format!("api fetch jwt {flags}")).await;
        assert_eq!(ran.told(), format!("{told}\n"));
    }
}

#[tokio::test]
async fn tokens_are_validated() {
    let node = node_with_a_partner().await;
    let token = node.authority.token("/db", &["a"], Timestamp::now()).await;
    let validate = async |audience: &str, token: &str, more: &str| {
        let line = format!("api validate jwt -audience {audience} -svid {token} {more}");
        run(&node.socket, &line).await
    };
    let printed = validate("a", &token, "").await.printed();
    let start =
        "SVID is valid.\nSPIFFE ID : spiffe://example.org/db\nClaims    : {\"aud\":[\"a\"],";
    assert!(printed.starts_with(start), "{printed}");
    let json = validate("a", &token, "-output json").await.json();
    assert_eq!(members(&json), ["claims", "spiffe_id"]);
    assert!(json["claims"]["exp"].is_u64(), "{json}");

    let told = validate("b", &token, "-output json").await.told();
    assert_eq!(told, "SVID is not valid: expected audience in [\"b\"] (audience=[\"a\"])\n");
    let told = validate("a", "foo", "").await.told();
    assert_eq!(
        told,
        "SVID is not valid: unable to parse JWT token: go-jose/go-jose: compact JWS format must \
         have three parts\n"
    );
    let told = run(&node.socket, "api validate jwt -svid x").await.told();
    assert_eq!(told, "audience must be specified\n");
    let told = run(&node.socket, "api validate jwt -audience a").await.told();
    assert_eq!(told, "svid must be specified\n");
}

#[tokio::test]
async fn without_identity_or_agent_the_reason_is_told() {
    let node = Node::start().await;
    node.authorize([]).await;
    let denied = "rpc error: code = PermissionDenied desc = no identity issued\n";
    assert_eq!(run(&node.socket, "api fetch x509").await.told(), denied);

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let nobody = nobody_at(socket.display());
    assert_eq!(run(&socket, "api fetch").await.told(), nobody);
    let told = run(&socket, "api fetch jwt -audience a").await.told();
    assert_eq!(told, format!("failed to receive JWT bundles: {nobody}"));
    let told = run(&socket, "api validate jwt -audience a -svid x").await.told();
    assert_eq!(told, format!("unable to validate JWT SVID: {nobody}"));
    let relative = run(&socket, "api fetch -socketPath no/socket").await.told();
    let here = std::env::current_dir().unwrap().join("no/socket");
    assert_eq!(relative, nobody_at(here.display()));
    let told = run(&socket, "api fetch -instance a").await.told();
    let missing = " SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE environment variable must be defined when \
                   using the instance flag\n";
    assert_eq!(told, missing);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_not_waited_for_longer_than_asked() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let _silent = UnixListener::bind(&socket).unwrap();
    let asked =
        tokio::time::timeout(Duration::from_secs(30), run(&socket, "api fetch -timeout 50ms"));
    let told = "rpc error: code = DeadlineExceeded desc = context deadline exceeded\n";
    assert_eq!(asked.await.unwrap().told(), told);
}

#[tokio::test]
async fn mistakes_of_flags_are_told_twice() {
    let nowhere = Path::new("/nowhere");
    for (line, mistake, name) in [
        ("api fetch -nope", "flag provided but not defined: -nope", "fetch x509"),
        (
            "api fetch jwt -timeout x",
            "invalid value \"x\" for flag -timeout: time: invalid duration \"x\"",
            "fetch jwt",
        ),
        ("api validate jwt -svid", "flag needs an argument: -svid", "validate jwt"),
        ("api watch -output json", "flag provided but not defined: -output", "watch"),
    ] {
        let told = run(nowhere, line).await.told();
        assert!(told.starts_with(&format!("{mistake}\nUsage of {name}:\n")), "{told}");
        assert!(told.ends_with(&format!("\n{mistake}\n")), "{told}");
    }
    let help = run(nowhere, "api fetch x509 -h").await;
    assert_eq!((help.code, help.stdout.as_str()), (0, ""));
    assert!(help.stderr.starts_with("Usage of fetch x509:\n") && help.stderr.ends_with("\n\n"));
}
