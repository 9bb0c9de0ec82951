//! Bundles: this trust domain's own and those of the domains it federates with.

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::id::TrustDomain;

use super::database::Connection;
use super::row::Row;
use super::selection::Selection;
use super::sql::{Statement, Value};
use super::transaction::Transaction;
use super::{
    Change, EntryFilter, Listed, Page, SetMatch, SetRule, Store, StoreError, entries, entry_rows,
};

/// What is selected from `bundles r`, in the order in which [`Kept::read`] reads it.
pub(super) const COLUMNS: &str =
    "r.number, r.trust_domain, r.authorities, r.refresh_hint, r.sequence_number";

/// The columns of [`values`], in order.
pub(super) const WRITTEN: [&str; 4] =
    ["trust_domain", "authorities", "refresh_hint", "sequence_number"];

/// How many entries leave a bundle in one transaction: all other writers wait for it.
const RELEASED_AT_ONCE: u32 = 500;

/// What happens to the entries that federate with a bundle that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteMode {
    /// The bundle is not deleted while there are any.
    Restrict,
    /// They are deleted.
    Delete,
    /// They stay and no longer federate with it.
    Dissociate,
}

impl Store {
    /// The bundle of this trust domain.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>, StoreError> {
        let kept = self.read(trust_domain.clone(), |connection, trust_domain| {
            Box::pin(find(connection, trust_domain))
        });
        Ok(kept.await?.map(|kept| kept.bundle))
    }

    /// A page of the bundles, leaving out the one of `except`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn list_bundles(
        &self,
        except: Option<&TrustDomain>,
        page: Page,
    ) -> Result<Listed<Bundle>, StoreError> {
        let mut selection = Selection::new("bundles", page);
        if let Some(except) = except {
            selection.filter("r.trust_domain <> ?", except.as_str());
        }
        let kept = self.read(selection.rows(COLUMNS), |connection, rows| {
            Box::pin(async move {
                let rows = connection.fetch(rows.clone()).await?;
                rows.iter().map(Kept::read).collect::<Result<Vec<_>, _>>()
            })
        });
        Ok(Listed::of_page(kept.await?, page, |kept| kept.number).map(|kept| kept.bundle))
    }

    /// How many bundles there are.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn count_bundles(&self) -> Result<u64, StoreError> {
        let count = self.read((), |connection, ()| {
            Box::pin(connection.fetch_number(Statement::new("SELECT COUNT(*) FROM bundles")))
        });
        Ok(count.await?.unsigned_abs())
    }

    /// Stores a bundle where there is none, with the sequence number that it carries.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn create_bundle(&self, bundle: Bundle) -> Result<(), StoreError> {
        self.write(bundle, |tx, bundle| {
            Box::pin(async move {
                if find(tx.reader(), &bundle.trust_domain).await?.is_some() {
                    return Err(StoreError::AlreadyExists("bundle already exists".into()));
                }
                insert(tx, bundle).await
            })
        })
        .await
    }

    /// Stores a bundle, or puts it in the place of the one that is there, with the sequence number
    /// that it carries: a foreign bundle's is its publisher's. Nothing changes where it is equal.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn set_bundle(&self, bundle: Bundle) -> Result<(), StoreError> {
        self.write(bundle, |tx, bundle| {
            Box::pin(async move {
                match find(tx.reader(), &bundle.trust_domain).await? {
                    None => insert(tx, bundle).await,
                    Some(kept) if kept.bundle == *bundle => Ok(()),
                    Some(kept) => update(tx, kept.number, bundle).await,
                }
            })
        })
        .await
    }

    /// Adds authorities to a bundle, which is made if need be. Those that are there already stay
    /// as they are, a taint included. The sequence number grows by one where something was added;
    /// that of a bundle just made is 0.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn append_to_bundle(
        &self,
        trust_domain: TrustDomain,
        x509_authorities: Vec<X509Authority>,
        jwt_authorities: Vec<JwtAuthority>,
    ) -> Result<Bundle, StoreError> {
        let added = Bundle { x509_authorities, jwt_authorities, ..Bundle::empty(trust_domain) };
        self.write(added, |tx, added| {
            Box::pin(async move {
                let kept = find(tx.reader(), &added.trust_domain).await?;
                let Some(Kept { number, bundle }) = kept else {
                    let mut bundle = Bundle::empty(added.trust_domain.clone());
                    append(&mut bundle, added);
                    insert(tx, &bundle).await?;
                    return Ok(bundle);
                };
                edit(tx, number, bundle, |bundle| {
                    append(bundle, added);
                    Ok(())
                })
                .await
            })
        })
        .await
    }

    /// Reads a bundle, edits it and stores it in one transaction (prune, taint, revoke, partial
    /// update). The function may run more than once, each time on the bundle as it is then; it
    /// must not change the trust domain. The sequence number grows by one where the content
    /// changed, unless the function set it.
    ///
    /// # Errors
    /// That of the function, which is a verdict; `NotFound`, `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn edit_bundle<F>(
        &self,
        trust_domain: TrustDomain,
        change: F,
    ) -> Result<Bundle, StoreError>
    where
        F: Fn(&mut Bundle) -> Result<(), StoreError> + Send + Sync + 'static,
    {
        self.write((trust_domain, change), |tx, (trust_domain, change)| {
            Box::pin(async move {
                let kept = find(tx.reader(), trust_domain).await?.ok_or(StoreError::NotFound)?;
                edit(tx, kept.number, kept.bundle, change).await
            })
        })
        .await
    }

    /// Deletes a bundle. Where many entries federate with it they leave before, a few hundred in each
    /// transaction, so that others can write between these; after a failure some have left.
    ///
    /// # Errors
    /// `NotFound`; `Refused` where entries federate with it and `mode` is `Restrict`;
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn delete_bundle(
        &self,
        trust_domain: TrustDomain,
        mode: DeleteMode,
    ) -> Result<(), StoreError> {
        loop {
            let asked = (trust_domain.clone(), mode);
            let deleted = self.write(asked, |tx, (trust_domain, mode)| {
                Box::pin(async move {
                    let kept =
                        find(tx.reader(), trust_domain).await?.ok_or(StoreError::NotFound)?;
                    if !release(tx, trust_domain, *mode).await? {
                        return Ok(false);
                    }
                    let delete = Statement::new("DELETE FROM bundles WHERE number = ?");
                    tx.execute(delete.bind(kept.number)).await?;
                    tx.note(Change::Bundle(trust_domain.clone()));
                    Ok(true)
                })
            });
            if deleted.await? {
                return Ok(());
            }
        }
    }
}

/// A bundle and its row's number.
pub(super) struct Kept {
    pub(super) number: i64,
    pub(super) bundle: Bundle,
}

impl Kept {
    /// Reads a row of [`COLUMNS`].
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let name = row.text(1)?;
        let corrupt = || StoreError::Corrupt(format!("the bundle of {name:?} cannot be read"));
        let packed = Authorities::decode(row.blob(2)?).map_err(|_| corrupt())?;
        let mut bundle = Bundle::empty(name.parse().map_err(|_| corrupt())?);
        packed.unpack_into(&mut bundle).ok_or_else(corrupt)?;
        bundle.refresh_hint = u32::try_from(row.integer(3)?).map_err(|_| corrupt())?;
        // Stored as the signed number of the same bits.
        bundle.sequence_number = row.integer(4)?.cast_unsigned();
        Ok(Self { number: row.integer(0)?, bundle })
    }
}

/// The authorities of a bundle as they are kept in one column. Numbers of fields are for ever.
#[derive(Clone, PartialEq, Message)]
struct Authorities {
    #[prost(message, repeated, tag = "1")]
    x509: Vec<PackedX509>,
    #[prost(message, repeated, tag = "2")]
    jwt: Vec<PackedJwt>,
}

#[derive(Clone, PartialEq, Message)]
struct PackedX509 {
    #[prost(bytes = "bytes", tag = "1")]
    certificate: Bytes,
    #[prost(bool, tag = "2")]
    tainted: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PackedJwt {
    #[prost(string, tag = "1")]
    key_id: String,
    #[prost(bytes = "bytes", tag = "2")]
    public_key: Bytes,
    /// Unix seconds.
    #[prost(int64, optional, tag = "3")]
    expires_at: Option<i64>,
    #[prost(bool, tag = "4")]
    tainted: bool,
}

impl Authorities {
    fn pack(bundle: &Bundle) -> Self {
        let x509 = bundle.x509_authorities.iter().map(|authority| PackedX509 {
            certificate: authority.certificate.clone(),
            tainted: authority.tainted,
        });
        let jwt = bundle.jwt_authorities.iter().map(|authority| PackedJwt {
            key_id: authority.key_id.clone(),
            public_key: authority.public_key.clone(),
            expires_at: authority.expires_at.map(Timestamp::as_second),
            tainted: authority.tainted,
        });
        Self { x509: x509.collect(), jwt: jwt.collect() }
    }

    /// Nothing comes of it where a time cannot be one.
    fn unpack_into(self, bundle: &mut Bundle) -> Option<()> {
        for PackedX509 { certificate, tainted } in self.x509 {
            bundle.x509_authorities.push(X509Authority { certificate, tainted });
        }
        for PackedJwt { key_id, public_key, expires_at, tainted } in self.jwt {
            let expires_at = match expires_at {
                None => None,
                Some(seconds) => Some(Timestamp::from_second(seconds).ok()?),
            };
            let authority = JwtAuthority { key_id, public_key, expires_at, tainted };
            bundle.jwt_authorities.push(authority);
        }
        Some(())
    }
}

async fn find(
    connection: &mut Connection,
    trust_domain: &TrustDomain,
) -> Result<Option<Kept>, StoreError> {
    let text = format!("SELECT {COLUMNS} FROM bundles r WHERE r.trust_domain = ?");
    let select = Statement::built(text, Vec::new()).bind(trust_domain.as_str());
    connection.fetch_first(select).await?.as_ref().map(Kept::read).transpose()
}

/// What goes into a row.
pub(super) fn values(bundle: &Bundle) -> Vec<Value> {
    vec![
        bundle.trust_domain.as_str().into(),
        Authorities::pack(bundle).encode_to_vec().into(),
        bundle.refresh_hint.into(),
        bundle.sequence_number.cast_signed().into(),
    ]
}

async fn insert(tx: &mut Transaction, bundle: &Bundle) -> Result<(), StoreError> {
    tx.insert_numbered("bundles", &WRITTEN, vec![values(bundle)]).await?;
    tx.note(Change::Bundle(bundle.trust_domain.clone()));
    Ok(())
}

async fn update(tx: &mut Transaction, number: i64, bundle: &Bundle) -> Result<(), StoreError> {
    let text = "UPDATE bundles SET trust_domain = ?, authorities = ?, refresh_hint = ?, \
                sequence_number = ? WHERE number = ?";
    tx.execute(Statement::built(text.to_owned(), values(bundle)).bind(number)).await?;
    tx.note(Change::Bundle(bundle.trust_domain.clone()));
    Ok(())
}

/// Changes the bundle with this number, unless what comes of it is equal.
async fn edit(
    tx: &mut Transaction,
    number: i64,
    before: Bundle,
    change: impl Fn(&mut Bundle) -> Result<(), StoreError>,
) -> Result<Bundle, StoreError> {
    let mut after = before.clone();
    change(&mut after)?;
    if after == before {
        return Ok(after);
    }
    if after.sequence_number == before.sequence_number {
        after.sequence_number = before.sequence_number.wrapping_add(1);
    }
    update(tx, number, &after).await?;
    Ok(after)
}

fn append(bundle: &mut Bundle, added: &Bundle) {
    for authority in &added.x509_authorities {
        let known = bundle.x509_authorities.iter();
        if !known.clone().any(|known| known.certificate == authority.certificate) {
            bundle.x509_authorities.push(authority.clone());
        }
    }
    for authority in &added.jwt_authorities {
        let known = bundle.jwt_authorities.iter();
        if !known.clone().any(|known| known.key_id == authority.key_id) {
            bundle.jwt_authorities.push(authority.clone());
        }
    }
}

/// Makes entries federate with `trust_domain` no more, in the way that `mode` says. Returns whether
/// that was all of them.
async fn release(
    tx: &mut Transaction,
    trust_domain: &TrustDomain,
    mode: DeleteMode,
) -> Result<bool, StoreError> {
    let wanted = SetMatch { members: [trust_domain.clone()].into(), rule: SetRule::Any };
    let filter = EntryFilter { federates_with: Some(wanted), ..EntryFilter::default() };
    if mode == DeleteMode::Restrict {
        return match entries::count(tx.reader(), &filter).await? {
            0 => Ok(true),
            count => Err(StoreError::Refused(format!(
                "cannot delete bundle; federated with {count} registration entries"
            ))),
        };
    }
    let page = Page { after: None, limit: Some(RELEASED_AT_ONCE) };
    let mut held = entries::list(tx.reader(), &filter, page).await?;
    let are_all = held.len() <= RELEASED_AT_ONCE as usize;
    held.truncate(RELEASED_AT_ONCE as usize);
    if mode == DeleteMode::Delete {
        entries::delete(tx, &held).await?;
        return Ok(are_all);
    }
    for kept in &mut held {
        kept.entry.federates_with.remove(trust_domain);
        entries::replace(tx, kept.number, &kept.entry).await?;
    }
    let numbers: Vec<_> = held.iter().map(|kept| kept.number).collect();
    entry_rows::unlink_domain(tx, trust_domain, &numbers).await?;
    Ok(are_all)
}
