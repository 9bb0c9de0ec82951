//! Points in time as each kind of database keeps them.

use spire_test_databases::spire::Value;

use super::*;
use crate::each_database;

each_database! {
    case_11_creation_is_rounded_and_revisions_are_kept,
    case_14_times_without_zone_mean_what_the_connection_string_says,
}

const AGENT: &str = "spiffe://example.org/spire/agent/x509pop/a";

async fn case_11_creation_is_rounded_and_revisions_are_kept(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    // MySQL keeps whole seconds; PostgreSQL rounds to microseconds itself.
    let nearly_half = if kind == Kind::Sqlite { 499_999_999 } else { 499_999_000 };
    let all = [(0, 0), (nearly_half, 0), (500_000_000, 1), (999_000_000, 1)];
    for (index, (nanosecond, _)) in all.into_iter().enumerate() {
        let nanosecond = if kind == Kind::MySql { 0 } else { nanosecond };
        let created_at = Timestamp::new(NOW, nanosecond).unwrap();
        let more = [
            ("created_at", created_at.into()),
            ("revision_number", (index as i64 * 3_000_000_000).into()),
        ];
        let id = format!("{index}");
        spire.entry(&id, &format!("{OWN}/{index}"), AGENT, &["a:1"], &more);
    }
    spire.entry("none", &format!("{OWN}/none"), AGENT, &["a:1"], &[("created_at", Value::Null)]);
    let copied = copied(&mut spire, kind).await;
    copied.is_complete();
    for (index, (_, second)) in all.into_iter().enumerate() {
        let entry = copied.entry(&index.to_string()).await;
        let second = if kind == Kind::MySql { 0 } else { second };
        assert_eq!(entry.created_at, at(NOW + second), "{index}");
        assert_eq!(entry.revision_number, index as i64 * 3_000_000_000);
    }
    assert_eq!(copied.entry("none").await.created_at, at(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_14_offsets_may_differ_in_one_column_of_a_file() {
    let mut spire = spire(Kind::Sqlite, 25).await;
    let texts = [
        ("'2026-11-21 22:46:25+00:00'", "2026-11-21T22:46:25Z"),
        ("'2026-11-21 22:46:25+01:00'", "2026-11-21T21:46:25Z"),
        ("'2026-09-21 16:13:20+02:00'", "2026-09-21T14:13:20Z"),
        ("'2026-11-21 22:46:25-03:00'", "2026-11-22T01:46:25Z"),
        ("'2026-11-21 22:46:25+05:30'", "2026-11-21T17:16:25Z"),
        ("'2026-11-21T22:46:25Z'", "2026-11-21T22:46:25Z"),
        ("'2026-11-21 22:46'", "2026-11-21T22:46:00Z"),
        ("'2026-11-21'", "2026-11-21T00:00:00Z"),
        ("1790000000", "2026-09-21T14:13:20Z"),
        ("1790000000999", "2026-09-21T14:13:20Z"),
        ("'one of these days'", "0001-01-01T00:00:00Z"),
        ("NULL", "0001-01-01T00:00:00Z"),
    ];
    for (index, (text, _)) in texts.into_iter().enumerate() {
        let id = format!("{AGENT}{index}");
        let expires_at = ("expires_at", Value::Sql(text.to_owned()));
        let pending = [
            expires_at,
            ("new_serial_number", "7".into()),
            ("new_expires_at", Value::Sql("'2026-11-21 22:46:25+01:00'".to_owned())),
        ];
        spire.agent(&id, "x509pop", "1", at(NOW), &pending);
    }
    let precise = Value::Sql("'2026-11-21 22:46:25.255134965+01:00'".to_owned());
    spire.entry("e", &format!("{OWN}/e"), AGENT, &["a:1"], &[("created_at", precise)]);
    let copied = copied(&mut spire, Kind::Sqlite).await;
    copied.is_complete();
    let nodes = copied.nodes().await;
    assert_eq!(nodes.len(), texts.len());
    for (node, (text, expected)) in nodes.iter().zip(texts) {
        assert_eq!(node.expires_at.to_string(), expected, "{text}");
        assert_eq!(node.new_expires_at.unwrap().to_string(), "2026-11-21T21:46:25Z");
    }
    let created_at = copied.entry("e").await.created_at;
    assert_eq!(created_at.to_string(), "2026-11-21T21:46:25Z");
}

/// What another zone of the session makes of it is no matter either.
async fn case_14_times_without_zone_mean_what_the_connection_string_says(kind: Kind) {
    let mut spire = spire(kind, 25).await;
    let cell = |text: &str| match kind {
        Kind::Postgres => Value::Sql(format!("'{text}+00'")),
        _ => Value::Sql(format!("'{text}'")),
    };
    // Berlin's clocks go back on that day: 02:30 comes twice.
    for (index, text) in ["2026-10-25 02:30:00", "2026-07-01 12:00:00"].into_iter().enumerate() {
        let more = [("expires_at", cell(text))];
        spire.agent(&format!("{AGENT}{index}"), "x509pop", "1", at(NOW), &more);
    }
    let created_at = [("created_at", cell("2026-07-01 12:00:00"))];
    spire.entry("e", &format!("{OWN}/e"), AGENT, &["a:1"], &created_at);
    spire.write().await.unwrap();
    let utc = ["2026-10-25T02:30:00Z", "2026-07-01T12:00:00Z"];
    let berlin = ["2026-10-25T01:30:00Z", "2026-07-01T10:00:00Z"];
    let variants: &[(&str, [&str; 2])] = match kind {
        Kind::Sqlite => &[("?_loc=Europe%2FBerlin", utc)],
        Kind::Postgres => &[("", utc), ("?TimeZone=America%2FNew_York", utc)],
        Kind::MySql => {
            &[("", utc), ("&loc=UTC", utc), ("&loc=Europe%2FBerlin", berlin), ("&loc=Local", utc)]
        }
    };
    for (parameters, expected) in variants {
        let connection = spire.connection_string();
        let glue = if connection.contains('?') {
            parameters.replace('?', "&")
        } else {
            (*parameters).into()
        };
        let from = Settings::new(spire.database_type(), &format!("{connection}{glue}")).unwrap();
        let target = Location::new(kind).await;
        let report = run(&order(from, &target)).await.unwrap();
        let store = Store::open(&target.settings()).await.unwrap();
        let copied = Copied { store, report, target };
        let is_local = parameters.ends_with("Local");
        assert_eq!(copied.report.remarks.total(), u64::from(is_local), "{parameters}");
        // This machine's zone may be any.
        if !is_local || jiff::tz::TimeZone::system() == jiff::tz::TimeZone::UTC {
            let times = copied.nodes().await;
            let times: Vec<_> = times.iter().map(|node| node.expires_at.to_string()).collect();
            assert_eq!(times, expected, "{parameters}");
            assert_eq!(copied.entry("e").await.created_at.to_string(), expected[1]);
        }
    }
}
