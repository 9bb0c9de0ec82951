//! Reads the PROXY protocol header (versions 1 and 2) that a load balancer sends before the
//! client's own bytes. Only peers that the operator trusts are asked for one.
//!
//! # Source
//! The PROXY protocol, versions 1 and 2 (HAProxy), 2.1 and 2.2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest header of version 1 with its line end.
const MAX_LINE: usize = 107;

/// Longest body of version 2 that is read, addresses and extensions; the protocol says that 536
/// bytes always fit one segment, and proxies of clouds add tens of bytes to the addresses.
const MAX_BODY: usize = 2048;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a header was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The bytes begin like a header and are none.
    #[error("malformed PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The connection failed or ended inside the header.
    #[error("connection failed inside the PROXY protocol header")]
    Io(#[from] io::Error),
}

/// Reads the header if there is one, and nothing beyond it. Returns where the client comes from;
/// `None` where no header was sent or it says that the proxy speaks for itself.
///
/// # Errors
/// [`HeaderError`]; the connection is of no use afterwards. There is no time limit in here.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match first[0] {
        b'P' => read_line(stream).await,
        b'\r' => read_binary(stream).await,
        _ => Ok(None), // a TLS record begins with 0x16
    }
}

async fn read_line(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut line = Vec::with_capacity(MAX_LINE);
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(HeaderError::Malformed("the line does not end"));
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line[..line.len() - 2])
}

fn parse_line(line: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed("not ASCII"))?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err(HeaderError::Malformed("it does not begin with PROXY"));
    }
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let [Some(source), Some(_), Some(port), Some(_), None] =
        [words.next(), words.next(), words.next(), words.next(), words.next()]
    else {
        return Err(HeaderError::Malformed("it has not four addresses and ports"));
    };
    let address = match family {
        "TCP4" => source.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => source.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err(HeaderError::Malformed("the family is none of TCP4, TCP6, UNKNOWN")),
    };
    let address = address.ok_or(HeaderError::Malformed("the source is no address"))?;
    let port = port.parse().map_err(|_| HeaderError::Malformed("the source has no port"))?;
    Ok(Some(SocketAddr::new(address, port)))
}

async fn read_binary(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    if head[..12] != SIGNATURE[..] {
        return Err(HeaderError::Malformed("the signature is wrong"));
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > MAX_BODY {
        return Err(HeaderError::Malformed("it is longer than 2048 bytes"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    parse_binary(head[12], head[13], &body)
}

fn parse_binary(command: u8, family: u8, body: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    match command {
        0x20 => return Ok(None), // LOCAL: a health check of the proxy
        0x21 => {}
        _ => {
            return Err(HeaderError::Malformed("version and command are not 2 and LOCAL or PROXY"));
        }
    }
    const SHORT: HeaderError = HeaderError::Malformed("the addresses are cut off");
    match family {
        0x11 => {
            let (source, rest) = body.split_first_chunk::<4>().ok_or(SHORT)?;
            let port = rest.get(4..6).ok_or(SHORT)?;
            Ok(Some((Ipv4Addr::from(*source), u16::from_be_bytes([port[0], port[1]])).into()))
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(SHORT)?;
            let port = rest.get(16..18).ok_or(SHORT)?;
            Ok(Some((Ipv6Addr::from(*source), u16::from_be_bytes([port[0], port[1]])).into()))
        }
        _ => Ok(None), // neither TCP over IPv4 nor over IPv6: of no use here
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn read_of(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let found = read(&mut server).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        (found, rest)
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    #[tokio::test]
    async fn the_source_is_taken_and_what_follows_is_left() {
        let mut v4 = binary(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 1, 4, 0, 0]);
        v4.extend(b"\x16tls");
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n\x16tls", Some("192.0.2.7:8080")),
            (b"PROXY TCP6 2001:db8::7 ::1 8080 443\r\n\x16tls", Some("[2001:db8::7]:8080")),
            (b"PROXY UNKNOWN ffff\r\n\x16tls", None),
            (b"\x16tls", None),
            (&v4, Some("192.0.2.7:8080")),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00\x16tls", None),
        ];
        for (bytes, source) in cases {
            let (found, rest) = read_of(bytes).await;
            assert_eq!(found.unwrap(), source.map(|text| text.parse().unwrap()), "{bytes:?}");
            assert_eq!(rest, b"\x16tls");
        }
    }

    #[tokio::test]
    async fn a_broken_or_endless_header_is_refused() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let cases: [&[u8]; 6] = [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 8080 443\r\n",
            b"PROXY TCP4 192.0.2",
            &endless,
            &binary(0x21, 0x11, &[192, 0, 2]),
            &binary(0x31, 0x11, &[0; 12]),
        ];
        for bytes in cases {
            assert!(read_of(bytes).await.0.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, command: u8, family: u8) {
            let _ = parse_line(&bytes);
            let _ = parse_binary(command, family, &bytes);
        }
    }
}
