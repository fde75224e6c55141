//! The PROXY protocol, version 1 (a line of text) and 2 (binary): the client's address, which a proxy on the level of TCP sends
//! before the client's own bytes. The specification is `doc/proxy-protocol.txt` of `HAProxy`.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest header of both versions: `PROXY UNKNOWN` with its line end.
const SHORTEST: usize = 15;
/// The longest line of version 1, as the specification computes it.
const LONGEST_LINE: usize = 107;
/// Most bytes after the fixed part of version 2. Addresses have 36; proxies add a few hundred bytes about TLS.
const LONGEST_BODY: u16 = 4096;

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("the connection ended")]
    Io(#[from] io::Error),
    #[error("a trusted proxy did not send a header of the PROXY protocol; let it, or turn `http.proxy_protocol` off")]
    Missing,
    #[error("the PROXY header is not valid")]
    Invalid,
}

/// Reads the header, and nothing after it. Returns the client's address; `None` if the proxy opened the connection itself,
/// for a check, or does not know the address.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let mut start = [0; SHORTEST];
    stream.read_exact(&mut start).await?;
    if let Some(rest) = start.strip_prefix(&SIGNATURE) {
        return read_binary(stream, rest).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(ProxyHeaderError::Missing);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(ProxyHeaderError::Invalid);
        }
        // Byte by byte: what follows the line belongs to the client.
        line.push(stream.read_u8().await?);
    }
    if line == b"PROXY UNKNOWN\r\n" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    source_in_line(&line).map(Some).ok_or(ProxyHeaderError::Invalid)
}

/// Parses `PROXY TCP4 <source> <destination> <port> <port>`.
fn source_in_line(line: &[u8]) -> Option<IpAddr> {
    let words = std::str::from_utf8(line).ok()?.trim_end().split(' ').collect::<Vec<_>>();
    let [_, family, source, destination, port, other_port] = words.try_into().ok()?;
    let (source, destination) = (source.parse::<IpAddr>().ok()?, destination.parse::<IpAddr>().ok()?);
    let is_family =
        |address: IpAddr| (family == "TCP4" && address.is_ipv4()) || (family == "TCP6" && address.is_ipv6());
    let are_ports = [port, other_port].iter().all(|port| port.parse::<u16>().is_ok());
    (is_family(source) && is_family(destination) && are_ports).then_some(source)
}

/// Reads version 2 after its signature: version and command, family, and the first byte of the length have arrived.
async fn read_binary(stream: &mut (impl AsyncRead + Unpin), fixed: &[u8]) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let [command, family, high] = *fixed else { return Err(ProxyHeaderError::Invalid) };
    let length = u16::from_be_bytes([high, stream.read_u8().await?]);
    if length > LONGEST_BODY {
        return Err(ProxyHeaderError::Invalid);
    }
    let mut body = vec![0; usize::from(length)];
    stream.read_exact(&mut body).await?;
    // Source, destination and both ports.
    let source = match (command, family) {
        (0x21, 0x11) if body.len() >= 12 => body.first_chunk().map(|source: &[u8; 4]| IpAddr::from(*source)),
        (0x21, 0x21) if body.len() >= 36 => body.first_chunk().map(|source: &[u8; 16]| IpAddr::from(*source)),
        (0x21, 0x11 | 0x21) => None,
        // LOCAL, such as a health check; an unknown family, a datagram or a UNIX socket.
        (0x20 | 0x21, _) => return Ok(None),
        _ => None,
    };
    source.map(Some).ok_or(ProxyHeaderError::Invalid)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    /// Parses a header, and checks that the bytes after it stay unread.
    #[track_caller]
    fn check(header: &[u8], expected: Result<Option<&str>, &str>) {
        let bytes = [header, b"GET / HTTP/1.1\r\n"].concat();
        let mut stream = &bytes[..];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(read(&mut stream));
        let shown = String::from_utf8_lossy(header);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{shown}");
                assert_eq!(stream, b"GET / HTTP/1.1\r\n", "{shown}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{shown}: {error}"),
            (found, expected) => panic!("{shown}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn o13_a_line_names_the_client() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n", Ok(Some("192.0.2.7")));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", Ok(Some("2001:db8::7")));
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None));
        check(b"", Err("did not send"));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for wrong in [
            "PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 5\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 66000\r\n",
            "PROXY TCP4  192.0.2.7 10.0.0.1 4711 443\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 4711 443\r\n",
            &long,
        ] {
            check(wrong.as_bytes(), Err("not valid"));
        }
    }

    #[test]
    fn o13_a_binary_header_names_the_client() {
        let header = |command: u8, family: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&SIGNATURE[..], &[command, family], &length, body].concat()
        };
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 18, 103, 1, 187];
        check(&header(0x21, 0x11, &v4), Ok(Some("192.0.2.7")));
        // A field about TLS after the addresses.
        check(&header(0x21, 0x11, &[&v4[..], &[0x20, 0, 1, 7]].concat()), Ok(Some("192.0.2.7")));
        let v6 = [&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        check(&header(0x21, 0x21, &v6), Ok(Some("2001:db8::7")));
        check(&header(0x20, 0x00, &[]), Ok(None));
        check(&header(0x21, 0x00, &[]), Ok(None));
        check(&header(0x21, 0x31, &[0; 216]), Ok(None));
        check(&header(0x21, 0x11, &v4[..11]), Err("not valid"));
        check(&header(0x21, 0x21, &v6[..35]), Err("not valid"));
        check(&header(0x31, 0x11, &v4), Err("not valid"));
        check(&header(0x21, 0x11, &[0; 5000]), Err("not valid"));
    }
}
