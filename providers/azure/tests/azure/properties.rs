//! Whatever comes, evidence is refused soon and nothing panics. X3 is among it.

use std::time::Duration;

use proptest::prelude::*;
use spire_core::node::{AttestError, NodeAttestor};
use spire_fakes::azure::{CertificateKind, Message};
use spire_fakes::time::shortest;

use crate::msi::{payload, shown};
use crate::support::{Node, Scene, answer};

/// What evidence may take from either attestor.
const LIMIT: Duration = Duration::from_millis(100);

/// Shows `bytes` to both attestors; they must be refused as malformed, in little time.
async fn refuse(imds: &dyn NodeAttestor, msi: &dyn NodeAttestor, bytes: Vec<u8>) {
    let by_msi = shortest(LIMIT, async || {
        let shown = shown(msi, &bytes).await;
        assert!(matches!(shown, Err(AttestError::Malformed(_))), "{shown:?}");
    });
    let by_msi = by_msi.await;
    let by_imds = shortest(LIMIT, async || {
        let bytes = bytes.clone();
        let answered = Node::made(move |_| bytes.clone()).attest(imds, b"x").await;
        assert!(matches!(answered, Err(AttestError::Malformed(_))), "{answered:?}");
    });
    let by_imds = by_imds.await;
    assert!(by_msi < LIMIT && by_imds < LIMIT, "azure_msi {by_msi:?}, azure_imds {by_imds:?}");
}

#[tokio::test]
async fn x03_large_and_deep_evidence() {
    let scene = Scene::new().await;
    let (imds, msi) = (scene.imds("", "").await, scene.msi("", "").await);
    let large = "A".repeat(3_900_000);
    for bytes in [
        vec![b'['; 1 << 20],
        vec![0x30; 1 << 20],
        payload(&large),
        answer(&large),
        "[".repeat(10_000).into_bytes(),
        format!("{{\"token\":{}", "[".repeat(60_000)).into_bytes(),
        "{\"a\":".repeat(10_000).into_bytes(),
        answer(&"MIAG".repeat(12_000)),
        answer(&"MIAwgDCA".repeat(6_000)),
    ] {
        refuse(&*imds, &*msi, bytes).await;
    }
}

#[test]
fn arbitrary_evidence_is_refused_and_no_more() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (scene, imds, msi) = runtime.block_on(async {
        let scene = Scene::new().await;
        let (imds, msi) = (scene.imds("", "").await, scene.msi("", "").await);
        (scene, imds, msi)
    });
    let signer = scene.azure.pki.issue(&CertificateKind::default());
    let genuine = Message::signed_by(&signer, scene.content("x").to_string().as_bytes()).der();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() };
    proptest!(config.clone(), |(bytes in proptest::collection::vec(any::<u8>(), 0..400))| {
        runtime.block_on(refuse(&*imds, &*msi, bytes));
    });
    proptest!(config, |(at in 0..genuine.len(), byte in any::<u8>(), end in 0..genuine.len())| {
        use base64::Engine;
        let mut der = genuine.clone();
        der[at] = byte;
        der.truncate(end);
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        runtime.block_on(refuse(&*imds, &*msi, answer(&text)));
    });
}
