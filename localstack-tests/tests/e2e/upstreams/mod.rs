//! One story for each upstream authority: a first start below it, a restart, a rotation, a new root
//! above, the upstream away until after the next authority was to take over, and back. OpenSSL
//! judges each chain.

mod above;
mod below;

use std::fs;

use spire_fakes::aws::{Aws, HOME_ACCOUNT, Malice, PrivateCa};
use spire_localstack_tests::nested::{Place, Settings};

use above::{Above, Files, Pca, REGION, Secrets, Spire};
use below::Below;

#[tokio::test]
async fn disk() {
    let mut above = Files::new().await;
    let below = settled(&mut above).await;
    below.give_up_former_root().await;
    // What was read before goes on.
    fs::remove_file(above.0.join("ca.key")).unwrap();
    below.rotate().await;
    below.rotate().await;
    below.server.logged("Unable to read the upstream CA; the one that was read").await.unwrap();
    below.verify(&above.root().await).await;
    above.replace_root().await;
    below.rotate().await;
    below.verify(&above.root().await).await;
}

#[tokio::test]
async fn awssecret() {
    let mut above = Secrets { files: Files::new().await, aws: Aws::start().await };
    above.tell();
    let below = settled(&mut above).await;
    let forbidden = "GetSecretValue".to_owned();
    above.aws.world().forbidden.insert(forbidden.clone());
    below.rotate().await;
    below.rotate().await;
    below.server.logged("Unable to read the upstream CA; the one that was read").await.unwrap();
    below.verify(&above.root().await).await;
    above.replace_root().await;
    above.aws.world().forbidden.remove(&forbidden);
    below.rotate().await;
    below.verify(&above.root().await).await;
}

#[tokio::test]
async fn aws_pca() {
    let aws = Aws::start().await;
    let root = PrivateCa::root(HOME_ACCOUNT, REGION, 3650, true);
    aws.world().authorities.push(PrivateCa::below(&root, REGION, 365));
    let mut above = Pca(aws);
    let mut below = settled(&mut above).await;
    assert_eq!(above.bought(), below.prepared());

    // What was bought is used as soon as the database takes it.
    below.sql(
        "CREATE TRIGGER obstacle BEFORE UPDATE ON ca_journals BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    let prepare = ["localauthority", "x509", "prepare"];
    below.server.command(&prepare).await.unwrap_err();
    assert_eq!(above.bought(), below.prepared() + 1);
    below.sql("DROP TRIGGER obstacle");
    below.rotate().await;
    assert_eq!(above.bought(), below.prepared());

    above.0.world().authorities[0].status = "DISABLED".to_owned();
    let active = below.goes_on_without(&above).await;
    above.0.world().authorities[0].status = "ACTIVE".to_owned();
    below.replaces(&active).await;
    below.verify(&above.root().await).await;
    assert_eq!(above.bought(), below.prepared());

    // What it should not have signed is not used.
    let active = below.authority("active").await;
    above.0.world().authorities[0].malice = Some(Malice::OtherKey);
    below.server.command(&prepare).await.unwrap_err();
    let sentence = "its first certificate carries another key than the request";
    below.server.logged(sentence).await.unwrap();
    assert_eq!(below.authority("active").await, active);
    below.verify(&above.root().await).await;
    // The first one was bought before the restart.
    let line = format!("issued={}", above.bought() - 1);
    below.server.logged(&line).await.unwrap();
    let issued = below.server.process().log().matches(" issued=").count();
    assert_eq!(issued, above.bought() - 1);
}

#[tokio::test]
async fn spire() {
    let place = Place::start("above", None, "/below", true, &Settings::default()).await.unwrap();
    let mut above = Spire(place);
    let mut below = settled(&mut above).await;
    above.0.server.process().kill().unwrap();
    let active = below.goes_on_without(&above).await;
    above.0.server.start_again().await.unwrap();
    below.replaces(&active).await;
    below.verify(&above.root().await).await;
}

/// A first start, a restart, a rotation, and a new root.
async fn settled(above: &mut impl Above) -> Below {
    let mut below = Below::start(above.plugin()).await;
    let root = above.root().await;
    below.verify(&root).await;
    let first = below.authority("active").await;

    below.server.process().stop().await.unwrap();
    below.server.start_again().await.unwrap();
    assert_eq!(below.authority("active").await, first);
    assert!(!below.server.process().log().contains("X509 CA prepared"));
    below.verify(&root).await;
    below.rotate().await;
    assert_ne!(below.authority("active").await, first);
    below.verify(&root).await;

    above.replace_root().await;
    let next = above.root().await;
    assert_ne!(next, root);
    below.prepare().await;
    // Everyone knows the new root before it counts.
    let bundle = below.server.bundle_pem().await.unwrap();
    assert!(bundle.contains(&root) && bundle.contains(&next), "{bundle}");
    below.verify(&root).await;
    below.activate().await;
    below.verify(&next).await;
    below
}
