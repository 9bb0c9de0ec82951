//! A18–A29: what AWS says decides.

use jiff::SignedDuration;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Instance, Interface, Volume};

use super::support::{ELSEWHERE, ID, REGION, SIGNER, Setup, instance, time};

const FOREIGN: &str = "666666666666";

/// What an instance has that it should not have.
type Change = Box<dyn Fn(&mut Instance)>;

#[tokio::test]
async fn a18_instance_that_does_not_run_or_never_was() {
    for config in ["", "skip_block_device = true"] {
        let setup = Setup::new(config).await;
        for state in ["stopped", "stopping", "shutting-down", "terminated"] {
            setup.change(|instance| instance.state = state.to_owned());
            let verdict = setup.attest().await;
            verdict.names_a_request();
            verdict.refused();
        }
        setup.change(|instance| instance.state = "pending".to_owned());
        setup.attest().await.accepted();
        setup.aws.world().instances.clear();
        assert!(setup.attest().await.unavailable().contains(ID));
    }
}

#[tokio::test]
async fn a19_root_volume_attached_later_or_earlier() {
    let setup = Setup::new("").await;
    for (attached, holds) in [
        ("2026-02-16T00:39:27Z", true),
        ("2026-02-16T00:39:28Z", false),
        ("2026-02-16T00:37:27Z", true),
        ("2026-02-16T00:37:26Z", false),
    ] {
        setup.change(|instance| instance.volumes[0].attached = Some(attached.to_owned()));
        let verdict = setup.attest().await;
        match holds {
            true => drop(verdict.accepted()),
            false => assert!(verdict.refused().contains("61 s apart"), "{attached}"),
        }
    }
}

#[tokio::test]
async fn a20_block_devices_and_interfaces_that_are_not_all_there() {
    let launched = Some("2026-02-16T00:38:27Z".to_owned());
    let interface = |index| Interface { index, attached: launched.clone() };
    let changes: Vec<Change> = vec![
        Box::new(|instance| instance.volumes.clear()),
        Box::new(|instance| instance.volumes[0].device = "/dev/sdb".to_owned()),
        Box::new(|instance| instance.volumes[0].ebs = false),
        Box::new(|instance| instance.volumes[0].attached = None),
        Box::new(|instance| instance.root_device_name = None),
        Box::new(|instance| instance.root_device_type = String::new()),
        Box::new(|instance| instance.interfaces.clear()),
        Box::new(|instance| instance.interfaces[0].attached = None),
        Box::new(|instance| instance.interfaces[0].index = None),
        Box::new(|instance| instance.interfaces[0].index = Some(1)),
    ];
    let setup = Setup::new("").await;
    for (number, change) in changes.iter().enumerate() {
        setup.change(|it| *it = instance());
        setup.change(change);
        let verdict = setup.attest().await;
        // An unknown type of root counts as one that must be a volume, which it is here.
        if number == 5 { drop(verdict.accepted()) } else { drop(verdict.refused()) }
    }
    setup.change(|it| *it = instance());
    setup.change(|instance| {
        instance.interfaces = vec![interface(Some(1)), interface(None), interface(Some(0))];
        let other = Volume { device: "/dev/sdb".to_owned(), ebs: false, attached: None };
        instance.volumes.insert(0, other);
    });
    setup.attest().await.accepted();
}

#[tokio::test]
async fn a21_instance_store() {
    let setup = Setup::new("").await;
    setup.change(|instance| {
        instance.root_device_type = "instance-store".to_owned();
        instance.root_device_name = None;
        instance.volumes.clear();
    });
    setup.attest().await.accepted();
    setup.change(|instance| instance.interfaces[0].index = Some(1));
    setup.attest().await.refused();
}

#[tokio::test]
async fn a22_block_device_check_left_out() {
    let exempt = format!("account_ids_for_local_validation = [\"{HOME_ACCOUNT}\"]");
    for config in ["skip_block_device = true", &exempt] {
        let setup = Setup::new(config).await;
        setup.change(|instance| {
            instance.volumes[0].attached = Some("2026-02-16T00:39:28Z".to_owned());
        });
        setup.attest().await.accepted();
    }
}

#[tokio::test]
async fn a23_another_instance_or_two() {
    let setup = Setup::new("").await;
    setup.aws.world().renamed = Some("i-0000000000000000b".to_owned());
    setup.attest().await.unavailable();
    setup.aws.world().renamed = None;
    setup.aws.world().doubled = true;
    let verdict = setup.attest().await;
    verdict.names_a_request();
    verdict.refused();
    setup.aws.world().doubled = false;
    setup.change(|instance| instance.image = "ami-00000000000000000".to_owned());
    let mut evidence = SIGNER.evidence(&super::support::instance(), false).payload();
    assert!(setup.show(&evidence).await.refused().contains("another image"));
    evidence = SIGNER.evidence(&setup.aws.world().instances[0].clone(), false).payload();
    setup.show(&evidence).await.accepted();
}

#[tokio::test]
async fn a24_foreign_account_with_a_role_of_that_name() {
    let foreign = Instance::new(FOREIGN, REGION, "i-06660000000000000");
    let payload = SIGNER.evidence(&foreign, false).payload();
    let config = "assume_role = \"attest\"";
    let with = |more: &str| format!("{config}\n{more}");
    for (config, taken) in [
        (with(""), true),
        (with(&format!("allowed_account_ids = [\"{HOME_ACCOUNT}\"]")), false),
        (with(&format!("allowed_account_ids = [\"{FOREIGN}\"]")), true),
    ] {
        let setup = Setup::new(&config).await;
        setup.aws.world().instances.push(foreign.clone());
        setup.aws.world().roles.insert((FOREIGN.to_owned(), "attest".to_owned()));
        let verdict = setup.show(&payload).await;
        if taken {
            verdict.accepted();
        } else {
            verdict.refused();
            assert!(setup.aws.server().requests().is_empty());
        }
    }
    // Without the role AWS cannot be asked, and without any role the instance is not to be found.
    let setup = Setup::new(config).await;
    let verdict = setup.show(&payload).await;
    verdict.names_a_request();
    assert!(verdict.unavailable().contains("AccessDenied"));
    let setup = Setup::new("").await;
    setup.aws.world().instances.push(foreign.clone());
    let verdict = setup.show(&payload).await;
    verdict.names_a_request();
    assert!(verdict.unavailable().contains("assume_role"));
}

#[tokio::test]
async fn roles_are_those_of_the_partition_that_the_region_is_in() {
    for region in ELSEWHERE {
        let foreign = Instance::new(FOREIGN, region, "i-06660000000000000");
        let allowed = format!("allowed_account_ids = [\"{FOREIGN}\"]");
        let setup = Setup::new(&format!("assume_role = \"attest\"\n{allowed}")).await;
        setup.aws.world().instances.push(foreign.clone());
        setup.aws.world().roles.insert((FOREIGN.to_owned(), "attest".to_owned()));
        setup.show(&SIGNER.evidence(&foreign, false).payload()).await.accepted();

        let aws = Aws::start().await;
        aws.world().instances.push(instance());
        aws.world().roles.insert(("999999999999".to_owned(), "org".to_owned()));
        aws.world().accounts = vec![(HOME_ACCOUNT.to_owned(), "ACTIVE".to_owned())];
        let managed = format!("management_account_region = {region:?}\n}}");
        let setup = Setup::at(aws, &ORGANIZATION.replace('}', &managed)).unwrap();
        setup.attest().await.accepted();
        assert_eq!(setup.aws.count("AssumeRole"), 1);
    }
}

#[tokio::test]
async fn allowed_regions() {
    let setup = Setup::new("allowed_regions = [\"us-east-1\"]").await;
    setup.attest().await.refused();
    let setup = Setup::new("allowed_regions = [\"us-east-1\", \"us-west-2\"]").await;
    setup.attest().await.accepted();
}

const ORGANIZATION: &str = r#"verify_organization = {
    management_account_id = "999999999999"
    assume_org_role = "org"
}"#;

async fn organization(accounts: &[(&str, &str)]) -> Setup {
    let aws = Aws::start().await;
    aws.world().instances.push(instance());
    aws.world().roles.insert(("999999999999".to_owned(), "org".to_owned()));
    let accounts = accounts.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned()));
    aws.world().accounts = accounts.collect();
    Setup::at(aws, ORGANIZATION).unwrap()
}

#[tokio::test]
async fn a25_account_outside_of_the_organization() {
    let mut accounts = vec![("111111111111", "ACTIVE"); 45];
    accounts.push((HOME_ACCOUNT, "ACTIVE"));
    let setup = organization(&accounts).await;
    setup.attest().await.accepted();
    assert_eq!(setup.aws.count("ListAccounts"), 3);
    for accounts in [&[("111111111111", "ACTIVE")][..], &[(HOME_ACCOUNT, "SUSPENDED")], &[]] {
        organization(accounts).await.attest().await.refused();
    }
    let setup = organization(&[(HOME_ACCOUNT, "ACTIVE")]).await;
    setup.aws.world().roles.clear();
    let verdict = setup.attest().await;
    verdict.names_a_request();
    assert!(verdict.unavailable().contains("AccessDenied"));
    let setup = organization(&[(HOME_ACCOUNT, "ACTIVE")]).await;
    setup.aws.world().forbidden.insert("ListAccounts".to_owned());
    let verdict = setup.attest().await;
    verdict.names_a_request();
    assert_eq!(verdict.examination.failed().unwrap().name, "organization");
    assert!(verdict.unavailable().contains("ListAccounts"));
}

#[tokio::test]
async fn a25_list_in_a_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("accounts.json");
    std::fs::write(&file, format!("[\"{HOME_ACCOUNT}\"]")).unwrap();
    let config = format!("verify_organization = {{ account_list_file = {file:?} }}");
    let setup = Setup::new(&config).await;
    setup.attest().await.accepted();
    std::fs::write(&file, "[]").unwrap();
    setup.attest().await.accepted();
    setup.clock.advance(SignedDuration::from_mins(3));
    setup.attest().await.refused();
    std::fs::write(&file, "garbage").unwrap();
    setup.clock.advance(SignedDuration::from_mins(3));
    setup.attest().await.unavailable();
    std::fs::write(&file, format!("[\"{HOME_ACCOUNT}\"]")).unwrap();
    setup.attest().await.accepted();
    assert_eq!(setup.aws.count("ListAccounts"), 0);
}

#[tokio::test]
async fn a26_sixth_unknown_account() {
    let setup = organization(&[("111111111111", "ACTIVE")]).await;
    // The first reads the list, five more have it read again, the others do not.
    for calls in [1, 2, 3, 4, 5, 6, 6, 6] {
        setup.attest().await.refused();
        assert_eq!(setup.aws.count("ListAccounts"), calls);
    }
    setup.clock.advance(SignedDuration::from_mins(3));
    setup.attest().await.refused();
    assert_eq!(setup.aws.count("ListAccounts"), 7);
}

#[tokio::test]
async fn a27_clusters() {
    let config = "validate_eks_cluster_membership = { eks_cluster_names = [\"ours\", \"absent\"] }";
    let setup = Setup::new(config).await;
    let node_group = |name: &str, group: &str| (name.to_owned(), vec![group.to_owned()]);
    {
        let mut world = setup.aws.world();
        let groups = vec![node_group("a", "ga"), node_group("b", "gb"), node_group("c", "gc")];
        world.clusters.insert("ours".to_owned(), groups);
        world.clusters.insert("theirs".to_owned(), vec![node_group("t", "gt")]);
        world.scaling_groups.insert("gt".to_owned(), vec![ID.to_owned()]);
        world.page_size = 1;
    }
    setup.attest().await.refused();
    setup.aws.world().scaling_groups.insert("gc".to_owned(), vec![ID.to_owned()]);
    setup.attest().await.accepted();
    // A cluster that this region does not have has no nodes.
    setup.aws.world().clusters.clear();
    setup.attest().await.accepted();
    setup.clock.advance(SignedDuration::from_secs(30));
    setup.attest().await.refused();
    let broken = Setup::new(config).await;
    broken.aws.world().forbidden.insert("ListNodegroups".to_owned());
    let verdict = broken.attest().await;
    verdict.names_a_request();
    assert_eq!(verdict.examination.failed().unwrap().name, "EKS cluster membership");
    verdict.unavailable();
}

#[tokio::test]
async fn a28_instance_profiles() {
    let setup = Setup::new("").await;
    let arn = |name: &str| format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/{name}");
    let role = format!("arn:aws:iam::{HOME_ACCOUNT}:role/web/Blog");
    {
        let mut world = setup.aws.world();
        let key = |name: &str| (HOME_ACCOUNT.to_owned(), name.to_owned());
        world.profiles.insert(key("Blog"), vec![role.clone()]);
        world.profiles.insert(key("Empty"), Vec::new());
    }
    let roles = |selectors: Vec<String>| -> Vec<String> {
        selectors.into_iter().filter(|one| one.starts_with("iamrole:")).collect()
    };
    setup.change(|instance| instance.profile = Some(arn("team/web/Blog")));
    assert_eq!(roles(setup.attest().await.accepted()), [format!("iamrole:{role}")]);
    setup.change(|instance| instance.profile = Some(arn("Empty")));
    assert!(roles(setup.attest().await.accepted()).is_empty());
    setup.change(|instance| instance.profile = Some(arn("Deleted")));
    let verdict = setup.attest().await;
    assert_eq!(verdict.examination.failed().unwrap().name, "instance profile");
    assert!(verdict.unavailable().contains("NoSuchEntity"));
    setup.change(|instance| instance.profile = Some("nonsense".to_owned()));
    setup.attest().await.unavailable();

    let without = Setup::new("disable_instance_profile_selectors = true").await;
    without.change(|instance| instance.profile = Some(arn("Deleted")));
    without.attest().await.accepted();
    assert_eq!(without.aws.count("GetInstanceProfile"), 0);
}

#[tokio::test]
async fn a29_selectors_to_the_letter() {
    let long = "é".repeat(256);
    let setup = Setup::new("").await;
    setup.change(|instance| {
        instance.tags =
            [("name", "blog"), ("a:b", "c:d"), ("empty", ""), ("long", &long), ("<&>", "\"")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec();
        instance.groups = vec![("sg-01234567".to_owned(), "blog".to_owned()); 2];
    });
    let mut expected = vec![
        format!("account_id:{HOME_ACCOUNT}"),
        "az:us-west-2a".to_owned(),
        "image:id:ami-0cbde744623b7506b".to_owned(),
        format!("instance:id:{ID}"),
        "region:us-west-2".to_owned(),
        "sg:id:sg-01234567".to_owned(),
        "sg:name:blog".to_owned(),
        "tag:<&>:\"".to_owned(),
        "tag:a:b:c:d".to_owned(),
        "tag:empty:".to_owned(),
        format!("tag:long:{long}"),
        "tag:name:blog".to_owned(),
    ];
    assert_eq!(setup.attest().await.accepted(), expected);

    let extra = Setup::new("extra_selectors = true").await;
    let group = ("aws:autoscaling:groupName".to_owned(), "web".to_owned());
    extra.change(|instance| instance.tags = vec![group]);
    expected.retain(|selector| !selector.starts_with("sg:") && !selector.starts_with("tag:"));
    expected.extend(
        [
            "asg:name:web",
            "instance:type:t4g.small",
            "subnet:id:subnet-0a1b2c3d",
            "tag:aws:autoscaling:groupName:web",
            "vpc:id:vpc-0a1b2c3d",
        ]
        .map(str::to_owned),
    );
    expected.sort();
    assert_eq!(extra.attest().await.accepted(), expected);
}

#[tokio::test]
async fn a33_older_than_allowed() {
    let setup = Setup::new("max_instance_age = \"1h\"").await;
    let launched = time("2026-02-16T00:38:27Z");
    setup.clock.advance(setup.clock.now().duration_until(launched) + SignedDuration::from_hours(1));
    setup.attest().await.accepted();
    setup.clock.advance(SignedDuration::from_secs(1));
    assert!(setup.attest().await.refused().contains("max_instance_age"));
    let unsaid = Instance { launched: String::new(), ..instance() };
    setup.show(&SIGNER.evidence(&unsaid, false).payload()).await.malformed();
}
