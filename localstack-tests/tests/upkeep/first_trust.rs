//! Where a new agent takes its first trust from, and what it does not trust.

use std::sync::{Arc, Mutex};

use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::giving_up::{FAILED, start_patiently};
use super::world::{By, Setup, World};
use spire_fakes::log::Log;

/// Answers one request after the other from `documents` over the Unix socket at `path`. Returns
/// what was asked for.
fn serve_documents(path: &std::path::Path, documents: Vec<Vec<u8>>) -> Arc<Mutex<Vec<String>>> {
    let listener = UnixListener::bind(path).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let requests = asked.clone();
    tokio::spawn(async move {
        for document in documents {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            requests.lock().unwrap().push(request.lines().next().unwrap().to_owned());
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                document.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // A client that has read enough goes away.
            let _ = stream.write_all(&document).await;
        }
    });
    asked
}

fn document(pem: &[u8]) -> Vec<u8> {
    let domain = TrustDomain::parse("example.org").unwrap();
    Bundle::from_pem(domain, pem).unwrap().to_spiffe_json().into_bytes()
}

#[tokio::test]
async fn a_process_behind_a_socket_is_asked_until_it_gives_a_bundle_that_fits() {
    let world = World::start("").await;
    let log = Log::read();
    let read = |name: &str| std::fs::read(world.folder.join(name)).unwrap();
    let others_bundle = document(&read("pki.pem"));
    let too_long = vec![b' '; (4 << 20) + 1];
    let documents = vec![too_long, b"{".to_vec(), others_bundle, document(&read("bootstrap.pem"))];
    let socket = world.folder.join("bundles.sock");
    let asked = serve_documents(&socket, documents);
    let trust = format!(
        "trust_bundle_url = \"http://bundles/example?of=ours\"
         trust_bundle_unix_socket = {socket:?}
         trust_bundle_format = \"spiffe\""
    );
    let setup = Setup { trust: Some(&trust), ..Setup::default() };
    let (waits, node) = start_patiently(&world, &log, FAILED, By::Token, &setup).await;
    let node = node.unwrap();
    assert!(node.id().path.starts_with("/spire/agent/join_token/"));
    node.stop().await;

    let errors: Vec<_> = log.with(FAILED).iter().map(|one| one.field("error").to_owned()).collect();
    assert_eq!(errors.len(), waits.len());
    let url = "unable to fetch trust bundle URL http://bundles/example?of=ours&spire-attest-mode=";
    assert!(errors[0].starts_with(url), "{errors:?}");
    assert!(errors[0].ends_with(": the answer is longer than 4194304 bytes"), "{errors:?}");
    assert!(errors[1].starts_with("could not parse trust bundle: "), "{errors:?}");
    assert!(errors[2].starts_with("failed to receive attestation response: "), "{errors:?}");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    for (number, request) in asked.iter().enumerate() {
        let start = format!(
            "GET /example?of=ours&spire-attest-mode=bootstrap&spire-connection-attempts={}&",
            number + 1
        );
        assert!(request.starts_with(&start), "{request}");
    }
}

#[tokio::test]
async fn another_agent_gives_the_first_trust_and_the_svid_that_is_the_evidence() {
    let world = World::start_where_svids_attest().await;
    let first = world.start_agent(By::Token, "").await.unwrap();
    world.create_entry(&first.id(), "/spire-exchange/rack/7").await;
    world.pass_until(async || first.fetch().await).await;
    let socket = world.folder.join("agent/public/api.sock");
    let trust = format!("trust_bundle_spiffe_workload_api = \"unix:{}\"", socket.display());
    let setup = Setup { trust: Some(&trust), folder: "second", ..Setup::default() };
    let second = world.start_agent_of(By::Svid, &setup).await.unwrap();
    assert_eq!(second.id().path, "/spire/agent/x509pop/rack/7");
    assert!(second.storage().data().reattestable);
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn without_a_bundle_the_server_that_answers_first_is_trusted_by_its_name() {
    let world = World::start("").await;
    let log = Log::read();
    let setup = Setup { trust: Some("insecure_bootstrap = true"), ..Setup::default() };
    let elsewhere = Setup { trust_domain: "other.test", ..setup };
    let (waits, refused) = start_patiently(&world, &log, FAILED, By::Token, &elsewhere).await;
    let refused = refused.err().unwrap().to_string();
    for id in ["spiffe://example.org/spire/server", "spiffe://other.test/spire/server"] {
        assert!(refused.contains(id), "{id} is not in {refused}");
    }
    let warned = "Insecure bootstrap enabled; skipping server certificate verification";
    assert_eq!(log.with(warned).len(), waits.len() + 1);

    let node = world.start_agent_of(By::Token, &setup).await.unwrap();
    let data = node.storage().data();
    assert_eq!(data.bundle.len(), 1, "from now on it knows the server by its bundle");
    assert!(node.id().path.starts_with("/spire/agent/join_token/"));
    node.stop().await;
}
