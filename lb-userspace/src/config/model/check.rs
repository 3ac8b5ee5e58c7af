//! `[pool.NAME.check]`: how a pool's servers are asked whether they are well.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{Protocol, Server};

/// How each server of a pool is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// TLS around it.
    pub tls: Option<CheckTls>,
    /// The port that is asked; none: the server's own, or that of the listener's bind.
    pub port: Option<u16>,
    /// The way that the question takes.
    pub via: Via,
    /// When it is asked, and how many answers count.
    pub pace: Pace,
}

impl Check {
    /// The port that is asked: its own, the server's, or that of a bind of its pool, of the probe's protocol if there is one; none if nobody says.
    pub fn port_for(&self, server: &Server, binds: impl Iterator<Item = (Protocol, u16)> + Clone) -> Option<u16> {
        let wanted = if matches!(self.probe, Probe::Udp { .. }) { Protocol::Udp } else { Protocol::Tcp };
        let of_bind = || binds.clone().filter(|(protocol, _)| *protocol == wanted).chain(binds.clone()).map(|(_, port)| port).next();
        self.port.or(server.port).or_else(of_bind)
    }
}

/// When checks are made, and how many in a row change a server's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// From one check's start to the next one's, while the state is certain.
    pub interval: Duration,
    /// The same while it is not: the last result contradicts the state.
    pub interval_unsure: Duration,
    /// The same while the server is down.
    pub interval_down: Duration,
    /// The whole time that a check may take.
    pub timeout: Duration,
    /// Good results in a row after which a server that was down is up.
    pub rise: u16,
    /// Bad results in a row after which a server that was up is down.
    pub fall: u16,
}

impl Pace {
    /// The longest time from a server's failure, right after a check, until it is down. A check that is not answered takes its whole timeout, and
    /// the next one does not begin before its end.
    pub fn detection(&self) -> Duration {
        let between = self.interval_unsure.max(self.timeout);
        self.interval + between * u32::from(self.fall.saturating_sub(1)) + self.timeout
    }
}

/// The way of a check to its server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// To the server's own address.
    Direct,
    /// To the VIP, as clients' packets go: through the data path, in the pool's forward mode.
    Datapath,
}

/// What is asked of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// A connection, and a dialogue once it is there.
    Tcp(Vec<Step>),
    /// The TLS handshake alone.
    Tls,
    /// An HTTP request.
    Http(Box<HttpProbe>),
    /// `grpc.health.v1.Health/Check` of a service; empty for the server as a whole.
    Grpc {
        /// The service's name.
        service: String,
    },
    /// The server's greeting; a login as this user, without a password, if one is named.
    Mysql {
        /// The user.
        user: Option<String>,
    },
    /// The start-up message as this user: any answer but an error of class 57 or 53 is well.
    Pgsql {
        /// The user.
        user: String,
    },
    /// A datagram, and what has to come back: anything, if nothing is named. Without an answer only a refusal is bad.
    Udp {
        /// What is sent.
        send: Vec<u8>,
        /// What the answer has to contain; none: no answer is awaited.
        expect: Option<Vec<u8>>,
    },
    /// A program: well if it ends with 0.
    Command {
        /// Its path and arguments.
        argv: Vec<String>,
    },
}

impl Probe {
    /// The key of the configuration that asks for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Tls => "tls",
            Self::Http(_) => "http",
            Self::Grpc { .. } => "grpc",
            Self::Mysql { .. } => "mysql",
            Self::Pgsql { .. } => "pgsql",
            Self::Udp { .. } => "udp",
            Self::Command { .. } => "command",
        }
    }
}

/// A step of a dialogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// These bytes are sent.
    Send(Vec<u8>),
    /// These bytes come, whatever comes before them.
    Expect(Vec<u8>),
    /// What comes matches this pattern.
    ExpectMatch(String),
}

/// An HTTP request and the answer that is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpProbe {
    /// The request's method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its version.
    pub version: HttpVersion,
    /// Its header fields; `host` is the server's address unless it is among them.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
    /// Statuses that are good, both ends included.
    pub status: Vec<(u16, u16)>,
    /// What the body has to contain.
    pub contains: Option<String>,
    /// A pattern that the body has to match.
    pub matches: Option<String>,
}

/// The version of a check's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, closed after the answer.
    Http11,
    /// HTTP/2, over TLS or with prior knowledge.
    Http2,
}

/// TLS of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckTls {
    /// Whether the certificate has to be valid.
    pub verify: bool,
    /// The authorities that are trusted, a PEM file; none: the machine's.
    pub ca: Option<PathBuf>,
    /// The name that is asked for and that the certificate has to be for; none: the server's address.
    pub sni: Option<String>,
}
