//! A certificate authority of OpenSSL in a temporary folder, so that what is checked was made by
//! others.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

/// Extensions of a root or an intermediate.
pub const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                      subjectAltName=URI:spiffe://example.org";

/// Runs `openssl` with arguments that contain no spaces of their own, and returns what it prints.
pub fn openssl(directory: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl is part of a test machine");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Certificates and keys by their names.
pub struct Workshop(TempDir);

impl Workshop {
    /// With a root called `root`.
    pub fn new() -> Self {
        let workshop = Self(tempfile::tempdir().unwrap());
        workshop.root("root", CA);
        workshop
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A self-signed certificate.
    pub fn root(&self, name: &str, extensions: &str) -> Bytes {
        self.request(name);
        std::fs::write(self.file("extensions"), extensions).unwrap();
        openssl(
            self.path(),
            &format!(
                "x509 -req -in {name}.csr -signkey {name}.key -days 2 -extfile extensions \
                 -out {name}.pem"
            ),
        );
        self.der(name)
    }

    /// A certificate that `issuer` signs.
    pub fn sign(&self, issuer: &str, name: &str, extensions: &str) -> Bytes {
        self.request(name);
        std::fs::write(self.file("extensions"), extensions).unwrap();
        openssl(
            self.path(),
            &format!(
                "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial \
                 -days 1 -extfile extensions -out {name}.pem"
            ),
        );
        self.der(name)
    }

    fn request(&self, name: &str) {
        openssl(
            self.path(),
            &format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
                 -keyout {name}.key -out {name}.csr"
            ),
        );
    }

    pub fn der(&self, name: &str) -> Bytes {
        let der = CertificateDer::from_pem_file(self.file(&format!("{name}.pem"))).unwrap();
        Bytes::copy_from_slice(&der)
    }

    pub fn key(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(&format!("{name}.key"))).unwrap()
    }
}
