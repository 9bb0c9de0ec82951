//! `localauthority`, `upstreamauthority` and `authority`.

use super::*;

/// The value of the first line with this label.
fn value<'t>(text: &'t str, label: &str) -> &'t str {
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix("  ")?.strip_prefix(label));
    found.unwrap_or_else(|| panic!("{label:?} is not in {text}"))
}

#[tokio::test]
async fn an_authority_is_turned_tainted_and_revoked() {
    let server = server().await;
    for (kind, name) in [("x509", "X.509"), ("jwt", "JWT")] {
        let command =
            async |rest: &str| run(&server, &format!("localauthority {kind} {rest}")).await;
        let upstream =
            if kind == "x509" { "  Upstream authority ID: No upstream authority\n" } else { "" };
        let detail = |what: &str, id: &str, end: &str| {
            format!(
                "{what} {name} authority:\n  Authority ID: {id}\n  Expires at: {end}\n{upstream}"
            )
        };
        let never = "1970-01-01 00:00:00 +0000 UTC";

        let shown = command("show").await.printed();
        let (first, end) = (value(&shown, "Authority ID: "), value(&shown, "Expires at: "));
        let nothing = |slot: &str| {
            format!(
                "\n{slot} {name} authority:\n  No {} {name} authority found\n",
                slot.to_lowercase()
            )
        };
        let expected = detail("Active", first, end) + &nothing("Prepared") + &nothing("Old");
        assert_eq!(shown, expected);

        let prepared = command("prepare").await.printed();
        let (second, later) =
            (value(&prepared, "Authority ID: "), value(&prepared, "Expires at: "));
        assert_eq!(prepared, detail("Prepared", second, later));
        let activated = command(&format!("activate -authorityID {second}")).await.printed();
        assert_eq!(activated, detail("Activated", second, later));
        let could_not = |verb: &str, why: &str| {
            format!("Error: could not {verb} {name} authority: rpc error: code = {why}\n")
        };
        let old = "Internal desc = only Prepared authorities can be activated: unsupported local \
                   authority status: OLD";
        let ran = command(&format!("activate -authorityID {first}")).await;
        assert_eq!(ran.told(), could_not("activate", old));

        let tainted = command(&format!("taint -authorityID {first}")).await.printed();
        let date = if kind == "x509" { end } else { never };
        assert_eq!(tainted, detail("Tainted", first, date));
        let again = if kind == "x509" { "root CA" } else { "key" };
        let again =
            format!("Internal desc = failed to taint {name} authority: {again} is already tainted");
        let ran = command(&format!("taint -authorityID {first}")).await;
        assert_eq!(ran.told(), could_not("taint", &again));
        let ran = command(&format!("taint -authorityID {second}")).await;
        let current = "InvalidArgument desc = unable to taint current local authority";
        assert_eq!(ran.told(), could_not("taint", current));
        let ran = command("activate -authorityID nope").await;
        let unknown = "InvalidArgument desc = unexpected authority ID";
        assert_eq!(ran.told(), could_not("activate", unknown));

        let revoked = command(&format!("revoke -authorityID {first}")).await.printed();
        assert_eq!(revoked, detail("Revoked", first, never));
        let again = match kind {
            "x509" => "no root CA found with provided subject key ID",
            _ => "no JWT Key found with provided key ID",
        };
        let again = format!("Internal desc = failed to revoke {name} authority: {again}");
        let ran = command(&format!("revoke -authorityID {first}")).await;
        assert_eq!(ran.told(), could_not("revoke", &again));
        let shown = command("show").await.printed();
        let expected = detail("Active", second, later)
            + &nothing("Prepared")
            + "\n"
            + &detail("Old", first, end);
        assert_eq!(shown, expected);

        let json = command("show -output json").await.json();
        assert_eq!(members(&json), ["active", "old"]);
        let fields = ["authority_id", "expires_at", "upstream_authority_subject_key_id"];
        assert_eq!(members(&json["active"]), fields);
        let json = command("prepare -output json").await.json();
        assert_eq!(members(&json), ["prepared_authority"]);
        for verb in ["activate", "taint", "revoke"] {
            assert_eq!(command(verb).await.told(), "Error: an authority ID is required\n");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn without_an_upstream_its_roots_cannot_be_given_up() {
    let server = server().await;
    for verb in ["taint", "revoke"] {
        let ran = run(&server, &format!("upstreamauthority {verb} -subjectKeyID ab")).await;
        let told = format!(
            "Error: could not {verb} X.509 upstream authority: rpc error: code = \
             FailedPrecondition desc = upstream authority is not configured\n"
        );
        assert_eq!(ran.told(), told);
        let told = run(&server, &format!("upstreamauthority {verb}")).await.told();
        let missing = "the Subject Key ID of the X.509 upstream authority is required";
        assert_eq!(told, format!("Error: {missing}\n"));
    }
    server.stop().await;
    let nowhere = run_at(Path::new("/nowhere/s"), "localauthority x509 show").await.told();
    let start = "Error: could not get X.509 authorities: rpc error: code = Unavailable desc = ";
    assert!(nowhere.starts_with(start), "{nowhere}");
    let nowhere = run_at(Path::new("/nowhere/s"), "localauthority jwt show").await.told();
    assert!(nowhere.starts_with("Error: rpc error: code = Unavailable desc = "), "{nowhere}");
}

#[tokio::test]
async fn the_tree_tells_which_agents_still_depend_on_the_old_authority() {
    let server = server().await;
    server.create_token("t", 600).await;
    harness::TestAgent::new().attest(&server, "join_token", "t").await.unwrap();
    let before = run(&server, "authority show").await.printed();
    let title = "├─ Root, X.509 authority (active)\n";
    let start = format!("Trust domain example.org\n{title}");
    assert!(before.starts_with(&start), "{before}");
    assert!(before.contains("Signed the SVIDs of 1 agent\n"), "{before}");
    assert!(before.contains("└─ JWT key (active)\n"), "{before}");

    let prepared = run(&server, "localauthority x509 prepare").await.printed();
    let id = value(&prepared, "Authority ID: ");
    run(&server, &format!("localauthority x509 activate -authorityID {id}")).await.printed();
    let json = run(&server, "authority show -output json").await.json();
    let of = |slot: &str| {
        let mut all = json["x509_authorities"].as_array().unwrap().iter();
        all.find(|one| one["slot"] == slot).unwrap().clone()
    };
    assert_eq!(
        (of("ACTIVE")["agents"].as_str(), of("OLD")["agents"].as_str()),
        (Some("0"), Some("1"))
    );
    let agent = "spiffe://example.org/spire/agent/join_token/t";
    assert_eq!(of("OLD")["agent_ids"][0], agent);
    assert_eq!(json["other_agents"], "0");
    assert_eq!(of("ACTIVE")["certificate"]["id"], id);

    let drawn = run(&server, "authority show -output mermaid").await.printed();
    assert!(drawn.starts_with("flowchart TD\n") && drawn.contains(agent), "{drawn}");
    let drawn = run(&server, "authority show -output svg").await.printed();
    assert!(drawn.starts_with("<svg ") && drawn.contains(agent), "{drawn}");

    // The authority that signed it is known no more, but the agent depends on it all the same.
    let prepared = run(&server, "localauthority x509 prepare").await.printed();
    let id = value(&prepared, "Authority ID: ");
    run(&server, &format!("localauthority x509 activate -authorityID {id}")).await.printed();
    let after = run(&server, "authority show").await.printed();
    assert!(after.contains("Agents with SVIDs of other authorities: 1\n"), "{after}");
    let ran = run(&server, "authority show -output xml").await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("unknown format option: \"xml\""), "{}", ran.stderr);
    server.stop().await;
}
