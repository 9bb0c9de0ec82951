//! What the tests share: a folder with CAs that OpenSSL makes, and the mint that OpenSSL judges.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::Bundle;
use spire_core::catalog::{Host, Plugin};
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{Subject, ca_request};
use spire_core::upstream::{Minted, UpstreamAuthority};
use spire_upstream_ca::check;
use tokio::sync::watch;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A folder with CAs.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs OpenSSL, whatever comes of it.
    pub(crate) fn run(&self, arguments: &str) -> Output {
        Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&self.0)
            .output()
            .expect("openssl is part of a test machine")
    }

    pub(crate) fn openssl(&self, arguments: &str) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    /// A self-signed CA in `name.crt` and `name.key`, whose key is made by `newkey`.
    pub(crate) fn root(&self, name: &str, newkey: &str, days: u32) {
        self.openssl(&format!(
            "req -x509 -newkey {newkey} -nodes -keyout {name}.key -out {name}.crt \
             -subj /C=/ST=/L=/O=/CN={name}.com -days {days}"
        ));
    }

    /// A CA that `issuer` signed, with `constraints` after CA:TRUE.
    pub(crate) fn intermediate(&self, name: &str, issuer: &str, constraints: &str) {
        fs::write(
            self.path("ext"),
            format!("basicConstraints=critical,CA:TRUE{constraints}\nkeyUsage=keyCertSign"),
        )
        .unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout {name}.key \
             -out {name}.csr -subj /O=middle/CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial \
             -days 30 -extfile ext -out {name}.crt"
        ));
    }

    pub(crate) fn concat(&self, to: &str, names: &[&str]) {
        let text: String =
            names.iter().map(|name| fs::read_to_string(self.path(name)).unwrap()).collect();
        fs::write(self.path(to), text).unwrap();
    }

    /// Writes DER certificates as one PEM file.
    pub(crate) fn write_pem(&self, name: &str, certificates: &[Bytes]) {
        let mut text = Vec::new();
        for certificate in certificates {
            fs::write(self.path("one.der"), certificate).unwrap();
            self.openssl("x509 -inform der -in one.der -out one.pem");
            text.extend(fs::read(self.path("one.pem")).unwrap());
        }
        fs::write(self.path(name), text).unwrap();
    }
}

/// Makes a plugin.
pub(crate) fn build(
    plugin: &Plugin<dyn UpstreamAuthority>,
    settings: &str,
    clock: &Clock,
) -> Result<Arc<dyn UpstreamAuthority>, String> {
    build_for(plugin, settings, clock, domain())
}

/// Makes a plugin of a server of `domain`.
pub(crate) fn build_for(
    plugin: &Plugin<dyn UpstreamAuthority>,
    settings: &str,
    clock: &Clock,
    domain: TrustDomain,
) -> Result<Arc<dyn UpstreamAuthority>, String> {
    let section = Section::parse(settings).unwrap();
    (plugin.build)(&section, &host(clock, domain)).map_err(|err| err.to_string())
}

/// What a plugin of a server of `domain` works with.
pub(crate) fn host(clock: &Clock, domain: TrustDomain) -> Host {
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(domain.clone())));
    Host { trust_domain: domain, bundle, clock: clock.clone() }
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// A clock a little ahead: certificates that are made in a moment are valid already.
pub(crate) fn now() -> Clock {
    Clock::standing_at(Timestamp::now() + SignedDuration::from_secs(60))
}

pub(crate) fn key() -> LocalKey {
    LocalKey::generate_blocking(KeyType::EcP256).unwrap()
}

pub(crate) async fn request(key: &LocalKey, domain: &TrustDomain) -> Bytes {
    let subject = Subject {
        country: vec!["US".to_owned()],
        organization: vec!["SPIFFE".to_owned()],
        ..Subject::default()
    };
    ca_request(key, domain, &subject).await.unwrap()
}

/// Has a CA signed, checks it as the server does, and has OpenSSL verify it.
pub(crate) async fn mint(
    folder: &Folder,
    upstream: &dyn UpstreamAuthority,
    clock: &Clock,
) -> Minted {
    let key = key();
    let csr = request(&key, &domain()).await;
    let minted = upstream.mint(&csr, HOUR).await.unwrap();
    check(&minted, &key.public_key().spki, &domain(), clock.now()).unwrap();
    let roots: Vec<_> = minted.roots.iter().map(|root| root.certificate.clone()).collect();
    folder.write_pem("roots.pem", &roots);
    folder.write_pem("chain.pem", &minted.chain);
    folder.write_pem("ca.pem", &minted.chain[..1]);
    let at = clock.now().as_second();
    folder.openssl(&format!("verify -attime {at} -CAfile roots.pem -untrusted chain.pem ca.pem"));
    minted
}
