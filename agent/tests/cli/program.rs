//! `run` where it cannot begin.

use std::fs;

use super::*;

#[tokio::test]
async fn what_this_build_lacks_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("agent.conf"));
    let config = format!(
        "agent {{\n trust_domain = \"example.org\"\n server_address = \"127.0.0.1\"\n \
         server_port = 1\n insecure_bootstrap = true\n persist_cache = true\n \
         data_dir = {data:?}\n socket_path = {:?}\n}}\nplugins {{\n \
         KeyManager \"memory\" {{}}\n NodeAttestor \"join_token\" {{}}\n \
         WorkloadAttestor \"unix\" {{}}\n}}\n",
        folder.path().join("public/api.sock")
    );
    fs::write(&file, config).unwrap();
    let ran = run(Path::new("/nowhere/s"), &format!("run -config {}", file.display())).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = ran.stdout.lines().last().unwrap();
    assert!(told.contains("level=error msg=\"Agent crashed\""), "{ran:?}");
    let why = "persist_cache is not supported by this build; remove it from the configuration";
    assert!(told.contains(&format!("error=\"{why}\"")), "{ran:?}");
    assert!(!data.exists());
}
