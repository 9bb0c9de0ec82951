//! CA journals, which servers find by the keys that they hold: in the database, and in the file
//! that the only journal was until 1.8.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use prost::Message;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::svid::x509::{Described, authority_id, describe};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use super::super::records::{Batch, Kind, Position, Records};
use super::columns::{Column, Type};
use super::{Database, LARGE, Page, Spire, Unfit, table_of};
use crate::authority::journal::{Journal, Status, X509CaEntry};
use crate::store::copy::CopyError;
use crate::store::row::Row;
use crate::store::{CaJournal, CaJournalId};

const COLUMNS: &[Column] =
    &[("id", Type::Number), ("active_x509_authority_id", Type::Text), ("data", Type::Bytes)];

/// How long a journal stays whose last authority has ended.
const GRACE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Where the journal was until 1.9.6, in a server's data folder.
const FILE: &str = "journal.pem";

/// Its block.
const LABEL: &str = "SPIRE CA JOURNAL";

/// Largest file that is read, in bytes: some twenty certificates with their chains and keys.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A journal as it is copied.
pub(super) struct Copied {
    pub(super) journal: CaJournal,
    /// The public keys of its X.509 authorities, by which journals of one server are known.
    pub(super) keys: BTreeSet<String>,
    /// Whose authorities they are.
    pub(super) trust_domain: Option<TrustDomain>,
}

impl Spire {
    pub(super) async fn journals(&mut self, from: Position) -> Result<Batch, CopyError> {
        let page = self.database.page(Kind::CaJournal, COLUMNS, from, LARGE).await?;
        let mut batch = page.batch(Records::CaJournals(Vec::new()));
        let mut journals = Vec::new();
        for row in &page.rows {
            let copied = self.database.journal(row).and_then(|copied| alive(copied, self.now));
            match copied {
                Ok(Copied { journal, .. }) => journals.push(journal),
                Err(unfit) => {
                    let name = format!("row {}", row.integer(0).unwrap_or_default());
                    batch.skipped.push(unfit.of(table_of(Kind::CaJournal), name));
                }
            }
        }
        if page.last.is_none()
            && let Some(journal) = &self.survey.journal
        {
            batch.read += 1;
            journals.push(journal.clone());
        }
        batch.records = Records::CaJournals(journals);
        Ok(batch)
    }
}

impl Database {
    /// Reads all journals that are still of use, and hands each to `look`.
    pub(super) async fn every_journal(
        &mut self,
        now: Timestamp,
        mut look: impl FnMut(&Copied) + Send,
    ) -> Result<(), CopyError> {
        let mut from = Position::Start;
        loop {
            let page = self.page(Kind::CaJournal, COLUMNS, from, LARGE).await?;
            for row in &page.rows {
                if let Ok(copied) = self.journal(row).and_then(|copied| alive(copied, now)) {
                    look(&copied);
                }
            }
            let Page { last: Some(last), .. } = page else { return Ok(()) };
            from = Position::Number(last);
        }
    }

    fn journal(&self, row: &Row) -> Result<Copied, Unfit> {
        let fields = self.fields(row, COLUMNS);
        let active = fields.text("active_x509_authority_id")?;
        convert(fields.number("id")?, active, fields.bytes("data")?)
    }
}

/// The journal in a server's data folder, for a row with this number; `None` where there is none.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn of_file(
    data_dir: &Path,
    number: i64,
    now: Timestamp,
) -> Result<Option<Copied>, String> {
    let path: PathBuf = data_dir.join(FILE);
    let wrong = |reason: String| format!("{}: {reason}", path.display());
    let size = match tokio::fs::metadata(&path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    if size > MAX_FILE_BYTES {
        return Err(wrong(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    let text = tokio::fs::read(&path).await.map_err(|error| wrong(error.to_string()))?;
    let (label, data) =
        x509_cert::der::pem::decode_vec(&text).map_err(|error| wrong(error.to_string()))?;
    if label != LABEL {
        return Err(wrong(format!("it holds a block {label:?} instead of {LABEL:?}")));
    }
    let copied = convert(number, "", &data).map_err(|unfit| wrong(unfit.reason))?;
    // What ended long ago is of no use to anybody.
    Ok(alive(copied, now).ok())
}

fn alive(copied: Copied, now: Timestamp) -> Result<Copied, Unfit> {
    let ended = copied.journal.expires_at;
    if ended.checked_add(GRACE).is_ok_and(|until| until < now) {
        return Err(Unfit::expired(format!("the last of its authorities ended at {ended}")));
    }
    Ok(copied)
}

/// Makes a journal one of ours: with what older releases did not write, and under the id by which
/// its server looks for it.
fn convert(number: i64, active: &str, data: &[u8]) -> Result<Copied, Unfit> {
    let mut journal =
        Journal::decode(data).map_err(|error| Unfit::unreadable(format!("data: {error}")))?;
    let mut ids = Vec::new();
    let mut trust_domain = None;
    for entry in &mut journal.x509_cas {
        let (id, names) = complete(entry).map_err(|error| {
            Unfit::unreadable(format!("an X.509 authority issued at {}: {error}", entry.issued_at))
        })?;
        ids.push(id);
        // One that an upstream authority signed may name nobody.
        trust_domain = names.map(|names| names.trust_domain()).or(trust_domain);
    }
    for entry in &mut journal.jwt_keys {
        if entry.authority_id.is_empty() {
            entry.authority_id.clone_from(&entry.kid);
        }
    }
    let statuses = journal.x509_cas.iter_mut().map(|entry| &mut entry.status).collect();
    let signs = settle(statuses);
    settle(journal.jwt_keys.iter_mut().map(|entry| &mut entry.status).collect());
    let expires_at = journal.ends_at();
    let expires_at = expires_at.ok_or_else(|| Unfit::expired("no authority is in it"))?;
    let active = signs.and_then(|index| ids.get(index)).map_or(active, String::as_str);
    let journal = CaJournal {
        id: Some(CaJournalId(number)),
        active_x509_authority_id: active.to_owned(),
        data: journal.encode_to_vec().into(),
        expires_at,
    };
    Ok(Copied { journal, keys: ids.into_iter().collect(), trust_domain })
}

/// Fills in what follows from the certificate, and returns whose it is. Its own id need not be the
/// one that follows from its key, by which servers look.
fn complete(entry: &mut X509CaEntry) -> Result<(String, Option<SpiffeId>), String> {
    let Described { id, authority_id: own, expires_at, .. } =
        describe(&entry.certificate).map_err(|error| error.to_string())?;
    let key = entry.public_key().ok_or("its key cannot be read")?;
    let of_key = authority_id(&key).map_err(|error| error.to_string())?;
    if entry.authority_id.is_empty() {
        entry.authority_id = if own.is_empty() { of_key.clone() } else { own };
    }
    if entry.not_after == 0 {
        entry.not_after = expires_at.as_second();
    }
    if entry.upstream_authority_id.is_empty()
        && let Some(last) = entry.upstream_chain.last()
    {
        entry.upstream_authority_id = issuer_of(last).unwrap_or_default();
    }
    Ok((of_key, id))
}

/// The id of the authority that signed a certificate, as far as it says.
fn issuer_of(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, identifier) =
        certificate.tbs_certificate().get_extension::<AuthorityKeyIdentifier>().ok()??;
    Some(hex::encode(identifier.key_identifier?.as_bytes()))
}

/// Where none is active the newest becomes so, as in SPIRE; what has no status has signed before.
/// Returns which one is active.
fn settle(mut statuses: Vec<&mut i32>) -> Option<usize> {
    let active = statuses.iter().rposition(|status| **status == Status::Active as i32);
    let active = active.or_else(|| statuses.len().checked_sub(1))?;
    for (index, status) in statuses.iter_mut().enumerate() {
        if index == active {
            **status = Status::Active as i32;
        } else if **status == Status::Unknown as i32 {
            **status = Status::Old as i32;
        }
    }
    Some(active)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Status::{Active, Old, Prepared, Unknown};
    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = convert(1, "", &bytes);
        }
    }

    #[test]
    fn one_authority_is_active_and_those_without_status_are_old() {
        let settled = |statuses: &[Status]| {
            let mut statuses: Vec<_> = statuses.iter().map(|status| *status as i32).collect();
            let active = settle(statuses.iter_mut().collect());
            (active, statuses)
        };
        let numbers = |statuses: &[Status]| -> Vec<i32> {
            statuses.iter().map(|status| *status as i32).collect()
        };
        let cases: [(&[Status], Option<usize>, &[Status]); 5] = [
            (&[], None, &[]),
            (&[Unknown, Unknown], Some(1), &[Old, Active]),
            (&[Old, Prepared], Some(1), &[Old, Active]),
            (&[Unknown, Active, Prepared], Some(1), &[Old, Active, Prepared]),
            (&[Active, Old], Some(0), &[Active, Old]),
        ];
        for (given, active, expected) in cases {
            assert_eq!(settled(given), (active, numbers(expected)), "{given:?}");
        }
    }
}
