//! How an agent learns what it may serve, and what of it has changed.
//!
//! Few entries are sent whole at once, and the stream ends. Of many the agent first gets the
//! revisions, then asks for those that it lacks. All answers of a stream show one moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use spire_core::grpc::restate;
use spire_core::id::SpiffeId;
use spire_core::limits::{MAX_SYNC_PAGE, REMOTE_CALL};
use spire_core::wire::SyncAuthorizedEntriesResponse as Answer;
use spire_core::wire::entry::{EntryRevision, SyncAuthorizedEntriesRequest};
use spire_core::wire::types::EntryMask;
use tonic::{Response, Status, Streaming};
use uuid::Uuid;

use crate::registry::{EntryRef, Snapshot};

/// What the agent is told.
pub(super) type Answers = BoxStream<'static, Result<Answer, Status>>;

/// How long an agent may take for its next question.
const NEXT_QUESTION: Duration = REMOTE_CALL;

/// Room for most encoded entries.
const USUAL_BYTES: usize = 256;

/// Reads the first question and answers it, and those that follow.
pub(super) async fn answer(
    snapshot: Arc<Snapshot>,
    agent_id: SpiffeId,
    mut questions: Streaming<SyncAuthorizedEntriesRequest>,
) -> Result<Response<Answers>, Status> {
    let Some(first) = next(&mut questions).await? else {
        return Err(Status::invalid_argument("the stream ended before its first request"));
    };
    if !first.ids.is_empty() {
        let sentence = "specifying IDs on initial request is not supported";
        return Err(Status::invalid_argument(sentence));
    }
    let mask = first.output_mask;
    if mask.as_ref().is_some_and(|mask| !mask.revision_number) {
        return Err(Status::invalid_argument("revision number cannot be masked"));
    }
    let authorized = snapshot.authorized(&agent_id);
    if authorized.len() <= MAX_SYNC_PAGE {
        let entries = encode(authorized.into_iter(), mask.as_ref());
        let answer = Answer { entries, ..Answer::default() };
        return Ok(Response::new(stream::once(async move { Ok(answer) }).boxed()));
    }
    let revisions: Vec<_> = authorized.iter().map(revision).collect();
    drop(authorized);
    let revisions = stream::iter(pages(revisions))
        .map(|(entry_revisions, more)| Ok(Answer { entry_revisions, more, ..Answer::default() }));
    let dialogue = Dialogue { snapshot, agent_id, mask, questions };
    let entries = stream::try_unfold(dialogue, |mut dialogue| async move {
        let page = dialogue.next_pages().await?;
        Ok::<_, Status>(page.map(|answers| (stream::iter(answers).map(Ok), dialogue)))
    });
    let entries = entries.flat_map(|pages| match pages {
        Ok(pages) => pages.boxed(),
        Err(status) => stream::once(async move { Err(status) }).boxed(),
    });
    Ok(Response::new(revisions.chain(entries).boxed()))
}

/// What answers the questions after the first.
struct Dialogue {
    snapshot: Arc<Snapshot>,
    agent_id: SpiffeId,
    mask: Option<EntryMask>,
    questions: Streaming<SyncAuthorizedEntriesRequest>,
}

impl Dialogue {
    /// The pages that answer the next question; `None` once the agent has no more.
    async fn next_pages(&mut self) -> Result<Option<Vec<Answer>>, Status> {
        let Some(question) = next(&mut self.questions).await? else { return Ok(None) };
        let entries = question.ids.iter().filter_map(|id| {
            let id = id.parse().ok()?;
            self.snapshot.authorized_entry(&self.agent_id, &id)
        });
        let pages = pages(encode(entries, self.mask.as_ref())).into_iter();
        Ok(Some(
            pages.map(|(entries, more)| Answer { entries, more, ..Answer::default() }).collect(),
        ))
    }
}

async fn next(
    questions: &mut Streaming<SyncAuthorizedEntriesRequest>,
) -> Result<Option<SyncAuthorizedEntriesRequest>, Status> {
    match tokio::time::timeout(NEXT_QUESTION, questions.message()).await {
        Ok(question) => question.map_err(restate),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no request came within {} seconds",
            NEXT_QUESTION.as_secs()
        ))),
    }
}

/// Encodes entries one after the other into shared memory.
fn encode<'a>(entries: impl Iterator<Item = EntryRef<'a>>, mask: Option<&EntryMask>) -> Vec<Bytes> {
    let count = entries.size_hint().0;
    let mut encoded = Vec::with_capacity(count * USUAL_BYTES);
    let mut ends = Vec::with_capacity(count);
    for entry in entries {
        entry.view(&mut Uuid::encode_buffer()).encode(mask, &mut encoded);
        ends.push(encoded.len());
    }
    let encoded = Bytes::from(encoded);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| encoded.slice(start..*end)).collect()
}

fn revision(entry: &EntryRef<'_>) -> EntryRevision {
    EntryRevision {
        id: entry.id().to_string(),
        revision_number: entry.revision_number(),
        created_at: entry.created_second(),
    }
}

/// Cuts a list into pages, each with whether another follows. An empty list is one empty page.
fn pages<T>(items: Vec<T>) -> Vec<(Vec<T>, bool)> {
    let mut pages = Vec::with_capacity(items.len() / MAX_SYNC_PAGE + 1);
    let mut items = items.into_iter();
    loop {
        let page: Vec<T> = items.by_ref().take(MAX_SYNC_PAGE).collect();
        let more = items.len() > 0;
        pages.push((page, more));
        if !more {
            return pages;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_but_the_last_says_that_more_follows() {
        let lengths = |count: usize| {
            let pages = pages(vec![(); count]).into_iter();
            pages.map(|(page, more)| (page.len(), more)).collect::<Vec<_>>()
        };
        assert_eq!(lengths(0), [(0, false)]);
        assert_eq!(lengths(500), [(500, false)]);
        assert_eq!(lengths(1001), [(500, true), (500, true), (1, false)]);
    }
}
