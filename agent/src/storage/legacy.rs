//! Files of agents through version 1.8: certificates in DER, one after the other.

use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use bytes::Bytes;
use spire_core::svid::x509::X509Svid;

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

/// `data` of the file at `path`, or what an agent through 1.8 has obtained after that was written.
/// Since a copied folder may have lost its dates, an SVID that was issued earlier does not count.
pub(super) fn newer(
    folder: &Path,
    path: &Path,
    data: AgentData,
) -> Result<AgentData, StorageError> {
    let svid = folder.join(SVID_FILE);
    if written_at(&svid)? <= written_at(path)? {
        return Ok(data);
    }
    let older = self::data(folder)?;
    let issued_at =
        |svid: &[Bytes]| X509Svid::from_chain(svid.to_vec()).ok().map(|it| it.not_before);
    if issued_at(&older.svid) <= issued_at(&data.svid) {
        return Ok(data);
    }
    let bundle = if older.bundle.is_empty() { data.bundle } else { older.bundle };
    Ok(AgentData { svid: older.svid, bundle, ..data })
}

/// When a file was written; `None` where there is none.
fn written_at(path: &Path) -> Result<Option<SystemTime>, StorageError> {
    match fs::metadata(path).and_then(|file| file.modified()) {
        Ok(at) => Ok(Some(at)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
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
    use std::time::Duration;

    use jiff::Timestamp;
    use spire_core::bundle::{Bundle, X509Authority};
    use spire_core::id::TrustDomain;
    use spire_core::keys::{KeyType, LocalKey};
    use spire_core::svid::x509::{Subject, self_sign_ca};

    use super::super::{FILE, Storage, temporary};
    use super::*;

    /// A certificate that is issued so many seconds after another.
    async fn certificate(after: i64) -> Bytes {
        let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        let now = Timestamp::from_second(1_800_000_000 + after).unwrap();
        let (subject, hour) = (Subject::of_svids(), Duration::from_hours(1));
        self_sign_ca(&key, &domain, &subject, hour, now).await.unwrap()
    }

    /// A folder that one of today's agents has left with `svid`.
    fn left_with(svid: &Bytes) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        let svid = X509Svid::from_chain(vec![svid.clone()]).unwrap();
        let root = X509Authority { certificate: svid.chain[0].clone(), tainted: false };
        let domain = svid.id.trust_domain().clone();
        let bundle = Bundle { x509_authorities: vec![root], ..Bundle::empty(domain) };
        storage.store_attested(&svid, true, &bundle).unwrap();
        folder
    }

    /// An older agent writes its files some seconds after that, or before.
    fn write_older(folder: &Path, svid: &[u8], seconds: i64) {
        let written = fs::metadata(folder.join(FILE)).unwrap().modified().unwrap();
        let shift = Duration::from_secs(seconds.unsigned_abs());
        let at = if seconds < 0 { written - shift } else { written + shift };
        for (name, content) in [(SVID_FILE, svid), (BUNDLE_FILE, b"0\x04root")] {
            fs::write(folder.join(name), content).unwrap();
            let file = fs::File::options().write(true).open(folder.join(name)).unwrap();
            file.set_modified(at).unwrap();
        }
    }

    #[tokio::test]
    async fn what_an_older_agent_obtained_later_counts() {
        let (own, later) = (certificate(0).await, certificate(1).await);
        let folder = left_with(&own);
        for (svid, seconds, counts) in
            [(&later, -1, false), (&later, 0, false), (&own, 1, false), (&later, 1, true)]
        {
            write_older(folder.path(), svid, seconds);
            let data = Storage::open(folder.path()).unwrap().data();
            let expected = if counts { [&later[..], b"0\x04root"] } else { [&own[..], &own[..]] };
            assert_eq!([&data.svid[0][..], &data.bundle[0][..]], expected, "after {seconds} s");
            assert!(data.reattestable);
        }
    }

    #[tokio::test]
    async fn an_svid_that_was_given_up_does_not_come_back() {
        let own = certificate(0).await;
        let folder = left_with(&own);
        write_older(folder.path(), &own, -1);
        Storage::open(folder.path()).unwrap().delete_svid().unwrap();
        assert_eq!(Storage::open(folder.path()).unwrap().data().svid, Vec::<Bytes>::new());
    }

    #[tokio::test]
    async fn a_file_that_was_being_written_is_not_read_and_is_in_nobodys_way() {
        let (own, later) = (certificate(0).await, certificate(1).await);
        let folder = left_with(&own);
        let left_over = temporary(&folder.path().join(FILE));
        fs::write(&left_over, "{\"svid\":[").unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        assert_eq!(storage.data().svid, [own]);
        let svid = X509Svid::from_chain(vec![later.clone()]).unwrap();
        storage.store_svid(&svid, true).unwrap();
        assert_eq!(Storage::open(folder.path()).unwrap().data().svid, [later]);
        assert!(!left_over.exists());
    }

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
