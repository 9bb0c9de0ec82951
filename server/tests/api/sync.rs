//! How an agent learns what it may serve.

use std::collections::BTreeSet;

use futures::stream;
use spire_core::wire::SyncAuthorizedEntriesResponse;
use spire_core::wire::convert::entry::{received, received_encoded};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;

async fn first(
    client: &mut EntryClient<Channel>,
    request: SyncAuthorizedEntriesRequest,
) -> Result<SyncAuthorizedEntriesResponse, Status> {
    let mut answers = client.sync_authorized_entries(stream::iter([request])).await?.into_inner();
    let answer = answers.message().await?.unwrap();
    assert_eq!(answers.message().await.unwrap(), None);
    Ok(answer)
}

#[tokio::test]
async fn few_entries_come_whole_in_one_answer() {
    let server = server().await;
    let agent = agent(&server).await;
    let mut remote = EntryClient::new(server.channel(Some(&agent)).await);
    let nothing = first(&mut remote, SyncAuthorizedEntriesRequest::default()).await.unwrap();
    assert_eq!(nothing, SyncAuthorizedEntriesResponse::default());

    let mut client = entries(&server).await;
    let stored = created(&mut client, types::Entry { admin: true, ..entry("/w", 1) }).await;
    let answer = loop {
        let answer = first(&mut remote, SyncAuthorizedEntriesRequest::default()).await.unwrap();
        if !answer.entries.is_empty() {
            break answer;
        }
    };
    let read = received_encoded(answer.entries[0].clone()).unwrap();
    assert_eq!(read, received(&stored).unwrap());
    assert!(answer.entry_revisions.is_empty() && !answer.more && answer.entries.len() == 1);
    server.stop().await;
}

#[tokio::test]
async fn first_requests_that_make_no_sense_are_refused() {
    let server = server().await;
    let agent = agent(&server).await;
    let mut remote = EntryClient::new(server.channel(Some(&agent)).await);
    let with_ids = SyncAuthorizedEntriesRequest { ids: vec!["one".into()], ..Default::default() };
    assert_eq!(
        refused(first(&mut remote, with_ids).await),
        (Code::InvalidArgument, "specifying IDs on initial request is not supported".to_owned())
    );
    let masked = SyncAuthorizedEntriesRequest {
        output_mask: Some(types::EntryMask::default()),
        ..Default::default()
    };
    assert_eq!(refused(first(&mut remote, masked).await).0, Code::InvalidArgument);
    let nothing = remote.sync_authorized_entries(stream::iter([])).await;
    assert_eq!(refused(nothing).0, Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn of_many_entries_the_agent_asks_for_what_it_lacks() {
    let server = server().await;
    let mut client = entries(&server).await;
    let created = create(&mut client, (0..1201).map(|at| entry(&format!("/w{at}"), at))).await;
    let all: BTreeSet<String> = created.into_iter().map(|one| one.entry.unwrap().id).collect();
    let agent = agent(&server).await;
    let mut remote = EntryClient::new(server.channel(Some(&agent)).await);

    let (questions, sent) = mpsc::channel(1);
    questions.send(SyncAuthorizedEntriesRequest::default()).await.unwrap();
    let answers = remote.sync_authorized_entries(ReceiverStream::new(sent)).await.unwrap();
    let mut answers = answers.into_inner();
    let pages = pages(&mut answers).await;
    let lengths: Vec<_> = pages.iter().map(|page| page.entry_revisions.len()).collect();
    assert_eq!(lengths, [500, 500, 201]);
    let revisions = pages.into_iter().flat_map(|page| page.entry_revisions);
    let ids: BTreeSet<String> = revisions.map(|one| one.id).collect();
    assert_eq!(ids, all);

    let ask = |ids: Vec<String>| {
        questions.send(SyncAuthorizedEntriesRequest { ids, ..Default::default() })
    };
    ask(vec!["unknown".into(), "no id!".into()]).await.unwrap();
    assert_eq!(answers.message().await.unwrap(), Some(SyncAuthorizedEntriesResponse::default()));
    ask(all.iter().take(501).cloned().collect()).await.unwrap();
    let pages = self::pages(&mut answers).await;
    let lengths: Vec<_> = pages.iter().map(|page| page.entries.len()).collect();
    assert_eq!(lengths, [500, 1]);
    drop(questions);
    assert_eq!(answers.message().await.unwrap(), None);
    server.stop().await;
}

async fn pages(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Vec<SyncAuthorizedEntriesResponse> {
    let mut pages = Vec::new();
    loop {
        let page = answers.message().await.unwrap().unwrap();
        let more = page.more;
        pages.push(page);
        if !more {
            return pages;
        }
    }
}
