//! The keys of a region, made here and handed to a server as its files of certificates.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use tempfile::NamedTempFile;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

use super::pkcs7::{Message, Signer};
use super::{Instance, lock};

/// The keys of all regions that this process has asked for.
static SHARED: Mutex<BTreeMap<String, Arc<RegionSigner>>> = Mutex::new(BTreeMap::new());

/// What signs the documents of a region.
pub struct RegionSigner {
    region: String,
    key: KeyPair,
    certificate: String,
    /// The issuer of the certificate of 2048 bits, DER.
    pub issuer: Vec<u8>,
    /// Its serial number: the contents of the INTEGER.
    pub serial: Vec<u8>,
    legacy_key: Vec<u8>,
    legacy_certificate: String,
}

/// The three texts of a metadata service.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The document.
    pub document: String,
    /// The bare signature.
    pub signature: String,
    /// The signed message.
    pub rsa2048: String,
}

impl RegionSigner {
    /// The keys of `region`, which this process makes once.
    ///
    /// # Panics
    /// Where `openssl` is missing.
    pub fn shared(region: &str) -> Arc<Self> {
        let mut shared = lock(&SHARED);
        let signer = shared.entry(region.to_owned()).or_insert_with(|| Arc::new(Self::new(region)));
        signer.clone()
    }

    /// New keys for `region`, made by the program `openssl`.
    ///
    /// # Panics
    /// Where `openssl` is missing.
    pub fn new(region: &str) -> Self {
        let made = |bits: u32| {
            let key = NamedTempFile::new().expect("a temporary file");
            let kind = format!("rsa:{bits}");
            let subject = "/C=US/ST=Washington State/L=Seattle/O=Amazon Web Services LLC";
            let mut args = vec!["req", "-x509", "-nodes", "-days", "3650", "-newkey", &kind];
            args.extend(["-subj", subject, "-keyout"]);
            let certificate = openssl(&args, key.path(), &[]);
            let key = std::fs::read(key.path()).expect("openssl has written the key");
            (key, String::from_utf8(certificate).expect("PEM is text"))
        };
        let ((key, certificate), (legacy_key, legacy_certificate)) = (made(2048), made(1024));
        let parsed = Certificate::from_pem(&certificate).expect("a certificate");
        let tbs = parsed.tbs_certificate();
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&key).expect("a key in PKCS#8");
        Self {
            region: region.to_owned(),
            key: KeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()).expect("a key of 2048 bits"),
            issuer: tbs.issuer().to_der().expect("a name that was read"),
            serial: tbs.serial_number().as_bytes().to_vec(),
            certificate,
            legacy_key,
            legacy_certificate,
        }
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Its certificates, as they stand in a file `<region>.pem`.
    pub fn pem(&self) -> String {
        format!("# RSA-2048\n{}# RSA\n{}", self.certificate, self.legacy_certificate)
    }

    /// Writes its certificates into `folder`, a server's `certificates_dir`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::write(folder.join(format!("{}.pem", self.region)), self.pem())
    }

    /// The certificate of 2048 bits, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs with the key of 2048 bits.
    ///
    /// # Panics
    /// Never, as long as there is randomness.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        let signed =
            self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.expect("the signature's length is the key's");
        signature
    }

    /// Signs with the key of 1024 bits.
    ///
    /// # Panics
    /// Where `openssl` is missing.
    pub fn sign_legacy(&self, message: &[u8]) -> Vec<u8> {
        let key = NamedTempFile::new().expect("a temporary file");
        std::fs::write(key.path(), &self.legacy_key).expect("a temporary file");
        openssl(&["dgst", "-sha256", "-sign"], key.path(), message)
    }

    /// The usual signer of `content`.
    pub fn signer(&self, content: &[u8]) -> Signer {
        Signer::new(&self.issuer, &self.serial, content)
    }

    /// The usual message over `content`.
    pub fn message(&self, content: &[u8]) -> Message {
        Message::new(content, &self.signer(content), &|message| self.sign(message))
    }

    /// What the metadata service of `instance` shows, with the newer signature alone where
    /// `legacy` is false, since the older takes a moment to make.
    pub fn evidence(&self, instance: &Instance, legacy: bool) -> Evidence {
        let document = instance.document();
        let signature = match legacy {
            true => lines(&self.sign_legacy(document.as_bytes())),
            false => String::new(),
        };
        let rsa2048 = lines(&self.message(document.as_bytes()).encode());
        Evidence { document, signature, rsa2048 }
    }
}

impl Evidence {
    /// What an agent sends.
    pub fn payload(&self) -> Vec<u8> {
        let Self { document, signature, rsa2048 } = self;
        serde_json::json!({"document": document, "signature": signature, "rsa2048": rsa2048})
            .to_string()
            .into_bytes()
    }
}

/// Base64 in lines of 76 characters, without one at the end.
pub fn lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines = text.as_bytes().chunks(76);
    let lines: Vec<&str> =
        lines.map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    lines.join("\n")
}

/// What `openssl` says to `input`, its last argument being `file`.
fn openssl(args: &[&str], file: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs (apt-get install openssl)");
    // Dropped at the end of the statement, so that the input ends. What reads none may be gone.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(input.is_empty() || matches!(written, Some(Ok(()))), "openssl has not read its input");
    output.stdout
}
