//! What the Compute API is asked, and what its word changes.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use serde_json::json;
use spire_fakes::gcp::Vm;
use spire_fakes::http::Trouble;

use crate::world::Outcome::{Accepted, PermissionDenied, Unavailable};
use crate::world::{Applicant, World, attest, attest_as};

/// A world whose server asks, with the key of a service account.
struct Asking {
    world: World,
    folder: tempfile::TempDir,
}

impl Asking {
    async fn new() -> Self {
        let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
        let file = world.google.tokens.service_account_file();
        std::fs::write(folder.path().join("key.json"), file).unwrap();
        Self { world, folder }
    }

    fn config(&self, more: &str) -> String {
        let file = self.folder.path().join("key.json");
        format!("use_instance_metadata = true\nservice_account_file = {file:?}\n{more}")
    }

    fn changed(&self, change: impl FnOnce(&mut Vm)) {
        let mut vm = self.world.vm.clone();
        change(&mut vm);
        self.world.google.compute.add(&vm);
    }

    async fn selectors(&self, more: &str) -> Vec<String> {
        let server = self.world.server(&self.config(more));
        let found = self.world.attest(&*server, &self.world.claims()).await.found();
        found.selectors[4..].to_vec()
    }
}

#[tokio::test]
async fn tags_and_the_labels_and_metadata_that_are_allowed_become_selectors() {
    let asking = Asking::new().await;
    asking.changed(|vm| {
        vm.tags = vec!["http".to_owned(), "blog".to_owned()];
        vm.labels = vec![("team".into(), "web".into()), ("cost".into(), "1".into())];
        vm.metadata =
            vec![("role".into(), Some("db".into())), ("ssh-keys".into(), Some("x".into()))];
    });
    assert_eq!(asking.selectors("").await, ["tag:http", "tag:blog"]);
    let allowed = "allowed_label_keys = [\"team\", \"none\"]\nallowed_metadata_keys = [\"role\"]";
    assert_eq!(
        asking.selectors(allowed).await,
        ["tag:http", "tag:blog", "label:team:web", "metadata:role:db"]
    );
    let asked = asking.world.google.compute.server().requests();
    assert_eq!(asked[0].path, asking.world.vm.path());
    assert!(asked[0].header("authorization").starts_with("Bearer ya29.fake-"));
}

#[tokio::test]
async fn g16_another_instance_of_that_name_one_that_does_not_run_and_none() {
    let asking = Asking::new().await;
    let (world, config) = (&asking.world, asking.config(""));
    let attest = || async { world.attest(&*world.server(&config), &world.claims()).await };

    asking.changed(|vm| vm.id = 1);
    let verdict = attest().await;
    verdict.is(PermissionDenied, "another of that name");
    assert_eq!(verdict.failed(), "instance at the Compute API");
    assert_eq!(verdict.examination.cloud_request_id.as_deref(), Some("fake-request-1"));

    for status in ["TERMINATED", "STOPPING", "SUSPENDED", "STAGING", ""] {
        asking.changed(|vm| vm.status = status.to_owned());
        attest().await.is(PermissionDenied, status);
    }
    world.google.compute.remove(&world.vm);
    let verdict = attest().await;
    verdict.is(PermissionDenied, "404");
    assert_eq!(verdict.examination.cloud_request_id.as_deref(), Some("fake-request-1"));

    asking.changed(|_| ());
    let compute = world.google.compute.server();
    compute.fail_next(1, Trouble::Status(StatusCode::FORBIDDEN));
    let verdict = attest().await;
    verdict.is(Unavailable, "403");
    assert!(verdict.error().contains("compute.instances.get"), "{}", verdict.error());
    attest().await.is(Accepted, "running");
}

#[tokio::test]
async fn g17_values_of_metadata_at_the_limit() {
    let asking = Asking::new().await;
    let config = asking.config("allowed_metadata_keys = [\"role\"]");
    let (world, claims) = (&asking.world, asking.world.claims());
    let with = |key: &str, size: usize| {
        let item = (key.to_owned(), Some("v".repeat(size)));
        asking.changed(|vm| vm.metadata.push(item));
    };
    with("role", 128);
    world.attest(&*world.server(&config), &claims).await.is(Accepted, "128 bytes");
    with("role", 129);
    let verdict = world.attest(&*world.server(&config), &claims).await;
    verdict.is(PermissionDenied, "129 bytes");
    assert!(verdict.error().contains("max_metadata_value_size"), "{}", verdict.error());
    let longer = format!("{config}\nmax_metadata_value_size = 129");
    world.attest(&*world.server(&longer), &claims).await.is(Accepted, "a larger limit");
    with("startup-script", 256 << 10);
    world.attest(&*world.server(&config), &claims).await.is(Accepted, "not asked for");
}

#[tokio::test]
async fn g18_labels_and_metadata_without_a_value() {
    let asking = Asking::new().await;
    asking.changed(|vm| {
        vm.labels = vec![("team".into(), String::new())];
        vm.metadata = vec![("role".into(), None), ("zone".into(), Some(String::new()))];
    });
    let allowed = "allowed_label_keys = [\"team\"]\nallowed_metadata_keys = [\"role\", \"zone\"]";
    assert_eq!(
        asking.selectors(allowed).await,
        ["label:team:", "metadata:role:", "metadata:zone:"]
    );
}

/// The token itself tells no host from another: whoever shows it first becomes the agent, and the
/// real one is refused. That is decided before the cloud is asked.
#[tokio::test]
async fn g15_a_node_that_is_known_costs_no_call() {
    let asking = Asking::new().await;
    let server = asking.world.server(&asking.config(""));
    let token = asking.world.token(&asking.world.claims());
    let mut applicant = Applicant::default();
    let id = "spiffe://example.org/spire/agent/gcp_iit/big-kahuna-123456/7152993111222333444";
    applicant.used.insert(id.to_owned());
    let verdict = attest_as(&*server, token.as_bytes(), applicant).await;
    assert_eq!(verdict.error(), "used before");
    assert_eq!(asking.world.google.compute.server().count(), 0);
    assert_eq!(asking.world.google.tokens.server().count(), 0);
}

#[tokio::test]
async fn x14_a_compute_api_in_trouble() {
    let asking = Asking::new().await;
    let (world, claims) = (&asking.world, asking.world.claims());
    let compute = world.google.compute.server();
    let server = world.server(&asking.config(""));

    for trouble in [
        Trouble::Status(StatusCode::TOO_MANY_REQUESTS),
        Trouble::Status(StatusCode::SERVICE_UNAVAILABLE),
        Trouble::Reset,
    ] {
        compute.fail_next(2, trouble.clone());
        let server = world.server(&asking.config(""));
        world.attest(&*server, &claims).await.is(Accepted, &format!("twice {trouble:?}"));
    }
    for (trouble, within) in [
        (Trouble::Hang, 8),
        (Trouble::Status(StatusCode::TOO_MANY_REQUESTS), 15),
        (Trouble::Status(StatusCode::BAD_REQUEST), 2),
        (Trouble::Body(vec![b' '; 17 << 20].into()), 5),
        (Trouble::Body("{}".into()), 2),
        (Trouble::Redirect(world.google.tokens.server().url()), 2),
    ] {
        compute.fail_always(trouble.clone());
        let began = Instant::now();
        let verdict = world.attest(&*server, &claims).await;
        verdict.is(Unavailable, &format!("{:.80}", format!("{trouble:?}")));
        assert!(began.elapsed() < Duration::from_secs(within), "{:?}", began.elapsed());
    }
    compute.fail_always(None);
    world.attest(&*server, &claims).await.is(Accepted, "once it is well");
}

#[tokio::test]
async fn x15_a_node_that_leaves_during_the_call_leaves_nothing_behind() {
    let asking = Asking::new().await;
    let (world, claims) = (&asking.world, asking.world.claims());
    let server = world.server(&asking.config(""));
    let compute = world.google.compute.server();
    compute.fail_next(1, Trouble::Hang);
    let left = {
        let attest = world.attest(&*server, &claims);
        tokio::pin!(attest);
        loop {
            tokio::select! {
                verdict = &mut attest => break Some(verdict),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            if compute.count() == 1 {
                break None;
            }
        }
    };
    assert!(left.is_none(), "the node left while the call was under way");
    world.attest(&*server, &claims).await.is(Accepted, "the next one");
}

/// Instances in two zones, and what their tokens claim.
fn fleet(world: &World, size: u64) -> Vec<(Vm, serde_json::Value)> {
    let vm = |number| {
        let mut vm = Vm::new(&format!("vm-{number}"), 1000 + number);
        vm.zone = format!("us-west1-{}", if number % 2 == 0 { "a" } else { "b" });
        vm.tags = vec![format!("tag-{number}")];
        world.google.compute.add(&vm);
        let claims = vm.claims(spire_fakes::gcp::AUDIENCE, world.now);
        (vm, claims)
    };
    (0..size).map(vm).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_boots_are_asked_about_together() {
    let asking = Asking::new().await;
    let (world, google) = (&asking.world, &asking.world.google);
    let compute = google.compute.server();
    let server = world.server(&asking.config(""));
    compute.delay(Duration::from_millis(50));
    compute.throttle(20);
    let fleet = fleet(world, 1000);
    // Keys and tokens are there, so that tokens are checked as fast as this machine can.
    world.attest(&*server, &fleet[0].1).await.is(Accepted, "the first");
    let tokens: Vec<_> = fleet.iter().map(|(_, claims)| world.token(claims)).collect();
    let attests = tokens.iter().map(|token| attest(&*server, token.as_bytes()));
    let verdicts = join_all(attests).await;
    for (verdict, (vm, _)) in verdicts.into_iter().zip(&fleet) {
        verdict.is(Accepted, &vm.name);
        assert_eq!(verdict.found().selectors[4..], [format!("tag:{}", vm.tags[0])]);
    }
    let requests = compute.requests();
    let lists = requests.iter().filter(|one| one.path.ends_with("/instances")).count();
    assert!(lists <= 40, "{lists} lists");
    // Where tokens are checked slowly, some instances are asked for alone.
    assert!(requests.len() < 300, "{} calls", requests.len());
    assert_eq!(google.tokens.server().count(), 1);
    assert_eq!(google.certificates.server().count(), 1);
}

#[tokio::test]
async fn one_instance_is_asked_for_by_its_name_and_several_by_their_numbers() {
    let asking = Asking::new().await;
    let (world, compute) = (&asking.world, &asking.world.google.compute);
    let server = world.server(&asking.config("allowed_metadata_keys = [\"role\"]"));
    let mut fleet = fleet(world, 6);
    let together = async |fleet: &[(Vm, serde_json::Value)]| {
        join_all(fleet.iter().map(|(_, claims)| world.attest(&*server, claims))).await
    };
    let asked = || compute.server().requests().into_iter().map(|one| one.path).collect::<Vec<_>>();
    together(&fleet[..1]).await[0].is(Accepted, "alone");
    assert_eq!(asked(), [fleet[0].0.path()]);
    compute.set_page(2);
    together(&fleet).await.iter().for_each(|verdict| verdict.is(Accepted, "on pages"));
    assert_eq!(asked().len(), 1 + 2 * 2);
    // Whoever has another's name is told apart, and fails nobody else.
    let before = asked().len();
    compute.add(&Vm { id: 1, ..fleet[0].0.clone() });
    compute.remove(&fleet[1].0);
    fleet[2].0.status = "TERMINATED".to_owned();
    compute.add(&fleet[2].0);
    for (verdict, number) in together(&fleet).await.iter().zip(0..) {
        verdict.is(if number < 3 { PermissionDenied } else { Accepted }, &number.to_string());
    }
    assert_eq!(asked().len() - before, 2 + 2, "two lists, and the two that were in none");
}

#[tokio::test]
async fn whoever_may_not_list_gets_them_one_by_one() {
    let asking = Asking::new().await;
    let (world, compute) = (&asking.world, &asking.world.google.compute);
    let server = world.server(&asking.config(""));
    let fleet = fleet(world, 20);
    let together = async || {
        let before = compute.server().count();
        let all = join_all(fleet.iter().map(|(_, claims)| world.attest(&*server, claims))).await;
        all.iter().for_each(|verdict| verdict.is(Accepted, "without lists"));
        compute.server().count() - before
    };
    compute.forbid_lists(true);
    assert_eq!(together().await, 2 + 20);
    // It is remembered, so that no call is lost on it for a while.
    assert_eq!(together().await, 20);
}

#[tokio::test]
async fn names_that_would_lead_elsewhere_are_not_looked_up() {
    let asking = Asking::new().await;
    let server = asking.world.server(&asking.config(""));
    for name in ["../../../../x", "a/b", "a?b", "a#b", "a%2fb"] {
        let claims = asking.world.with("/google/compute_engine/instance_name", json!(name));
        asking.world.attest(&*server, &claims).await.is(PermissionDenied, name);
    }
    assert_eq!(asking.world.google.compute.server().count(), 0);
}
