//! Requests that make no sense: each is refused with `INVALID_ARGUMENT` and a sentence that names
//! the field. What other files of this test ask wrongly in passing is not asked here again.

use spire_core::keys::{KeyType, LocalKey};
use spire_core::limits::MAX_AUDIENCE_BYTES;
use spire_core::svid::x509::mint_request;
use spire_core::wire::agent::*;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::bundle::*;
use spire_core::wire::svid::svid_client::SvidClient;
use spire_core::wire::svid::*;

use super::*;

/// That a call was refused for what it says, in a sentence that begins so.
#[track_caller]
fn names<T: std::fmt::Debug>(beginning: &str, result: Result<T, Status>) {
    let (code, sentence) = refused(result);
    assert_eq!(code, Code::InvalidArgument, "{beginning}: {sentence}");
    assert!(sentence.starts_with(beginning), "expected {beginning}, got {sentence}");
}

/// The same of one item of a batch.
#[track_caller]
fn item_names(beginning: &str, status: Option<types::Status>) {
    let (code, sentence) = said(status);
    assert_eq!(code, Code::InvalidArgument, "{beginning}: {sentence}");
    assert!(sentence.starts_with(beginning), "expected {beginning}, got {sentence}");
}

fn no_selectors() -> Option<types::SelectorMatch> {
    Some(types::SelectorMatch::default())
}

fn bad_ids() -> [(&'static str, Option<types::Spiffeid>); 5] {
    let foreign = types::Spiffeid { trust_domain: "other.test".into(), path: AGENT.into() };
    let no_path = types::Spiffeid { trust_domain: "example.org".into(), path: "no/slash".into() };
    [
        ("request must specify SPIFFE ID", None),
        ("\"spiffe://other.test", Some(foreign)),
        ("path must have a leading slash", Some(no_path)),
        ("\"spiffe://example.org/w\" is not an agent", id("/w")),
        ("\"spiffe://example.org\" is not an agent", id("")),
    ]
}

#[tokio::test]
async fn of_agents_asked_by_operators() {
    let server = server().await;
    let mut agents = server.agents().await;
    for (why, id) in bad_ids() {
        let beginning = format!("invalid agent ID: {why}");
        let get = GetAgentRequest { id: id.clone(), output_mask: None };
        names(&beginning, agents.get_agent(get).await);
        names(&beginning, agents.ban_agent(BanAgentRequest { id: id.clone() }).await);
        names(&beginning, agents.delete_agent(DeleteAgentRequest { id }).await);
    }

    let list = |filter| ListAgentsRequest { filter: Some(filter), ..Default::default() };
    let filter =
        list_agents_request::Filter { by_selector_match: no_selectors(), ..Default::default() };
    let listed = agents.list_agents(list(filter)).await;
    names("failed to parse selectors: empty selector set", listed);
    let filter =
        list_agents_request::Filter { by_expires_before: "tomorrow".into(), ..Default::default() };
    names("by_expires_before \"tomorrow\" is not", agents.list_agents(list(filter)).await);
    let filter =
        count_agents_request::Filter { by_selector_match: no_selectors(), ..Default::default() };
    let count = CountAgentsRequest { filter: Some(filter) };
    names("failed to parse selectors: empty selector set", agents.count_agents(count).await);
    let page = ListAgentsRequest { page_size: -1, ..Default::default() };
    names("page_size must not be negative", agents.list_agents(page).await);
    let page = ListAgentsRequest { page_token: "x".into(), ..Default::default() };
    names("could not parse page token", agents.list_agents(page).await);

    let token =
        |token: &str, ttl| CreateJoinTokenRequest { ttl, token: token.into(), agent_id: None };
    names("token must consist of", agents.create_join_token(token("a/b", 60)).await);
    names("token must consist of", agents.create_join_token(token("..", 60)).await);
    names("ttl is required", agents.create_join_token(token("a", -1)).await);
    let reserved = CreateJoinTokenRequest { agent_id: id("/spire/server"), ..token("a", 60) };
    names("invalid agent ID: ", agents.create_join_token(reserved).await);
    server.stop().await;
}

#[tokio::test]
async fn of_agents_asked_by_themselves() {
    let server = server().await;
    let identity = agent(&server).await;
    let mut agents = server.agents_as(&identity).await;
    let version = PostStatusRequest { agent_version: "x".repeat(256), ..Default::default() };
    names("agent_version has more than 255 bytes", agents.post_status(version).await);
    names("params cannot be nil", agents.renew_agent(RenewAgentRequest::default()).await);
    let params = |csr: &[u8]| RenewAgentRequest {
        params: Some(AgentX509svidParams { csr: csr.to_vec().into() }),
    };
    names("missing CSR", agents.renew_agent(params(b"")).await);
    names("failed to parse CSR: ", agents.renew_agent(params(b"x")).await);

    use attest_agent_request::Step;
    let mut attest = async |steps: Vec<Option<Step>>| {
        let steps = steps.into_iter().map(|step| AttestAgentRequest { step });
        let answers = agents.attest_agent(futures::stream::iter(Vec::from_iter(steps))).await;
        answers?.into_inner().message().await
    };
    names("the agent ended the stream before its turn", attest(Vec::new()).await);
    names("malformed param: missing params", attest(vec![None]).await);
    let early = Step::ChallengeResponse("x".into());
    names("malformed param: missing params", attest(vec![Some(early)]).await);
    let empty = Step::Params(Default::default());
    names("malformed param: missing attestation data", attest(vec![Some(empty)]).await);
    server.stop().await;
}

#[tokio::test]
async fn of_entries() {
    let server = server().await;
    let mut client = entries(&server).await;
    let good = created(&mut client, entry("/good", 1)).await;
    let foreign = types::Spiffeid { trust_domain: "other.test".into(), path: "/w".into() };
    let bad = [
        ("invalid spiffe ID: ", types::Entry { spiffe_id: None, ..good.clone() }),
        ("invalid spiffe ID: ", types::Entry { spiffe_id: id(""), ..good.clone() }),
        ("invalid parent ID: ", types::Entry { parent_id: Some(foreign), ..good.clone() }),
        ("selector list is empty", types::Entry { selectors: Vec::new(), ..good.clone() }),
        (
            "missing selector type",
            types::Entry { selectors: vec![selector("", "x")], ..good.clone() },
        ),
        ("x509_svid_ttl must", types::Entry { x509_svid_ttl: -1, ..good.clone() }),
        ("jwt_svid_ttl must", types::Entry { jwt_svid_ttl: -1, ..good.clone() }),
        (
            "invalid federated trust domain: ",
            types::Entry { federates_with: vec!["No".into()], ..good.clone() },
        ),
        ("invalid DNS name: ", types::Entry { dns_names: vec!["a b".into()], ..good.clone() }),
        ("expires_at must", types::Entry { expires_at: 1, ..good.clone() }),
        ("hint is too long", types::Entry { hint: "x".repeat(1025), ..good.clone() }),
    ];
    let wrong: Vec<_> = bad.iter().map(|(_, entry)| entry.clone()).collect();
    let update =
        BatchUpdateEntryRequest { entries: wrong.clone(), input_mask: None, output_mask: None };
    let updated = client.batch_update_entry(update).await.unwrap().into_inner().results;
    for ((why, _), result) in bad.iter().zip(updated) {
        item_names(&format!("failed to convert entry: {why}"), result.status);
    }
    let new = wrong.into_iter().map(|entry| types::Entry { id: String::new(), ..entry });
    for ((why, _), result) in bad.iter().zip(create(&mut client, new).await) {
        item_names(&format!("failed to convert entry: {why}"), result.status);
    }
    let named = types::Entry { id: "no id!".into(), ..entry("/w", 2) };
    let result = create(&mut client, [named]).await.remove(0);
    item_names("failed to convert entry: entry ID \"no id!\"", result.status);

    use list_entries_request::Filter;
    let domains = Some(types::FederatesWithMatch::default());
    let filters = [
        ("malformed parent ID filter: ", Filter { by_parent_id: bad_id(), ..Default::default() }),
        ("malformed SPIFFE ID filter: ", Filter { by_spiffe_id: bad_id(), ..Default::default() }),
        (
            "malformed selectors filter: ",
            Filter { by_selectors: no_selectors(), ..Default::default() },
        ),
        (
            "malformed federates with filter: ",
            Filter { by_federates_with: domains, ..Default::default() },
        ),
    ];
    for (why, filter) in filters {
        let count = CountEntriesRequest {
            filter: Some(count_entries_request::Filter {
                by_spiffe_id: filter.by_spiffe_id.clone(),
                by_parent_id: filter.by_parent_id.clone(),
                by_selectors: filter.by_selectors.clone(),
                by_federates_with: filter.by_federates_with.clone(),
                ..Default::default()
            }),
        };
        names(why, client.count_entries(count).await);
        let list = ListEntriesRequest { filter: Some(filter), ..Default::default() };
        names(why, client.list_entries(list).await);
    }
    server.stop().await;
}

fn bad_id() -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "EXAMPLE.org".into(), path: "/w".into() })
}

#[tokio::test]
async fn of_svids() {
    let server = server().await;
    let mut client = SvidClient::new(server.operator().await);
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let minted_id = harness::trust_domain().member("/m").unwrap();
    let csr = mint_request(&key, &Default::default(), &[], &minted_id).await.unwrap();
    let mint = |csr, ttl| MintX509svidRequest { csr, ttl };
    names("ttl must not be negative", client.mint_x509svid(mint(csr.clone(), -1)).await);
    names("malformed CSR: ", client.mint_x509svid(mint("x".into(), 0)).await);
    let mut tampered = csr.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    let result = client.mint_x509svid(mint(tampered.into(), 0)).await;
    names("malformed CSR: CSR signature check failed", result);
    names(
        "malformed CSR: CSR is larger than",
        client.mint_x509svid(mint(vec![0; 1 << 20].into(), 0)).await,
    );

    let token = |id, audience: &str, ttl| MintJwtsvidRequest {
        id,
        audience: vec![audience.to_owned()],
        ttl,
    };
    names("invalid SPIFFE ID: ", client.mint_jwtsvid(token(bad_id(), "a", 0)).await);
    names("invalid SPIFFE ID: ", client.mint_jwtsvid(token(id("/spire/x"), "a", 0)).await);
    names("ttl must not be negative", client.mint_jwtsvid(token(id("/m"), "a", -1)).await);
    // What an agent takes of a workload, the server takes of an agent.
    let longest = "a".repeat(MAX_AUDIENCE_BYTES);
    client.mint_jwtsvid(token(id("/m"), &longest, 0)).await.unwrap();
    let longer = format!("{longest}a");
    names("an audience has 4097 bytes", client.mint_jwtsvid(token(id("/m"), &longer, 0)).await);
    server.stop().await;
}

#[tokio::test]
async fn of_bundles() {
    let server = server().await;
    let mut client = BundleClient::new(server.operator().await);
    let own = client.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
    let good = types::Bundle { trust_domain: "partner.test".into(), ..own.clone() };
    let certificate = types::X509Certificate { asn1: "x".into(), tainted: false };
    let key = |key: types::JwtKey| types::Bundle { jwt_authorities: vec![key], ..good.clone() };
    let known = own.jwt_authorities[0].clone();
    let bad = [
        (
            "trust domain argument is not valid: ",
            types::Bundle { trust_domain: "No".into(), ..good.clone() },
        ),
        (
            "failed to convert bundle: unable to parse X.509 authority: ",
            types::Bundle { x509_authorities: vec![certificate], ..good.clone() },
        ),
        (
            "failed to convert bundle: unable to parse JWT authority: missing key ID",
            key(types::JwtKey { key_id: String::new(), ..known.clone() }),
        ),
        (
            "failed to convert bundle: unable to parse JWT authority: ",
            key(types::JwtKey { public_key: Default::default(), ..known.clone() }),
        ),
        (
            "failed to convert bundle: unable to parse JWT authority: ",
            key(types::JwtKey { public_key: "x".into(), ..known.clone() }),
        ),
        (
            "failed to convert bundle: refresh_hint must",
            types::Bundle { refresh_hint: -1, ..good.clone() },
        ),
    ];
    let bundles: Vec<_> = bad.iter().map(|(_, bundle)| bundle.clone()).collect();
    let request = BatchSetFederatedBundleRequest { bundle: bundles.clone(), output_mask: None };
    let set = client.batch_set_federated_bundle(request).await.unwrap().into_inner().results;
    let request = BatchCreateFederatedBundleRequest { bundle: bundles.clone(), output_mask: None };
    let create = client.batch_create_federated_bundle(request).await.unwrap().into_inner().results;
    let request = BatchUpdateFederatedBundleRequest { bundle: bundles, ..Default::default() };
    let update = client.batch_update_federated_bundle(request).await.unwrap().into_inner().results;
    for (at, (why, _)) in bad.iter().enumerate() {
        item_names(why, set[at].status.clone());
        item_names(why, create[at].status.clone());
        item_names(why, update[at].status.clone());
    }

    let get = GetFederatedBundleRequest { trust_domain: "No".into(), output_mask: None };
    names("trust domain argument is not valid: ", client.get_federated_bundle(get).await);
    let delete =
        BatchDeleteFederatedBundleRequest { trust_domains: vec!["partner.test".into()], mode: 99 };
    let (code, sentence) = refused(client.batch_delete_federated_bundle(delete).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(sentence.starts_with("failed to parse deletion mode: "), "{sentence}");
    let page = ListFederatedBundlesRequest { page_size: -1, ..Default::default() };
    names("page_size must not be negative", client.list_federated_bundles(page).await);
    let page = ListFederatedBundlesRequest { page_token: "x".into(), ..Default::default() };
    names("could not parse page token", client.list_federated_bundles(page).await);
    let append = AppendBundleRequest {
        jwt_authorities: vec![types::JwtKey { key_id: String::new(), ..known }],
        ..Default::default()
    };
    names("failed to convert JWT authority: ", client.append_bundle(append).await);
    server.stop().await;
}
