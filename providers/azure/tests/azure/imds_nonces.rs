//! `azure_imds`: challenges of several nodes side by side.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use spire_core::node::{Evidence, EvidenceError};
use spire_fakes::azure::Machine;
use tokio::sync::Barrier;

use crate::support::{Node, Scene, assert_outcome, imds_agent};

/// Answers another node's challenge in place of its own, which that one answers.
struct Swapping {
    genuine: Box<dyn Evidence>,
    /// Where nonces are left, its own at `place`.
    nonces: Arc<Mutex<[Vec<u8>; 2]>>,
    place: usize,
    both: Arc<Barrier>,
}

#[async_trait]
impl Evidence for Swapping {
    fn payload(&self) -> &[u8] {
        self.genuine.payload()
    }

    async fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        self.nonces.lock().unwrap()[self.place] = challenge.to_vec();
        self.both.wait().await;
        let other = self.nonces.lock().unwrap()[1 - self.place].clone();
        self.genuine.answer(&other).await
    }
}

#[tokio::test]
async fn z02_nonces_of_streams_side_by_side() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let other = scene.azure.add_machine(Machine::new("other"));
    let nonces = Arc::new(Mutex::new([Vec::new(), Vec::new()]));
    let both = Arc::new(Barrier::new(2));
    let swapping = async |machine: &Machine, place| {
        let genuine = imds_agent(&scene.azure, machine).await;
        let (nonces, both) = (nonces.clone(), both.clone());
        Node::agent(Box::new(Swapping { genuine, nonces, place, both }))
    };
    let (mut one, mut two) = (swapping(&scene.machine, 0).await, swapping(&other, 1).await);
    let attested = futures::join!(one.attest(&*server, b"x"), two.attest(&*server, b"x"));
    for (node, attested) in [(one, attested.0), (two, attested.1)] {
        assert_outcome(attested, "IA", "the nonce of the other");
        assert_eq!(node.examination.failed().unwrap().name, "nonce");
    }
}
