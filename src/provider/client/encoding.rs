//! Content codings (RFC 9110 §8.4.1). Requests ask for none, but some providers compress their responses anyway.

use std::io::{self, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

/// Largest window of a zstd frame, which the decoder allocates before it reads the frame: RFC 9659 §3 allows no more over
/// HTTP.
const MAX_ZSTD_WINDOW: u64 = 8 * 1024 * 1024;
/// Bytes that the brotli decoder reads at once.
const BROTLI_BUFFER: usize = 4096;

/// The body is larger than its limit after decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Oversized;

/// Undoes the codings that `Content-Encoding` lists, the last one first. Returns a body that is not in the named coding
/// unchanged, because some providers name a coding and don't use it.
pub(super) fn decoded(body: Bytes, content_encoding: &str, limit: usize) -> Result<Bytes, Oversized> {
    let mut body = body;
    for coding in content_encoding.rsplit(',').map(str::trim) {
        let Some(read) = read_coding(coding, &body, limit) else { break };
        match read {
            Ok(decoded) if decoded.len() > limit => return Err(Oversized),
            Ok(decoded) => body = decoded.into(),
            Err(_not_in_that_coding) => break,
        }
    }
    Ok(body)
}

/// Returns at most one byte more than the limit; `None` for `identity` and unknown codings.
fn read_coding(coding: &str, body: &[u8], limit: usize) -> Option<io::Result<Vec<u8>>> {
    Some(match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(body), limit),
        // The name means zlib's format. Some servers send bare deflate.
        "deflate" => read(ZlibDecoder::new(body), limit).or_else(|_| read(DeflateDecoder::new(body), limit)),
        "br" => read(Decompressor::new(body, BROTLI_BUFFER), limit),
        "zstd" => StreamingDecoder::new_with_max_window_size(body, MAX_ZSTD_WINDOW)
            .map_err(io::Error::other)
            .and_then(|decoder| read(decoder, limit)),
        _ => return None,
    })
}

fn read(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const TEXT: &[u8] = br#"{"access_token":"a"}"#;
    const LIMIT: usize = 1024;
    /// `TEXT`.
    const BROTLI: &[u8] =
        b"\x8b\x09\x80\x7b\x22\x61\x63\x63\x65\x73\x73\x5f\x74\x6f\x6b\x65\x6e\x22\x3a\x22\x61\x22\x7d\x03";
    /// A megabyte of `x`.
    const BROTLI_BOMB: &[u8] = b"\x5b\xff\xff\x8f\x5f\x02\x2f\x1e\x0b\x04\x72\xef\x1f\x00";

    macro_rules! written {
        ($encoder:ident, $text:expr) => {{
            let mut encoder = $encoder::new(Vec::new(), Compression::default());
            encoder.write_all($text).unwrap();
            encoder.finish().unwrap()
        }};
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        written!(GzEncoder, text)
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    #[track_caller]
    fn check(coding: &str, body: impl Into<Bytes>, expected: Result<&[u8], Oversized>) {
        let found = decoded(body.into(), coding, LIMIT);
        assert_eq!(found.as_deref().map_err(|error| *error), expected, "{coding}");
    }

    #[test]
    fn c3_every_coding_is_read() {
        check("gzip", gzip(TEXT), Ok(TEXT));
        check("X-GZip", gzip(TEXT), Ok(TEXT));
        check("deflate", written!(ZlibEncoder, TEXT), Ok(TEXT));
        check("deflate", written!(DeflateEncoder, TEXT), Ok(TEXT));
        check("br", BROTLI, Ok(TEXT));
        check("zstd", zstd(TEXT), Ok(TEXT));
        check("gzip, zstd", zstd(&gzip(TEXT)), Ok(TEXT));
        check("identity", TEXT, Ok(TEXT));
        check("", TEXT, Ok(TEXT));
    }

    #[test]
    fn c3_a_body_in_another_coding_is_returned_unchanged() {
        for coding in ["gzip", "deflate", "br", "zstd", "compress", "aws-chunked", "gzip, gzip"] {
            check(coding, TEXT, Ok(TEXT));
        }
        let cut = &gzip(TEXT)[..20];
        check("gzip", cut.to_vec(), Ok(cut));
        let mut flipped = gzip(TEXT);
        *flipped.last_mut().unwrap() ^= 1;
        check("gzip", flipped.clone(), Ok(&flipped));
    }

    #[test]
    fn c3_decompressed_bodies_are_bounded() {
        let full = vec![b'x'; LIMIT];
        let large = vec![b'x'; LIMIT + 1];
        let bomb = vec![b'x'; 1024 * 1024];
        check("gzip", gzip(&full), Ok(&full));
        check("zstd", zstd(&full), Ok(&full));
        for body in [&large, &bomb] {
            check("gzip", gzip(body), Err(Oversized));
            check("deflate", written!(ZlibEncoder, body), Err(Oversized));
            check("deflate", written!(DeflateEncoder, body), Err(Oversized));
            check("zstd", zstd(body), Err(Oversized));
        }
        check("br", BROTLI_BOMB, Err(Oversized));
        // A frame that asks for a window of 128 MiB.
        let wide = b"\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00";
        check("zstd", &wide[..], Ok(wide));
    }
}
