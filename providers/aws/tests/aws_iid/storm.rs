//! Many instances boot at once: what AWS is asked grows with calls that are full, not with them.

use std::time::{Duration, Instant};

use futures::future::join_all;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Instance};

use super::support::{ID, SIGNER, Setup, instance};

fn fleet(size: usize) -> Vec<Instance> {
    let profile = format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/Fleet");
    let instance = |number: usize| {
        let id = format!("i-{number:017x}");
        Instance { id, profile: Some(profile.clone()), ..instance() }
    };
    (0..size).map(instance).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_boots_cost_twenty_calls() {
    let aws = Aws::start().await;
    let fleet = fleet(1000);
    let role = format!("arn:aws:iam::{HOME_ACCOUNT}:role/Fleet");
    aws.world().instances = fleet.clone();
    aws.world().profiles.insert((HOME_ACCOUNT.to_owned(), "Fleet".to_owned()), vec![role]);
    aws.world().rate = Some(20.0);
    aws.server().delay(Duration::from_millis(50));
    let setup = Setup::at(aws, "").unwrap();
    let payloads: Vec<_> = fleet.iter().map(|one| SIGNER.evidence(one, false).payload()).collect();
    let began = Instant::now();
    for verdict in join_all(payloads.iter().map(|payload| setup.show(payload))).await {
        verdict.accepted();
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let calls = setup.aws.count("DescribeInstances");
    assert!(calls <= 20, "{calls} calls");
    assert_eq!(setup.aws.count("GetInstanceProfile"), 1);
}

#[tokio::test]
async fn of_many_profiles_eight_are_asked_for_at_a_time() {
    let setup = Setup::new("").await;
    let mut fleet = fleet(100);
    {
        let mut world = setup.aws.world();
        for (number, instance) in fleet.iter_mut().enumerate() {
            let name = format!("Fleet-{number}");
            let arn = format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/{name}");
            instance.profile = Some(arn);
            world.profiles.insert((HOME_ACCOUNT.to_owned(), name), Vec::new());
        }
        world.instances.extend(fleet.iter().cloned());
    }
    setup.aws.server().delay(Duration::from_millis(20));
    let payloads: Vec<_> = fleet.iter().map(|one| SIGNER.evidence(one, false).payload()).collect();
    for verdict in join_all(payloads.iter().map(|payload| setup.show(payload))).await {
        verdict.accepted();
    }
    assert_eq!(setup.aws.count("GetInstanceProfile"), 100);
    assert_eq!(setup.aws.server().most_at_once(), 8);
}

#[tokio::test]
async fn an_instance_that_is_not_known_fails_no_other() {
    let setup = Setup::new("").await;
    let fleet = fleet(30);
    setup.aws.world().instances.extend(fleet.iter().skip(3).cloned());
    let role = (HOME_ACCOUNT.to_owned(), "Fleet".to_owned());
    setup.aws.world().profiles.insert(role, Vec::new());
    let payloads: Vec<_> = fleet.iter().map(|one| SIGNER.evidence(one, false).payload()).collect();
    let verdicts = join_all(payloads.iter().map(|payload| setup.show(payload))).await;
    for (number, verdict) in verdicts.into_iter().enumerate() {
        if number < 3 { drop(verdict.unavailable()) } else { drop(verdict.accepted()) }
    }
    assert_eq!(setup.aws.count("DescribeInstances"), 2);
}

#[tokio::test]
async fn one_that_the_service_does_not_name_fails_no_other() {
    let setup = Setup::new("").await;
    let fleet = fleet(8);
    setup.aws.world().instances.extend(fleet.iter().skip(1).cloned());
    let role = (HOME_ACCOUNT.to_owned(), "Fleet".to_owned());
    setup.aws.world().profiles.insert(role, Vec::new());
    setup.aws.world().silent = true;
    let payloads: Vec<_> = fleet.iter().map(|one| SIGNER.evidence(one, false).payload()).collect();
    let verdicts = join_all(payloads.iter().map(|payload| setup.show(payload))).await;
    for (number, verdict) in verdicts.into_iter().enumerate() {
        if number < 1 { drop(verdict.unavailable()) } else { drop(verdict.accepted()) }
    }
}

#[tokio::test]
async fn an_instance_is_asked_for_anew_each_time() {
    let setup = Setup::new("").await;
    setup.attest().await.accepted();
    setup.change(|instance| instance.tags = vec![("a".to_owned(), "b".to_owned())]);
    assert!(setup.attest().await.accepted().contains(&"tag:a:b".to_owned()), "{ID}");
}
