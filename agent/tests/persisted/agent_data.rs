//! What an agent keeps of itself.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use spire_agent::storage::Storage;
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{Subject, X509Svid, self_sign_ca};

const FILE: &str = "agent-data.json";

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// What an agent with an SVID and a bundle writes.
static WRITTEN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let (domain, subject) = (domain(), Subject::of_svids());
    let day = Duration::from_secs(86_400);
    let root = self_sign_ca(&key, &domain, &subject, day, Timestamp::now());
    let root =
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(root).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path()).unwrap();
    let authority = X509Authority::trusted(root.clone()).unwrap();
    let bundle = Bundle { x509_authorities: vec![authority], ..Bundle::empty(domain) };
    storage.store_bundle(&bundle).unwrap();
    storage.store_svid(&X509Svid::from_chain(vec![root]).unwrap(), true).unwrap();
    fs::read(folder.path().join(FILE)).unwrap()
});

fn open(folder: &Path, name: &str, content: &[u8]) -> bool {
    fs::write(folder.join(name), content).unwrap();
    let Ok(storage) = Storage::open(folder) else { return false };
    let _ = (storage.data(), storage.bundle(&domain()));
    true
}

#[test]
fn what_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(open(folder.path(), FILE, &WRITTEN));
    let storage = Storage::open(folder.path()).unwrap();
    assert_eq!(storage.bundle(&domain()).unwrap().x509_authorities.len(), 1);
    assert!(storage.data().reattestable);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_data_is_refused_or_read(changes in vec(any::<(Index, u8)>(), 1..4), end: Index) {
        let folder = tempfile::tempdir().unwrap();
        let mut content = WRITTEN.clone();
        for (at, byte) in changes {
            let at = at.index(content.len());
            content[at] = byte;
        }
        open(folder.path(), FILE, &content);
        content.truncate(end.index(content.len()));
        prop_assert!(!open(folder.path(), FILE, &content), "a part of the file is no file");
    }

    #[test]
    fn no_bytes_in_any_file_are_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        for name in [FILE, "agent_svid.der", "bundle.der"] {
            let folder = tempfile::tempdir().unwrap();
            open(folder.path(), name, &bytes);
        }
    }
}
