//! The keys of a region, made here and handed to a server as its files of certificates.

use std::io::Write;
use std::process::{Command, Stdio};

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

use super::Instance;
use super::pkcs7::{Message, Signer};

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
    /// New keys for `region`, made by the program `openssl`.
    ///
    /// # Panics
    /// Where `openssl` is missing.
    pub fn new(region: &str) -> Self {
        let made = |bits: u32| {
            let key = NamedTempFile::new().unwrap();
            let output = Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "3650", "-newkey"])
                .arg(format!("rsa:{bits}"))
                .args(["-subj", "/C=US/ST=Washington State/L=Seattle/O=Amazon Web Services LLC"])
                .arg("-keyout")
                .arg(key.path())
                .output()
                .expect("openssl runs (apt-get install openssl)");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            (std::fs::read(key.path()).unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        let ((key, certificate), (legacy_key, legacy_certificate)) = (made(2048), made(1024));
        let parsed = Certificate::from_pem(&certificate).unwrap();
        let tbs = parsed.tbs_certificate();
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&key).unwrap();
        Self {
            region: region.to_owned(),
            key: KeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()).unwrap(),
            issuer: tbs.issuer().to_der().unwrap(),
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
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    /// Signs with the key of 1024 bits.
    ///
    /// # Panics
    /// Where `openssl` is missing.
    pub fn sign_legacy(&self, message: &[u8]) -> Vec<u8> {
        let mut key = NamedTempFile::new().unwrap();
        key.write_all(&self.legacy_key).unwrap();
        let mut signing = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(key.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl runs (apt-get install openssl)");
        signing.stdin.take().unwrap().write_all(message).unwrap();
        let output = signing.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
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
    let lines: Vec<&str> =
        text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\n")
}
