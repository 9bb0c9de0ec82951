//! `api watch`.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::Child;

use super::*;

type Output<R> = Lines<BufReader<R>>;

fn watch(socket: &Path) -> Child {
    let mut command = command(socket, "api watch");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn lines<R: AsyncRead + Unpin>(output: Option<R>) -> Output<R> {
    BufReader::new(output.unwrap()).lines()
}

/// The next line, which is due.
async fn next(output: &mut Output<impl AsyncRead + Unpin>) -> String {
    let line = tokio::time::timeout(Duration::from_secs(20), output.next_line()).await;
    line.expect("a line is due").unwrap().expect("the command goes on")
}

/// The lines of one update, up to the empty one at its end.
async fn update(output: &mut Output<impl AsyncRead + Unpin>) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < 3 || seen.last() != Some(&String::new()) {
        seen.push(next(output).await);
    }
    seen
}

#[tokio::test]
async fn each_update_is_printed_until_interrupted() {
    let node = node_with_a_partner().await;
    let mut child = watch(&node.socket);
    let mut stdout = lines(child.stdout.take());
    let first = update(&mut stdout).await;
    assert!(first[0].starts_with("Received 1 svid after "), "{first:?}");
    assert_eq!(
        (first[1].as_str(), first[2].as_str()),
        ("", "SPIFFE ID:\t\tspiffe://example.org/app")
    );
    assert!(first[3].starts_with("SVID Valid After:\t"), "hints are not shown: {first:?}");
    assert!(first.iter().any(|line| line.starts_with("[partner.test] CA #1 Valid After:\t")));

    node.renew("/app").await;
    let second = update(&mut stdout).await;
    assert!(second[0].starts_with("Received 1 svid after "), "{second:?}");
    node.add_root().await;
    let third = update(&mut stdout).await;
    assert!(third.iter().any(|line| line.starts_with("CA #2 Valid Until:\t")), "{third:?}");

    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let ended = child.wait_with_output().await.unwrap();
    let canceled = "rpc error: code = Canceled desc = context canceled\n";
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), canceled.repeat(2));
}

#[tokio::test]
async fn failures_are_told_and_the_agent_is_asked_again() {
    let node = Node::start().await;
    node.authorize([]).await;
    let mut child = watch(&node.socket);
    let mut stderr = lines(child.stderr.take());
    let denied = "rpc error: code = PermissionDenied desc = no identity issued";
    assert_eq!(next(&mut stderr).await, denied);
    node.authorize([entry("/app")]).await;
    let mut stdout = lines(child.stdout.take());
    assert!(next(&mut stdout).await.starts_with("Received 1 svid after "));

    let mut child = watch(Path::new("/nowhere/s"));
    let mut stderr = lines(child.stderr.take());
    for _ in 0..2 {
        assert_eq!(next(&mut stderr).await + "\n", nobody_at("/nowhere/s"));
    }
}
