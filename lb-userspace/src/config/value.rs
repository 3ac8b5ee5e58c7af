//! The small languages inside strings: durations, rates, binds, endpoints, networks, names.

use std::{
    fmt,
    net::{AddrParseError, IpAddr, Ipv6Addr, SocketAddr},
    num::ParseIntError,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::model::{Bind, Protocol, Rate};
use crate::vrrp::terms::IntervalError;

/// Why a string is not what its key asks for.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("{text:?} is not an IP address")]
    Address { text: String, source: AddrParseError },
    #[error("{0:?} is an IPv4 address written as IPv6")]
    Mapped(String),
    #[error("{address} is {kind}")]
    NotUnicast { address: IpAddr, kind: &'static str },
    #[error("{0} is of the other address family")]
    Family(IpAddr),
    #[error("{0:?} has no brackets around its IPv6 address")]
    NoBrackets(String),
    #[error("{0:?} has no port")]
    NoPort(String),
    #[error("{0:?} is a range of ports")]
    PortRange(String),
    #[error("{0:?} is not a port")]
    Port(String),
    #[error("{0:?} is not a protocol")]
    Protocol(String),
    #[error("{text:?} is not a duration")]
    Duration { text: String, source: humantime::DurationError },
    #[error("{text:?} is not from {least} to {most}")]
    DurationRange { text: String, least: humantime::Duration, most: humantime::Duration },
    #[error("{0:?} is not a whole number of seconds")]
    PartOfSecond(String),
    #[error("{0:?} is not a rate")]
    Rate(String),
    #[error("{text:?} does not begin with a number of connections")]
    RateCount { text: String, source: ParseIntError },
    #[error("{0:?} is no connection at all, or more than 1 000 000 a second")]
    RateRange(String),
    #[error("{text:?} is not a network")]
    Network { text: String, source: ipnet::AddrParseError },
    #[error("{0:?} is not a name")]
    Name(String),
    #[error("{0:?} is not the name of an interface")]
    Interface(String),
    #[error("{0:?} is not an absolute path")]
    Path(String),
    #[error("the string is empty")]
    Empty,
    #[error("{0:?} is not in hex")]
    Hex(String),
    #[error("{text:?} is not a regular expression")]
    Pattern { text: String, source: Box<regex::Error> },
    #[error("{0:?} is not a method and a path")]
    Request(String),
    #[error("{0:?} is not a status, or a range of them")]
    Status(String),
    #[error("{0:?} is not a user's name")]
    User(String),
    #[error("{0:?} is not the name of a host")]
    Host(String),
    #[error("{0:?} is not a percentage")]
    Percentage(String),
    #[error(transparent)]
    Interval(IntervalError),
    #[error("{0:?} is not an address with its prefix")]
    Prefixed(String),
    #[error("the prefix of {text:?} must have from 1 to {most} bits")]
    PrefixRange { text: String, most: u8 },
    #[error("a password of version 2 has 1 to 8 bytes")]
    Password,
    #[error("{0:?} is not a label")]
    Label(String),
}

impl ValueError {
    /// What would be right.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Address { .. } => "host names are not looked up here: write \"192.0.2.10\" or \"2001:db8::10\"",
            Self::Mapped(_) => "write \"192.0.2.10\" instead of \"::ffff:192.0.2.10\"",
            Self::NotUnicast { .. } => "write the one address that packets are sent to",
            Self::Family(_) => "IPv4 goes to the key that ends in 4, IPv6 to the one that ends in 6",
            Self::NoBrackets(_) => "write \"[2001:db8::10]:443\"",
            Self::NoPort(_) => "append \":80\" for one port, \":*\" for every port that no other bind takes",
            Self::PortRange(_) => "write one bind for each port, or \":*\" for every port that no other bind takes",
            Self::Port(_) => "ports are from 1 to 65535",
            Self::Protocol(_) => "write \"/tcp\", which is the default, or \"/udp\"",
            Self::Duration { .. } => "write a number and its unit: \"500ms\", \"30s\", \"10m\", \"1h30m\"",
            Self::DurationRange { .. } => "the unit belongs to the number: \"500ms\", \"30s\", \"10m\", \"1h30m\"",
            Self::PartOfSecond(_) => "the kernel side counts seconds",
            Self::Rate(_) | Self::RateCount { .. } | Self::RateRange(_) => "write connections \"/\" duration, as \"100/10s\", or \"off\"",
            Self::Network { .. } => "write \"10.0.0.0/8\", \"2001:db8::/32\" or one address",
            Self::Name(_) => "names have 1 to 64 letters, digits, `-`, `_` and `.`",
            Self::Interface(_) => "names of interfaces have 1 to 15 characters without spaces and `/`",
            Self::Path(_) => "write it from the root: it begins with `/`",
            Self::Empty => "leave the key out to have its default",
            Self::Hex(_) => "two digits a byte, with spaces or without: \"01 ff\"",
            Self::Pattern { .. } => "the syntax is that of RE2, without look-around and back-references",
            Self::Request(_) => "write \"GET /healthz\", with GET, HEAD, POST, PUT or OPTIONS",
            Self::Status(_) => "write 200, \"200-399\", or a list of these",
            Self::User(_) => "names of users have 1 to 63 printable characters",
            Self::Host(_) => "write \"www.example.com\"",
            Self::Percentage(_) => "write \"50%\", or \"off\"",
            Self::Interval(IntervalError::Centiseconds) => "the same on all nodes: \"1s\", \"100ms\", \"10ms\"",
            Self::Interval(IntervalError::Seconds) => "the same on all nodes: \"1s\", \"2s\"",
            Self::Prefixed(_) | Self::PrefixRange { .. } => "write \"198.51.100.1/24\", or \"198.51.100.1\" for a whole address",
            Self::Password => "all nodes have the same; everybody on the link can read it",
            Self::Label(_) => "labels have 1 to 15 characters",
        }
    }
}

/// Letters, digits, `-`, `_` and `.`, so that `POOL/SERVER` can be typed at a shell.
pub(super) fn check_name(text: &str) -> Result<(), ValueError> {
    let is_fit = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = (1..=64).contains(&text.chars().count()) && text.chars().all(is_fit);
    if is_name { Ok(()) } else { Err(ValueError::Name(text.to_owned())) }
}

/// linux v6.18 net/core/dev.c, dev_valid_name().
pub(super) fn interface(text: &str) -> Result<String, ValueError> {
    let is_fit = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    let is_name = (1..=15).contains(&text.len()) && text != "." && text != ".." && text.chars().all(is_fit);
    if is_name { Ok(text.to_owned()) } else { Err(ValueError::Interface(text.to_owned())) }
}

/// A string with something in it.
pub(super) fn not_empty(text: &str) -> Result<String, ValueError> {
    if text.trim().is_empty() { Err(ValueError::Empty) } else { Ok(text.to_owned()) }
}

/// An IP address that can be a packet's destination on a network.
pub(super) fn unicast(text: &str) -> Result<IpAddr, ValueError> {
    check_unicast(address(text)?, text)
}

/// `ADDRESS:PORT/PROTOCOL`; the port may be `*`, the protocol is TCP if absent.
pub(super) fn bind(text: &str) -> Result<Bind, ValueError> {
    let (endpoint, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((endpoint, "tcp")) => (endpoint, Protocol::Tcp),
        Some((endpoint, "udp")) => (endpoint, Protocol::Udp),
        Some((_, other)) => return Err(ValueError::Protocol(other.to_owned())),
    };
    match split_endpoint(endpoint)? {
        (IpAddr::V6(_), None) if !endpoint.starts_with('[') => Err(ValueError::NoBrackets(text.to_owned())),
        (_, None) => Err(ValueError::NoPort(text.to_owned())),
        (address, Some("*")) => Ok(Bind { address, port: None, protocol }),
        (address, Some(port)) => Ok(Bind { address, port: Some(parse_port(port)?), protocol }),
    }
}

/// As [`bind`] reads it.
impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}")?,
            None => f.write_str("*")?,
        }
        f.write_str(match self.protocol {
            Protocol::Tcp => "/tcp",
            Protocol::Udp => "/udp",
        })
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
pub(super) fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), ValueError> {
    let (address, port) = split_endpoint(text)?;
    Ok((address, port.map(parse_port).transpose()?))
}

/// An address with a prefix length, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, ValueError> {
    let parsed = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|source| ValueError::Network { text: text.to_owned(), source })?,
    };
    match parsed {
        IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => Err(ValueError::Mapped(text.to_owned())),
        IpNet::V4(_) | IpNet::V6(_) => Ok(parsed),
    }
}

/// The idle time of flows: whole seconds, 1 s to 4 h.
pub(super) fn idle_time(text: &str) -> Result<Duration, ValueError> {
    let duration = duration(text, Duration::from_secs(1), Duration::from_secs(4 * 3600))?;
    if duration.subsec_nanos() == 0 { Ok(duration) } else { Err(ValueError::PartOfSecond(text.to_owned())) }
}

/// `ADDRESS` or `ADDRESS:PORT` of a name server, which may be this machine.
pub(super) fn nameserver(text: &str) -> Result<(IpAddr, Option<u16>), ValueError> {
    match text.parse::<SocketAddr>() {
        Ok(endpoint) if endpoint.port() > 0 => Ok((endpoint.ip(), Some(endpoint.port()))),
        Ok(_) | Err(_) => Ok((address(text)?, None)),
    }
}

/// How long an answer of the DNS is good: 1 s to 1 day.
pub(super) fn ttl(text: &str) -> Result<Duration, ValueError> {
    duration(text, Duration::from_secs(1), Duration::from_secs(24 * 3600))
}

/// The time that a lookup may take: 100 ms to 1 min.
pub(super) fn lookup_timeout(text: &str) -> Result<Duration, ValueError> {
    duration(text, Duration::from_millis(100), Duration::from_secs(60))
}

/// The times of a check: 10 ms to 1 h.
pub(super) fn check_interval(text: &str) -> Result<Duration, ValueError> {
    duration(text, Duration::from_millis(10), Duration::from_secs(3600))
}

/// The time over which a server regains its weight: up to 1 h, or `off`.
pub(super) fn slow_start(text: &str) -> Result<Duration, ValueError> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text, Duration::from_secs(1), Duration::from_secs(3600)) }
}

/// `50%`, or `off`.
pub(super) fn percentage(text: &str) -> Result<u8, ValueError> {
    if text == "off" {
        return Ok(0);
    }
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    number.filter(|number| *number <= 100).ok_or_else(|| ValueError::Percentage(text.to_owned()))
}

/// Bytes in hex, two digits each, with spaces between them or without.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, ValueError> {
    let digits: Option<Vec<u8>> = text.chars().filter(|c| !c.is_whitespace()).map(|c| Some(c.to_digit(16)? as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()),
        Some(_) | None => Err(ValueError::Hex(text.to_owned())),
    }
}

/// A regular expression of the `regex` crate.
pub(super) fn pattern(text: &str) -> Result<String, ValueError> {
    match regex::bytes::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(source) => Err(ValueError::Pattern { text: text.to_owned(), source: Box::new(source) }),
    }
}

/// A method and a path: what an HTTP check asks for. The path alone is asked for by GET.
pub(super) fn request_line(text: &str) -> Result<(String, String), ValueError> {
    const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "PUT", "OPTIONS"];
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let is_path = (path.starts_with('/') || path == "*" && method == "OPTIONS") && path.bytes().all(|byte| byte.is_ascii_graphic());
    if METHODS.contains(&method) && is_path { Ok((method.to_owned(), path.to_owned())) } else { Err(ValueError::Request(text.to_owned())) }
}

/// `200`, or `200-399`.
pub(super) fn status_range(text: &str) -> Result<(u16, u16), ValueError> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if (100..=high).contains(&low) && high <= 599 => Ok((low, high)),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(ValueError::Status(text.to_owned())),
    }
}

/// A user of a database.
pub(super) fn user(text: &str) -> Result<String, ValueError> {
    let is_user = (1..=63).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_user { Ok(text.to_owned()) } else { Err(ValueError::User(text.to_owned())) }
}

/// A host's name: labels of letters, digits and hyphens (RFC 1123 s2.1), and underscores, which SRV records have (RFC 2782).
pub(super) fn host_name(text: &str) -> Result<String, ValueError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(is_label) { Ok(name.to_ascii_lowercase()) } else { Err(ValueError::Host(text.to_owned())) }
}

/// A path from the root.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, ValueError> {
    if text.starts_with('/') { Ok(PathBuf::from(text)) } else { Err(ValueError::Path(text.to_owned())) }
}

/// `COUNT/DURATION`, or `off`. The duration is from 100 ms to 1 h, the interval between two events a microsecond or more.
pub(super) fn rate(text: &str) -> Result<Option<Rate>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    let (count, per) = text.split_once('/').ok_or_else(|| ValueError::Rate(text.to_owned()))?;
    let count: u32 = count.trim().parse().map_err(|source| ValueError::RateCount { text: text.to_owned(), source })?;
    let per = duration(per.trim(), Duration::from_millis(100), Duration::from_secs(3600))?;
    if count == 0 || per / count < Duration::from_micros(1) {
        return Err(ValueError::RateRange(text.to_owned()));
    }
    Ok(Some(Rate { count, per }))
}

/// Any time.
pub(super) fn any_duration(text: &str) -> Result<Duration, ValueError> {
    humantime::parse_duration(text).map_err(|source| ValueError::Duration { text: text.to_owned(), source })
}

/// A time of a virtual router: up to a day, or `off` for none.
pub(super) fn delay(text: &str) -> Result<Duration, ValueError> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text, Duration::ZERO, crate::vrrp::settings::LONGEST) }
}

/// An address with the length of its prefix; without one it is a whole address.
pub(super) fn prefixed(text: &str) -> Result<(IpAddr, u8), ValueError> {
    let (address, prefix_len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
    let address = unicast(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(digits) = prefix_len else { return Ok((address, most)) };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(ValueError::Prefixed(text.to_owned()));
    }
    let len = digits.parse().ok().filter(|len| (1..=most).contains(len));
    len.map(|len| (address, len)).ok_or_else(|| ValueError::PrefixRange { text: text.to_owned(), most })
}

/// The password of version 2, padded with zeros.
pub(super) fn vrrp_password(text: &str) -> Result<[u8; 8], ValueError> {
    let mut password = [0; 8];
    match password.get_mut(..text.len()) {
        Some(start) if !text.is_empty() => start.copy_from_slice(text.as_bytes()),
        Some(_) | None => return Err(ValueError::Password),
    }
    Ok(password)
}

/// The label of an IPv4 address (linux v6.18 include/uapi/linux/if.h, IFNAMSIZ).
pub(super) fn label(text: &str) -> Result<String, ValueError> {
    let is_label = (1..=15).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    if is_label { Ok(text.to_owned()) } else { Err(ValueError::Label(text.to_owned())) }
}

fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, ValueError> {
    let duration = humantime::parse_duration(text).map_err(|source| ValueError::Duration { text: text.to_owned(), source })?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    Err(ValueError::DurationRange { text: text.to_owned(), least: least.into(), most: most.into() })
}

/// The address, and what follows its colon.
fn split_endpoint(text: &str) -> Result<(IpAddr, Option<&str>), ValueError> {
    if let Some((bracketed, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let address: Ipv6Addr = bracketed.parse().map_err(|source| ValueError::Address { text: bracketed.to_owned(), source })?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(|| ValueError::Port(rest.to_owned()))?) };
        return Ok((check_unicast(address.into(), text)?, port));
    }
    match text.rsplit_once(':') {
        Some((before, _)) if before.parse::<Ipv6Addr>().is_ok() && text.parse::<Ipv6Addr>().is_err() => {
            Err(ValueError::NoBrackets(text.to_owned()))
        }
        Some((before, port)) if !before.contains(':') => Ok((unicast(before)?, Some(port))),
        Some(_) | None => Ok((unicast(text)?, None)),
    }
}

fn address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|source| ValueError::Address { text: text.to_owned(), source })
}

fn parse_port(text: &str) -> Result<u16, ValueError> {
    if text.split_once('-').is_some_and(|(low, high)| low.parse::<u16>().is_ok() && high.parse::<u16>().is_ok()) {
        return Err(ValueError::PortRange(text.to_owned()));
    }
    match text.parse() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        Ok(_) | Err(_) => Err(ValueError::Port(text.to_owned())),
    }
}

pub(super) fn check_unicast(address: IpAddr, text: &str) -> Result<IpAddr, ValueError> {
    let kind = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => return Err(ValueError::Mapped(text.to_owned())),
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(address),
    };
    Err(ValueError::NotUnicast { address, kind })
}
