//! As much of an HTTP/1.1 client as the load generator needs: one keep-alive connection, bounded answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer is at most this long: a thousand times what a classifier of ten digits says.
const MAX_BODY: usize = 16 << 20;
const MAX_HEADERS: usize = 100;
const MAX_LINE: u64 = 16 << 10;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `200`, ….
    pub status: u16,
    /// Value of `Inference-Header-Content-Length`: the JSON's part of the body.
    pub json_length: Option<usize>,
    /// All of it.
    pub body: Vec<u8>,
}

/// A connection, made at the first request and again after it broke.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// Nothing is opened yet. No answer within `patience` is an error.
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        Self { address, patience, stream: None }
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address).as_bytes())
    }

    /// `POST path`; `json_length` is sent when raw tensors follow the JSON.
    pub fn post(&mut self, path: &str, json_length: Option<usize>, body: &[u8]) -> io::Result<Answer> {
        let mut request =
            format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len())
                .into_bytes();
        match json_length {
            Some(n) => request.extend_from_slice(
                format!("content-type: application/octet-stream\r\ninference-header-content-length: {n}\r\n\r\n")
                    .as_bytes(),
            ),
            None => request.extend_from_slice(b"content-type: application/json\r\n\r\n"),
        }
        request.extend_from_slice(body);
        self.exchange(&request)
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        // Taken out: whatever fails below, a broken connection is not used again.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, self.patience)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.patience))?;
                stream.set_write_timeout(Some(self.patience))?;
                BufReader::new(stream)
            }
        };
        let written = stream.get_mut().write_all(request);
        match (read_answer(&mut stream), written) {
            // A server may answer before it has read everything, "too large" for one, and close: writing fails then.
            (Ok((answer, keep)), written) => {
                self.stream = (keep && written.is_ok()).then_some(stream);
                Ok(answer)
            }
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.take(MAX_LINE).read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed instead of an answer"));
    }
    line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| bad("a header line is too long or cut off"))
}

/// The answer, and whether the connection may be used again.
fn read_answer(stream: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let status_line = line(stream)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|s| s.get(..3))
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| bad("not an HTTP/1.1 answer"))?;
    let (mut length, mut json_length, mut keep) = (None, None, true);
    for n in 0.. {
        let header = line(stream)?;
        if header.is_empty() {
            break;
        }
        if n == MAX_HEADERS {
            return Err(bad("too many headers"));
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.parse().map_err(|_| bad("content-length is not a number"))?),
            "inference-header-content-length" => {
                json_length = Some(value.parse().map_err(|_| bad("inference-header-content-length is not a number"))?);
            }
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let length: usize = length.ok_or_else(|| bad("an answer without content-length"))?;
    if length > MAX_BODY {
        return Err(bad("the answer is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((Answer { status, json_length, body }, keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_length() {
        let mut bytes = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"[..];
        let (first, keep) = read_answer(&mut bytes).unwrap();
        assert_eq!((first.status, first.body.as_slice(), keep), (200, &b"hi"[..], true));
        let (second, keep) = read_answer(&mut bytes).unwrap();
        assert_eq!((second.status, keep), (503, false));
        assert!(read_answer(&mut bytes).is_err());
    }

    #[test]
    fn an_answer_that_comes_before_the_request_was_read_is_read() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut start = [0; 100];
            stream.read_exact(&mut start).unwrap();
            stream.write_all(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            // Closed with most of the request unread: the client's writing fails.
        });
        let answer = Connection::new(address, Duration::from_secs(30)).post("/", None, &vec![b' '; 32 << 20]).unwrap();
        assert_eq!(answer.status, 413);
        server.join().unwrap();
    }

    #[test]
    fn broken_answers_are_errors() {
        for bytes in [
            "",
            "HTTP/1.1 2",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(read_answer(&mut bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }
}
