//! HTTP/1: the request as bytes, and the answer from bytes. Pure.
//!
//! ```text
//! Head ──(100–199)──→ Head
//!  │ status is bad ────────────────→ failure
//!  │ nothing is asked of the body ─→ done
//!  └→ Body: by length, in chunks, or until the end of the connection ─→ done at its end, or after 64 KiB
//! ```

use http::{Method, header};

use super::{
    MOST_BYTES,
    http::{Expectation, Request},
    quote::quote,
};
use crate::health::outcome::{Failure, Layer};

/// The most fields of an answer.
const MOST_FIELDS: usize = 128;
/// The longest line that frames a chunk.
const MOST_CHUNK_LINE_BYTES: usize = 4096;

/// HTTP/1.0 or 1.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Minor {
    /// HTTP/1.0.
    Zero,
    /// HTTP/1.1.
    One,
}

/// The request as it is sent; the server is asked to close the connection after its answer.
pub(super) fn write(request: &Request, minor: Minor) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512 + request.body.len());
    let version = match minor {
        Minor::Zero => " HTTP/1.0\r\n",
        Minor::One => " HTTP/1.1\r\n",
    };
    for part in [request.method.as_str(), " ", &request.path, version] {
        bytes.extend_from_slice(part.as_bytes());
    }
    let mut field = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    };
    field(b"host", request.authority.as_bytes());
    for (name, value) in &request.fields {
        field(name.as_ref(), value.as_bytes());
    }
    if request.has_length() {
        field(b"content-length", request.body.len().to_string().as_bytes());
    }
    field(b"connection", b"close");
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    bytes
}

/// Where an answer is while it comes.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    expectation: &'a Expectation<'a>,
    method: &'a Method,
    /// What came and is not understood yet.
    pending: Vec<u8>,
    framing: Option<Framing>,
    body: Vec<u8>,
}

/// How the rest of a body is told from what follows it. RFC 9112 s6.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// The line with a chunk's size comes next.
    ChunkSize,
    /// So many bytes of a chunk are left, its line end among them.
    Chunk(u64),
    /// The end of the connection ends it.
    Close,
    /// It is over.
    Over,
}

/// Whether an answer is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is good.
    Good,
    /// More has to come.
    Await,
}

impl<'a> Answer<'a> {
    /// Nothing came yet.
    pub(super) fn new(expectation: &'a Expectation<'a>, method: &'a Method) -> Self {
        Self { expectation, method, pending: Vec::new(), framing: None, body: Vec::new() }
    }

    /// Whether the head is there, and the body is read.
    pub(super) fn is_in_body(&self) -> bool {
        self.framing.is_some()
    }

    /// These bytes came.
    ///
    /// # Errors
    /// The answer is bad, or no HTTP.
    pub(super) fn handle_received(&mut self, bytes: &[u8]) -> Result<Verdict, Failure> {
        self.pending.extend_from_slice(bytes);
        while self.framing.is_none() {
            let Some((status, framing)) = self.take_head()? else { return Ok(Verdict::Await) };
            // RFC 9110 s15.2: any number of interim answers may come first. 101 is the last one.
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            self.expectation.judge_status(status)?;
            if !self.expectation.is_of_body() {
                return Ok(Verdict::Good);
            }
            self.framing = Some(framing);
        }
        self.take_body()
    }

    /// The connection ended.
    ///
    /// # Errors
    /// The answer is bad, or not complete.
    pub(super) fn handle_end(&self) -> Result<(), Failure> {
        match self.framing {
            None if self.pending.is_empty() => Err(bad("server closed the connection without an answer")),
            None => Err(bad(format!("answer ends within its head: {}", quote(&self.pending)))),
            Some(Framing::Length(left)) => Err(bad(format!("body ends {left} bytes too early"))),
            Some(Framing::ChunkSize | Framing::Chunk(_)) => Err(bad("body ends within its chunks")),
            Some(Framing::Close | Framing::Over) => self.expectation.judge_body(&self.body),
        }
    }

    /// Takes a head off the bytes that came: its status, and how its body is framed; none if it is not complete.
    fn take_head(&mut self) -> Result<Option<(u16, Framing)>, Failure> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(&self.pending) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.pending.len() < MOST_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(bad("answer's head is longer than 64 KiB")),
            Err(httparse::Error::TooManyHeaders) => return Err(bad(format!("answer has more than {MOST_FIELDS} fields"))),
            Err(_) => return Err(bad(format!("answer is no HTTP: {}", quote(&self.pending)))),
        };
        let status = head.code.unwrap_or_default();
        let has_no_body = self.method == Method::HEAD || matches!(status, 100..=199 | 204 | 304);
        let framing = if has_no_body { Framing::Over } else { framing(head.headers)? };
        self.pending.drain(..length);
        Ok(Some((status, framing)))
    }

    fn take_body(&mut self) -> Result<Verdict, Failure> {
        while let Some(framing) = self.framing {
            if framing == Framing::Over || self.body.len() >= MOST_BYTES {
                self.body.truncate(MOST_BYTES);
                return self.expectation.judge_body(&self.body).map(|()| Verdict::Good);
            }
            match framing {
                Framing::Close => self.body.append(&mut self.pending),
                Framing::Length(left) => {
                    let left = left - self.take_piece(left, left);
                    self.framing = Some(if left == 0 { Framing::Over } else { Framing::Length(left) });
                }
                Framing::Chunk(left) => {
                    // Its last two bytes are the line end.
                    let left = left - self.take_piece(left.saturating_sub(2), left);
                    self.framing = Some(if left == 0 { Framing::ChunkSize } else { Framing::Chunk(left) });
                }
                Framing::ChunkSize => self.take_chunk_size()?,
                Framing::Over => {}
            }
            let is_complete = self.framing == Some(Framing::Over) || self.body.len() >= MOST_BYTES;
            if !is_complete && (self.pending.is_empty() || self.framing == Some(framing)) {
                return Ok(Verdict::Await);
            }
        }
        Ok(Verdict::Await)
    }

    /// Takes at most `of_message` bytes; the first `of_body` of them are the body's. Returns how many were taken.
    fn take_piece(&mut self, of_body: u64, of_message: u64) -> u64 {
        let capped = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(self.pending.len());
        let (of_body, of_message) = (capped(of_body), capped(of_message));
        self.body.extend_from_slice(&self.pending[..of_body]);
        self.pending.drain(..of_message);
        of_message as u64
    }

    fn take_chunk_size(&mut self) -> Result<(), Failure> {
        match httparse::parse_chunk_size(&self.pending) {
            // What may follow are trailers, which nobody asked for.
            Ok(httparse::Status::Complete((_, 0))) => self.framing = Some(Framing::Over),
            Ok(httparse::Status::Complete((length, size))) => {
                self.pending.drain(..length);
                self.framing = Some(Framing::Chunk(size.saturating_add(2)));
            }
            Ok(httparse::Status::Partial) if self.pending.len() < MOST_CHUNK_LINE_BYTES => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(bad(format!("body is not in chunks: {}", quote(&self.pending)))),
        }
        Ok(())
    }
}

fn framing(fields: &[httparse::Header<'_>]) -> Result<Framing, Failure> {
    let values = |name: header::HeaderName| {
        fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_str())).map(|field| field.value.trim_ascii())
    };
    if let Some(codings) = values(header::TRANSFER_ENCODING).last() {
        let last = codings.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        return Ok(if last.eq_ignore_ascii_case(b"chunked") { Framing::ChunkSize } else { Framing::Close });
    }
    let mut lengths = values(header::CONTENT_LENGTH);
    let Some(first) = lengths.next() else { return Ok(Framing::Close) };
    let length =
        str::from_utf8(first).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
    match length {
        Some(length) if lengths.all(|other| other == first) => Ok(if length == 0 { Framing::Over } else { Framing::Length(length) }),
        Some(_) => Err(bad("answer has more than one length")),
        None => Err(bad(format!("answer's length is no number: {}", quote(first)))),
    }
}

fn bad(text: impl Into<String>) -> Failure {
    Failure::new(Layer::L7, text)
}

#[cfg(test)]
mod tests;
