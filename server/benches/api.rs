//! What the calls of agents cost inside the server, without a connection:
//! `cargo bench -p spire-server --bench api`.

mod world;

use criterion::{Criterion, criterion_group, criterion_main};
use spire_core::entry::Entry;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::agent_request;
use spire_core::wire::entry::SyncAuthorizedEntriesRequest;
use spire_core::wire::svid::{BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams};
use tokio::runtime::Runtime;

use world::{call, entry, frame, services};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u32 = 100;

fn calls(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let entries: Vec<Entry> = (0..ENTRIES).map(entry).collect();
    let mut services = runtime.block_on(services(&entries, KeyType::EcP256));
    let key = LocalKey::generate_blocking(KeyType::EcP256).expect("a key");
    let csr = runtime.block_on(agent_request(&key)).expect("a request");
    let entry_id = entries[0].id.to_string();

    let params = vec![NewX509svidParams { entry_id: entry_id.clone(), csr }];
    let jwt = NewJwtsvidRequest { entry_id, audience: vec!["audience".to_owned()] };
    let requests = [
        (
            "sync of 100 entries",
            "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries",
            frame(&SyncAuthorizedEntriesRequest::default()),
        ),
        (
            "one X.509-SVID",
            "/spire.api.server.svid.v1.SVID/BatchNewX509SVID",
            frame(&BatchNewX509svidRequest { params }),
        ),
        ("one JWT-SVID", "/spire.api.server.svid.v1.SVID/NewJWTSVID", frame(&jwt)),
    ];
    let mut group = criterion.benchmark_group("api");
    for (name, path, message) in requests {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let bytes = runtime.block_on(call(&mut services, path, message.clone()));
                assert!(bytes > 100);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
