//! An instance of LocalStack's EC2 joins: the calls of the server are understood by an AWS that
//! others have built again.

use std::path::Path;

use spire_fakes::aws::{Imds, Instance, Mode, RegionSigner};
use spire_localstack_tests::localstack::LocalStack;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

use crate::cloud_aws::{add_workload, agent_file, agent_path, fetches};

const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-west-2";

#[tokio::test]
async fn an_instance_of_localstack_joins_by_a_role_that_is_assumed() {
    let (folder, localstack) = (Folder::new().unwrap(), LocalStack::start().await.unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/localstack_world.py");
    let world = localstack.run(&script).await.unwrap();
    let text = |key: &str| world[key].as_str().unwrap().to_owned();
    let mut instance = Instance::new(ACCOUNT, REGION, &text("id"));
    (instance.image, instance.zone) = (text("image"), text("zone"));
    instance.launched = text("launched");

    let signer = RegionSigner::new(REGION);
    let certificates = folder.join("certificates");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::write(certificates.join(format!("{REGION}.pem")), signer.pem()).unwrap();
    let url = localstack.url();
    let plugins = format!(
        r#"NodeAttestor "aws_iid" {{
        plugin_data {{
            access_key_id = "{ACCOUNT}"
            secret_access_key = "secret"
            assume_role = "attest"
            allowed_account_ids = ["{ACCOUNT}"]
            extra_selectors = true
            certificates_dir = {certificates:?}
            endpoints {{
                ec2 = "{url}"
                iam = "{url}"
                sts = "{url}"
            }}
        }}
    }}"#
    );
    let file = ServerFile { plugins, ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    let imds = Imds::start(Mode::Version2, signer.evidence(&instance, true)).await;
    let file = AgentFile { node_attestor: Some(agent_file(&imds)), ..AgentFile::default() };
    let mut agent = Agent::start(&folder, &server, "", &file).await.unwrap();
    let id = format!("spiffe://example.org{}", agent_path(ACCOUNT, &instance.id));
    let shown = server.command(&["agent", "show", "-spiffeID", &id]).await.unwrap();
    for selector in [
        "tag:fleet:web".to_owned(),
        format!("iamrole:arn:aws:iam::{ACCOUNT}:role/web"),
        "instance:type:t3.micro".to_owned(),
        format!("instance:id:{}", instance.id),
    ] {
        assert!(shown.contains(&format!("aws_iid:{selector}")), "{selector} is not in {shown}");
    }

    // A workload has its SVID because of a tag, also after the agent came back and after it was
    // evicted and attested again.
    const BLOG: &str = "spiffe://example.org/blog";
    add_workload(&server).await;
    fetches(&agent, BLOG).await;
    agent.process().stop().await.unwrap();
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("SVID loaded"), "the agent attested anew");
    fetches(&agent, BLOG).await;
    server.command(&["agent", "evict", "-spiffeID", &id]).await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("Node attestation was successful"));
    fetches(&agent, BLOG).await;
    agent.process().stop().await.unwrap();

    // An instance that it does not know stays out.
    let other = Instance { id: "i-0123456789abcdef0".to_owned(), ..instance };
    let imds = Imds::start(Mode::Version2, signer.evidence(&other, true)).await;
    let stranger = Folder::new().unwrap();
    let file = AgentFile { node_attestor: Some(agent_file(&imds)), ..AgentFile::default() };
    let refused = async {
        tokio::select! {
            joined = Agent::start(&stranger, &server, "", &file) => panic!("{joined:?}"),
            line = server.logged("EC2 knows no instance i-0123456789abcdef0") => line,
        }
    };
    let line = refused.await.unwrap();
    assert!(line.contains("Node refused") && line.contains("cloud_request_id"), "{line}");
    server.process().stop().await.unwrap();
}
