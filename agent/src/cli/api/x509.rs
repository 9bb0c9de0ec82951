//! An answer with X.509-SVIDs: checked, shown to a person, and written to files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::{Bundle, certificate_pem};
use spire_core::command::{
    Context, Failure, Outcome, file_in, print, utc_time, write_private, write_public,
};
use spire_core::config::duration;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::private_key_pem;
use spire_core::svid::x509::{self, X509Svid};
use spire_core::wire::workload::{X509svid, X509svidResponse};

/// What a workload was given. Every SVID in it leads to a root of its bundle.
pub(super) struct Answer {
    svids: Vec<Received>,
    federated: BTreeMap<TrustDomain, Bundle>,
}

struct Received {
    svid: X509Svid,
    /// PKCS#8, DER.
    key: Bytes,
    bundle: Bundle,
    hint: String,
}

/// Which command shows an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `api fetch x509`: with hints; other trust domains are named by their IDs.
    Fetch,
    /// `api watch`: without hints; other trust domains are named by their names.
    Watch,
}

impl Answer {
    /// Reads and checks an answer.
    ///
    /// # Errors
    /// Says which SVID or bundle is wrong, and why.
    pub(super) fn check(response: &X509svidResponse, now: Timestamp) -> Result<Self, Failure> {
        let svids = response.svids.iter().enumerate().map(|(index, svid)| {
            let what = format!("SVID #{index} ({}) is not valid", svid.spiffe_id);
            Received::check(svid, now).context(what)
        });
        let federated = response.federated_bundles.iter().map(|(name, der)| {
            let bundle =
                read_bundle(name, der).context(format!("bundle of {name:?} is not valid"))?;
            Ok((bundle.trust_domain.clone(), bundle))
        });
        Ok(Self {
            svids: svids.collect::<Result<_, Failure>>()?,
            federated: federated.collect::<Result<_, Failure>>()?,
        })
    }

    /// The answer as text, times in UTC. `waited` is how long it was waited for.
    ///
    /// # Errors
    /// Never for certificates that were checked.
    pub(super) fn report(&self, waited: Duration, form: Form) -> Result<String, Failure> {
        let count = self.svids.len();
        let plural = if count == 1 { "" } else { "s" };
        let waited = SignedDuration::try_from(waited).unwrap_or(SignedDuration::MAX);
        let mut text =
            format!("Received {count} svid{plural} after {}\n", duration::format(waited));
        for received in &self.svids {
            received.describe(&mut text, form)?;
            for (trust_domain, bundle) in &self.federated {
                let label = match form {
                    Form::Fetch => format!("[{}] ", trust_domain.id()),
                    Form::Watch => format!("[{}] ", trust_domain.as_str()),
                };
                describe_roots(&mut text, &label, bundle)?;
            }
        }
        text.push('\n');
        Ok(text)
    }

    /// Writes every SVID, its key and its bundles to files in `folder`, and says so line by line.
    ///
    /// # Errors
    /// The first file that cannot be written.
    pub(super) fn write(&self, folder: &str) -> Outcome {
        for (index, received) in self.svids.iter().enumerate() {
            let path = announced(&format!("SVID #{index}"), folder, &format!("svid.{index}.pem"))?;
            let chain = received.svid.chain.iter();
            let chain: String = chain.map(|certificate| certificate_pem(certificate)).collect();
            write_public(&path, chain.as_bytes())?;

            let path = announced(&format!("key #{index}"), folder, &format!("svid.{index}.key"))?;
            write_private(&path, private_key_pem(&received.key).as_bytes())?;

            let name = format!("bundle.{index}.pem");
            let path = announced(&format!("bundle #{index}"), folder, &name)?;
            write_public(&path, received.bundle.to_pem().as_bytes())?;

            for (number, (trust_domain, bundle)) in self.federated.iter().enumerate() {
                let id = trust_domain.id();
                let what = format!("federated bundle #{number} for trust domain {id}");
                let name = format!("federated_bundle.{index}.{number}.pem");
                let path = announced(&what, folder, &name)?;
                write_public(&path, bundle.to_pem().as_bytes())?;
            }
        }
        Ok(())
    }
}

impl Received {
    fn check(svid: &X509svid, now: Timestamp) -> Result<Self, Failure> {
        let id = SpiffeId::parse(&svid.spiffe_id)?;
        let bundle = Bundle::from_der(id.trust_domain(), &svid.bundle)?;
        let chain = x509::split_chain(&svid.x509_svid)?;
        let checked = x509::verify(&chain, &bundle, now)?;
        if checked.id != id {
            return Err(Failure::new(format!("its certificate names {}", checked.id)));
        }
        Ok(Self { svid: checked, key: svid.x509_svid_key.clone(), bundle, hint: svid.hint.clone() })
    }

    fn describe(&self, text: &mut String, form: Form) -> Result<(), Failure> {
        let X509Svid { id, not_before, expires_at, chain, .. } = &self.svid;
        let _ = writeln!(text, "\nSPIFFE ID:\t\t{id}");
        if form == Form::Fetch && !self.hint.is_empty() {
            let _ = writeln!(text, "Hint:\t\t\t{}", self.hint);
        }
        describe_validity(text, "SVID", (*not_before, *expires_at));
        for (number, certificate) in chain.iter().enumerate().skip(1) {
            let what = format!("Intermediate #{number}");
            describe_validity(text, &what, x509::validity(certificate)?);
        }
        describe_roots(text, "", &self.bundle)
    }
}

fn read_bundle(name: &str, der: &[u8]) -> Result<Bundle, Failure> {
    Ok(Bundle::from_der(TrustDomain::parse(name)?, der)?)
}

fn describe_roots(text: &mut String, label: &str, bundle: &Bundle) -> Result<(), Failure> {
    for (number, root) in (1..).zip(&bundle.x509_authorities) {
        describe_validity(text, &format!("{label}CA #{number}"), root.validity()?);
    }
    Ok(())
}

fn describe_validity(text: &mut String, what: &str, (from, until): (Timestamp, Timestamp)) {
    for (word, time) in [("After", from), ("Until", until)] {
        let _ = writeln!(text, "{what} Valid {word}:\t{}", utc_time(time.as_second()));
    }
}

/// The path of a file, after the line that says that it is written.
fn announced(what: &str, folder: &str, name: &str) -> Result<PathBuf, Failure> {
    let path = file_in(folder, name);
    print(&format!("Writing {what} to file {}.\n", path.display()))?;
    Ok(path)
}
