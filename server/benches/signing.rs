//! What an X.509-SVID costs below each kind of key, and whether other calls wait for it:
//! `cargo bench -p spire-server --bench signing`.
//!
//! A sync of 100 entries is asked for every few milliseconds, first alone, then beside eight callers
//! who have one SVID after the other signed.

mod world;

use std::time::{Duration, Instant};

use bytes::Bytes;
use spire_core::grpc::Router;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::agent_request;
use spire_core::wire::entry::SyncAuthorizedEntriesRequest;
use spire_core::wire::svid::{BatchNewX509svidRequest, NewX509svidParams};
use spire_server::api::gate::Gate;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SYNC: &str = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries";
const SIGN: &str = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID";

const CALLERS: usize = 8;
const ASKED_EVERY: Duration = Duration::from_millis(3);

const KINDS: [(KeyType, &str); 4] = [
    (KeyType::EcP256, "P-256"),
    (KeyType::EcP384, "P-384"),
    (KeyType::Rsa2048, "RSA-2048"),
    (KeyType::Rsa4096, "RSA-4096"),
];

fn main() {
    // `cargo test` runs this too, to see that it works.
    let asked = if std::env::args().any(|argument| argument == "--bench") { 2000 } else { 10 };
    println!("| key | one at a time | eight at a time | sync alone | sync beside them |");
    println!("| --- | --- | --- | --- | --- |");
    for (kind, name) in KINDS {
        let runtime = Runtime::new().expect("threads");
        let row = runtime.block_on(measure(kind, asked));
        println!("| {name} | {row} |");
    }
}

async fn measure(kind: KeyType, asked: usize) -> String {
    let entries: Vec<_> = (0..100).map(world::entry).collect();
    let services = world::services(&entries, kind).await;
    let key = LocalKey::generate_blocking(KeyType::EcP256).expect("a key");
    let csr = agent_request(&key).await.expect("a request");
    let params = vec![NewX509svidParams { entry_id: entries[0].id.to_string(), csr }];
    let sign = world::frame(&BatchNewX509svidRequest { params });

    let began = Instant::now();
    for _ in 0..asked {
        world::call(&mut services.clone(), SIGN, sign.clone()).await;
    }
    let alone = asked as f64 / began.elapsed().as_secs_f64();
    let quiet = syncs(&services, asked).await;

    let mut callers = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let began = Instant::now();
    for _ in 0..CALLERS {
        let (mut services, sign) = (services.clone(), sign.clone());
        let stopped = stopped.clone();
        callers.spawn(async move {
            let mut signed = 0;
            while !*stopped.borrow() {
                world::call(&mut services, SIGN, sign.clone()).await;
                signed += 1;
                // As a caller with a connection does, who waits for the answer and sends the next.
                tokio::task::yield_now().await;
            }
            signed
        });
    }
    let busy = syncs(&services, asked).await;
    stop.send_replace(true);
    let signed: u32 = callers.join_all().await.into_iter().sum();
    let together = f64::from(signed) / began.elapsed().as_secs_f64();
    format!("{alone:.0}/s | {together:.0}/s | {quiet} | {busy}")
}

/// Asks for a sync every few milliseconds; returns the median and the 99th percentile of the times.
async fn syncs(services: &Gate<Router>, asked: usize) -> String {
    let sync: Bytes = world::frame(&SyncAuthorizedEntriesRequest::default());
    let mut moments = tokio::time::interval(ASKED_EVERY);
    let mut calls = JoinSet::new();
    for _ in 0..asked {
        let due = moments.tick().await;
        let (mut services, sync) = (services.clone(), sync.clone());
        calls.spawn(async move {
            world::call(&mut services, SYNC, sync).await;
            // From the moment on at which it should have begun.
            tokio::time::Instant::now() - due
        });
    }
    let mut times = calls.join_all().await;
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!("{:.2} ms, {:.2} ms", at(50), at(99))
}
