//! What holds for every command.

use super::*;

#[tokio::test]
async fn help_and_version_go_to_the_standard_error() {
    let nowhere = Path::new("/nowhere");
    for (line, code, start) in [
        ("", 127, "Usage: spire-server "),
        ("foo", 127, "Usage: spire-server "),
        ("-h", 0, "Usage: spire-server "),
        ("--version", 0, "1.15.3-dev-"),
        ("token", 1, "Usage of generate:\n"),
        ("token generate -h", 0, "Usage of generate:\n"),
        ("run --help", 0, "Usage of run:\n"),
        ("token generate -nope", 1, "flag provided but not defined: -nope\nUsage of generate:\n"),
        ("validate -nope", 1, "flag provided but not defined: -nope\nUsage of validate:\n"),
    ] {
        let ran = run_at(nowhere, line).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{line}");
        assert!(ran.stderr.starts_with(start), "{line}: {}", ran.stderr);
    }
    let told = run_at(nowhere, "validate -nope").await.stderr;
    let again = "SPIRE server configuration file is invalid: flag provided but not defined: -nope";
    assert!(told.ends_with(&format!("\n{again}\n")), "{told}");
}

#[tokio::test]
async fn a_missing_file_is_told_by_both_commands_that_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.conf").display().to_string();
    let told = format!("could not find config file {path}: please use the -config flag\n");
    let line = format!("-config {path}");
    assert_eq!(run_at(folder.path(), &format!("run {line}")).await.told(), told);
    let invalid = format!("SPIRE server configuration file is invalid: {told}");
    assert_eq!(run_at(folder.path(), &format!("validate {line}")).await.told(), invalid);
}

#[tokio::test]
async fn without_a_server_a_command_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let dial = |path: &str| {
        format!(
            "Error: rpc error: code = Unavailable desc = connection error: desc = \"transport: \
             Error while dialing: dial unix {path}: connect: no such file or directory\"\n"
        )
    };
    let absolute = dial(&format!("//{}", socket.display()));
    assert_eq!(run_at(&socket, "token generate").await.told(), absolute);
    let by_flag = format!("token generate -socketPath {}", socket.display());
    assert_eq!(run_at(Path::new("/other"), &by_flag).await.told(), absolute);
    let relative = run_at(&socket, "token generate --socketPath=no/socket").await;
    assert_eq!(relative.told(), dial("no/socket"));
    let instance = run_at(&socket, "token generate -instance a").await;
    let missing =
        "Error: you must define SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE to use the instance flag\n";
    assert_eq!(instance.told(), missing);
}
