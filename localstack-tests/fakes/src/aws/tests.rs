//! The small AWS judged by what AWS documents.

use http::{HeaderMap, Method};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::*;

const REGION: &str = "us-west-2";
const ID: &str = "i-0b22a22eec53b9321";

fn instance() -> Instance {
    Instance::new(HOME_ACCOUNT, REGION, ID)
}

/// A world with `instances` that run.
fn world(instances: impl IntoIterator<Item = Instance>) -> World {
    World { instances: instances.into_iter().collect(), ..World::default() }
}

fn signed(key: &str, service: &str) -> HeaderMap {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260216/{REGION}/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    );
    let mut headers = HeaderMap::new();
    headers.insert("authorization", authorization.parse().unwrap());
    if key.starts_with("ASIA") {
        headers.insert("x-amz-security-token", "session".parse().unwrap());
    }
    headers
}

fn form(key: &str, service: &str, version: &str, fields: &[(&str, &str)]) -> Request {
    let mut body = Serializer::new(String::new());
    body.append_pair("Version", version).extend_pairs(fields);
    let body = body.finish().into();
    let (path, query) = ("/".to_owned(), String::new());
    Request { method: Method::POST, path, query, headers: signed(key, service), body }
}

fn describe(fields: &[(&str, &str)]) -> Request {
    let action = ("Action", "DescribeInstances");
    form("AKIAFAKE", "ec2", "2016-11-15", &[&[action], fields].concat())
}

fn get(path: &str, query: &str) -> Request {
    Request {
        method: Method::GET,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: signed("AKIAFAKE", "eks"),
        body: Bytes::new(),
    }
}

/// Status and body.
fn ask(request: &Request, world: &mut World) -> (u16, String) {
    let response = answer(request, world);
    assert!(response.headers()["x-amzn-requestid"].to_str().unwrap().starts_with("fake-"));
    let body = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status().as_u16(), body)
}

/// The texts of all elements of that name.
fn texts<'b>(body: &'b str, name: &str) -> Vec<&'b str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    body.split(&start).skip(1).filter_map(|rest| Some(rest.split_once(&end)?.0)).collect()
}

#[test]
fn instances_are_told_by_id_and_state() {
    let stopped = Instance { state: "stopped".to_owned(), ..instance() };
    let tags = vec![("a<&>".to_owned(), "b".to_owned())];
    let other = Instance { id: "i-0000000000000000b".to_owned(), tags, ..instance() };
    let mut world = world([stopped, other]);
    let ids = [("InstanceId.1", ID), ("InstanceId.2", "i-0000000000000000b")];
    let states = [("Filter.1.Name", "instance-state-name"), ("Filter.1.Value.1", "running")];
    let (status, body) = ask(&describe(&ids), &mut world);
    assert_eq!((status, texts(&body, "instanceId").len()), (200, 2));
    let (_, body) = ask(&describe(&[ids, states].concat()), &mut world);
    assert_eq!(texts(&body, "instanceId"), ["i-0000000000000000b"]);
    assert_eq!(texts(&body, "key"), ["a&lt;&amp;&gt;"]);
    assert_eq!(texts(&body, "attachTime"), ["2026-02-16T00:38:27Z"; 2]);
    assert_eq!(texts(&body, "requestId"), ["fake-2"]);
}

#[test]
fn one_unknown_id_fails_all() {
    let mut world = world([instance()]);
    let unknown =
        [("InstanceId.1", ID), ("InstanceId.2", "i-0000000a"), ("InstanceId.3", "i-0000000b")];
    let (status, body) = ask(&describe(&unknown), &mut world);
    assert_eq!((status, &texts(&body, "Code")[..]), (400, &["InvalidInstanceID.NotFound"][..]));
    let message = ["The instance IDs 'i-0000000a, i-0000000b' do not exist"];
    assert_eq!(texts(&body, "Message"), message);
    let (_, body) = ask(&describe(&[("InstanceId.1", "i-xyz")]), &mut world);
    assert_eq!(texts(&body, "Code"), ["InvalidInstanceID.Malformed"]);
}

#[test]
fn instances_come_in_pages() {
    let mut world = world(instance().fleet(12));
    let mut token = String::new();
    let mut pages = Vec::new();
    loop {
        let (_, body) = ask(&describe(&[("MaxResults", "5"), ("NextToken", &token)]), &mut world);
        pages.push(texts(&body, "instanceId").len());
        match texts(&body, "nextToken").first() {
            Some(next) => token = (*next).to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, [5, 5, 2]);
    let (_, body) = ask(&describe(&[("MaxResults", "5"), ("InstanceId.1", ID)]), &mut world);
    assert_eq!(texts(&body, "Code"), ["InvalidParameterCombination"]);
}

#[test]
fn keys_say_whose_instances_are_seen() {
    let foreign = Instance { account: "666666666666".to_owned(), ..instance() };
    let mut world = world([foreign]);
    world.roles.insert(("666666666666".to_owned(), "team/attest".to_owned()));
    let assume = |role: &str| {
        let arn = format!("arn:aws:iam::666666666666:role/{role}");
        let fields =
            [("Action", "AssumeRole"), ("RoleArn", arn.as_str()), ("RoleSessionName", "s")];
        form("AKIAFAKE", "sts", "2011-06-15", &fields)
    };
    let (status, body) = ask(&assume("other"), &mut world);
    assert_eq!((status, &texts(&body, "Code")[..]), (403, &["AccessDenied"][..]));
    let (_, body) = ask(&assume("team/attest"), &mut world);
    let key = texts(&body, "AccessKeyId")[0];
    let identity = [("Action", "GetCallerIdentity")];
    let (_, identity) = ask(&form(key, "sts", "2011-06-15", &identity), &mut world);
    assert_eq!(texts(&identity, "Account"), ["666666666666"]);
    let fields = [("Action", "DescribeInstances"), ("InstanceId.1", ID)];
    for (key, expected) in [(key, 200), ("AKIAFAKE", 400)] {
        assert_eq!(ask(&form(key, "ec2", "2016-11-15", &fields), &mut world).0, expected);
    }
    let other_service = form("AKIAFAKE", "iam", "2016-11-15", &fields);
    assert_eq!(texts(&ask(&other_service, &mut world).1, "Code"), ["AuthFailure"]);
}

#[test]
fn refusals_are_told_in_the_words_of_each_service() {
    let mut world = World { rate: Some(0.0), ..World::default() };
    let iam = form("AKIAFAKE", "iam", "2010-05-08", &[("Action", "GetInstanceProfile")]);
    let (status, body) = ask(&describe(&[]), &mut world);
    assert_eq!((status, &texts(&body, "Code")[..]), (503, &["RequestLimitExceeded"][..]));
    let (status, body) = ask(&iam, &mut world);
    assert_eq!((status, &texts(&body, "Code")[..]), (400, &["Throttling"][..]));
    let nodes = answer(&get("/clusters/c/node-groups", ""), &mut world);
    assert_eq!(nodes.headers()["x-amzn-errortype"], "TooManyRequestsException");
    world.rate = None;
    world.forbidden.insert("DescribeInstances".to_owned());
    assert_eq!(texts(&ask(&describe(&[]), &mut world).1, "Code"), ["UnauthorizedOperation"]);
    assert_eq!(texts(&ask(&iam, &mut world).1, "Code"), ["NoSuchEntity"]);
}

#[test]
fn accounts_and_node_groups_come_in_pages() {
    let accounts = (0..45).map(|number| (format!("{number:012}"), "ACTIVE".to_owned()));
    let mut world = World { accounts: accounts.collect(), ..World::default() };
    let list = |key: &str, body: &'static str| {
        let mut headers = signed(key, "organizations");
        let target = "AWSOrganizationsV20161128.ListAccounts".parse().unwrap();
        headers.insert("x-amz-target", target);
        let (path, query) = ("/".to_owned(), String::new());
        Request { method: Method::POST, path, query, headers, body: body.into() }
    };
    let json = |(_, body): (u16, String)| serde_json::from_str::<Value>(&body).unwrap();
    let last = json(ask(&list("AKIAFAKE", r#"{"NextToken":"40"}"#), &mut world));
    assert_eq!((last["Accounts"].as_array().unwrap().len(), &last["NextToken"]), (5, &Value::Null));
    world.management_account = Some("999999999999".to_owned());
    let refused = json(ask(&list("AKIAFAKE", "{}"), &mut world));
    assert_eq!(refused["__type"], "AccessDeniedException");
    let first = json(ask(&list("ASIA999999999999", "{}"), &mut world));
    assert_eq!(
        (first["Accounts"].as_array().unwrap().len(), &first["NextToken"]),
        (20, &"20".into())
    );

    let groups = ["a", "b"].map(|name| (name.to_owned(), vec![format!("asg-{name}")]));
    world.clusters.insert("my cluster".to_owned(), groups.to_vec());
    world.page_size = 1;
    let path = "/clusters/my%20cluster/node-groups";
    let page = json(ask(&get(path, "nextToken=1"), &mut world));
    assert_eq!((&page["nodegroups"][0], &page["nextToken"]), (&"b".into(), &Value::Null));
    let group = json(ask(&get(&format!("{path}/b"), ""), &mut world));
    assert_eq!(group["nodegroup"]["resources"]["autoScalingGroups"][0]["name"], "asg-b");
    let (status, _) = ask(&get("/clusters/absent/node-groups", ""), &mut world);
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_fleet_is_launched_into_its_group() {
    let aws = Aws::start().await;
    let tags = vec![(SCALING_GROUP_TAG.to_owned(), "web".to_owned())];
    aws.launch(Instance { tags, ..instance() }.fleet(10_000));
    let mut world = aws.world();
    assert_eq!(world.scaling_groups["web"].len(), 10_000);
    let ids: Vec<_> = (0..500)
        .map(|number| (format!("InstanceId.{number}"), world.instances[number * 20].id.clone()))
        .collect();
    let ids: Vec<_> = ids.iter().map(|(key, id)| (key.as_str(), id.as_str())).collect();
    let (_, body) = ask(&describe(&ids), &mut world);
    assert_eq!(texts(&body, "instanceId").len(), 500);
    let group =
        [("Action", "DescribeAutoScalingGroups"), ("AutoScalingGroupNames.member.1", "web")];
    let (_, body) = ask(&form("AKIAFAKE", "autoscaling", "2011-01-01", &group), &mut world);
    assert_eq!(texts(&body, "InstanceId").len(), 10_000);
}
