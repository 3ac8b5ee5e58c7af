//! The scripted dialogue: what is sent, and what has to come back. Pure.

use regex::bytes::Regex;

use super::{MOST_BYTES, quote::quote};
use crate::{
    config::model::Step,
    health::outcome::{Failure, Layer},
};

/// A dialogue under way.
#[derive(Debug)]
pub(super) struct Dialogue<'a> {
    steps: &'a [Step],
    /// The patterns of the steps that match one, in their order; those of steps that are done are gone.
    patterns: Vec<Regex>,
    /// What came since the last match.
    received: Vec<u8>,
}

/// What has to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output<'a> {
    /// These bytes have to be sent.
    Send(&'a [u8]),
    /// More has to come.
    Await,
    /// All came as it should.
    Done,
}

impl<'a> Dialogue<'a> {
    /// At its beginning. `pattern` compiles what the configuration holds as text.
    ///
    /// # Errors
    /// Those of `pattern`.
    pub(super) fn new(steps: &'a [Step], pattern: impl Fn(&str) -> Result<Regex, Failure>) -> Result<Self, Failure> {
        let texts = steps.iter().rev().filter_map(|step| match step {
            Step::ExpectMatch(text) => Some(text),
            Step::Send(_) | Step::Expect(_) => None,
        });
        let patterns = texts.map(|text| pattern(text)).collect::<Result<_, _>>()?;
        Ok(Self { steps, patterns, received: Vec::new() })
    }

    /// These bytes came.
    pub(super) fn handle_received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The server sends nothing more: why that is bad.
    pub(super) fn handle_end(&self) -> Failure {
        let text = match (self.expected(), self.received.as_slice()) {
            (expected, []) => format!("server closed the connection before {expected} came"),
            (expected, received) => format!("server closed the connection; expected {expected}, received {}", quote(received)),
        };
        Failure::new(Layer::L7, text)
    }

    /// What has to be done next.
    ///
    /// # Errors
    /// 64 KiB came, and what is awaited is not among them.
    pub(super) fn poll_output(&mut self) -> Result<Output<'a>, Failure> {
        while let Some((step, rest)) = self.steps.split_first() {
            let end = match step {
                Step::Send(bytes) => {
                    self.steps = rest;
                    return Ok(Output::Send(bytes));
                }
                Step::Expect(bytes) => end_of(&self.received, bytes),
                Step::ExpectMatch(_) => self.patterns.last().and_then(|pattern| Some(pattern.find(&self.received)?.end())),
            };
            let Some(end) = end else { return self.wait() };
            self.received.drain(..end);
            if matches!(step, Step::ExpectMatch(_)) {
                self.patterns.pop();
            }
            self.steps = rest;
        }
        Ok(Output::Done)
    }

    fn wait(&self) -> Result<Output<'a>, Failure> {
        if self.received.len() < MOST_BYTES {
            return Ok(Output::Await);
        }
        Err(Failure::new(Layer::L7, format!("64 KiB came without {}: {}", self.expected(), quote(&self.received))))
    }

    fn expected(&self) -> String {
        match self.steps.first() {
            Some(Step::Expect(bytes)) => quote(bytes),
            Some(Step::ExpectMatch(pattern)) => format!("a match of {}", quote(pattern.as_bytes())),
            Some(Step::Send(_)) | None => "the dialogue's end".to_owned(),
        }
    }
}

/// Where the first occurrence of `needle` ends.
pub(super) fn end_of(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle).map(|start| start + needle.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regex(text: &str) -> Result<Regex, Failure> {
        Ok(Regex::new(text).unwrap())
    }

    fn steps() -> [Step; 4] {
        [
            Step::Send(b"PING\r\n".into()),
            Step::Expect(b"PONG".into()),
            Step::Send(b"INFO\r\n".into()),
            Step::ExpectMatch("role:(a|b)".into()),
        ]
    }

    #[test]
    fn sends_and_awaits_in_the_order_of_the_steps() {
        let steps = steps();
        let mut dialogue = Dialogue::new(&steps, regex).unwrap();
        assert_eq!(dialogue.poll_output(), Ok(Output::Send(b"PING\r\n")));
        assert_eq!(dialogue.poll_output(), Ok(Output::Await));
        dialogue.handle_received(b"+PO");
        assert_eq!(dialogue.poll_output(), Ok(Output::Await));
        dialogue.handle_received(b"NG\r\n");
        assert_eq!(dialogue.poll_output(), Ok(Output::Send(b"INFO\r\n")));
        dialogue.handle_received(b"role:b");
        assert_eq!(dialogue.poll_output(), Ok(Output::Done));
    }

    #[test]
    fn what_was_matched_is_not_matched_again() {
        let steps = [Step::Expect(b"ok".into()), Step::Expect(b"ok".into())];
        let mut dialogue = Dialogue::new(&steps, regex).unwrap();
        dialogue.handle_received(b"ok ");
        assert_eq!(dialogue.poll_output(), Ok(Output::Await));
        dialogue.handle_received(b"ok");
        assert_eq!(dialogue.poll_output(), Ok(Output::Done));
    }

    #[test]
    fn a_server_that_closes_early_is_quoted() {
        let steps = steps();
        let mut dialogue = Dialogue::new(&steps, regex).unwrap();
        dialogue.poll_output().unwrap();
        assert_eq!(dialogue.handle_end().text, "server closed the connection before \"PONG\" came");
        dialogue.handle_received(b"-LOADING\r\n");
        assert_eq!(dialogue.handle_end().text, "server closed the connection; expected \"PONG\", received \"-LOADING\\r\\n\"");
    }

    #[test]
    fn sixty_four_kibibytes_are_enough() {
        let steps = [Step::ExpectMatch("^x".into())];
        let mut dialogue = Dialogue::new(&steps, regex).unwrap();
        dialogue.handle_received(&[b'a'; MOST_BYTES - 1]);
        assert_eq!(dialogue.poll_output(), Ok(Output::Await));
        dialogue.handle_received(b"a");
        let text = format!("64 KiB came without a match of \"^x\": \"{}…\"", "a".repeat(60));
        assert_eq!(dialogue.poll_output(), Err(Failure::new(Layer::L7, text)));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_taken(pieces: Vec<Vec<u8>>) {
            let steps = [Step::Expect(b"a".into()), Step::ExpectMatch("b".into()), Step::Expect(b"cd".into())];
            let mut dialogue = Dialogue::new(&steps, regex).unwrap();
            for piece in &pieces {
                dialogue.handle_received(piece);
                let _ = dialogue.poll_output();
            }
            let _ = dialogue.handle_end();
        }
    }
}
