//! Clients on Unix sockets that send the socket's path where HTTP/2 wants a host.
//!
//! gRPC's C core, which is below Python, C++, Ruby and PHP, and gRPC for Java send the path of the
//! socket as `:authority`, percent-encoded or plain. The HTTP/2 library refuses each such call with
//! `PROTOCOL_ERROR`, since a path is no host; servers in Go take no notice. Nobody here asks for the
//! authority, so that what no host may contain is overwritten before the library sees it. Lengths
//! stay as they are, and with them the table of header fields that both ends keep.
//!
//! A value in Huffman's code is left alone: these clients send it plain.
//!
//! # Source
//! Frames: RFC 9113, 3.4, 4.1, 6.2 and 6.10. Header fields: RFC 7541, 5 and 6.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of what a client sends before its first frame.
const PREFACE: usize = 24;
/// Length of a frame's header.
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Length of the priority in a frame.
const PRIORITY_LENGTH: usize = 5;

const NAME: &[u8] = b":authority";
/// Its index in the static table.
const NAME_INDEX: usize = 1;
/// What stands for a byte that no host contains.
const FILLER: u8 = b'-';

/// A connection whose client may call this server whatever it likes.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    frames: Frames,
}

impl<S> AnyAuthority<S> {
    /// Wraps a connection of which nothing has been read.
    pub fn new(stream: S) -> Self {
        Self { stream, frames: Frames::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let known = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.frames.read(&mut buffer.filled_mut()[known..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Finds header fields in frames, which come in pieces of any size. What breaks a rule passes as it
/// is: the HTTP/2 library refuses it.
#[derive(Debug)]
struct Frames {
    /// The header of the frame that begins, and how much of it is known.
    header: [u8; HEADER],
    known: usize,
    /// Whether the next byte tells the length of the padding.
    is_padded: bool,
    /// Bytes still to come in this frame: before its header fields, in them, after them.
    before: usize,
    fields_left: usize,
    after: usize,
    fields: Fields,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            header: [0; HEADER],
            known: 0,
            is_padded: false,
            before: PREFACE,
            fields_left: 0,
            after: 0,
            fields: Fields::Start,
        }
    }
}

impl Frames {
    fn read(&mut self, mut bytes: &mut [u8]) {
        while let Some(first) = bytes.first().copied() {
            let length = if self.is_padded {
                self.is_padded = false;
                self.after = usize::from(first).min(self.fields_left);
                self.fields_left -= self.after;
                1
            } else if self.before > 0 {
                pass(&mut self.before, bytes.len())
            } else if self.fields_left > 0 {
                let length = pass(&mut self.fields_left, bytes.len());
                bytes[..length].iter_mut().for_each(|byte| self.fields.read(byte));
                length
            } else if self.after > 0 {
                pass(&mut self.after, bytes.len())
            } else {
                self.header[self.known] = first;
                self.known += 1;
                if self.known == HEADER {
                    self.begin_frame();
                }
                1
            };
            bytes = &mut bytes[length..];
        }
    }

    fn begin_frame(&mut self) {
        self.known = 0;
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        (self.before, self.fields_left) = match kind {
            HEADERS => {
                self.is_padded = flags & PADDED != 0 && length > 0;
                let length = length - usize::from(self.is_padded);
                let before = if flags & PRIORITY != 0 { PRIORITY_LENGTH.min(length) } else { 0 };
                self.fields = Fields::Start;
                (before, length - before)
            }
            CONTINUATION => (0, length),
            _ => (length, 0),
        };
    }
}

/// Takes as much as there is of what is left, and says how much that is.
fn pass(left: &mut usize, there: usize) -> usize {
    let length = there.min(*left);
    *left -= length;
    length
}

/// Where in the header fields the next byte is.
#[derive(Debug, Clone, Copy)]
enum Fields {
    /// A field begins.
    Start,
    /// A number goes on.
    Number { of: Number, value: usize, shift: u32 },
    /// A string begins with its length.
    String(Role),
    /// A string goes on.
    Text { role: Role, is_plain: bool, at: usize, length: usize },
    /// These are no header fields.
    Lost,
}

/// What a number says.
#[derive(Debug, Clone, Copy)]
enum Number {
    /// All that there is to say.
    Everything,
    /// The name of a field, whose value follows; 0 where the name follows too.
    Name,
    /// The length of a string.
    Length { role: Role, is_plain: bool },
}

/// What a string is.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// A name, and whether it can still be that of the authority.
    Name {
        fits: bool,
    },
    Value {
        is_authority: bool,
    },
}

impl Fields {
    fn read(&mut self, byte: &mut u8) {
        *self = match *self {
            Self::Start => match *byte {
                first if first & 0x80 != 0 => Self::number(first, 7, Number::Everything),
                first if first & 0x40 != 0 => Self::number(first, 6, Number::Name),
                first if first & 0x20 != 0 => Self::number(first, 5, Number::Everything),
                first => Self::number(first, 4, Number::Name),
            },
            Self::Number { shift, .. } if shift > 21 => Self::Lost,
            Self::Number { of, value, shift } => {
                let value = value + (usize::from(*byte & 0x7f) << shift);
                match *byte & 0x80 {
                    0 => Self::after_number(of, value),
                    _ => Self::Number { of, value, shift: shift + 7 },
                }
            }
            Self::String(role) => {
                let is_plain = *byte & 0x80 == 0;
                Self::number(*byte, 7, Number::Length { role, is_plain })
            }
            Self::Text { mut role, is_plain, at, length } => {
                match &mut role {
                    Role::Name { fits } => *fits &= is_plain && NAME.get(at) == Some(byte),
                    Role::Value { is_authority } => {
                        if *is_authority && is_plain && !is_in_host(*byte) {
                            *byte = FILLER;
                        }
                    }
                }
                Self::text(role, is_plain, at + 1, length)
            }
            Self::Lost => Self::Lost,
        };
    }

    /// A number that begins in the last `bits` of `first`.
    fn number(first: u8, bits: u32, of: Number) -> Self {
        let most = (1 << bits) - 1;
        match usize::from(first) & most {
            value if value == most => Self::Number { of, value, shift: 0 },
            value => Self::after_number(of, value),
        }
    }

    fn after_number(of: Number, value: usize) -> Self {
        match of {
            Number::Everything => Self::Start,
            Number::Name if value == 0 => Self::String(Role::Name { fits: true }),
            Number::Name => Self::String(Role::Value { is_authority: value == NAME_INDEX }),
            Number::Length { role, is_plain } => Self::text(role, is_plain, 0, value),
        }
    }

    /// A string of which `at` bytes are known.
    fn text(role: Role, is_plain: bool, at: usize, length: usize) -> Self {
        match role {
            _ if at < length => Self::Text { role, is_plain, at, length },
            Role::Name { fits } => {
                Self::String(Role::Value { is_authority: fits && length == NAME.len() })
            }
            Role::Value { .. } => Self::Start,
        }
    }
}

fn is_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "tmp%2Fapi.sock";

    fn string(text: &str) -> Vec<u8> {
        assert!(text.len() < 127);
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    /// `:method: POST`, `:path: /tmp%2Fapi.sock`, and the authority as the C core or as Java
    /// writes it.
    fn fields(authority: &str, has_literal_name: bool) -> Vec<u8> {
        let name = match has_literal_name {
            true => [vec![0x40], string(":authority")].concat(),
            false => vec![0x41],
        };
        [vec![0x83, 0x04], string(&format!("/{PATH}")), name, string(authority), vec![0x86]]
            .concat()
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [.., high, middle, low] = payload.len().to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn connection(authority: &str) -> Vec<u8> {
        let plain = fields(authority, true);
        let padded = [&[3, 0, 0, 0, 0, 9][..], &fields(authority, false), b"%/%"].concat();
        let (begin, end) = plain.split_at(30);
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, &[0, 3, 0, 0, 0, 100]),
            frame(HEADERS, 4, &plain),
            frame(0, 0, b"\x41\x05a%2Fb"),
            frame(HEADERS, PADDED | PRIORITY | 4, &padded),
            frame(HEADERS, 0, begin),
            frame(CONTINUATION, 4, end),
        ]
        .concat()
    }

    #[test]
    fn a_path_becomes_a_host_of_the_same_length_wherever_the_bytes_are_split() {
        let expected = connection("tmp-2Fapi.sock");
        for piece in [1, 2, 7, 64, 4096] {
            let (mut frames, mut bytes) = (Frames::default(), connection(PATH));
            bytes.chunks_mut(piece).for_each(|bytes| frames.read(bytes));
            assert_eq!(bytes, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_host_stays_as_it_is() {
        let mut bytes = connection("localhost");
        Frames::default().read(&mut bytes);
        assert_eq!(bytes, connection("localhost"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_without_harm(mut bytes: Vec<u8>, at in 1_usize..99) {
            let mut all = connection("/a");
            all.append(&mut bytes);
            let mut frames = Frames::default();
            all.chunks_mut(at).for_each(|bytes| frames.read(bytes));
            let mut fields = Fields::Start;
            all.iter_mut().for_each(|byte| fields.read(byte));
        }
    }
}
