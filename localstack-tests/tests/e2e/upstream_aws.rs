//! Upstream authorities in AWS, as LocalStack and moto have built it again: our calls are understood
//! by somebody else's servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spire_core::bundle::{Bundle, certificate_pem};
use spire_core::catalog::Host;
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{Subject, ca_request};
use spire_localstack_tests::localstack::LocalStack;
use spire_localstack_tests::moto::Moto;
use spire_localstack_tests::{Folder, Server, ServerFile, command, packages};
use spire_upstream_ca::{aws_pca, check};
use tokio::sync::watch;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(name)
}

#[tokio::test]
async fn a_server_hangs_below_secrets_of_localstack_by_a_role_that_is_assumed() {
    let (folder, localstack) = (Folder::new().unwrap(), LocalStack::start().await.unwrap());
    let world = localstack.run(&script("localstack_secrets.py")).await.unwrap();
    let text = |key: &str| world[key].as_str().unwrap().to_owned();
    let (url, key) = (localstack.url(), text("key"));
    let plugins = format!(
        r#"UpstreamCA "awssecret" {{
        plugin_data {{
            region = "us-west-2"
            cert_file_arn = "upstream/cert"
            key_file_arn = "{key}"
            access_key_id = "000000000000"
            secret_access_key = "secret"
            assume_role_arn = "arn:aws:iam::000000000000:role/signer"
            endpoints {{
                secretsmanager = "{url}"
                sts = "{url}"
            }}
        }}
    }}"#
    );
    let file = ServerFile { plugins, ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    let prepared = server.logged("X509 CA prepared").await.unwrap();
    assert!(prepared.contains(&text("id")), "{prepared}");
    assert_eq!(server.bundle_pem().await.unwrap().trim(), text("root").trim());

    let svid = folder.join("svid");
    fs::create_dir(&svid).unwrap();
    let to = svid.display().to_string();
    let id = "spiffe://example.org/workload";
    server.command(&["x509", "mint", "-spiffeID", id, "-write", &to]).await.unwrap();
    let mut openssl = packages::command("openssl", "openssl").unwrap();
    openssl.current_dir(&svid);
    openssl.args("verify -CAfile bundle.pem -untrusted svid.pem svid.pem".split(' '));
    command::run(openssl).await.unwrap().success().unwrap();

    // What was signed before is in the journal: no secret is needed.
    server.process().stop().await.unwrap();
    drop(localstack);
    server.start_again().await.unwrap();
    assert_eq!(server.bundle_pem().await.unwrap().trim(), text("root").trim());
    assert!(!server.process().log().contains("X509 CA prepared"));
    server.process().stop().await.unwrap();
}

/// moto applies no template for a CA: what it signs is a good case for the check.
#[tokio::test]
async fn motos_private_ca_takes_our_calls_and_what_it_signs_is_refused() {
    let moto = Moto::start().await.unwrap();
    let world = moto.run(&script("moto_world.py")).await.unwrap();
    let text = |key: &str| world[key].as_str().unwrap().to_owned();
    let (arn, url) = (text("arn"), moto.url());
    let settings = format!(
        "certificate_authority_arn = {arn:?}\nendpoint = {url:?}\n\
         access_key_id = \"000000000000\"\nsecret_access_key = \"secret\""
    );
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let (_sender, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
    let clock = Clock::system();
    let host = Host { trust_domain: trust_domain.clone(), bundle, clock: clock.clone() };
    let build = aws_pca::PLUGIN.build;
    let upstream = build(&Section::parse(&settings).unwrap(), &host).unwrap();
    let roots = upstream.bundle().await.unwrap().roots;
    assert_eq!(certificate_pem(&roots[0].certificate).trim(), text("root").trim());

    let key = LocalKey::generate(KeyType::EcP256).await.unwrap();
    let csr = ca_request(&key, &trust_domain, &Subject::of_svids()).await.unwrap();
    let minted = upstream.mint(&csr, Duration::from_secs(3600)).await.unwrap();
    assert_eq!((minted.chain.len(), minted.roots), (1, roots.clone()));
    let minted = upstream.mint(&csr, Duration::from_secs(3600)).await.unwrap();
    let error = check(&minted, &key.public_key().spki, &trust_domain, clock.now()).unwrap_err();
    assert!(error.to_string().contains("no signing certificate"), "{error}");
}
