//! What operators do with entries.

use super::*;

#[tokio::test]
async fn an_entry_is_created_read_changed_and_deleted() {
    let server = server().await;
    let mut client = entries(&server).await;
    let wanted = types::Entry {
        id: "my-entry".into(),
        x509_svid_ttl: 60,
        jwt_svid_ttl: 30,
        dns_names: vec!["b.test".into(), "a.test".into()],
        hint: "internal".into(),
        admin: true,
        downstream: true,
        store_svid: true,
        expires_at: server.clock.now().as_second() + 3600,
        additional_attributes: Some(types::entry::AdditionalAttributes::default()),
        ..entry("/w", 1)
    };
    let stored = created(&mut client, wanted.clone()).await;
    assert_eq!(stored.created_at, server.clock.now().as_second());
    assert_eq!(stored, types::Entry { created_at: stored.created_at, ..wanted });

    let request = GetEntryRequest { id: "my-entry".into(), output_mask: None };
    assert_eq!(client.get_entry(request).await.unwrap().into_inner(), stored);

    let input_mask = Some(types::EntryMask { hint: true, ..types::EntryMask::default() });
    let change = types::Entry {
        id: "my-entry".into(),
        hint: "external".into(),
        admin: false,
        ..types::Entry::default()
    };
    let request = BatchUpdateEntryRequest { entries: vec![change], input_mask, output_mask: None };
    let result = client.batch_update_entry(request).await.unwrap().into_inner().results.remove(0);
    assert_eq!(said(result.status), (Code::Ok, "OK".to_owned()));
    let changed = types::Entry { hint: "external".into(), revision_number: 1, ..stored };
    assert_eq!(result.entry, Some(changed));

    let ids = ["my-entry", "my-entry", "", "no id!"].map(String::from).to_vec();
    let results = client.batch_delete_entry(BatchDeleteEntryRequest { ids }).await.unwrap();
    let results: Vec<_> =
        results.into_inner().results.into_iter().map(|one| (one.id, said(one.status))).collect();
    let not_found = || (Code::NotFound, "entry not found".to_owned());
    assert_eq!(
        results,
        [
            ("my-entry".to_owned(), (Code::Ok, "OK".to_owned())),
            ("my-entry".to_owned(), not_found()),
            (String::new(), (Code::InvalidArgument, "missing entry ID".to_owned())),
            ("no id!".to_owned(), not_found()),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn a_second_creation_of_the_same_gets_what_is_there() {
    let server = server().await;
    let mut client = entries(&server).await;
    let stored = created(&mut client, entry("/w", 1)).await;
    let again = create(&mut client, [types::Entry { hint: "other".into(), ..entry("/w", 1) }]);
    let again = again.await.remove(0);
    assert_eq!(
        said(again.status),
        (Code::AlreadyExists, "similar entry already exists".to_owned())
    );
    assert_eq!(again.entry, Some(stored.clone()));

    let taken = create(&mut client, [types::Entry { id: stored.id.clone(), ..entry("/x", 2) }]);
    let (code, sentence) = said(taken.await.remove(0).status);
    assert_eq!(code, Code::AlreadyExists);
    assert!(sentence.starts_with("failed to create entry: ") && sentence.contains(&stored.id));
    assert!(!sentence.to_lowercase().contains("unique"), "{sentence}");
    server.stop().await;
}

#[tokio::test]
async fn one_bad_item_spoils_no_other() {
    let server = server().await;
    let mut client = entries(&server).await;
    let results = create(
        &mut client,
        [
            entry("/good", 1),
            types::Entry { selectors: Vec::new(), ..entry("/w", 2) },
            types::Entry { federates_with: vec!["partner.test".into()], ..entry("/w", 3) },
            types::Entry { x509_svid_ttl: -1, ..entry("/w", 4) },
            types::Entry { expires_at: server.clock.now().as_second() - 1, ..entry("/w", 5) },
            entry("/spire/reserved", 6),
        ],
    )
    .await;
    let codes: Vec<_> = results.iter().map(|one| one.status.as_ref().unwrap().code).collect();
    assert_eq!(codes, [0, 3, 3, 3, 3, 3]);
    assert!(
        results.iter().all(|one| one.entry.is_some() == (said(one.status.clone()).0 == Code::Ok))
    );
    let sentence = |at: usize| results[at].status.as_ref().unwrap().message.as_str();
    assert_eq!(sentence(1), "failed to convert entry: selector list is empty");
    assert!(sentence(2).contains("partner.test"), "{}", sentence(2));
    assert!(sentence(3).contains("negative"));
    assert!(sentence(5).ends_with("path is in the reserved namespace"));
    let count = client.count_entries(CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 1);
    server.stop().await;
}

#[tokio::test]
async fn id_17_18_wl_51_ids_and_hints_are_as_long_as_they_may_be_and_no_longer() {
    let server = server().await;
    let mut client = entries(&server).await;
    let path = |bytes: usize| format!("/{}", "a".repeat(bytes - "spiffe://example.org/".len()));
    let hinted = |bytes| types::Entry { hint: "x".repeat(bytes), ..entry("/w", bytes) };
    let longest = created(&mut client, entry(&path(2048), 1)).await;
    assert_eq!(longest.spiffe_id, id(&path(2048)));
    assert_eq!(created(&mut client, hinted(1024)).await.hint.len(), 1024);
    for (refused, why) in [
        (entry(&path(2049), 2), "invalid spiffe ID: SPIFFE ID is longer than 2048 bytes"),
        (hinted(1025), "hint is too long, max length is 1024 characters"),
    ] {
        let result = create(&mut client, [refused]).await.remove(0);
        let sentence = format!("failed to convert entry: {why}");
        assert_eq!(said(result.status), (Code::InvalidArgument, sentence));
    }

    let agent = agent(&server).await;
    let mut remote = EntryClient::new(server.channel(Some(&agent)).await);
    let read = remote.get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    let read = read.unwrap().into_inner().entries;
    assert!(read.contains(&longest), "agents get it too");
    server.stop().await;
}

#[tokio::test]
async fn what_is_given_twice_is_accepted_and_kept_once() {
    let server = server().await;
    let mut client = entries(&server).await;
    let mut twice = entry("/w", 1);
    twice.selectors.push(twice.selectors[0].clone());
    twice.dns_names = vec!["a.test".into(), "a.test".into()];
    let stored = created(&mut client, twice).await;
    assert_eq!((stored.selectors.len(), stored.dns_names.len()), (1, 1));
    server.stop().await;
}

#[tokio::test]
async fn the_update_of_an_unknown_entry_is_not_found() {
    let server = server().await;
    let mut client = entries(&server).await;
    let unknown = ["unknown", "no id!"].map(|id| types::Entry { id: id.into(), ..entry("/w", 1) });
    let request =
        BatchUpdateEntryRequest { entries: unknown.to_vec(), input_mask: None, output_mask: None };
    for result in client.batch_update_entry(request).await.unwrap().into_inner().results {
        assert_eq!(said(result.status), (Code::NotFound, "failed to update entry".to_owned()));
    }
    let request = GetEntryRequest { id: String::new(), output_mask: None };
    assert_eq!(
        refused(client.get_entry(request).await),
        (Code::InvalidArgument, "missing ID".to_owned())
    );
    let request = GetEntryRequest { id: "unknown".into(), output_mask: None };
    assert_eq!(
        refused(client.get_entry(request).await),
        (Code::NotFound, "entry not found".to_owned())
    );
    server.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_by_every_filter() {
    use list_entries_request::Filter;
    let server = server().await;
    let mut client = entries(&server).await;
    let numbered = (0..25).map(|number| entry(&format!("/w{number}"), number));
    create(&mut client, numbered).await;
    created(
        &mut client,
        types::Entry { downstream: true, hint: "h".into(), parent_id: id("/p"), ..entry("/d", 99) },
    )
    .await;

    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListEntriesRequest { page_size: 10, page_token, ..Default::default() };
        let page = client.list_entries(request).await.unwrap().into_inner();
        assert!(page.entries.len() <= 10);
        seen.extend(page.entries.into_iter().map(|entry| entry.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 26);

    let by = |filter: Filter| ListEntriesRequest { filter: Some(filter), ..Default::default() };
    let subset = types::selector_match::MatchBehavior::MatchSubset.into();
    let filters = [
        (Filter { by_spiffe_id: id("/w3"), ..Default::default() }, 1),
        (Filter { by_parent_id: id("/p"), ..Default::default() }, 1),
        (Filter { by_hint: Some("h".into()), ..Default::default() }, 1),
        (Filter { by_downstream: Some(true), ..Default::default() }, 1),
        (Filter { by_downstream: Some(false), ..Default::default() }, 26),
        (
            Filter {
                by_selectors: Some(types::SelectorMatch {
                    selectors: vec![selector("unix", "uid:1"), selector("unix", "uid:2")],
                    r#match: subset,
                }),
                ..Default::default()
            },
            2,
        ),
    ];
    for (filter, expected) in filters {
        let listed = client.list_entries(by(filter.clone())).await.unwrap().into_inner();
        assert_eq!(listed.entries.len(), expected, "{filter:?}");
    }
    let mask = types::EntryMask { hint: true, ..Default::default() };
    let request = ListEntriesRequest { output_mask: Some(mask), ..Default::default() };
    let listed = client.list_entries(request).await.unwrap().into_inner();
    assert!(listed.entries.iter().all(|entry| !entry.id.is_empty() && entry.spiffe_id.is_none()));

    let wrong = |what: &str, result| {
        let (code, sentence) = refused::<()>(result);
        assert_eq!(code, Code::InvalidArgument);
        assert!(sentence.contains(what), "{sentence}");
    };
    let empty = Some(types::SelectorMatch::default());
    let filter = Filter { by_selectors: empty, ..Default::default() };
    let result = client.list_entries(by(filter)).await.map(drop);
    wrong("malformed selectors filter: empty selector set", result);
    let foreign = Some(types::Spiffeid { trust_domain: "o.org".into(), path: "/w".into() });
    let filter = Filter { by_spiffe_id: foreign, ..Default::default() };
    let result = client.list_entries(by(filter)).await.map(drop);
    wrong("malformed SPIFFE ID filter: \"spiffe://o.org/w\" is not a member of trust", result);
    let request = ListEntriesRequest { page_token: "x".into(), ..Default::default() };
    wrong("could not parse page token", client.list_entries(request).await.map(drop));
    let request = ListEntriesRequest { page_size: -1, ..Default::default() };
    wrong("page_size", client.list_entries(request).await.map(drop));
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_lives_on() {
    let server = server().await;
    let mut client = entries(&server).await;
    let request = GetEntryRequest { id: "x".repeat(4 << 20), output_mask: None };
    let (code, sentence) = refused(client.get_entry(request).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(sentence.starts_with("grpc: received message larger than max ("), "{sentence}");
    client.count_entries(CountEntriesRequest::default()).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn agents_read_what_they_may_serve_under_a_mask() {
    let server = server().await;
    let mut client = entries(&server).await;
    let stored = created(&mut client, entry("/w", 1)).await;
    let below = types::Entry { parent_id: id("/w"), ..entry("/x", 2) };
    let below = created(&mut client, below).await;
    let unrelated = types::Entry { parent_id: id("/other"), ..entry("/y", 3) };
    created(&mut client, unrelated).await;
    let agent = agent(&server).await;
    let mut remote = EntryClient::new(server.channel(Some(&agent)).await);
    let read = remote.get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    let mut read = read.unwrap().into_inner().entries;
    read.sort_by(|left, right| left.selectors[0].value.cmp(&right.selectors[0].value));
    assert_eq!(read, [stored, below]);
    let mask = types::EntryMask { selectors: true, ..Default::default() };
    let request = GetAuthorizedEntriesRequest { output_mask: Some(mask) };
    let read = remote.get_authorized_entries(request).await.unwrap().into_inner().entries;
    assert_eq!(read.len(), 2);
    for entry in read {
        assert!(entry.spiffe_id.is_none() && entry.selectors.len() == 1 && !entry.id.is_empty());
    }
    server.stop().await;
}
