//! Agents with their selectors, and join tokens.

use spire_server::store::{Attestation, KeyFingerprint, Recorded, Redemption, TokenUse};
use spire_test_databases::spire::Value;

use super::*;
use crate::{attestation, each_database, selectors};

each_database! {
    case_05_agents_go_on_as_they_were,
    case_06_serial_numbers_are_exact_and_absent_ones_are_bans,
    case_13_tokens_keep_their_text,
    case_20_selectors_of_agents_that_are_gone_are_skipped,
}

const AGENTS: &str = "spiffe://example.org/spire/agent";

fn path(agent_id: &str) -> &str {
    agent_id.strip_prefix(OWN).unwrap()
}

async fn case_05_agents_go_on_as_they_were(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 5)).await;
    let agent_version = if schema_of(kind, 5) < 24 { "" } else { "1.15.3" };
    let id = |name: &str| format!("{AGENTS}/{name}");
    let pending = [
        ("new_serial_number", "12".into()),
        ("new_expires_at", at(LATER + 60).into()),
        ("can_reattest", true.into()),
        ("agent_version", agent_version.into()),
    ];
    spire.agent(&id("x509pop/live"), "x509pop", "11", at(LATER), &pending);
    spire.node_selectors(&id("x509pop/live"), &["x509pop:subject:cn:a", "x509pop:ca:é"]);
    // A ban leaves the dates where they were.
    let ban = [("new_expires_at", at(LATER).into())];
    spire.agent(&id("aws_iid/banned"), "aws_iid", "", at(LATER), &ban);
    spire.agent(&id("aws_iid/banned-and-expired"), "aws_iid", "", at(BEFORE), &[]);
    spire.node_selectors(&id("aws_iid/banned"), &["aws_iid:az:a"]);
    spire.agent(&id("aws_iid/expired"), "aws_iid", "13", at(BEFORE), &[]);
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();

    let [live, banned, _, expired] = copied.nodes().await.try_into().unwrap();
    let expected = Node {
        agent_id: id("x509pop/live").parse().unwrap(),
        attestation_type: "x509pop".into(),
        serial: "11".into(),
        expires_at: at(LATER),
        new_serial: "12".into(),
        new_expires_at: Some(at(LATER + 60)),
        can_reattest: true,
        selectors: selectors(&["x509pop:subject:cn:a", "x509pop:ca:é"]),
        agent_version: agent_version.into(),
    };
    assert_eq!(live, expected);
    assert_eq!((banned.serial.as_str(), banned.new_expires_at), ("", None));
    assert_eq!(banned.selectors, selectors(&["aws_iid:az:a"]));
    assert_eq!((expired.can_reattest, expired.expires_at), (false, at(BEFORE)));

    let rotated = copied.store.promote_serial(live.agent_id, "12".into()).await.unwrap();
    assert_eq!((rotated.serial.as_str(), rotated.expires_at), ("12", at(LATER + 60)));
    assert_eq!((rotated.new_serial.as_str(), rotated.new_expires_at), ("", None));

    for (name, expected) in [
        ("aws_iid/banned", Recorded::Banned),
        ("aws_iid/banned-and-expired", Recorded::Banned),
        ("aws_iid/expired", Recorded::AlreadyUsed),
    ] {
        let again = attestation(path(&id(name)), "99");
        let again = Attestation { can_reattest: false, ..again };
        let recorded = copied.store.record_attestation(again, at(NOW)).await.unwrap();
        assert_eq!(recorded, expected, "{name}");
    }
    // One that was evicted is free to come.
    let fresh = attestation("/spire/agent/aws_iid/evicted", "99");
    let recorded = copied.store.record_attestation(fresh, at(NOW)).await.unwrap();
    assert!(matches!(recorded, Recorded::Stored(_)), "{recorded:?}");
}

async fn case_06_serial_numbers_are_exact_and_absent_ones_are_bans(kind: Kind) {
    const LARGEST: &str = "340282366920938463463374607431768211455";
    const NEXT: &str = "340282366920938463463374607431768211454";
    let mut spire = spire(kind, schema_of(kind, 6)).await;
    let pending = [("new_serial_number", NEXT.into()), ("new_expires_at", at(LATER).into())];
    spire.agent(&format!("{AGENTS}/a"), "x509pop", LARGEST, at(LATER), &pending);
    spire.agent(&format!("{AGENTS}/b"), "x509pop", "", at(LATER), &[]);
    let null = [("serial_number", Value::Null), ("new_serial_number", Value::Null)];
    spire.agent(&format!("{AGENTS}/c"), "x509pop", "1", at(LATER), &null);
    spire.agent(&format!("{AGENTS}/d"), "x509pop", "0x12", at(LATER), &[]);
    let copied = copied(&mut spire, kind).await;
    let nodes = copied.nodes().await;
    assert_eq!((nodes[0].serial.as_str(), nodes[0].new_serial.as_str()), (LARGEST, NEXT));
    assert!(nodes[1].is_banned() && nodes[2].is_banned() && nodes.len() == 3);
    let named = [("spiffe://example.org/spire/agent/d", Cause::Unreadable)];
    assert_eq!(copied.skipped("attested_node_entries"), named);
    assert_eq!(copied.report.unreadable, 1);
}

async fn case_13_tokens_keep_their_text(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    let mut good = vec!["2c6a7b1e-5f6d-4a53-9f0e-7e7d3c5b9f10", "not a/UUID é"];
    if kind != Kind::MySql {
        good.extend(["Token", "token", "\u{1f511}"]);
    }
    for token in &good {
        spire.join_token(token, NOW);
    }
    let expired = spire.join_token("expired", BEFORE);
    let copied = copied(&mut spire, kind).await;
    let name = format!("row {expired}");
    assert_eq!(copied.skipped("join_tokens"), [(name.as_str(), Cause::Expired)]);
    assert_eq!(copied.report.unreadable, 0);
    let spend = async |token: &str| {
        let offered = TokenUse { token: token.into(), key: KeyFingerprint([1; 32]) };
        copied.store.redeem_join_token(offered, at(NOW)).await.unwrap()
    };
    assert_eq!(spend("expired").await, Redemption::Unknown);
    assert_eq!(spend("NOT a/UUID é").await, Redemption::Unknown);
    for token in good {
        assert_eq!(spend(token).await, Redemption::Fresh, "{token}");
    }
}

async fn case_20_selectors_of_agents_that_are_gone_are_skipped(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 20)).await;
    let (here, gone) = (format!("{AGENTS}/here"), format!("{AGENTS}/gone"));
    spire.node_selectors(&gone, &["a:1", "a:2"]);
    spire.agent(&here, "x509pop", "1", at(LATER), &[]);
    spire.node_selectors(&here, &["a:1"]);
    spire.node_selectors(&gone, &["a:3"]);
    let copied = copied(&mut spire, kind).await;
    let names = ["a:1", "a:2", "a:3"].map(|selector| format!("{gone} {selector}"));
    let expected = names.each_ref().map(|name| (name.as_str(), Cause::Orphan));
    assert_eq!(copied.skipped("node_resolver_map_entries"), expected);
    let [node] = copied.nodes().await.try_into().unwrap();
    assert_eq!(node.selectors, selectors(&["a:1"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_are_read_in_pieces() {
    let mut spire = spire(Kind::Sqlite, 25).await;
    for number in 0..2500 {
        let id = format!("{AGENTS}/{number}");
        spire.agent(&id, "x509pop", &number.to_string(), at(LATER), &[]);
        let selector = format!("a:{number}");
        spire.node_selectors(&id, &[&selector]);
        spire.node_selectors(&format!("{AGENTS}/gone/{number}"), &[&selector]);
    }
    let copied = copied(&mut spire, Kind::Sqlite).await;
    assert_eq!(copied.report.skipped.total(), 2500);
    let nodes = copied.nodes().await;
    assert_eq!(nodes.len(), 2500);
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(node.serial, number.to_string());
        assert_eq!(node.selectors, selectors(&[&format!("a:{number}")]));
    }
}
