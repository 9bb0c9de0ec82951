//! X1–X16 as far as they are the attestor's: what is refused before anything is asked, and what
//! happens where AWS fails.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Instance};
use spire_fakes::http::Trouble;
use spire_fakes::time::shortest;

use super::support::{ID, REGION, SIGNER, Setup, genuine, instance, show};

#[tokio::test]
async fn x01_empty_payload() {
    let setup = Setup::new("").await;
    for payload in ["", "{}", "null", "[]", r#"{"document":"","signature":"","rsa2048":""}"#] {
        setup.show(payload.as_bytes()).await.malformed();
    }
}

#[tokio::test]
async fn x03_large_and_deep_payloads() {
    let setup = Setup::new("").await;
    let base64 = "QUFB".repeat(1_000_000);
    let payloads = [
        format!(r#"{{"document":"{{}}","signature":"","rsa2048":"{base64}"}}"#),
        format!(r#"{{"document":"{{}}","signature":"{base64}","rsa2048":""}}"#),
        "[".repeat(10_000),
        format!(r#"{{"document":{}}}"#, "[".repeat(10_000)),
        serde_json::json!({"document": "[".repeat(10_000), "signature": "", "rsa2048": "QUFB"})
            .to_string(),
    ];
    for payload in payloads {
        let limit = Duration::from_millis(100);
        let took = shortest(limit, async || {
            setup.show(payload.as_bytes()).await.malformed();
        });
        let took = took.await;
        assert!(took < limit, "{payload:.60}: {took:?}");
    }
}

#[tokio::test]
async fn x05_x07_whoever_may_not_attest_costs_no_call() {
    let setup = Setup::new("").await;
    let verdict = show(&*setup.plugin, &genuine(), false).await;
    let id = format!("spiffe://example.org/spire/agent/aws_iid/{HOME_ACCOUNT}/{REGION}/{ID}");
    assert_eq!(verdict.admitted, [id]);
    verdict.refused();
    assert!(setup.aws.server().requests().is_empty());
}

#[tokio::test]
async fn x10_path_without_a_unique_part() {
    let setup = Setup::new(r#"agent_path_template = "/aws_iid/{{ .AccountID }}""#).await;
    let other = Instance::new(HOME_ACCOUNT, REGION, "i-0000000000000000b");
    setup.aws.world().instances.push(other.clone());
    for payload in [genuine(), SIGNER.evidence(&other, false).payload()] {
        // Both ask for one ID, which the server gives out once.
        let verdict = setup.show(&payload).await;
        let id = format!("spiffe://example.org/spire/agent/aws_iid/{HOME_ACCOUNT}");
        assert_eq!(verdict.admitted, [id]);
    }
}

#[tokio::test]
async fn x11_tags_that_make_no_path() {
    let setup = Setup::new(r#"agent_path_template = "/aws_iid/{{ .Tags.Role }}""#).await;
    setup.change(|instance| instance.tags = vec![("Role".to_owned(), "web".to_owned())]);
    let (id, _) = setup.attest().await.result.unwrap();
    assert_eq!(id, "spiffe://example.org/spire/agent/aws_iid/web");
    for value in ["a/b", "a/../b", "..", ".", "a b", "a%2fb", "ä", "", "/", "a//b"] {
        setup.change(|instance| instance.tags[0].1 = value.to_owned());
        let verdict = setup.attest().await;
        assert!(verdict.admitted.is_empty(), "{value:?} became an ID");
        verdict.refused();
    }
    let template = r#"agent_path_template = "/aws_iid/{{ .Tags.Role | replace \"/\" \"-\" }}""#;
    let setup = Setup::new(template).await;
    setup.change(|instance| instance.tags = vec![("Role".to_owned(), "web/eu".to_owned())]);
    let (id, _) = setup.attest().await.result.unwrap();
    assert_eq!(id, "spiffe://example.org/spire/agent/aws_iid/web-eu");
}

#[tokio::test]
async fn x12_a_tag_that_is_not_there() {
    let setup = Setup::new(r#"agent_path_template = "/aws_iid/{{ .Tags.Role }}""#).await;
    let verdict = setup.attest().await;
    assert!(verdict.admitted.is_empty());
    assert!(verdict.refused().contains("Role"));
}

#[tokio::test]
async fn x13_keys_twice_or_in_another_case() {
    let setup = Setup::new("").await;
    let text = String::from_utf8(genuine()).unwrap();
    let members: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in ["document", "signature", "rsa2048"] {
        let twice = format!("{{\"{key}\":{},{}", members[key], &text[1..]);
        setup.show(twice.as_bytes()).await.malformed();
        let mut capital = key.to_owned();
        capital[..1].make_ascii_uppercase();
        let renamed = text.replacen(&format!("\"{key}\""), &format!("\"{capital}\""), 1);
        setup.show(renamed.as_bytes()).await.malformed();
        let both = format!("{{\"{capital}\":{},{}", members[key], &text[1..]);
        setup.show(both.as_bytes()).await.malformed();
    }
}

#[tokio::test]
async fn x14_throttled_and_broken_services_are_asked_again() {
    let setup = Setup::new("").await;
    setup.change(|instance| {
        let arn = format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/Blog");
        instance.profile = Some(arn);
    });
    setup.aws.world().profiles.insert((HOME_ACCOUNT.to_owned(), "Blog".to_owned()), Vec::new());
    for action in ["DescribeInstances", "GetInstanceProfile"] {
        for trouble in
            [throttled(action), Trouble::Status(StatusCode::SERVICE_UNAVAILABLE), Trouble::Reset]
        {
            setup.aws.fail(action, 2, trouble);
            setup.attest().await.accepted();
        }
    }
}

/// How AWS turns away who asks too much.
fn throttled(action: &str) -> Trouble {
    let error = "<Error><Code>RequestLimitExceeded</Code><Message>slower</Message></Error>";
    let body = match action {
        "DescribeInstances" => format!("<Response><Errors>{error}</Errors></Response>"),
        _ => format!("<ErrorResponse>{error}</ErrorResponse>"),
    };
    let answer = http::Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
    Trouble::Answer(answer.body(body.into()).unwrap())
}

#[tokio::test]
async fn x14_services_that_go_on_failing_are_unavailable() {
    let troubles = [
        throttled("DescribeInstances"),
        Trouble::Status(StatusCode::TOO_MANY_REQUESTS),
        Trouble::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Trouble::Reset,
        Trouble::Hang,
        Trouble::Redirect("http://127.0.0.1:1/".to_owned()),
        Trouble::Body("<html>".into()),
    ];
    join_all(troubles.into_iter().map(|trouble| async move {
        let setup = Setup::new("").await;
        setup.aws.fail("DescribeInstances", usize::MAX, trouble.clone());
        let began = Instant::now();
        setup.attest().await.unavailable();
        assert!(began.elapsed() < Duration::from_secs(20), "{trouble:?}");
    }))
    .await;
}

/// The time of this test does not pass but where everybody waits for it.
#[tokio::test(start_paused = true)]
async fn x14_services_that_hang_are_waited_for_twenty_seconds() {
    let config = r#"
        assume_role = "attest"
        verify_organization = { management_account_id = "999999999999", assume_org_role = "org" }
        validate_eks_cluster_membership = { eks_cluster_names = ["c"] }
    "#;
    for (action, check) in [
        ("AssumeRole", "organization"),
        ("ListAccounts", "organization"),
        ("ListNodegroups", "EKS cluster membership"),
        ("GetInstanceProfile", "instance profile"),
    ] {
        let setup = Setup::new(config).await;
        fleet(&setup, 30);
        setup.aws.fail(action, usize::MAX, Trouble::Hang);
        let instances = setup.aws.world().instances.clone();
        let payloads = instances.iter().map(|one| SIGNER.evidence(one, false).payload());
        let payloads: Vec<_> = payloads.collect();
        let began = tokio::time::Instant::now();
        for verdict in join_all(payloads.iter().map(|payload| setup.show(payload))).await {
            assert_eq!(verdict.examination.failed().unwrap().name, check, "{action}");
            verdict.unavailable();
        }
        assert!(began.elapsed() < Duration::from_secs(25), "{action}: {:?}", began.elapsed());
    }
}

/// Instances that an organization, a cluster and a profile of each are known of.
fn fleet(setup: &Setup, count: usize) {
    let mut world = setup.aws.world();
    world.accounts = vec![(HOME_ACCOUNT.to_owned(), "ACTIVE".to_owned())];
    world.roles.insert(("999999999999".to_owned(), "org".to_owned()));
    world.roles.insert((HOME_ACCOUNT.to_owned(), "attest".to_owned()));
    world.clusters.insert("c".to_owned(), vec![("n".to_owned(), vec!["g".to_owned()])]);
    let instances = (0..count).map(|number| Instance {
        id: format!("i-{number:017x}"),
        profile: Some(format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/p{number}")),
        ..instance()
    });
    world.instances = instances.collect();
    let ids = world.instances.iter().map(|one| one.id.clone()).collect();
    world.scaling_groups.insert("g".to_owned(), ids);
}

#[tokio::test]
async fn x15_a_node_that_leaves_meanwhile() {
    let setup = Setup::new("").await;
    setup.aws.server().delay(Duration::from_millis(100));
    let payload = genuine();
    let left = tokio::time::timeout(Duration::from_millis(60), setup.show(&payload)).await;
    assert!(left.is_err(), "it stayed");
    setup.attest().await.accepted();
}

#[tokio::test]
async fn x16_many_at_once() {
    let aws = Aws::start().await;
    aws.world().accounts = vec![(HOME_ACCOUNT.to_owned(), "ACTIVE".to_owned())];
    aws.world().roles.insert(("999999999999".to_owned(), "org".to_owned()));
    let ids: Vec<String> = (0..200).map(|number| format!("i-{number:017x}")).collect();
    aws.world().instances =
        ids.iter().map(|id| Instance { id: id.clone(), ..instance() }).collect();
    aws.world().clusters.insert("c".to_owned(), vec![("n".to_owned(), vec!["g".to_owned()])]);
    aws.world().scaling_groups.insert("g".to_owned(), ids);
    let config = r#"
        verify_organization = { management_account_id = "999999999999", assume_org_role = "org" }
        validate_eks_cluster_membership = { eks_cluster_names = ["c"] }
    "#;
    let setup = Setup::at(aws, config).unwrap();
    let instances = setup.aws.world().instances.clone();
    let payloads: Vec<_> =
        instances.iter().map(|instance| SIGNER.evidence(instance, false).payload()).collect();
    for verdict in join_all(payloads.iter().map(|payload| setup.show(payload))).await {
        verdict.accepted();
    }
    for (action, most) in [
        ("AssumeRole", 1),
        ("ListAccounts", 1),
        ("ListNodegroups", 1),
        ("DescribeNodegroup", 1),
        ("DescribeAutoScalingGroups", 1),
        ("DescribeInstances", 8),
    ] {
        let calls = setup.aws.count(action);
        assert!((1..=most).contains(&calls), "{calls} calls of {action}");
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bytes_never_panic_nor_take_long(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            shown(bytes);
        }

        #[test]
        fn genuine_evidence_with_other_bytes_in_it_neither(
            place in any::<proptest::sample::Index>(),
            bytes in proptest::collection::vec(any::<u8>(), 1..30),
        ) {
            let mut payload = genuine();
            let place = place.index(payload.len());
            let end = (place + bytes.len()).min(payload.len());
            payload.splice(place..end, bytes);
            shown(payload);
        }
    }

    fn shown(payload: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = spire_core::clock::Clock::system();
            let plugin =
                crate::support::build("access_key_id = \"a\"\nsecret_access_key = \"b\"", &clock);
            let began = Instant::now();
            // The key of this region is not the one that signed, so that nothing is asked.
            let verdict = show(&*plugin.unwrap(), &payload, true).await;
            verdict.malformed();
            assert!(began.elapsed() < Duration::from_millis(100));
        });
    }
}
