//! Below a CA that says which names may stand below it.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::Bundle;
use spire_core::catalog::Host;
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::keys::KeyType;
use spire_core::svid::x509::ca_request;
use spire_upstream_ca::disk;
use tokio::sync::watch;

use super::super::slots::SlotId;
use super::super::x509_ca::X509Ca;
use super::log::Warnings;
use super::world::{CA_TTL, World, domain, settings};

#[tokio::test]
async fn constraints_on_dns_names_are_named() {
    let warnings = Warnings::collect();
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Certificates that are made in a moment are valid by this clock.
    let clock = Clock::standing_at(Timestamp::now() + SignedDuration::from_mins(1));
    let (_, bundle) = watch::channel(std::sync::Arc::new(Bundle::empty(domain())));
    let host = Host { trust_domain: domain(), bundle, clock: clock.clone() };
    for (constraints, warned) in
        [("permitted;IP:10.0.0.0/255.0.0.0", 0), ("excluded;DNS:a.test", 1)]
    {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-subj", "/CN=acme", "-keyout", "acme.key", "-out", "acme.crt"])
            .args(["-addext", &format!("nameConstraints={constraints}")])
            .current_dir(&folder)
            .output()
            .expect("openssl is part of a test machine");
        assert!(made.status.success(), "{made:?}");
        let section = format!(
            "cert_file_path = {:?}\nkey_file_path = {:?}",
            path("acme.crt"),
            path("acme.key")
        );
        let upstream = (disk::PLUGIN.build)(&Section::parse(&section).unwrap(), &host).unwrap();
        let key = world.keys.generate("x", KeyType::EcP256).await.unwrap();
        let csr = ca_request(&*key, &domain(), &settings().ca_subject).await.unwrap();
        let minted = upstream.mint(&csr, CA_TTL).await.unwrap();
        let (known, now) = (Bundle::empty(domain()), clock.now());
        X509Ca::intermediate(SlotId::A, key, &minted, &settings(), &known, now).unwrap();
        let sentence = "Certificates above this server's CA constrain DNS names";
        assert_eq!(warnings.count(sentence), warned, "{constraints}");
    }
}
