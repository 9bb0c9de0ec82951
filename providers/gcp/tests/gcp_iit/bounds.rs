//! No evidence costs much, whatever it is.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use spire_core::node::NodeAttestor;
use spire_fakes::time::shortest;

use crate::world::Outcome::InvalidArgument;
use crate::world::{World, attest};

/// What evidence may take.
const LIMIT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn x03_megabytes_of_evidence() {
    let world = World::new().await;
    let server = world.server("");
    let size = 3_900 << 10;
    let token = world.token(&world.claims());
    for (case, evidence) in [
        ("base64", "A".repeat(size)),
        ("dots", ".".repeat(size)),
        ("three long parts", format!("{0}.{0}.{0}", "A".repeat(size / 3))),
        ("nested arrays", "[".repeat(size)),
        ("a token and more", format!("{token}{}", "A".repeat(size))),
    ] {
        let took = shortest(LIMIT, async || {
            attest(&*server, evidence.as_bytes()).await.is(InvalidArgument, case);
        });
        let took = took.await;
        assert!(took < LIMIT, "{case}: {took:?}");
    }
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let header = r#"{"alg":"RS256","kid":"google-1"}"#;
    let signed = world.google.key.sign(header, &format!("{{\"aud\":{nested}}}"));
    attest(&*server, signed.as_bytes()).await.is(InvalidArgument, "signed, but nested");
    assert!(world.google.certificates.server().count() <= 1);
}

#[test]
fn no_evidence_makes_it_panic() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let server: Arc<dyn NodeAttestor> = world.server("");
    let header = r#"{"alg":"RS256","kid":"google-1"}"#;
    let texts = prop_oneof![".{0,60}", r#"[\[\]{}":,a-z0-9.-]{0,60}"#, "\\{\"google\":.{0,40}\\}"];
    let evidence = (proptest::collection::vec(any::<u8>(), 0..200), texts);
    proptest!(ProptestConfig::with_cases(100), |((bytes, text) in evidence)| {
        let signed = world.google.key.sign(header, &text);
        let other = world.google.key.sign(&text, &text);
        for evidence in [&bytes[..], text.as_bytes(), signed.as_bytes(), other.as_bytes()] {
            let verdict = runtime.block_on(attest(&*server, evidence));
            prop_assert!(verdict.result.is_err());
        }
    });
}
