//! Both halves against each other, with certificates made by OpenSSL.

mod spiffe;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use spire_core::bundle::Bundle;
use spire_core::catalog::Host;
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::node::{
    AttestError, Attested, Evidence, EvidenceSource, Examination, NodeAttestor, Outcome, Peer,
};
use tokio::sync::watch;

/// A root, an intermediate and a leaf, made anew in a folder of their own.
struct Pki {
    folder: tempfile::TempDir,
}

const LEAF_NAMES: &str = "subjectAltName=URI:x509pop://example.org/role/web,IP:10.1.2.3\n\
                          keyUsage=critical,digitalSignature";

const P256: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

const SIGNER: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign";

impl Pki {
    fn new(key: &[&str]) -> Self {
        Self::with_leaf(key, LEAF_NAMES)
    }

    fn with_leaf(key: &[&str], extensions: &str) -> Self {
        Self::with_authorities(key, extensions, SIGNER, SIGNER)
    }

    fn with_authorities(key: &[&str], leaf: &str, root: &str, middle: &str) -> Self {
        let pki = Self { folder: tempfile::tempdir().unwrap() };
        pki.certificate("root", "/CN=root", &P256, root, "root");
        pki.certificate("middle", "/CN=middle", &["rsa"], middle, "root");
        pki.certificate("leaf", "/CN=web-1/O=Acme", key, leaf, "middle");
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certificate(&self, name: &str, subject: &str, key: &[&str], extensions: &str, by: &str) {
        let at = |suffix: &str| self.path(&format!("{name}.{suffix}")).display().to_string();
        let issuer = |suffix: &str| self.path(&format!("{by}.{suffix}")).display().to_string();
        std::fs::write(at("ext"), extensions).unwrap();
        let (key_file, csr, cert, ext) = (at("key"), at("csr"), at("pem"), at("ext"));
        openssl(&[&["genpkey", "-out", &key_file, "-algorithm"], key].concat());
        openssl(&["req", "-new", "-key", &key_file, "-subj", subject, "-out", &csr]);
        let sign = ["x509", "-req", "-in", &csr, "-extfile", &ext, "-out", &cert, "-days", "2"];
        let (issuer_cert, issuer_key) = (issuer("pem"), issuer("key"));
        let signer = if name == by {
            vec!["-signkey", &key_file]
        } else {
            vec!["-CA", &issuer_cert, "-CAkey", &issuer_key, "-CAcreateserial"]
        };
        openssl(&[&sign[..], &signer].concat());
    }

    fn server(&self, more: &str) -> Arc<dyn NodeAttestor> {
        let text = format!("ca_bundle_path = {:?}\n{more}", self.path("root.pem"));
        server(&text).unwrap()
    }

    async fn evidence(&self) -> Box<dyn Evidence> {
        let agent = agent(&format!(
            "private_key_path = {:?}\ncertificate_path = {:?}\nintermediates_path = {:?}",
            self.path("leaf.key"),
            self.path("leaf.pem"),
            self.path("middle.pem")
        ));
        agent.collect().await.unwrap()
    }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn host() -> Host {
    host_with(Bundle::empty(trust_domain()))
}

fn host_with(bundle: Bundle) -> Host {
    let (_, bundle) = watch::channel(Arc::new(bundle));
    Host { trust_domain: trust_domain(), bundle, clock: Clock::system() }
}

fn server(text: &str) -> Result<Arc<dyn NodeAttestor>, String> {
    let section = Section::parse(text).unwrap();
    (super::server::PLUGIN.build)(&section, &host()).map_err(|errors| errors.to_string())
}

fn agent(text: &str) -> Arc<dyn EvidenceSource> {
    (super::agent::PLUGIN.build)(&Section::parse(text).unwrap(), &host()).unwrap()
}

/// The agent at the other end of the stream.
struct Agent {
    evidence: Box<dyn Evidence>,
    address: Option<IpAddr>,
    spoils_answer: bool,
    examination: Examination,
}

impl Agent {
    async fn of(pki: &Pki) -> Self {
        let examination = Examination::default();
        Self { evidence: pki.evidence().await, address: None, spoils_answer: false, examination }
    }
}

#[async_trait]
impl Peer for Agent {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        let mut answer = self.evidence.answer(&challenge).await.unwrap();
        if self.spoils_answer {
            // The first letter of the agent's nonce: what was signed is another one.
            let at = String::from_utf8(answer.clone()).unwrap().find("nonce\":\"").unwrap() + 8;
            answer[at] = if answer[at] == b'A' { b'B' } else { b'A' };
        }
        Ok(Some(answer))
    }

    async fn admit(&mut self, _: &SpiffeId, _: bool) -> Result<(), AttestError> {
        Ok(())
    }

    fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.examination
    }
}

async fn attest(pki: &Pki, more: &str) -> Result<Attested, AttestError> {
    let mut peer = Agent::of(pki).await;
    let payload = peer.evidence.payload().to_vec();
    pki.server(more).verify(&payload, &mut peer).await
}

fn sha1_of(path: &Path) -> String {
    let text = std::fs::read(path).unwrap();
    let der =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
            &text,
        );
    super::chain::fingerprint(&der.unwrap())
}

#[tokio::test]
async fn every_kind_of_key_proves_its_node() {
    let keys: [&[&str]; 4] = [
        &["rsa", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
    ];
    for key in keys {
        let pki = Pki::new(key);
        let attested = attest(&pki, "").await.unwrap();
        let print = sha1_of(&pki.path("leaf.pem"));
        assert_eq!(
            attested.agent_id.as_str(),
            format!("spiffe://example.org/spire/agent/x509pop/{print}")
        );
        assert!(attested.can_reattest);
        let selectors = attested.resolver.selectors(&mut Examination::default()).await.unwrap();
        let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
        for expected in [
            "x509pop:subject:cn:web-1".to_owned(),
            format!("x509pop:ca:fingerprint:{}", sha1_of(&pki.path("root.pem"))),
            format!("x509pop:ca:fingerprint:{}", sha1_of(&pki.path("middle.pem"))),
            "x509pop:san:role:web".to_owned(),
        ] {
            assert!(selectors.contains(&expected), "{expected} is not in {selectors:?}");
        }
        assert_eq!(selectors.len(), 5, "{selectors:?}");
    }
}

#[tokio::test]
async fn the_template_names_fields_of_the_certificate() {
    let pki = Pki::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let template =
        r#"agent_path_template = "/{{ .URISanSelectors.role }}/{{ .Subject.CommonName }}""#;
    let attested = attest(&pki, template).await.unwrap();
    assert_eq!(attested.agent_id.as_str(), "spiffe://example.org/spire/agent/web/web-1");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let pki = Pki::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let other = Pki::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let mut peer = Agent::of(&pki).await;
    let payload = peer.evidence.payload().to_vec();
    let Err(error) = other.server("").verify(&payload, &mut peer).await else { panic!() };
    assert!(matches!(error, AttestError::Refused(_)));
    assert!(error.to_string().starts_with("certificate verification failed: "), "{error}");
}

#[tokio::test]
async fn authorities_sign_no_further_than_they_may() {
    let key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let limited = SIGNER.replace("CA:TRUE", "CA:TRUE,pathlen:0");
    let signs_lists_only = SIGNER.replace("keyCertSign", "cRLSign");
    for (root, middle) in [(limited.as_str(), SIGNER), (SIGNER, &signs_lists_only)] {
        let pki = Pki::with_authorities(&key, LEAF_NAMES, root, middle);
        let Err(error) = attest(&pki, "").await else { panic!("{root} and {middle} are taken") };
        assert!(error.to_string().starts_with("certificate verification failed: "), "{error}");
    }
}

#[tokio::test]
async fn a_signature_over_something_else_is_refused() {
    for key in [&["rsa"][..], &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]] {
        let pki = Pki::new(key);
        let mut peer = Agent { spoils_answer: true, ..Agent::of(&pki).await };
        let payload = peer.evidence.payload().to_vec();
        let Err(error) = pki.server("").verify(&payload, &mut peer).await else { panic!() };
        assert!(
            error.to_string().starts_with("challenge response verification failed: "),
            "{error}"
        );
        assert_eq!(peer.examination.failed().unwrap().name, "possession of the key");
    }
}

/// Evidence that was written down: nobody is there to answer.
struct Paper(Examination);

#[async_trait]
impl Peer for Paper {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        Ok(None)
    }

    async fn admit(&mut self, _: &SpiffeId, _: bool) -> Result<(), AttestError> {
        Ok(())
    }

    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.0
    }
}

#[tokio::test]
async fn evidence_without_a_node_shows_all_but_the_possession_of_the_key() {
    let pki = Pki::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let exhibit = pki.evidence().await.exhibit(None).await.unwrap();
    let mut paper = Paper(Examination::default());
    pki.server("").verify(&exhibit, &mut paper).await.unwrap();
    let (last, others) = paper.0.checks.split_last().unwrap();
    assert!(matches!(last.outcome, Outcome::Skipped(_)), "{last:?}");
    assert_eq!(last.name, "possession of the key");
    assert!(others.iter().all(|check| check.outcome == Outcome::Passed), "{others:?}");
}

#[tokio::test]
async fn limits_of_the_section_hold() {
    let pki = Pki::new(&["rsa", "-pkeyopt", "rsa_keygen_bits:3072"]);
    let Err(error) = attest(&pki, "max_rsa_key_size = 2048").await else { panic!() };
    assert_eq!(error.to_string(), "leaf certificate key size too large");
    let chain: Vec<_> = (0..6).map(|_| "AA==").collect();
    let payload = serde_json::json!({ "certificates": chain }).to_string();
    let mut peer = Agent::of(&pki).await;
    let Err(error) = pki.server("").verify(payload.as_bytes(), &mut peer).await else { panic!() };
    assert_eq!(error.to_string(), "too many intermediate certificates");
}

#[tokio::test]
async fn a_certificate_that_may_not_sign_is_refused() {
    let key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let pki = Pki::with_leaf(&key, "keyUsage=critical,keyAgreement");
    let Err(error) = attest(&pki, "").await else { panic!() };
    assert_eq!(error.to_string(), "certificate not intended for digital signature use");
}

#[tokio::test]
async fn the_address_must_be_named_where_that_is_asked() {
    let pki = Pki::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let server = pki.server("verify_client_ip = true");
    for (address, is_fine) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.1.2.4", false)] {
        let address = Some(address.parse().unwrap());
        let mut peer = Agent { address, ..Agent::of(&pki).await };
        let payload = peer.evidence.payload().to_vec();
        assert_eq!(server.verify(&payload, &mut peer).await.is_ok(), is_fine, "{address:?}");
    }
}

#[test]
fn mistakes_of_the_section_are_named() {
    for (text, sentence) in [
        ("", "one of ca_bundle_path or ca_bundle_paths must be configured"),
        ("mode = \"x\"", "mode can only be either 'spiffe' or 'external_pki'"),
        ("ca_bundle_path = \"/nowhere\"", "unable to load trust bundle \"/nowhere\""),
        ("mode = \"spiffe\"\nmax_intermediates = -1", "max_intermediates must be greater than 0"),
        ("mode = \"spiffe\"\nagent_path_template = \"{{\"", "failed to parse agent path template"),
    ] {
        let Err(error) = server(text) else { panic!("{text} is accepted") };
        assert!(error.contains(sentence), "{text}: {error}");
    }
    assert!(server("mode = \"spiffe\"\nsvid_prefix = \"/x\"").is_ok());
}

#[test]
fn arbitrary_evidence_is_refused_and_no_more() {
    let pki = Pki::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let server = pki.server("");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for payload in ["", "{}", "[]", "{\"certificates\":null}", "{\"certificates\":[\"%\"]}"] {
        runtime.block_on(async {
            let mut peer = Agent::of(&pki).await;
            let outcome = server.verify(payload.as_bytes(), &mut peer).await;
            assert!(matches!(outcome, Err(AttestError::Malformed(_))), "{payload}");
        });
    }
}
