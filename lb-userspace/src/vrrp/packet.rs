//! Adverts on the wire: what follows the IP header.
//!
//! ```text
//!   version 3 (RFC 9568 s5.1)                          version 2 (RFC 3768 s5.1)
//!    0       1       2       3                          0       1       2       3
//!   +---+---+-------+-------+-------+                  +---+---+-------+-------+-------+
//!   | 3 | 1 | id    |priorit| count |                  | 2 | 1 | id    |priorit| count |
//!   +---+---+-------+-------+-------+                  +---+---+-------+-------+-------+
//!   |rsv| interval  | checksum      |                  | auth  |interva| checksum      |
//!   +---+-----------+---------------+                  +-------+-------+---------------+
//!   | count addresses of 4 or 16 B  |                  | count addresses of 4 B        |
//!   +-------------------------------+                  +-------------------------------+
//!                                                      | 8 B of authentication         |
//!                                                      +-------------------------------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    addresses::AddressList,
    checksum::{checksum, pseudo_header},
    refusal::Refusal,
    terms::{AdvertPriority, Family, Interval, RouterId, Version},
};

const HEADER_BYTES: usize = 8;
const CHECKSUM_AT: usize = 6;
const PASSWORD_BYTES: usize = 8;
const TYPE_ADVERT: u8 = 1;
/// RFC 9568 s5.1.1.3 and s5.1.2.3: no router lies between.
pub const HOP_LIMIT: u8 = 255;

/// An advert as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// From and to whom.
    pub ends: Ends,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// What follows the IP header and its extensions.
    pub payload: &'a [u8],
}

/// The addresses of the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The sender's address on the link: its primary address.
    pub source: IpAddr,
    /// The group, or this router.
    pub destination: IpAddr,
}

/// What an advert says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    /// Of which protocol.
    pub version: Version,
    /// Of which virtual router.
    pub router: RouterId,
    /// The sender's priority.
    pub priority: AdvertPriority,
    /// How often the sender adverts.
    pub interval: Interval,
    /// The addresses of the virtual router.
    pub addresses: AddressList,
}

/// What the checksum of version 3 over IPv4 covers. Version 2 has always the first form, IPv6 always the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumForm {
    /// The message alone, as RFC 9568 s5.2.8 says.
    #[default]
    Message,
    /// A pseudo-header before it, as keepalived understands RFC 5798.
    PseudoHeader,
}

/// How adverts of version 2 are authenticated (RFC 2338 s5.3.6). Version 3 has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Authentication {
    /// Type 0.
    #[default]
    None,
    /// Type 1: a password that everybody on the link can read, padded with zeros.
    Password([u8; PASSWORD_BYTES]),
}

impl Authentication {
    const fn kind(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Password(_) => 1,
        }
    }

    const fn bytes(self) -> [u8; PASSWORD_BYTES] {
        match self {
            Self::None => [0; PASSWORD_BYTES],
            Self::Password(password) => password,
        }
    }
}

/// Which virtual router a payload names, of whatever version.
#[must_use]
pub fn router_of(payload: &[u8]) -> Option<RouterId> {
    RouterId::new(*payload.get(1)?)
}

/// The addresses that a payload names, of whatever version and however it is authenticated; none that is no advert's.
#[must_use]
pub fn addresses_of(received: &Received<'_>) -> Option<AddressList> {
    let family = Family::of(received.ends.source);
    let (message, _) = split(received).ok()?;
    Some(addresses(&message[HEADER_BYTES..], family, header(message).ok()?.count))
}

/// Which form of the checksum a sender of version 3 over IPv4 uses, as it is right: routers that take one form only send the form that they
/// take, so this is the form to answer in. None where there is no choice, or neither is right.
#[must_use]
pub fn checksum_form_of(received: &Received<'_>) -> Option<ChecksumForm> {
    let message = received.payload;
    let is_choice = received.ends.source.is_ipv4() && header(message).is_ok_and(|header| header.version == Version::V3);
    if !is_choice {
        return None;
    }
    if checksum(message, 0) == 0 {
        return Some(ChecksumForm::Message);
    }
    is_sum_right_with_pseudo_header(message, received.ends).then_some(ChecksumForm::PseudoHeader)
}

/// Reads an advert of a version. Over IPv4 both forms of the checksum are right in version 3.
///
/// # Errors
/// Why it counts for nothing (RFC 9568 s7.1, RFC 3768 s7.1).
pub fn decode(received: &Received<'_>, version: Version, authentication: Authentication) -> Result<Advert, Refusal> {
    check_ends(received)?;
    let message = received.payload;
    let header = header(message)?;
    let family = Family::of(received.ends.source);
    if header.version != version || (version, family) == (Version::V2, Family::V6) {
        return Err(Refusal::Version);
    }
    if message.len() != header.message_bytes(family) {
        return Err(Refusal::Length);
    }
    if !is_sum_right(message, version, received.ends) {
        return Err(Refusal::Checksum);
    }
    let interval = match version {
        Version::V2 => {
            check_password(message, authentication)?;
            Interval::from_seconds(message[5])
        }
        Version::V3 => Interval::from_centiseconds(u16::from_be_bytes([message[4], message[5]])),
    };
    Ok(Advert {
        version,
        router: header.router,
        priority: header.priority,
        interval: interval.ok_or(Refusal::NoInterval)?,
        addresses: addresses(&message[HEADER_BYTES..], family, header.count),
    })
}

impl Advert {
    /// The payload of an IP packet between these ends, which are of the addresses' family. `form` and `authentication` count where the
    /// version and the family leave a choice.
    #[must_use]
    pub fn encode(&self, ends: Ends, form: ChecksumForm, authentication: Authentication) -> Vec<u8> {
        let addresses = self.addresses.as_slice();
        let [fifth, sixth] = match self.version {
            Version::V2 => [authentication.kind(), self.interval.seconds()],
            Version::V3 => self.interval.centiseconds().to_be_bytes(),
        };
        let first = version_number(self.version) << 4 | TYPE_ADVERT;
        let mut message = vec![first, self.router.number(), self.priority.number(), addresses.len() as u8, fifth, sixth, 0, 0];
        for address in addresses {
            match address {
                IpAddr::V4(v4) => message.extend(v4.octets()),
                IpAddr::V6(v6) => message.extend(v6.octets()),
            }
        }
        if self.version == Version::V2 {
            message.extend(authentication.bytes());
        }
        let before = match (self.version, Family::of(ends.source), form) {
            (Version::V2, _, _) | (Version::V3, Family::V4, ChecksumForm::Message) => 0,
            (Version::V3, Family::V6, _) | (Version::V3, Family::V4, ChecksumForm::PseudoHeader) => {
                pseudo_header(ends.source, ends.destination, message.len())
            }
        };
        let sum = checksum(&message, before).to_be_bytes();
        message[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum);
        message
    }
}

/// Whether it can come from this link, and both ends are of one family.
pub(super) fn check_ends(received: &Received<'_>) -> Result<(), Refusal> {
    if received.hop_limit != HOP_LIMIT {
        return Err(Refusal::HopLimit);
    }
    if received.ends.source.is_ipv4() != received.ends.destination.is_ipv4() {
        return Err(Refusal::Families);
    }
    Ok(())
}

/// The message of a payload, and what follows it.
pub(super) fn split<'a>(received: &Received<'a>) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let length = header(received.payload)?.message_bytes(Family::of(received.ends.source));
    received.payload.split_at_checked(length).ok_or(Refusal::Length)
}

/// The first four bytes.
struct Header {
    version: Version,
    router: RouterId,
    priority: AdvertPriority,
    count: u8,
}

impl Header {
    fn message_bytes(&self, family: Family) -> usize {
        let password = if self.version == Version::V2 { PASSWORD_BYTES } else { 0 };
        HEADER_BYTES + usize::from(self.count) * address_bytes(family) + password
    }
}

fn header(message: &[u8]) -> Result<Header, Refusal> {
    if message.len() < HEADER_BYTES {
        return Err(Refusal::Short);
    }
    let [first, id, priority, count] = [message[0], message[1], message[2], message[3]];
    let version = [Version::V2, Version::V3].into_iter().find(|version| version_number(*version) == first >> 4).ok_or(Refusal::Version)?;
    if first & 0xf != TYPE_ADVERT {
        return Err(Refusal::Type);
    }
    if count == 0 {
        return Err(Refusal::NoAddress);
    }
    Ok(Header { version, router: RouterId::new(id).ok_or(Refusal::NoRouter)?, priority: priority.into(), count })
}

const fn version_number(version: Version) -> u8 {
    match version {
        Version::V2 => 2,
        Version::V3 => 3,
    }
}

const fn address_bytes(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

fn is_sum_right(message: &[u8], version: Version, ends: Ends) -> bool {
    let with_pseudo_header = || is_sum_right_with_pseudo_header(message, ends);
    match (version, Family::of(ends.source)) {
        (Version::V2, _) => checksum(message, 0) == 0,
        (Version::V3, Family::V4) => checksum(message, 0) == 0 || with_pseudo_header(),
        (Version::V3, Family::V6) => with_pseudo_header(),
    }
}

fn is_sum_right_with_pseudo_header(message: &[u8], ends: Ends) -> bool {
    checksum(message, pseudo_header(ends.source, ends.destination, message.len())) == 0
}

fn check_password(message: &[u8], agreed: Authentication) -> Result<(), Refusal> {
    if message[4] != agreed.kind() {
        return Err(Refusal::AuthType);
    }
    match agreed {
        Authentication::None => Ok(()),
        Authentication::Password(password) if message.ends_with(&password) => Ok(()),
        Authentication::Password(_) => Err(Refusal::Password),
    }
}

fn addresses(bytes: &[u8], family: Family, count: u8) -> AddressList {
    let count = usize::from(count);
    AddressList::heard(match family {
        Family::V4 => bytes.as_chunks::<4>().0.iter().take(count).map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))).collect(),
        Family::V6 => bytes.as_chunks::<16>().0.iter().take(count).map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))).collect(),
    })
}

#[cfg(test)]
mod tests;
