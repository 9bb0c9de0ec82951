//! Another process of the node, for what depends on who calls.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tonic::transport::Channel;

use super::node::channel_to;

/// Carries the bytes of each connection to the socket in its first argument, until its standard
/// input ends.
const RELAY: &str = r#"
import asyncio, sys

async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    from_node, to_node = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(pump(reader, to_node), pump(from_node, writer))

async def main():
    async with await asyncio.start_unix_server(relay, sys.argv[2]):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"#;

/// A process that calls in the place of a test: whoever connects to it reaches the node, which
/// takes this process for the caller.
pub(super) struct OtherProcess {
    child: Child,
    folder: TempDir,
}

impl OtherProcess {
    pub(super) fn calling(node: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("python3")
            .args(["-c", RELAY])
            .args([node, &folder.path().join("relay.sock")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, folder }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) async fn channel(&self) -> Channel {
        channel_to(&self.folder.path().join("relay.sock")).await
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
