//! Files of agents through version 1.8: certificates in DER, one after the other.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::{AgentData, MAX_FILE_BYTES, StorageError, io_error, read};

const SVID_FILE: &str = "agent_svid.der";
const BUNDLE_FILE: &str = "bundle.der";

/// An old bundle without an SVID that it goes with may be from anywhere, and is left alone.
pub(super) fn data(folder: &Path) -> Result<AgentData, StorageError> {
    let svid = certificates(&folder.join(SVID_FILE))?;
    if svid.is_empty() {
        return Ok(AgentData::default());
    }
    let bundle = certificates(&folder.join(BUNDLE_FILE))?;
    Ok(AgentData { svid, bundle, ..AgentData::default() })
}

fn certificates(path: &Path) -> Result<Vec<Bytes>, StorageError> {
    let der = read(path, MAX_FILE_BYTES)?.unwrap_or_default();
    split_der(&der).ok_or_else(|| {
        io_error(path, io::Error::new(io::ErrorKind::InvalidData, "no certificates in DER"))
    })
}

/// Takes certificates apart that follow each other without padding: each is one DER SEQUENCE.
fn split_der(mut der: &[u8]) -> Option<Vec<Bytes>> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (content, header) = match *der {
            [0x30, length @ 0..=0x7f, ..] => (usize::from(length), 2),
            [0x30, 0x81, length, ..] => (usize::from(length), 3),
            [0x30, 0x82, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
            _ => return None,
        };
        let (certificate, rest) = der.split_at_checked(header + content)?;
        certificates.push(Bytes::copy_from_slice(certificate));
        der = rest;
    }
    Some(certificates)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Storage;
    use super::*;

    #[test]
    fn files_of_older_agents_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut long = vec![0x30, 0x82, 0x01, 0x00];
        long.extend([7; 256]);
        let svid = [&long[..], b"0\x03abc"].concat();
        fs::write(folder.path().join(BUNDLE_FILE), b"0\x04root").unwrap();
        assert_eq!(Storage::open(folder.path()).unwrap().data(), AgentData::default());
        fs::write(folder.path().join(SVID_FILE), svid).unwrap();
        let data = Storage::open(folder.path()).unwrap().data();
        assert_eq!(data.svid, [Bytes::from(long), Bytes::from_static(b"0\x03abc")]);
        assert_eq!(data.bundle, [Bytes::from_static(b"0\x04root")]);
    }

    #[test]
    fn an_old_file_that_was_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SVID_FILE), b"0\x05abc").unwrap();
        assert!(Storage::open(folder.path()).is_err());
    }
}
