//! An authority whose key may be in wrong hands: here, and above.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{VerifyError, leads_to, verify};
use spire_core::tasks::Tasks;
use spire_core::upstream::UpstreamBundle;

use super::super::follow::Heard;
use super::super::{Authority, Kind, RotationError};
use super::world::{CA_TTL, FakeUpstream, World, domain, entry, request};

async fn started(world: &World) -> (Arc<Authority>, Tasks) {
    let tasks = Tasks::new();
    (Authority::start(world.parts(), &tasks).await.unwrap(), tasks)
}

/// Waits for what the tasks do in the background.
async fn until(authority: &Authority, holds: impl Fn(&Bundle) -> bool) -> Arc<Bundle> {
    let mut bundle = authority.bundle();
    let seen = tokio::time::timeout(Duration::from_secs(30), bundle.wait_for(|it| holds(it)));
    seen.await.unwrap().unwrap().clone()
}

fn root(upstream: &FakeUpstream, tainted: bool) -> X509Authority {
    X509Authority { certificate: upstream.root(), tainted }
}

#[tokio::test]
async fn what_a_tainted_authority_signed_is_replaced_and_then_worthless() {
    let world = World::new().await;
    let (authority, tasks) = started(&world).await;
    let request = request("/w").await;
    let svid = authority.sign_workload(&request, &entry("/w")).await.unwrap();
    let own = authority.server_svid().borrow().clone().unwrap();
    let prepared = authority.prepare(Kind::X509).await.unwrap();
    authority.activate(Kind::X509, &prepared.authority_id).await.unwrap();
    let old = authority.states(Kind::X509).old.clone().unwrap();

    assert_eq!(authority.taint(Kind::X509, &old.authority_id).await.unwrap(), old);
    let now = world.clock.now();
    let mut svids = authority.server_svid();
    let renewed =
        svids.wait_for(|it| it.as_ref().is_some_and(|it| it.svid().serial != own.svid().serial));
    let renewed = tokio::time::timeout(Duration::from_secs(30), renewed).await.unwrap().unwrap();
    let renewed = renewed.clone().unwrap();
    // Both still hold, so that nobody is cut off meanwhile.
    let bundle = authority.bundle().borrow().clone();
    for chain in [&svid.chain, &renewed.svid().chain] {
        verify(chain, &bundle, now).unwrap();
    }
    let tainted = Bundle { x509_authorities: vec![], ..(*bundle).clone() };
    let roots = bundle.x509_authorities.iter().filter(|root| root.tainted).cloned();
    let tainted = Bundle { x509_authorities: roots.collect(), ..tainted };
    assert_eq!(tainted.x509_authorities.len(), 1);
    assert!(leads_to(&svid.chain, &tainted, now));
    assert!(!leads_to(&renewed.svid().chain, &tainted, now));

    authority.revoke(Kind::X509, &old.authority_id).await.unwrap();
    let bundle = authority.bundle().borrow().clone();
    assert_eq!(verify(&svid.chain, &bundle, now), Err(VerifyError::UnknownAuthority));
    verify(&renewed.svid().chain, &bundle, now).unwrap();
    let states = authority.states(Kind::X509);
    assert_eq!((&states.active, &states.old), (&Some(prepared), &Some(old)));
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn only_what_signs_no_more_can_be_given_up_and_each_step_once() {
    let world = World::new().await;
    let (authority, tasks) = started(&world).await;
    let refused = |outcome: Result<(), RotationError>| outcome.unwrap_err().to_string();
    for (kind, name, missing) in [
        (Kind::X509, "root CA", "no root CA found with provided subject key ID"),
        (Kind::Jwt, "key", "no JWT Key found with provided key ID"),
    ] {
        let first = authority.states(kind).active.clone().unwrap().authority_id;
        let taint = async |id: &str| authority.taint(kind, id).await.map(drop);
        assert_eq!(refused(taint("nope").await), "unexpected authority ID");
        let current = "unable to taint current local authority";
        assert_eq!(refused(taint(&first).await), current);
        let current = "invalid authority ID: unable to use current authority";
        assert_eq!(refused(authority.revoke(kind, &first).await), current);

        let second = authority.prepare(kind).await.unwrap().authority_id;
        assert_eq!(
            refused(taint(&second).await),
            "only Old local authorities can be tainted: unsupported local authority status: PREPARED"
        );
        assert!(authority.revoke(kind, &second).await.is_err());
        authority.activate(kind, &second).await.unwrap();
        let untainted = format!("it is not possible to revoke an untainted {name}");
        let error = authority.revoke(kind, &first).await.unwrap_err();
        assert!(matches!(error, RotationError::Unfit(_)), "{error}");
        assert_eq!(error.to_string(), untainted);
        taint(&first).await.unwrap();
        assert_eq!(refused(taint(&first).await), format!("{name} is already tainted"));
        authority.revoke(kind, &first).await.unwrap();
        assert_eq!(refused(authority.revoke(kind, &first).await), missing);
    }
    let refusal = refused(authority.revoke(Kind::X509, "nope").await);
    assert_eq!(refusal, "invalid authority ID: only Old local authority can be revoked");
    let refusal = refused(authority.revoke(Kind::Jwt, "nope").await);
    let expected = "invalid authority ID: no JWT authority found with provided authority ID";
    assert_eq!(refusal, expected);
    let refusal = refused(authority.taint_upstream("nope").await);
    assert_eq!(refusal, "upstream authority is not configured");
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn below_an_upstream_its_root_is_what_is_given_up() {
    let world = World::below_upstream().await;
    let (authority, tasks) = started(&world).await;
    let refused = |outcome: Result<(), RotationError>| outcome.unwrap_err().to_string();
    let former = authority.states(Kind::X509).active.clone().unwrap();
    let former_root = former.upstream_authority_id.clone().unwrap();
    assert_eq!(
        refused(authority.taint(Kind::X509, &former.authority_id).await.map(drop)),
        "local authority can't be tainted if there is an upstream authority"
    );
    assert_eq!(
        refused(authority.revoke(Kind::X509, &former.authority_id).await),
        "local authority can't be revoked if there is an upstream authority"
    );
    assert_eq!(
        refused(authority.taint_upstream(&former_root).await),
        "provided subject key id is not valid: unable to use upstream authority singing current \
         authority"
    );
    assert_eq!(
        refused(authority.revoke_upstream("nope").await),
        "invalid subject key ID: upstream authority didn't sign the old local authority"
    );

    let former_certificate = world.upstream.as_ref().unwrap().root();
    world.upstream.as_ref().unwrap().replace_root(Duration::from_secs(100_000)).await;
    let prepared = authority.prepare(Kind::X509).await.unwrap();
    authority.activate(Kind::X509, &prepared.authority_id).await.unwrap();
    authority.taint_upstream(&former_root).await.unwrap();
    assert_eq!(refused(authority.taint_upstream(&former_root).await), "root CA is already tainted");
    // As long as it is trusted above it would come back.
    let upstream = world.upstream.as_ref().unwrap();
    let trusted = |certificate| X509Authority { certificate, tainted: false };
    let both = vec![trusted(upstream.root()), trusted(former_certificate)];
    upstream.bundle.lock().unwrap().roots = both;
    let refusal = refused(authority.revoke_upstream(&former_root).await);
    assert!(refusal.contains("still trusts this root, which would come back"), "{refusal}");
    // One that does not answer keeps nobody from it.
    upstream.away.store(true, Ordering::Relaxed);
    authority.revoke_upstream(&former_root).await.unwrap();
    let bundle = authority.bundle().borrow().clone();
    assert!(!bundle.x509_authorities.iter().any(|root| root.has_id(&former_root)));
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_root_that_is_tainted_above_is_left_as_soon_as_the_next_one_is_known() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let first = server.authority.states(Kind::X509).active.clone().unwrap();
    let (authority, mut heard) = (server.authority.clone(), Heard::default());
    let mut follow = async |roots: Vec<X509Authority>| {
        let told = UpstreamBundle { roots, ..UpstreamBundle::default() };
        authority.take_over(&mut heard, told).await.unwrap();
    };

    // The upstream goes on with the root that it tainted: what is in use stays.
    let tainted = root(&upstream, true);
    follow(vec![tainted.clone()]).await;
    server.look().await;
    let failure = server.authority.rotation_failure().unwrap();
    assert!(failure.contains("still signs below the tainted root"), "{failure}");
    assert_eq!(server.authority.states(Kind::X509).active.as_ref(), Some(&first));

    // Not even a revocation there takes it away while it is needed.
    follow(vec![]).await;
    assert_eq!(world.stored().await.x509_authorities, [root(&upstream, false)]);

    upstream.replace_root(Duration::from_secs(100_000)).await;
    world.pass(12);
    server.look().await;
    let states = server.authority.states(Kind::X509);
    assert_eq!((states.active.as_ref(), states.prepared.is_some()), (Some(&first), true));
    world.pass(15);
    server.look().await;
    let states = server.authority.states(Kind::X509);
    assert_eq!(states.old.as_ref(), Some(&first));
    let stored = world.stored().await;
    assert!(
        stored.x509_authorities.contains(&tainted),
        "agents are told now that this server left"
    );
    assert!(server.authority.rotation_failure().is_none());

    // It is revoked above: it goes here too, although it has not ended.
    let fresh = root(&upstream, false);
    follow(vec![fresh.clone()]).await;
    assert_eq!(world.stored().await.x509_authorities, [fresh]);
}

#[tokio::test]
async fn a_taint_waits_for_no_pause_after_something_else() {
    let mut world = World::below_upstream().await;
    world.settings.rotation_check_interval = Duration::from_secs(1);
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    world.pass(90);
    upstream.hostile.store(true, Ordering::Relaxed);
    server.look().await;
    upstream.hostile.store(false, Ordering::Relaxed);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_none(), "it pauses");

    let roots = vec![root(&upstream, true)];
    let told = UpstreamBundle { roots, ..UpstreamBundle::default() };
    server.authority.take_over(&mut Heard::default(), told).await.unwrap();
    upstream.replace_root(Duration::from_secs(100_000)).await;
    server.look_if_tainted().await;
    assert!(server.authority.states(Kind::X509).prepared.is_some());
}

#[tokio::test]
async fn while_an_upstream_tells_of_tainted_roots_alone_nothing_is_bought() {
    let mut world = World::below_upstream().await;
    world.settings.rotation_check_interval = Duration::from_secs(1);
    let upstream = world.upstream.clone().unwrap();
    let mut server = world.start().await.unwrap();
    let mints = || upstream.mints.load(Ordering::Relaxed);
    let tell = || {
        let roots = vec![root(&upstream, false)];
        *upstream.bundle.lock().unwrap() = UpstreamBundle { roots, ..UpstreamBundle::default() };
    };
    tell();
    // Another server on this database has left the root and tainted it.
    let taint = |bundle: &mut Bundle| {
        bundle.x509_authorities[0].tainted = true;
        Ok(())
    };
    world.store.edit_bundle(domain(), taint).await.unwrap();
    server.authority.bundle.refresh().await.unwrap();
    for _ in 0..40 {
        server.look().await;
        world.pass(1);
    }
    let failure = server.authority.rotation_failure().unwrap();
    assert!(failure.contains("still signs below the tainted root"), "{failure}");
    assert_eq!(mints(), 1);

    upstream.replace_root(Duration::from_secs(100_000)).await;
    tell();
    world.pass(20);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_some());
    assert_eq!(mints(), 2);
}

#[tokio::test]
async fn what_is_signed_below_a_tainted_root_is_not_used_and_seldom_asked_for() {
    let mut world = World::below_upstream().await;
    world.settings.rotation_check_interval = Duration::from_secs(1);
    let upstream = world.upstream.clone().unwrap();
    let mut server = world.start().await.unwrap();
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let told = UpstreamBundle { roots: vec![root(&upstream, true)], ..UpstreamBundle::default() };
    server.authority.take_over(&mut Heard::default(), told).await.unwrap();
    world.pass(90);
    for _ in 0..10 {
        server.look().await;
        world.pass(1);
    }
    assert!(server.authority.states(Kind::X509).prepared.is_none());
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 2, "an eighth of 90 s is not over");
}

#[tokio::test]
async fn below_a_root_that_everyone_knows_nothing_waits() {
    let world = World::below_upstream().await;
    let upstream = world.upstream.clone().unwrap();
    let (authority, tasks) = started(&world).await;
    let first = root(&upstream, false);
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = root(&upstream, false);
    let bundle = |roots: &[&X509Authority]| UpstreamBundle {
        roots: roots.iter().copied().cloned().collect(),
        ..UpstreamBundle::default()
    };
    *upstream.bundle.lock().unwrap() = bundle(&[&first, &second]);
    until(&authority, |bundle| bundle.x509_authorities.len() == 2).await;
    let tainted = X509Authority { tainted: true, ..first };
    *upstream.bundle.lock().unwrap() = bundle(&[&tainted, &second]);
    let own = async {
        let mut svids = authority.server_svid();
        let moved = svids.wait_for(|it| {
            let chain = &it.as_ref().unwrap().svid().chain;
            let roots =
                Bundle { x509_authorities: vec![second.clone()], ..Bundle::empty(domain()) };
            leads_to(chain, &roots, world.clock.now())
        });
        moved.await.map(drop).unwrap();
    };
    tokio::time::timeout(Duration::from_secs(30), own).await.unwrap();
    assert!(authority.states(Kind::X509).old.is_some());
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn keys_that_are_tainted_or_revoked_above_are_so_here() {
    let mut world = World::below_upstream().await;
    let mut upstream = FakeUpstream::new(world.clock.clone(), Duration::from_secs(100_000)).await;
    upstream.jwt_keys = Some(std::sync::Mutex::default());
    let upstream = Arc::new(upstream);
    world.upstream = Some(upstream.clone());
    let (authority, tasks) = started(&world).await;
    let own = authority.states(Kind::Jwt).active.clone().unwrap().authority_id;
    let key = LocalKey::generate(KeyType::EcP256).await.unwrap();
    let other = JwtAuthority {
        key_id: "other".to_owned(),
        public_key: key.public_key().spki.clone(),
        expires_at: None,
        tainted: false,
    };
    let told = |keys: Vec<JwtAuthority>| {
        let roots = vec![root(&upstream, false)];
        let told = UpstreamBundle { roots, jwt_keys: Some(keys), ..UpstreamBundle::default() };
        *upstream.bundle.lock().unwrap() = told;
    };
    let find = |bundle: &Bundle| {
        bundle.jwt_authorities.iter().find(|key| key.key_id == "other").map(|key| key.tainted)
    };
    told(vec![other.clone()]);
    until(&authority, |bundle| find(bundle) == Some(false)).await;
    told(vec![JwtAuthority { tainted: true, ..other.clone() }]);
    until(&authority, |bundle| find(bundle) == Some(true)).await;
    told(Vec::new());
    let left = until(&authority, |bundle| find(bundle).is_none()).await;
    assert!(left.jwt_authorities.iter().any(|key| key.key_id == own), "its own stays");

    // What is tainted here is told above.
    let next = authority.prepare(Kind::Jwt).await.unwrap();
    authority.activate(Kind::Jwt, &next.authority_id).await.unwrap();
    authority.taint(Kind::Jwt, &own).await.unwrap();
    let published = upstream.jwt_keys.as_ref().unwrap().lock().unwrap().clone();
    assert!(published.iter().any(|key| key.key_id == own && key.tainted));

    // A server below does the same, but for keys of its own.
    authority
        .publish_jwt_key(JwtAuthority { key_id: "below".into(), ..other.clone() })
        .await
        .unwrap();
    let tainted = JwtAuthority { key_id: "below".into(), tainted: true, ..other };
    let foreign = LocalKey::generate(KeyType::EcP256).await.unwrap();
    let forged = JwtAuthority { public_key: foreign.public_key().spki.clone(), ..tainted.clone() };
    let is_tainted =
        |keys: Vec<JwtAuthority>| keys.iter().any(|key| key.key_id == "below" && key.tainted);
    assert!(!is_tainted(authority.publish_jwt_key(forged).await.unwrap()));
    assert!(is_tainted(authority.publish_jwt_key(tainted).await.unwrap()));
    // Nor may it taint what signs here, now or next.
    authority.prepare(Kind::Jwt).await.unwrap();
    let states = authority.states(Kind::Jwt);
    for id in [&states.active, &states.prepared].map(|it| &it.as_ref().unwrap().authority_id) {
        let mut key = authority.bundle().borrow().jwt_authorities.clone();
        key.retain(|key| key.key_id == *id);
        let tainted = JwtAuthority { tainted: true, ..key.remove(0) };
        let keys = authority.publish_jwt_key(tainted.clone()).await.unwrap();
        assert!(keys.iter().any(|key| key.key_id == *id && !key.tainted), "{keys:?}");
        let above = upstream.jwt_keys.as_ref().unwrap().lock().unwrap().clone();
        assert!(!above.contains(&tainted), "it is not told above");
    }
    // Whoever is above may revoke it for all.
    authority.revoke(Kind::Jwt, "below").await.unwrap();
    let bundle = authority.bundle().borrow().clone();
    assert!(!bundle.jwt_authorities.iter().any(|key| key.key_id == "below"));
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn servers_below_get_what_outlives_the_next_rotation() {
    let world = World::new().await;
    let mut server = world.start().await.unwrap();
    let asked = request("/below").await;
    let lives = async |server: &super::world::Server| {
        let chain = server.authority.sign_downstream(&asked, Some(CA_TTL)).await.unwrap();
        let (_, end) = spire_core::svid::x509::validity(&chain[0]).unwrap();
        end.duration_since(world.clock.now()).as_secs()
    };
    assert_eq!(lives(&server).await, 180);
    world.pass(90);
    server.look().await;
    // The next root is not known everywhere yet.
    assert_eq!(lives(&server).await, 90);
    world.pass(30);
    assert_eq!(lives(&server).await, 150);
}
