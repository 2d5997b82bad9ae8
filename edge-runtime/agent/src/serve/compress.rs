//! Bodies that are compressed: `Content-Encoding` of requests, `Accept-Encoding` of answers.

use std::io::{self, Read, Write};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

/// Smaller answers fit a packet either way.
const SMALLEST: usize = 1024;
/// What takes longer than other clients should wait is done on a thread of its own.
pub(crate) const LONG: usize = 64 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// HTTP's name for the format of zlib (RFC 1950); bare deflate, which some clients send under that name, is read too.
    Deflate,
}

impl Coding {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () => None,
        }
    }
}

/// How a request's body is compressed, if it is. `Err` is what its client is told.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Coding>, String> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.to_str().unwrap_or_default().trim();
    if values.next().is_none() {
        if name.is_empty() || name.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        if let Some(coding) = Coding::named(name) {
            return Ok(Some(coding));
        }
    }
    let name: String = name.chars().take(40).collect();
    Err(format!("a body with Content-Encoding {name:?} is not read; gzip, deflate or none are, one of them"))
}

/// What a client would rather have, and how much (RFC 9110, 12.5.3): without the header, or where plain bytes are liked
/// better, none.
pub(crate) fn for_answer(headers: &HeaderMap, length: usize) -> Option<Coding> {
    if length < SMALLEST {
        return None;
    }
    let (mut gzip, mut deflate, mut identity) = (None, None, None);
    let mut other = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for part in value.to_str().unwrap_or_default().split(',').take(32) {
            let mut words = part.split(';').map(str::trim);
            let name = words.next().unwrap_or_default();
            let quality = words.find_map(|w| w.strip_prefix("q=").or_else(|| w.strip_prefix("Q=")));
            let quality: f32 = quality.map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            match Coding::named(name) {
                Some(Coding::Gzip) => gzip = Some(quality),
                Some(Coding::Deflate) => deflate = Some(quality),
                None if name.eq_ignore_ascii_case("identity") => identity = Some(quality),
                None if name == "*" => other = Some(quality),
                None => {}
            }
        }
    }
    let liked = |quality: Option<f32>| quality.or(other).unwrap_or(0.0);
    let best =
        if liked(deflate) > liked(gzip) { (Coding::Deflate, liked(deflate)) } else { (Coding::Gzip, liked(gzip)) };
    (best.1 > 0.0 && best.1 >= identity.unwrap_or(0.0)).then_some(best.0)
}

/// Why a compressed body is not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unexpanded {
    /// More comes out of it than there may be.
    TooLarge,
    /// What a person reads.
    Damaged(String),
}

/// Expands a body, to at most `limit` bytes; memory follows what comes out, not what a header promises.
pub(crate) fn expand(coding: Coding, body: &[u8], limit: usize) -> Result<Bytes, Unexpanded> {
    let out = match coding {
        Coding::Gzip => collect(MultiGzDecoder::new(body), limit),
        Coding::Deflate => inflate(body, limit),
    };
    match out {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Unexpanded::TooLarge),
        Err(error) => Err(Unexpanded::Damaged(format!(
            "the body is not what its Content-Encoding, {}, says: {error}",
            coding.name()
        ))),
    }
}

fn collect(mut from: impl Read, limit: usize) -> io::Result<Option<Bytes>> {
    let (mut all, mut part) = (BytesMut::new(), [0; 8 << 10]);
    loop {
        let n = from.read(&mut part)?;
        let Some(part) = part.get(..n).filter(|part| !part.is_empty()) else { return Ok(Some(all.freeze())) };
        if all.len().saturating_add(n) > limit {
            return Ok(None);
        }
        all.put_slice(part);
    }
}

/// By hand: flate2's reader takes a stream that is cut off for one that ended.
fn inflate(body: &[u8], limit: usize) -> io::Result<Option<Bytes>> {
    // A stream of zlib begins with its method, 8, and a check that makes its first two bytes a multiple of 31.
    let zlib = match body {
        [first, second, ..] => first & 15 == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0,
        _ => false,
    };
    let (mut stream, mut all, mut part, mut rest) = (Decompress::new(zlib), BytesMut::new(), [0; 8 << 10], body);
    loop {
        let (read, written) = (stream.total_in(), stream.total_out());
        let status = stream.decompress(rest, &mut part, FlushDecompress::None)?;
        let (read, written) = ((stream.total_in() - read) as usize, (stream.total_out() - written) as usize);
        if all.len().saturating_add(written) > limit {
            return Ok(None);
        }
        all.put_slice(part.get(..written).unwrap_or_default());
        rest = rest.get(read..).unwrap_or_default();
        match status {
            Status::StreamEnd if rest.is_empty() => return Ok(Some(all.freeze())),
            Status::StreamEnd => return Err(io::Error::other(format!("{} bytes follow its end", rest.len()))),
            Status::Ok | Status::BufError if read == 0 && written == 0 => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

/// Compresses an answer, fast rather than small.
pub(crate) fn shrink(coding: Coding, body: &[u8]) -> io::Result<Bytes> {
    let (out, level) = (Vec::with_capacity(body.len() / 2), Compression::fast());
    let out = match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, level);
            encoder.write_all(body)?;
            encoder.finish()?
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, level);
            encoder.write_all(body)?;
            encoder.finish()?
        }
    };
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn what_was_compressed_is_expanded_again_and_no_further_than_it_may() {
        let text: Vec<u8> = (0..100_000u32).map(|n| (n / 7 % 256) as u8).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let small = shrink(coding, &text).unwrap();
            assert!(small.len() < text.len() / 10);
            assert_eq!(expand(coding, &small, text.len()).unwrap(), text);
            assert_eq!(expand(coding, &small, text.len() - 1), Err(Unexpanded::TooLarge));
            for cut in [0, 1, 5, small.len() / 2, small.len() - 1] {
                let cut = expand(coding, &small[..cut], text.len());
                assert!(matches!(&cut, Err(Unexpanded::Damaged(_))), "{coding:?} {cut:?}");
            }
        }
        assert!(matches!(expand(Coding::Gzip, b"hello, not compressed", 99), Err(Unexpanded::Damaged(_))));
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(&text).unwrap();
        assert_eq!(expand(Coding::Deflate, &bare.finish().unwrap(), text.len()).unwrap(), text);
    }

    /// Zeros, a thousandth of their size, and a bomb of many members.
    #[test]
    fn bombs_are_too_large_before_they_take_memory() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..256 {
            encoder.write_all(&[0; 64 << 10]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 32 << 10);
        assert_eq!(expand(Coding::Gzip, &bomb, 1 << 20), Err(Unexpanded::TooLarge));
        let bomb = shrink(Coding::Deflate, &[0; 2 << 20]).unwrap();
        assert_eq!(expand(Coding::Deflate, &bomb, 1 << 20), Err(Unexpanded::TooLarge));
        // It ends only if the bound acts while it is read.
        assert_eq!(collect(io::repeat(0), 1 << 20).unwrap(), None);
        let member = shrink(Coding::Gzip, &[0; 1000]).unwrap();
        assert_eq!(expand(Coding::Gzip, &member.repeat(100), 99_999), Err(Unexpanded::TooLarge));
        assert_eq!(expand(Coding::Gzip, &member.repeat(100), 100_000).unwrap().len(), 100_000);
    }

    #[test]
    fn a_request_says_one_thing_that_is_known() {
        for (value, is) in
            [("gzip", Some(Coding::Gzip)), ("X-GZIP", Some(Coding::Gzip)), ("deflate", Some(Coding::Deflate))]
        {
            assert_eq!(of_request(&headers(CONTENT_ENCODING, value)), Ok(is));
        }
        assert_eq!(of_request(&headers(CONTENT_ENCODING, "identity")), Ok(None));
        assert_eq!(of_request(&HeaderMap::new()), Ok(None));
        for value in ["br", "gzip, gzip", "zstd"] {
            assert!(of_request(&headers(CONTENT_ENCODING, value)).unwrap_err().contains("is not read"), "{value}");
        }
    }

    #[test]
    fn answers_are_compressed_as_the_client_likes() {
        let of = |value: &str| for_answer(&headers(ACCEPT_ENCODING, value), SMALLEST);
        for (value, is) in [
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate", Some(Coding::Gzip)),
            ("deflate, gzip;q=0.5", Some(Coding::Deflate)),
            ("deflate;q=0.1", Some(Coding::Deflate)),
            ("*", Some(Coding::Gzip)),
            ("gzip;q=0, *", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("identity", None),
            ("gzip;q=0.5, identity", None),
            ("br", None),
            ("", None),
        ] {
            assert_eq!(of(value), is, "{value}");
        }
        assert_eq!(for_answer(&HeaderMap::new(), SMALLEST), None);
        assert_eq!(for_answer(&headers(ACCEPT_ENCODING, "gzip"), SMALLEST - 1), None);
    }
}
