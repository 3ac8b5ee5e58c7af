//! A numbered, checksummed message.
//!
//! | offset | bytes | what, in network order |
//! |---|---|---|
//! | 0 | 4 | `WEIR` |
//! | 4 | 4 | length of the payload |
//! | 8 | 8 | connection |
//! | 16 | 8 | number within the connection |
//! | 24 | 8 | hash of all the others and the payload |
//! | 32 | | payload |

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read},
};

const MAGIC: [u8; 4] = *b"WEIR";
/// Length of all before the payload.
pub const HEADER_BYTES: usize = 32;
const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Chosen at random by the client.
    pub connection: u64,
    /// Counts up from 0 in each direction.
    pub number: u64,
    /// At most 1 MiB.
    pub payload: Vec<u8>,
}

/// Why a connection is broken.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer ended it.
    #[error("closed by the peer")]
    Closed,
    /// No answer came in time.
    #[error("no answer in time")]
    Silent,
    /// The kernel reported an error.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// Bytes differ from what was sent.
    #[error("the bytes of a message were changed")]
    Changed,
    /// A message of another connection, or one out of turn.
    #[error("message {got} of connection {got_connection:x} in place of {expected} of {expected_connection:x}")]
    Misplaced {
        /// Whose turn it was.
        expected: u64,
        /// On this connection.
        expected_connection: u64,
        /// What came.
        got: u64,
        /// Of this connection.
        got_connection: u64,
    },
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Closed
        } else if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) {
            Self::Silent
        } else {
            Self::Io(error)
        }
    }
}

impl Message {
    /// A message whose payload of `bytes` follows from the other two.
    pub fn filled(connection: u64, number: u64, bytes: usize) -> Self {
        let mut state = connection ^ number.rotate_left(32) | 1;
        let next = std::iter::repeat_with(|| {
            // xorshift64: all that is asked is that no two messages look alike.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        });
        Self { connection, number, payload: next.flatten().take(bytes).collect() }
    }

    /// Its bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("payloads are at most 1 MiB");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.payload.len());
        bytes.extend(MAGIC);
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.connection.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.checksum().to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads one message whole.
    pub fn read(stream: &mut impl Read) -> Result<Self, Broken> {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let (length, mut message, checksum) = parse_header(&header)?;
        message.payload.resize(length, 0);
        stream.read_exact(&mut message.payload)?;
        message.verify(checksum)
    }

    /// The message that a datagram begins with, and what follows it.
    pub fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), Broken> {
        let (header, rest) = datagram.split_first_chunk().ok_or(Broken::Changed)?;
        let (length, mut message, checksum) = parse_header(header)?;
        let (payload, rest) = rest.split_at_checked(length).ok_or(Broken::Changed)?;
        message.payload.extend(payload);
        Ok((message.verify(checksum)?, rest))
    }

    /// This message if it is number `number` of `connection`.
    pub fn expect(self, connection: u64, number: u64) -> Result<Self, Broken> {
        if (self.connection, self.number) == (connection, number) {
            return Ok(self);
        }
        Err(Broken::Misplaced { expected: number, expected_connection: connection, got: self.number, got_connection: self.connection })
    }

    fn verify(self, checksum: u64) -> Result<Self, Broken> {
        if self.checksum() == checksum { Ok(self) } else { Err(Broken::Changed) }
    }

    fn checksum(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.connection, self.number, &self.payload).hash(&mut hasher);
        hasher.finish()
    }
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Result<(usize, Message, u64), Broken> {
    let word = |offset: usize| u64::from_be_bytes(header[offset..offset + 8].try_into().expect("eight bytes of the header"));
    let length = usize::try_from(word(0) & 0xffff_ffff).map_err(|_too_long| Broken::Changed)?;
    if header[..4] != MAGIC || length > MAX_PAYLOAD_BYTES {
        return Err(Broken::Changed);
    }
    Ok((length, Message { connection: word(8), number: word(16), payload: Vec::new() }, word(24)))
}

#[cfg(test)]
mod tests {
    use super::{Broken, HEADER_BYTES, Message};

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let message = Message::filled(7, 3, 100);
        let bytes = message.encode();
        assert_eq!(bytes.len(), HEADER_BYTES + 100);
        assert_eq!(Message::read(&mut &bytes[..]).unwrap(), message);
        assert_eq!(Message::decode(&[&bytes[..], b"s1"].concat()).unwrap(), (message, &b"s1"[..]));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let bytes = Message::filled(7, 3, 20).encode();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::decode(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_message_of_another_connection_is_misplaced() {
        assert!(matches!(Message::filled(7, 3, 0).expect(8, 3), Err(Broken::Misplaced { got_connection: 7, .. })));
        assert!(matches!(Message::filled(7, 3, 0).expect(7, 4), Err(Broken::Misplaced { got: 3, .. })));
    }

    #[test]
    fn an_end_within_a_message_is_a_close() {
        let bytes = Message::filled(7, 3, 20).encode();
        assert!(matches!(Message::read(&mut &bytes[..40]), Err(Broken::Closed)));
    }
}
