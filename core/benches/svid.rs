//! What SVIDs cost on one core, keys on P-256: `cargo bench -p spire-core --bench svid`.
//!
//! The bare signature and its check come first: machines, and moments of one machine, differ most
//! in these.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::jwt::{self, Claims};
use spire_core::svid::x509::{
    CertificateRequest, Issuer, LeafTemplate, Subject, self_sign_ca, workload_request,
};

const HOUR: Duration = Duration::from_secs(3600);

fn key() -> Arc<LocalKey> {
    Arc::new(LocalKey::generate_blocking(KeyType::EcP256).expect("a key"))
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/ns/production/sa/service").expect("an ID")
}

fn issuer() -> Issuer {
    let (key, domain) = (key(), TrustDomain::parse("example.org").expect("a trust domain"));
    let subject = Subject::default();
    let root = block_on(self_sign_ca(&*key, &domain, &subject, 24 * HOUR, Timestamp::now()));
    Issuer::root(root.expect("a root"), key).expect("its key")
}

fn svids(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("svid");
    let (signer, id) = (key(), id());
    group.bench_function("P-256 signature alone", |bencher| {
        bencher.iter(|| signer.sign_blocking(&[7; 400]).expect("a signature"));
    });

    let issuer = issuer();
    let csr = block_on(workload_request(&*key(), &id)).expect("a request");
    group.bench_function("certificate request read and checked", |bencher| {
        bencher.iter(|| CertificateRequest::parse(&csr).expect("a request"));
    });
    group.bench_function("X.509-SVID from a certificate request", |bencher| {
        bencher.iter(|| {
            let request = CertificateRequest::parse(&csr).expect("a request");
            let template = LeafTemplate {
                id: &id,
                public_key: &request.public_key,
                dns_names: &[],
                subject: None,
                ttl: HOUR,
            };
            block_on(issuer.sign_leaf(&template, Timestamp::now())).expect("an SVID")
        });
    });

    let signer: &dyn SigningKey = &*signer;
    let audience = ["audience".to_owned()];
    group.bench_function("JWT-SVID", |bencher| {
        bencher.iter(|| {
            let now = Timestamp::now();
            let claims = Claims {
                subject: &id,
                audience: &audience,
                issued_at: now,
                expires_at: now + SignedDuration::from_mins(5),
                issuer: None,
                with_id: false,
            };
            block_on(jwt::sign(signer, "6vcNu7bEfCDjR3pFXaiaoyvmYKHoSzbn", &claims))
                .expect("a token")
        });
    });
    group.finish();
}

criterion_group!(benches, svids);
criterion_main!(benches);
