//! PEM texts and the files that hold them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A PEM text, wiped when it goes.
pub(crate) struct Text {
    /// Where it lies, for messages.
    pub(crate) name: String,
    pub(crate) pem: Zeroizing<Vec<u8>>,
}

impl Text {
    /// Reads a file. The error names it, and why it cannot be read.
    pub(crate) fn of_file(path: &Path) -> Result<Self, String> {
        let failed = |what: &str, err: std::io::Error| {
            let reason = match err.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => err.to_string(),
            };
            format!("{what} {}: {reason}", path.display())
        };
        let file = File::open(path).map_err(|err| failed("open", err))?;
        // Room for all of it from the start: a growing buffer would leave copies of a key behind.
        let size = file.metadata().map_err(|err| failed("read", err))?.len().min(MAX_FILE_BYTES);
        let mut pem = Zeroizing::new(Vec::with_capacity(size as usize + 1));
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut pem).map_err(|err| failed("read", err))?;
        if pem.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display()));
        }
        Ok(Self { name: path.display().to_string(), pem })
    }

    /// Its certificates, at least one; blocks of other kinds are passed over.
    pub(crate) fn certificates(&self) -> Result<Vec<Bytes>, String> {
        let found = certificates(&self.pem).map_err(|err| format!("{}: {err}", self.name))?;
        match found.is_empty() {
            true => Err(format!("{}: no certificate found there", self.name)),
            false => Ok(found),
        }
    }
}

/// The certificates of a PEM text, DER; blocks of other kinds are passed over.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Bytes>, String> {
    CertificateDer::pem_slice_iter(pem)
        .map(|certificate| certificate.map(|der| Bytes::copy_from_slice(&der)))
        .collect::<Result<_, _>>()
        .map_err(|err| err.to_string())
}
