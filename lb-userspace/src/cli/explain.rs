//! `weir explain SRC DST`: where a packet would go and why, by the decision that the kernel program makes, on the tables that it reads.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use clap::Args;

use super::{Exit, Format, look_io::look, operate::refuse_look, tell};
use crate::admin::api::{Explanation, Look, PacketKind, PacketQuestion, Request, Transport};

/// The packet to explain.
#[derive(Args, Clone, Debug)]
pub struct Packet {
    /// Where it comes from and goes: `SRC DST`, `SRC -> DST` or `"SRC → DST"`, each an address and a port. Without a port of SRC some port is
    /// taken. DST may end with `/tcp` or `/udp`, or `tcp` or `udp` come first.
    #[arg(value_name = "SRC DST", num_args = 1..=4, required = true)]
    ends: Vec<String>,
    /// Its protocol [default: that of DST, or else tcp].
    #[arg(short, long, value_enum)]
    protocol: Option<Transport>,
    /// What TCP packet of a connection it is.
    #[arg(short, long, value_enum, default_value = "syn")]
    kind: PacketKind,
}

/// What the arguments come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flow {
    question: PacketQuestion,
    /// Whether the source's port is one that nobody named.
    is_port_chosen: bool,
}

/// Why the arguments are no packet.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
enum FlowError {
    #[error("`{0}` is no source and destination\nhint: weir explain 192.0.2.7:1234 198.51.100.1:80/tcp")]
    Ends(String),
    #[error("`{0}` is no address and port\nhint: 192.0.2.1:80, or [2001:db8::1]:80")]
    Address(String),
    #[error("source and destination are of different families")]
    Families,
    #[error("`{0}` is neither tcp nor udp, or another protocol than --protocol")]
    Protocol(String),
}

/// A word of the command line; the arrow of `SRC -> DST` as one that does not look like an option.
#[must_use]
pub fn readable(word: OsString) -> OsString {
    if word == "->" { "→".into() } else { word }
}

impl Packet {
    /// `some_port`: the source's where none is named.
    fn flow(&self, some_port: u16) -> Result<Flow, FlowError> {
        let text = self.ends.join(" ");
        let spaced = text.replace("->", " ").replace('→', " ");
        let (from, to, word) = match spaced.split_whitespace().collect::<Vec<_>>()[..] {
            [from, to] => to.split_once('/').map_or((from, to, None), |(to, word)| (from, to, Some(word))),
            [word, from, to] => (from, to, Some(word)),
            _ => return Err(FlowError::Ends(text)),
        };
        let destination: SocketAddr = to.parse().map_err(|_: std::net::AddrParseError| FlowError::Address(to.into()))?;
        let bare = from.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let (source, is_port_chosen) = match (from.parse(), bare) {
            (Ok(source), _) => (source, false),
            (Err(_), Ok(address)) => (SocketAddr::new(address, some_port), true),
            (Err(_), Err(_)) => return Err(FlowError::Address(from.into())),
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FlowError::Families);
        }
        let named = match word {
            None => None,
            Some("tcp") => Some(Transport::Tcp),
            Some("udp") => Some(Transport::Udp),
            Some(other) => return Err(FlowError::Protocol(other.into())),
        };
        if let (Some(named), Some(asked), Some(word)) = (named, self.protocol, word)
            && named != asked
        {
            return Err(FlowError::Protocol(word.into()));
        }
        let protocol = named.or(self.protocol).unwrap_or(Transport::Tcp);
        Ok(Flow { question: PacketQuestion { source, destination, protocol, kind: self.kind }, is_port_chosen })
    }
}

/// A port of RFC 6335 s6's dynamic range, which differs from call to call.
fn some_port() -> u16 {
    49_152 + (std::process::id() % 16_384) as u16
}

/// Explains the packet.
///
/// # Errors
///
/// Those of writing to `out` and `err`.
pub fn explain(config: &Path, packet: &Packet, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let flow = match packet.flow(some_port()) {
        Ok(flow) => flow,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let question = flow.question;
    if flow.is_port_chosen {
        writeln!(err, "the source has no port: this is about port {}", question.source.port())?;
    }
    let explanation: Explanation = match look(config, &Request::Look(Look::Explain(question)), |inspector| inspector.explain(&question)) {
        Ok(explanation) => explanation,
        Err(error) => return refuse_look(err, &error),
    };
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation)?;
            writeln!(out)?;
        }
        Format::Text => write_text(&explanation, out)?,
    }
    Ok(if explanation.decision == "drop" { Exit::Refused } else { Exit::Fine })
}

fn write_text(told: &Explanation, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "packet    {}", told.packet)?;
    let mut line = |name: &str, text: &Option<String>| match text {
        Some(text) => writeln!(out, "{name:<9} {text}"),
        None => Ok(()),
    };
    line("service", &told.service)?;
    let slot = told.slot.as_ref().map(|slot| {
        let of = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".into());
        let older = slot.default.as_ref().map_or_else(String::new, |_| format!("; older flows to {}", of(&slot.default)));
        format!("{} of {}, {}: new flows to {}{older}", slot.index, slot.of, slot.state, of(&slot.current))
    });
    line("slot", &slot)?;
    line("cache", &told.cache)?;
    line("nat flow", &told.nat_flow)?;
    line("member", &told.member)?;
    line("forward", &told.forward)?;
    let reason = told.drop_reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    line("decision", &Some(format!("{}{reason}: {}", told.decision, told.why)))?;
    line("note", &told.note)
}

#[cfg(test)]
mod tests {
    use super::{Explanation, Flow, FlowError, Packet, PacketKind, PacketQuestion, Transport, write_text};

    fn flow(ends: &[&str], protocol: Option<Transport>) -> Result<Flow, FlowError> {
        let ends = ends.iter().map(|&end| end.to_owned()).collect();
        Packet { ends, protocol, kind: PacketKind::Syn }.flow(50_000)
    }

    #[test]
    fn a_packet_may_be_written_in_several_ways() {
        let question = PacketQuestion {
            source: "192.0.2.7:1234".parse().unwrap(),
            destination: "198.51.100.1:80".parse().unwrap(),
            protocol: Transport::Tcp,
            kind: PacketKind::Syn,
        };
        let tcp = Flow { question, is_port_chosen: false };
        let udp = Flow { question: PacketQuestion { protocol: Transport::Udp, ..question }, ..tcp };
        let (from, to) = ("192.0.2.7:1234", "198.51.100.1:80");
        for ends in [vec![from, to], vec![from, "->", to], vec![from, "→", to]] {
            assert_eq!(flow(&ends, None), Ok(tcp));
            let one = ends.join(" ");
            assert_eq!(flow(&[&one], None), Ok(tcp));
            assert_eq!(flow(&[&format!("{one}/udp")], None), Ok(udp));
        }
        for ends in [vec!["tcp", from, "→", to], vec!["tcp", from, to]] {
            assert_eq!(flow(&ends, None), Ok(tcp), "as the command prints it");
        }
        assert_eq!(flow(&[&format!("{from}→{to}/tcp")], Some(Transport::Tcp)), Ok(tcp));
        let source = "192.0.2.7:50000".parse().unwrap();
        let chosen = Flow { question: PacketQuestion { source, ..question }, is_port_chosen: true };
        assert_eq!(flow(&["192.0.2.7", to], None), Ok(chosen));
        assert_eq!(flow(&["[2001:db8::7]", "[2001:db8::1]:80"], None).unwrap().question.source, "[2001:db8::7]:50000".parse().unwrap());
    }

    #[test]
    fn a_note_comes_last() {
        let note = Some("virtual router www is backup here: 192.0.2.2 has 192.0.2.10".to_owned());
        let told = Explanation { decision: "send".into(), why: "it goes to a".into(), note, ..Explanation::default() };
        let mut out = Vec::new();
        write_text(&told, &mut out).unwrap();
        let expected = "decision  send: it goes to a\nnote      virtual router www is backup here: 192.0.2.2 has 192.0.2.10\n";
        assert!(String::from_utf8(out).unwrap().ends_with(expected));
    }

    #[test]
    fn what_is_no_packet_is_named() {
        let to = "198.51.100.1:80";
        assert_eq!(flow(&[to], None), Err(FlowError::Ends(to.into())));
        assert_eq!(flow(&["here", to], None), Err(FlowError::Address("here".into())));
        assert_eq!(flow(&["192.0.2.7:1", "198.51.100.1"], None), Err(FlowError::Address("198.51.100.1".into())));
        assert_eq!(flow(&["[2001:db8::7]:1", to], None), Err(FlowError::Families));
        assert_eq!(flow(&["192.0.2.7:1", "198.51.100.1:80/sctp"], None), Err(FlowError::Protocol("sctp".into())));
        assert_eq!(flow(&["sctp", "192.0.2.7:1", to], None), Err(FlowError::Protocol("sctp".into())));
        assert_eq!(flow(&["192.0.2.7:1", "198.51.100.1:80/udp"], Some(Transport::Tcp)), Err(FlowError::Protocol("udp".into())));
    }
}
