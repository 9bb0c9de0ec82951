//! `disk`: files that come, change and go.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use spire_core::bundle::JwtAuthority;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::SigningKey;
use spire_core::svid::x509::{Issuer, LeafTemplate};
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamError};
use spire_upstream_ca::{check, disk};

use crate::harness::{Folder, HOUR, build, domain, key, mint, now, request};

impl Folder {
    fn build(&self, settings: &str, clock: &Clock) -> Result<Arc<dyn UpstreamAuthority>, String> {
        let settings = settings.replace("DIR", self.0.path().to_str().unwrap());
        build(&disk::PLUGIN, &settings, clock)
    }

    fn build_one(&self, name: &str, clock: &Clock) -> Result<Arc<dyn UpstreamAuthority>, String> {
        let settings =
            format!("cert_file_path = \"DIR/{name}.crt\"\nkey_file_path = \"DIR/{name}.key\"");
        self.build(&settings, clock)
    }
}

#[tokio::test]
async fn every_kind_of_key_signs_what_openssl_accepts() {
    let kinds = [
        "rsa:2048",
        "rsa:3072",
        "ec -pkeyopt ec_paramgen_curve:P-256",
        "ec -pkeyopt ec_paramgen_curve:P-384",
        "ec -pkeyopt ec_paramgen_curve:P-521",
    ];
    for kind in kinds {
        let (folder, clock) = (Folder::new(), now());
        folder.root("acme", kind, 30);
        folder.openssl("pkey -traditional -in acme.key -out old.key");
        for form in ["acme.key", "old.key"] {
            let settings =
                format!("cert_file_path = \"DIR/acme.crt\"\nkey_file_path = \"DIR/{form}\"");
            let upstream = folder.build(&settings, &clock).unwrap();
            let minted = mint(&folder, &*upstream, &clock).await;
            assert_eq!((minted.chain.len(), minted.roots.len()), (1, 1), "{kind} {form}");
        }
    }
}

#[tokio::test]
async fn below_a_bundle_the_whole_certificate_file_is_served() {
    let (folder, clock) = (Folder::new(), now());
    folder.root("root", "rsa:2048", 30);
    folder.intermediate("middle", "root", "");
    folder.concat("chain.crt", &["middle.crt", "root.crt"]);
    let settings = "cert_file_path = \"DIR/chain.crt\"\nkey_file_path = \"DIR/middle.key\"\n\
                    bundle_file_path = \"DIR/root.crt\"\nttl = \"1h\"\nunknown = 1";
    let upstream = folder.build(settings, &clock).unwrap();
    let minted = mint(&folder, &*upstream, &clock).await;
    assert_eq!((minted.chain.len(), minted.roots.len()), (3, 1));
    assert_eq!(minted.chain[2], minted.roots[0].certificate);
}

#[tokio::test]
async fn constraints_on_dns_names_are_left_to_verifiers() {
    let (folder, clock) = (Folder::new(), now());
    folder.root("acme", "ec -pkeyopt ec_paramgen_curve:P-256", 30);
    folder.intermediate("bound", "acme", "\nnameConstraints=critical,permitted;DNS:inside.example");
    let settings = "cert_file_path = \"DIR/bound.crt\"\nkey_file_path = \"DIR/bound.key\"\n\
                    bundle_file_path = \"DIR/acme.crt\"";
    let upstream = folder.build(settings, &clock).unwrap();
    let key = Arc::new(key());
    let csr = request(&key, &domain()).await;
    let minted = upstream.mint(&csr, HOUR).await.unwrap();
    let checked = check(&minted, &key.public_key().spki, &domain(), clock.now()).unwrap();
    assert_eq!(checked.dns_rules, ["permitted inside.example"]);
    let issuer = Issuer::intermediate(minted.chain, key.clone()).unwrap();
    for (dns_names, is_allowed) in
        [(&[][..], true), (&["a.inside.example"], true), (&["a.outside.example"], false)]
    {
        let dns_names: Vec<_> = dns_names.iter().map(|name| name.parse().unwrap()).collect();
        let template = LeafTemplate {
            id: &domain().member("/w").unwrap(),
            public_key: &key.public_key().spki,
            dns_names: &dns_names,
            subject: None,
            ttl: HOUR,
        };
        let svid = issuer.sign_leaf(&template, clock.now()).await.unwrap();
        folder.write_pem("svid.pem", &svid.chain[..1]);
        folder.write_pem("chain.pem", &svid.chain[1..]);
        let at = clock.now().as_second();
        let verified = folder
            .run(&format!("verify -attime {at} -CAfile acme.crt -untrusted chain.pem svid.pem"));
        assert_eq!(verified.status.success(), is_allowed, "{dns_names:?}: {verified:?}");
    }
}

#[tokio::test]
async fn the_upstream_caps_the_lifetime() {
    let (folder, clock) = (Folder::new(), now());
    folder.root("acme", "ec -pkeyopt ec_paramgen_curve:P-256", 1);
    let upstream = folder.build_one("acme", &clock).unwrap();
    let csr = request(&key(), &domain()).await;
    let minted = upstream.mint(&csr, 100 * HOUR).await.unwrap();
    folder.write_pem("ca.pem", &minted.chain);
    // Valid for more than 23 hours, and for less than 25, although 100 were asked for.
    folder.openssl("x509 -in ca.pem -noout -checkend 82800");
    assert!(!folder.run("x509 -in ca.pem -noout -checkend 90000").status.success());
}

#[tokio::test]
async fn the_files_are_read_at_every_mint_and_the_last_good_ones_used() {
    let (folder, clock) = (Folder::new(), now());
    let curve = "ec -pkeyopt ec_paramgen_curve:P-256";
    folder.root("acme", curve, 1);
    let upstream = folder.build_one("acme", &clock).unwrap();
    let first = mint(&folder, &*upstream, &clock).await;

    folder.root("acme", curve, 1);
    let told = upstream.bundle().await.unwrap().roots;
    let second = mint(&folder, &*upstream, &clock).await;
    assert_ne!(first.roots, second.roots);
    assert_eq!(told, second.roots);

    fs::remove_file(folder.path("acme.key")).unwrap();
    let third = mint(&folder, &*upstream, &clock).await;
    assert_eq!(second.roots, third.roots);

    clock.advance(SignedDuration::from_hours(48));
    let csr = request(&key(), &domain()).await;
    let error = upstream.mint(&csr, HOUR).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "it is asked again soon: {error}");
    let start = "unable to load upstream CA key: open ";
    assert!(error.to_string().starts_with(start), "{error}");

    folder.root("acme", curve, 1);
    clock.advance(-SignedDuration::from_hours(48));
    mint(&folder, &*upstream, &clock).await;
}

#[tokio::test]
async fn an_expired_upstream_signs_nothing() {
    let (folder, clock) = (Folder::new(), now());
    folder.root("acme", "rsa:2048", 1);
    let upstream = folder.build_one("acme", &clock).unwrap();
    clock.advance(SignedDuration::from_hours(25));
    let csr = request(&key(), &domain()).await;
    let error = upstream.mint(&csr, HOUR).await.unwrap_err().to_string();
    assert!(error.contains("expired at"), "{error}");
    let error = folder.build_one("acme", &clock).err().unwrap();
    assert!(error.contains("certificate cannot be validated with the provided bundle"), "{error}");
}

#[tokio::test]
async fn only_the_trust_domain_itself_gets_a_ca() {
    let (folder, clock) = (Folder::new(), now());
    folder.root("acme", "rsa:2048", 1);
    let upstream = folder.build_one("acme", &clock).unwrap();
    let other = TrustDomain::parse("example.com").unwrap();
    let csr = request(&key(), &other).await;
    let error = upstream.mint(&csr, HOUR).await.unwrap_err().to_string();
    assert!(error.contains("must have the URI SAN spiffe://example.org alone"), "{error}");
    assert!(upstream.mint(b"\x30\x00", HOUR).await.is_err());
    let key = JwtAuthority {
        key_id: "k".to_owned(),
        public_key: Bytes::new(),
        expires_at: None,
        tainted: false,
    };
    let published = upstream.publish_jwt_key(&key).await;
    assert!(matches!(published, Err(UpstreamError::Unsupported)));
}

#[test]
fn each_mistake_has_its_sentence() {
    let (folder, clock) = (Folder::new(), now());
    folder.root("acme", "rsa:2048", 1);
    folder.root("other", "rsa:2048", 1);
    folder.intermediate("middle", "acme", "");
    folder.concat("two.crt", &["middle.crt", "acme.crt"]);
    folder.intermediate("short", "acme", ",pathlen:0");
    folder.intermediate("bound", "acme", "\nnameConstraints=permitted;URI:other.example");
    folder.intermediate("leaf", "acme", "\nbasicConstraints=critical,CA:FALSE");
    folder.openssl("genpkey -algorithm ed25519 -out ed.key");
    folder.openssl("pkcs8 -topk8 -in acme.key -passout pass:secret -out locked.key");
    folder.openssl("rsa -traditional -aes128 -in acme.key -passout pass:secret -out old.key");
    fs::write(folder.path("empty.crt"), "").unwrap();
    let cases = [
        ("acme.crt", "absent.key", "", "unable to load upstream CA key: open "),
        ("absent.crt", "acme.key", "", "unable to load upstream CA cert: open "),
        ("empty.crt", "acme.key", "", "no certificate found there"),
        ("acme.crt", "acme.crt", "", "unable to load upstream CA key: "),
        ("acme.crt", "ed.key", "", "unsupported private key type ed25519.PrivateKey"),
        ("acme.crt", "locked.key", "", "no PEM block with an unencrypted private key"),
        ("acme.crt", "old.key", "", "no PEM block with an unencrypted private key"),
        ("bound.crt", "bound.key", "acme.crt", "name constraints"),
        ("leaf.crt", "leaf.key", "acme.crt", "no signing certificate"),
        (
            "two.crt",
            "middle.key",
            "",
            "with no bundle_file_path configured only self-signed CAs are supported",
        ),
        (
            "acme.crt",
            "other.key",
            "",
            "unable to load upstream CA: certificate and private key do not match",
        ),
        (
            "middle.crt",
            "middle.key",
            "other.crt",
            "unable to load upstream CA: certificate cannot be validated with the provided bundle \
             or is not self-signed",
        ),
        ("short.crt", "short.key", "acme.crt", "the path length 0"),
        ("acme.crt", "acme.key", "absent.crt", "unable to load upstream CA bundle: open "),
    ];
    for (certificate, key, bundle, sentence) in cases {
        let mut settings =
            format!("cert_file_path = \"DIR/{certificate}\"\nkey_file_path = \"DIR/{key}\"");
        if !bundle.is_empty() {
            settings.push_str(&format!("\nbundle_file_path = \"DIR/{bundle}\""));
        }
        let error = folder.build(&settings, &clock).err().unwrap();
        assert!(error.contains(sentence), "{certificate} {key}: {error}");
    }
    clock.advance(-SignedDuration::from_hours(24));
    let error = folder.build_one("acme", &clock).err().unwrap();
    assert!(error.contains("a certificate of it is not valid before"), "{error}");
    let error = folder.build("", &clock).err().unwrap();
    for sentence in ["cert_file_path is required", "key_file_path is required"] {
        assert!(error.contains(sentence), "{error}");
    }
}

#[tokio::test]
async fn a_chain_that_breaks_a_rule_is_refused() {
    let (folder, clock) = (Folder::new(), now());
    let curve = "ec -pkeyopt ec_paramgen_curve:P-256";
    folder.root("acme", curve, 30);
    folder.root("other", curve, 30);
    let upstream = folder.build_one("acme", &clock).unwrap();
    let key = key();
    let spki = &key.public_key().spki;
    let csr = request(&key, &domain()).await;
    let good = upstream.mint(&csr, HOUR).await.unwrap();
    let refusal = |minted: &Minted, spki: &[u8], domain: &TrustDomain, now| {
        check(minted, spki, domain, now).unwrap_err().to_string()
    };
    let now = clock.now();
    assert!(check(&good, spki, &domain(), now).unwrap().root_id.is_some());

    let error = refusal(&good, b"other", &domain(), now);
    assert!(error.contains("another key"), "{error}");
    let other_domain = TrustDomain::parse("example.com").unwrap();
    let error = refusal(&good, spki, &other_domain, now);
    assert!(error.contains("must have the URI SAN spiffe://example.com alone"), "{error}");
    let error = refusal(&good, spki, &domain(), now + 2 * HOUR);
    assert!(error.contains("expired at"), "{error}");
    let error = refusal(&good, spki, &domain(), now - 24 * HOUR);
    assert!(error.contains("not valid before"), "{error}");
    let error = refusal(&Minted { chain: vec![], ..good.clone() }, spki, &domain(), now);
    assert!(error.contains("empty"), "{error}");
    let error = refusal(&Minted { roots: vec![], ..good.clone() }, spki, &domain(), now);
    assert!(error.contains("none of the roots"), "{error}");
    let stranger = folder.build_one("other", &clock).unwrap().mint(&csr, HOUR).await.unwrap();
    let error = refusal(&Minted { roots: stranger.roots, ..good }, spki, &domain(), now);
    assert!(error.contains("none of the roots"), "{error}");
}
