//! Comparing a source with tables of the server: record by record, and what records are found by.

use std::borrow::Cow;

use super::records::{Kind, Position, Records, Source};
use super::{CopyError, Progress, Step, Told, tables};
use crate::store::StoreError;
use crate::store::database::Connection;

/// The first thing in which the tables on `connection` differ from what `source` gives; `None`
/// where they hold all of it and nothing else.
pub(super) async fn difference(
    source: &mut dyn Source,
    connection: &mut Connection,
    told: &mut Told<'_>,
) -> Result<Option<String>, CopyError> {
    for kind in Kind::ALL {
        let of_target = |error: StoreError| CopyError::ReadTarget { kind, error };
        let total = source.count(kind).await?;
        let (mut done, mut compared, mut links) = (0, 0, 0);
        let mut from = Some(Position::Start);
        while let Some(position) = from {
            let batch = source.read(kind, position).await?;
            let found = tables::in_place_of(connection, &batch.records).await.map_err(of_target)?;
            let batch_length = batch.records.len() as u64;
            links += batch.records.links() as u64;
            if let Some(difference) = first_difference(&batch.records, found) {
                return Ok(Some(difference));
            }
            let lost = tables::without_identity(connection, &batch.records).await;
            if let Some(id) = lost.map_err(of_target)? {
                return Ok(Some(format!("one of the {kind}, {id}, has another identity")));
            }
            done += batch.read;
            compared += batch_length;
            told(Progress { step: Step::Comparing, kind, done, total });
            from = batch.next;
        }
        let count = tables::count(connection, kind).await.map_err(of_target)?;
        if count != compared {
            return Ok(Some(format!("{count} {kind} instead of {compared}")));
        }
        let (all, leading) = tables::count_links(connection, kind).await.map_err(of_target)?;
        if all != links || leading != links {
            let found = format!("{leading} of {all} links lead to {kind}");
            return Ok(Some(format!("{found} instead of {links} of {links}")));
        }
    }
    Ok(None)
}

fn first_difference(wanted: &Records, mut found: Records) -> Option<String> {
    let mut wanted = Cow::Borrowed(wanted);
    if let Records::JoinTokens(found) = &mut found
        && let Records::JoinTokens(wanted) = wanted.to_mut()
    {
        wanted.sort_by_key(|token| token.hash);
        found.sort_by_key(|token| token.hash);
    }
    if *wanted == found {
        return None;
    }
    let at = (0..).find(|&index| !wanted.is_same_at(&found, index))?;
    let (kind, wanted, found) = (wanted.kind(), wanted.name(at), found.name(at));
    Some(match (wanted, found) {
        (Some(wanted), Some(found)) if wanted == found => format!("one of the {kind}, {wanted}"),
        (Some(wanted), Some(found)) => {
            format!("one of the {kind} is {found} where {wanted} should be")
        }
        (Some(wanted), None) => format!("one of the {kind} is not there, {wanted}"),
        (None, found) => {
            format!("one of the {kind} is not of the source, {}", found.unwrap_or_default())
        }
    })
}
