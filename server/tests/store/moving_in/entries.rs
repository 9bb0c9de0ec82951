//! Registration entries with what belongs to them.

use spire_core::entry::AdditionalAttributes;
use spire_test_databases::spire::Value;

use super::*;
use crate::{each_database, selectors};

each_database! {
    case_07_parents_may_be_anything,
    case_08_dns_names_keep_their_order,
    case_10_entry_ids_may_be_chosen,
    case_12_settings_and_ends_are_kept,
    case_15_texts_of_every_language_are_kept,
    case_17_what_no_server_takes_is_named,
    case_20_what_belongs_to_no_entry_is_skipped,
}

const AGENT: &str = "spiffe://example.org/spire/agent/x509pop/a";

async fn case_07_parents_may_be_anything(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 7)).await;
    let alias = format!("{OWN}/host");
    let token = "spiffe://example.org/spire/agent/join_token/abc";
    spire.agent(token, "join_token", "1", at(LATER), &[]);
    spire.agent(AGENT, "x509pop", "1", at(LATER), &[]);
    spire.node_selectors(AGENT, &["a:1", "b:2"]);
    let parents = [
        ("alias", alias.as_str(), token),
        ("below-alias", "spiffe://example.org/one", &alias),
        ("below-entry", "spiffe://example.org/two", "spiffe://example.org/one"),
        ("below-server", "spiffe://example.org/three", "spiffe://example.org/spire/server"),
        ("below-group", "spiffe://example.org/five", "spiffe://example.org/three"),
        ("below-nobody", "spiffe://example.org/four", "spiffe://example.org/missing"),
    ];
    let of_token = format!("spiffe_id:{token}");
    for (id, spiffe_id, parent_id) in parents {
        let selector = if id == "alias" { of_token.as_str() } else { "a:1" };
        spire.entry(id, spiffe_id, parent_id, &[selector], &[]);
    }
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();
    let entries = copied.entries().await;
    for (entry, (id, spiffe_id, parent_id)) in entries.iter().zip(parents) {
        assert_eq!(entry.id.as_str(), id);
        assert_eq!((entry.spiffe_id.as_str(), entry.parent_id.as_str()), (spiffe_id, parent_id));
    }
    assert_eq!(*entries[0].selectors.as_set(), selectors(&[&of_token]));

    // What the agents may serve of them: the selectors of one are those of a group.
    let mut draft = spire_server::registry::Draft::new(domain("example.org"));
    entries.iter().for_each(|entry| draft.put_entry(entry));
    copied.nodes().await.iter().for_each(|node| draft.put_node(node));
    let snapshot = draft.snapshot();
    for (agent, expected) in
        [(token, &["alias", "below-alias", "below-entry"][..]), (AGENT, &["below-group"])]
    {
        let authorized = snapshot.authorized(&agent.parse().unwrap());
        let mut ids: Vec<_> = authorized.iter().map(|entry| entry.id().to_string()).collect();
        ids.sort();
        assert_eq!(ids, expected, "{agent}");
    }
}

async fn case_08_dns_names_keep_their_order(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 8)).await;
    let one = spire.entry("one", &format!("{OWN}/one"), AGENT, &["a:1"], &[]);
    let two = spire.entry("two", &format!("{OWN}/two"), AGENT, &["a:1"], &[]);
    // The rows of both are mixed; an update writes all rows of an entry anew.
    for name in ["z.example.org", "a.example.org", "m.example.org"] {
        spire.dns_names(two, &[name]);
        spire.dns_names(one, &[name]);
    }
    spire.write().await.unwrap();
    let delete = format!("DELETE FROM dns_names WHERE registered_entry_id = {two}");
    spire.execute(&delete).await.unwrap();
    spire.dns_names(two, &["m.example.org", "*.z.example.org", "a.example.org"]);
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();
    let names = async |id: &str| {
        let entry = copied.entry(id).await;
        entry.dns_names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names("one").await, ["z.example.org", "a.example.org", "m.example.org"]);
    assert_eq!(names("two").await, ["m.example.org", "*.z.example.org", "a.example.org"]);
}

async fn case_10_entry_ids_may_be_chosen(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 10)).await;
    let long = "x".repeat(255);
    let mut ids = vec!["7f1e0f5e-5b1c-4c53-8f1c-0a3a64a4f2f1", "my.entry_1", "CLUSTER.7f1e", &long];
    if kind != Kind::MySql {
        ids.extend(["Case", "case"]);
    }
    for id in &ids {
        spire.entry(id, &format!("{OWN}/w"), AGENT, &["a:1"], &[]);
    }
    // Cruft that SPIRE itself does not show.
    let null = [("entry_id", Value::Null)];
    let nameless = spire.entry("", &format!("{OWN}/w"), AGENT, &["a:1"], &null);
    let copied = copied(&mut spire, kind).await;
    let entries = copied.entries().await;
    assert_eq!(entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ids);
    let name = format!("row {nameless}");
    assert_eq!(copied.skipped("registered_entries"), [(name.as_str(), Cause::Orphan)]);
}

async fn case_12_settings_and_ends_are_kept(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    let hint = if kind == Kind::MySql { "é".repeat(255) } else { "é".repeat(300) };
    let more: [&[(&str, Value)]; 9] = [
        &[("expiry", Value::Null), ("admin", Value::Null), ("hint", Value::Null)],
        &[("expiry", NOW.into()), ("admin", true.into())],
        &[("expiry", BEFORE.into())],
        &[("ttl", 60.into()), ("downstream", true.into())],
        &[("jwt_svid_ttl", 30.into()), ("store_svid", true.into())],
        &[("hint", hint.as_str().into()), ("additional_attributes", vec![].into())],
        &[("additional_attributes", b"\x08\x01".to_vec().into())],
        &[("additional_attributes", b"\x08\x01\x10\x01".to_vec().into())],
        &[("additional_attributes", b"\x10\x01\x52\x01x".to_vec().into())],
    ];
    for (index, more) in more.into_iter().enumerate() {
        let spiffe_id = format!("{OWN}/{index}");
        spire.entry(&index.to_string(), &spiffe_id, AGENT, &["a:1"], more);
    }
    let copied = copied(&mut spire, kind).await;
    assert_eq!(copied.skipped("registered_entries"), [("2", Cause::Expired)]);
    let remarked: Vec<_> =
        copied.report.remarks.items.iter().map(|remark| remark.name.as_str()).collect();
    assert_eq!(remarked, ["8"], "it has attributes that are not known");

    let plain = copied.entry("0").await;
    assert_eq!((plain.expires_at, plain.admin, plain.hint.as_str()), (None, false, ""));
    assert_eq!(plain.attributes, None);
    let ends = copied.entry("1").await;
    assert_eq!((ends.expires_at, ends.admin), (Some(at(NOW)), true));
    let x509 = copied.entry("3").await;
    assert_eq!((x509.x509_svid_ttl, x509.jwt_svid_ttl, x509.downstream), (60, 0, true));
    let jwt = copied.entry("4").await;
    assert_eq!((jwt.x509_svid_ttl, jwt.jwt_svid_ttl, jwt.store_svid), (0, 30, true));
    let hinted = copied.entry("5").await;
    assert_eq!((hinted.hint.as_str(), hinted.attributes), (hint.as_str(), None));
    for (id, disable_x509_svid_prefetch, jwt_svid_include_jti) in
        [("6", true, false), ("7", true, true), ("8", false, true)]
    {
        let expected = AdditionalAttributes { disable_x509_svid_prefetch, jwt_svid_include_jti };
        assert_eq!(copied.entry(id).await.attributes, Some(expected), "{id}");
    }
}

/// A target of MySQL takes what the others tell apart.
async fn case_15_texts_of_every_language_are_kept(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    let long = format!("unix:{}", "é".repeat(255));
    let mut all = vec!["unix:user:Zoë", "k8s:pod:日本語 'quoted' \\ back", &long];
    if kind != Kind::MySql {
        all.extend(["unix:user:Bob", "unix:user:bob", "unix:user:bob ", "unix:x:é", "unix:x:e"]);
        all.push("unix:x:\u{1f600}");
        for id in ["Case", "case"] {
            spire.entry(id, &format!("{OWN}/{id}"), AGENT, &["a:1"], &[]);
            spire.agent(&format!("{OWN}/spire/agent/{id}"), "x509pop", "1", at(LATER), &[]);
            spire.node_selectors(&format!("{OWN}/spire/agent/{id}"), &all);
        }
    }
    spire.entry("e", &format!("{OWN}/w"), AGENT, &all, &[]);
    let copied = copied(&mut spire, Kind::MySql).await;
    copied.is_complete();
    assert_eq!(*copied.entry("e").await.selectors.as_set(), selectors(&all));
    let nodes = copied.nodes().await;
    assert_eq!(nodes.len(), if kind == Kind::MySql { 0 } else { 2 });
    assert!(nodes.iter().all(|node| node.selectors == selectors(&all)));
}

/// Agents of MySQL are found whatever the case, as SPIRE itself finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_15_selectors_of_an_agent_in_another_case_are_its_own() {
    let mut spire = spire(Kind::MySql, 25).await;
    spire.agent(&format!("{OWN}/spire/agent/A"), "x509pop", "1", at(LATER), &[]);
    spire.node_selectors(&format!("{OWN}/spire/agent/a"), &["a:1"]);
    let copied = copied(&mut spire, Kind::MySql).await;
    copied.is_complete();
    assert_eq!(copied.nodes().await[0].selectors, selectors(&["a:1"]));
}

async fn case_17_what_no_server_takes_is_named(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    let good = format!("{OWN}/w");
    let odd = "spiffe://example.org/with space";
    spire.entry("good", &good, AGENT, &["a:1"], &[]);
    spire.entry("odd/id", &good, AGENT, &["a:1"], &[]);
    spire.entry("odd-spiffe-id", odd, AGENT, &["a:1"], &[]);
    spire.entry("odd-parent", &good, odd, &["a:1"], &[]);
    spire.entry("foreign", "spiffe://other.org/w", AGENT, &["a:1"], &[]);
    spire.entry("no-selector", &good, AGENT, &[], &[]);
    spire.entry("long-ago", &good, AGENT, &["a:1"], &[("ttl", (-1).into())]);
    let named = spire.entry("odd-name", &good, AGENT, &["a:1"], &[]);
    spire.dns_names(named, &["a_b.example.org"]);
    let coded = [("additional_attributes", b"\xff".to_vec().into())];
    spire.entry("odd-attributes", &good, AGENT, &["a:1"], &coded);
    let copied = copied(&mut spire, kind).await;
    let expected = [
        "odd/id",
        "odd-spiffe-id",
        "odd-parent",
        "foreign",
        "no-selector",
        "long-ago",
        "odd-name",
        "odd-attributes",
    ];
    assert_eq!(copied.skipped("registered_entries"), expected.map(|id| (id, Cause::Unreadable)));
    assert_eq!(copied.report.unreadable, expected.len() as u64);
    let reasons: Vec<_> =
        copied.report.skipped.items.iter().map(|skipped| skipped.reason.as_str()).collect();
    let parts = [
        "entry ID \"odd/id\"",
        "path segment characters",
        "parent_id \"spiffe://example.org/with space\"",
        "not in the trust domain example.org",
        "no selectors",
        "ttl -1",
        "DNS name \"a_b.example.org\"",
        "additional_attributes",
    ];
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    assert_eq!(copied.entries().await.len(), 1);
}

async fn case_20_what_belongs_to_no_entry_is_skipped(kind: Kind) {
    let mut spire = spire(kind, schema_of(kind, 20)).await;
    let bundle = spire.bundle(&empty("a.org"));
    let first = spire.entry("first", &format!("{OWN}/1"), AGENT, &["a:1"], &[]);
    let gone = spire.entry("gone", &format!("{OWN}/2"), AGENT, &["a:1", "a:2"], &[]);
    spire.dns_names(gone, &["gone.example.org"]);
    let last = spire.entry("last", &format!("{OWN}/3"), AGENT, &["a:3"], &[]);
    for (entry, bundle) in [(first, bundle), (first, 77), (gone, bundle), (gone, 77), (99, bundle)]
    {
        spire.federate(entry, bundle);
    }
    spire.selectors(99, &["a:4"]);
    spire.row("dns_names", &[("registered_entry_id", Value::Null), ("value", "null.org".into())]);
    spire.dns_names(last, &["last.example.org"]);
    spire.write().await.unwrap();
    let delete = format!("DELETE FROM registered_entries WHERE id = {gone}");
    spire.execute(&delete).await.unwrap();
    let copied = copied(&mut spire, kind).await;
    let orphans = |names: &[&'static str]| -> Vec<(&str, Cause)> {
        names.iter().map(|name| (*name, Cause::Orphan)).collect()
    };
    assert_eq!(copied.skipped("selectors"), orphans(&["a:1", "a:2", "a:4"]));
    let mut names = copied.skipped("dns_names");
    names.sort();
    assert_eq!(names, orphans(&["gone.example.org", "null.org"]));
    let mut joins = copied.skipped("federated_registration_entries");
    joins.sort();
    let expected = [
        format!("entry of row 99 with bundle of row {bundle}"),
        format!("entry of row {first} with bundle of row 77"),
        format!("entry of row {gone} with bundle of row {bundle}"),
        format!("entry of row {gone} with bundle of row 77"),
    ];
    let mut expected: Vec<_> = expected.iter().map(|name| (name.as_str(), Cause::Orphan)).collect();
    expected.sort();
    assert_eq!(joins, expected);
    assert_eq!(copied.report.unreadable, 0);
    let first = copied.entry("first").await;
    assert_eq!(*first.selectors.as_set(), selectors(&["a:1"]));
    assert_eq!(first.federates_with, [domain("a.org")].into());
    let last = copied.entry("last").await;
    assert_eq!(*last.selectors.as_set(), selectors(&["a:3"]));
    assert_eq!(last.dns_names.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_are_read_in_pieces() {
    let mut spire = spire(Kind::Sqlite, 25).await;
    for number in 0..2500 {
        let id = number.to_string();
        let (one, two) = (format!("a:{number}"), format!("b:{number}"));
        let row = spire.entry(&id, &format!("{OWN}/{id}"), AGENT, &[&one], &[]);
        spire.dns_names(row, &[&format!("n{number}.example.org")]);
        spire.selectors(row, &[&two]);
    }
    spire.write().await.unwrap();
    spire
        .execute("DELETE FROM registered_entries WHERE id IN (1000, 1001, 2001, 2500)")
        .await
        .unwrap();
    let copied = copied(&mut spire, Kind::Sqlite).await;
    assert_eq!(copied.skipped("selectors").len(), 8);
    assert_eq!(copied.skipped("dns_names").len(), 4);
    let entries = copied.entries().await;
    assert_eq!(entries.len(), 2496);
    for entry in entries {
        let (one, two) = (format!("a:{}", entry.id), format!("b:{}", entry.id));
        assert_eq!(*entry.selectors.as_set(), selectors(&[&one, &two]));
        assert_eq!(entry.dns_names[0].as_str(), format!("n{}.example.org", entry.id));
    }
}
