//! What lies between a program and its database, or another server: connections that are cut,
//! delayed or held up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Passes connections on to a server, as well or as badly as it is told.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    road: watch::Sender<Road>,
    accepting: JoinHandle<()>,
}

/// When a connection is cut that a commit goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The database does not get to know of it.
    BeforeCommit,
    /// Nobody gets to know that it took place.
    AfterCommit,
}

/// How connections fare.
#[derive(Debug, Clone, Copy)]
struct Road {
    /// Where new connections lead.
    to: SocketAddr,
    /// How long what is sent is on its way, in each direction.
    delay: Duration,
    /// Whether what is sent waits, as where a network is down for a while and nobody is told.
    is_held: bool,
    /// How often all connections were cut.
    cuts: u64,
    /// The next commit is cut.
    at_commit: Option<Cut>,
}

impl Proxy {
    /// Listens on an address of its own for connections to `to`.
    ///
    /// # Errors
    /// When the machine has no port left.
    pub async fn to(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
        let address = listener.local_addr()?;
        let road = Road { to, delay: Duration::ZERO, is_held: false, cuts: 0, at_commit: None };
        let road = watch::Sender::new(road);
        let roads = road.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, roads.clone()));
            }
        });
        Ok(Self { address, road, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets new connections lead to another server.
    pub fn lead_to(&self, to: SocketAddr) {
        self.road.send_modify(|road| road.to = to);
    }

    /// Lets what is sent take that long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.road.send_modify(|road| road.delay = delay);
    }

    /// Lets what is sent wait, or go on.
    pub fn hold(&self, is_held: bool) {
        self.road.send_modify(|road| road.is_held = is_held);
    }

    /// Ends all connections; new ones are passed on.
    pub fn cut(&self) {
        self.road.send_modify(|road| road.cuts += 1);
    }

    /// Ends the next connection that a commit goes through.
    pub fn cut_at_commit(&self, cut: Cut) {
        self.road.send_modify(|road| road.at_commit = Some(cut));
    }

    /// Whether a commit is still waited for.
    pub fn awaits_commit(&self) -> bool {
        self.road.borrow().at_commit.is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, road: watch::Sender<Road>) {
    let mut cut = road.subscribe();
    let Road { to, cuts, .. } = *cut.borrow();
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first ends the connection in both directions.
    tokio::select! {
        _ = cut.wait_for(|road| road.cuts != cuts) => {}
        _ = questions(from_client, to_server, road.clone()) => {}
        _ = answers(from_server, to_client, road.subscribe()) => {}
    }
}

async fn questions(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    road: watch::Sender<Road>,
) -> io::Result<()> {
    let mut state = road.subscribe();
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut bytes).await?;
        let piece = &bytes[..length];
        travel(&mut state).await;
        if length == 0 {
            return Ok(());
        }
        let cut = road.borrow().at_commit;
        if let Some(cut) = cut
            && has_commit(piece)
        {
            road.send_modify(|road| road.at_commit = None);
            if cut == Cut::AfterCommit {
                to.write_all(piece).await?;
                // The database does what it was told before it sees that nobody is there.
                to.shutdown().await?;
            }
            return Ok(());
        }
        to.write_all(piece).await?;
    }
}

/// Whether a transaction is committed by it, not begun as `READ COMMITTED`.
fn has_commit(piece: &[u8]) -> bool {
    let mut words = piece.windows(6).enumerate();
    words.any(|(at, word)| word == b"COMMIT" && piece.get(at + 6) != Some(&b'T'))
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut road: watch::Receiver<Road>,
) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut bytes).await?;
        travel(&mut road).await;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..length]).await?;
    }
}

/// Takes as long as the road does now.
async fn travel(road: &mut watch::Receiver<Road>) {
    let delay = road.borrow().delay;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    // Who tells is gone where the connection is about to end.
    let _ = road.wait_for(|road| !road.is_held).await;
}
