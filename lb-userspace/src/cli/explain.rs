//! `weir explain SRC DST`: where a packet would go and why, by the decision that the kernel program makes, on the tables that it reads.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use clap::{Args, ValueEnum};
use lb_common::{
    decide::{Decision, Ingress, decide},
    maps::Header,
    packet::{ETH_IPV4, ETH_IPV6, tcp},
    reason::Drop,
    tables::Step,
    words::{FlowState, MemberId, ServiceId, SlotState, SlotWord},
};
use serde::Serialize;

use super::{Exit, Format, place_io::Place, tell};
use crate::{
    dataplane::{self, Access, Observer, Tables},
    runtime::{
        report::Report,
        status::{forward_word, protocol_word, state_word},
    },
};

/// The packet to explain.
#[derive(Args, Clone, Debug)]
pub struct Packet {
    /// Where it comes from and goes: `SRC DST`, `SRC -> DST` or `"SRC → DST"`, each an address and a port. Without a port of SRC some port is
    /// taken. DST may end with `/tcp` or `/udp`, or `tcp` or `udp` come first.
    #[arg(value_name = "SRC DST", num_args = 1..=4, required = true)]
    ends: Vec<String>,
    /// Its protocol [default: that of DST, or else tcp].
    #[arg(short, long, value_enum)]
    protocol: Option<Protocol>,
    /// What TCP packet of a connection it is.
    #[arg(short, long, value_enum, default_value_t = Kind::Syn)]
    kind: Kind,
}

/// `--protocol`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Tcp,
    Udp,
}

/// `--kind`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It opens a connection.
    Syn,
    /// It belongs to an open one.
    Ack,
    /// It closes one.
    Fin,
    /// It resets one.
    Rst,
}

/// What the arguments come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flow {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
    kind: Kind,
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
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            Some(other) => return Err(FlowError::Protocol(other.into())),
        };
        if let (Some(named), Some(asked), Some(word)) = (named, self.protocol, word)
            && named != asked
        {
            return Err(FlowError::Protocol(word.into()));
        }
        let protocol = named.or(self.protocol).unwrap_or(Protocol::Tcp);
        Ok(Flow { source, destination, protocol, kind: self.kind, is_port_chosen })
    }
}

/// A port of RFC 6335 s6's dynamic range, which differs from call to call.
fn some_port() -> u16 {
    49_152 + (std::process::id() % 16_384) as u16
}

/// What `-o json` prints.
#[derive(Serialize, Default, Debug)]
struct Explanation {
    packet: String,
    service: Option<String>,
    slot: Option<SlotShown>,
    cache: Option<String>,
    nat_flow: Option<String>,
    member: Option<String>,
    forward: Option<String>,
    /// `pass`, `drop`, `echo`, `send`, or `send-to-client`.
    decision: &'static str,
    drop_reason: Option<&'static str>,
    why: String,
}

#[derive(Serialize, Debug)]
struct SlotShown {
    index: u32,
    of: u32,
    state: &'static str,
    current: Option<String>,
    default: Option<String>,
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
    if flow.is_port_chosen {
        writeln!(err, "the source has no port: this is about port {}", flow.source.port())?;
    }
    let Place { pins, report, .. } = match Place::of(config) {
        Ok(place) => place,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let report = report.unwrap_or_default();
    let opened = Tables::open(&pins, Access::ReadOnly).and_then(|tables| Ok((tables, dataplane::moment(&pins)?)));
    let (tables, now) = match opened {
        Ok(opened) => opened,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    let observer = Observer::new(&tables, now);
    let frame = frame(&flow);
    let (decision, _) = decide(&observer, frame.as_slice(), &Ingress { ifindex: 0, mac: [0; 3], kind: 0 });
    let explanation = Teller { tables: &tables, report: &report }.tell(&flow, &decision, &observer.passed());
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation)?;
            writeln!(out)?;
        }
        Format::Text => write_text(&explanation, out)?,
    }
    Ok(if explanation.decision == "drop" { Exit::Refused } else { Exit::Fine })
}

/// A frame as the packet would arrive, with no more in it than the decision reads.
fn frame(packet: &Flow) -> Vec<u8> {
    let mut transport = Vec::new();
    transport.extend(packet.source.port().to_be_bytes());
    transport.extend(packet.destination.port().to_be_bytes());
    let protocol = match packet.protocol {
        Protocol::Tcp => {
            let flags = match packet.kind {
                Kind::Syn => tcp::SYN,
                Kind::Ack => tcp::ACK,
                Kind::Fin => tcp::FIN | tcp::ACK,
                Kind::Rst => tcp::RST,
            };
            transport.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            6
        }
        Protocol::Udp => {
            transport.extend([0, 8, 0, 0]);
            17
        }
    };
    let mut frame = vec![0; 12];
    match (packet.source.ip(), packet.destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend(ETH_IPV4.to_ne_bytes());
            frame.extend([0x45, 0]);
            frame.extend((20 + transport.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (from, to) => {
            frame.extend(ETH_IPV6.to_ne_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((transport.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            for address in [from, to] {
                if let IpAddr::V6(address) = address {
                    frame.extend(address.octets());
                }
            }
        }
    }
    frame.extend(transport);
    frame
}

/// Puts the steps into words, with the names that the daemon's record gives.
struct Teller<'a> {
    tables: &'a Tables,
    report: &'a Report,
}

impl Teller<'_> {
    fn tell(&self, packet: &Flow, decision: &Decision, passed: &[Step]) -> Explanation {
        let protocol = if packet.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let mut told = Explanation { packet: format!("{protocol} {} → {}", packet.source, packet.destination), ..Explanation::default() };
        for step in passed {
            match *step {
                Step::Service(id) => told.service = Some(self.service(id)),
                Step::Slot { index, word } => told.slot = Some(self.slot(index, word, told.service.is_some(), passed)),
                Step::Cache(word) => {
                    told.cache = Some(match word.member() {
                        None => "miss".into(),
                        Some(member) => format!("hit: {}, {}", self.member(member), flow_state(word.state())),
                    });
                }
                Step::NatFlow(index) => told.nat_flow = Some(self.nat_flow(index)),
                Step::NatOpened { snat_port, .. } => {
                    told.nat_flow = Some(format!("a new one, from port {} or one like it", u16::from_be(snat_port)));
                }
                Step::Member(id, word) => told.member = Some(format!("{}, {}", self.member(id), state_word(word, 0))),
            }
        }
        self.conclude(&mut told, decision);
        told
    }

    fn conclude(&self, told: &mut Explanation, decision: &Decision) {
        let (word, why) = match decision {
            Decision::Pass if told.service.is_some() => ("pass", "it concerns a service, but the host itself handles it".into()),
            Decision::Pass => ("pass", "no service has this address, port and protocol: the host gets it".into()),
            Decision::Drop(refusal) => {
                told.drop_reason = Some(refusal.reason.word());
                ("drop", explain_drop(refusal.reason, refusal.answered))
            }
            Decision::Echo => ("echo", "it is an echo request to a VIP".into()),
            Decision::Send(delivery)
            | Decision::SendError(delivery)
            | Decision::NatRequest(delivery, _)
            | Decision::NatRequestError(delivery, _)
            | Decision::NatRequestFragment(delivery, _) => {
                let header = self.tables.headers.record(delivery.header()).ok();
                told.forward = header.map(|header| way(&header));
                ("send", format!("it goes to {}", MemberId::new(delivery.member()).map_or_else(String::new, |id| self.member(id))))
            }
            Decision::NatReply(_) | Decision::NatReplyError(_) | Decision::NatReplyFragment(_) => {
                ("send-to-client", "it answers a translated flow".into())
            }
        };
        told.decision = word;
        told.why = why;
    }

    fn service(&self, id: ServiceId) -> String {
        let Ok(record) = self.tables.services.record(u32::from(id.0)) else { return format!("number {}", id.0) };
        let name = self
            .report
            .services
            .iter()
            .find(|name| name.vip == record.vip.ip() && name.port == record.port && name.protocol == record.protocol);
        let name = name.map_or_else(String::new, |name| format!("{} (pool {}) ", name.listener, name.pool));
        let port = if record.port == 0 { "*".into() } else { record.port.to_string() };
        format!("{name}{} port {port}/{}", record.vip, protocol_word(record.protocol))
    }

    fn slot(&self, index: u32, word: SlotWord, _known: bool, passed: &[Step]) -> SlotShown {
        let service = passed.iter().find_map(|step| if let Step::Service(id) = step { Some(*id) } else { None });
        let of = service.and_then(|id| self.tables.services.record(u32::from(id.0)).ok()).map_or(0, |record| record.slot_mask + 1);
        let state = match word.state() {
            SlotState::Clean => "clean",
            SlotState::Learning { .. } => "learning",
            SlotState::Settled => "settled",
        };
        let name = |member: Option<MemberId>| member.map(|member| self.member(member));
        SlotShown { index, of, state, current: name(word.current()), default: name(word.default()) }
    }

    fn member(&self, id: MemberId) -> String {
        let Ok(info) = self.tables.member_info.record(u32::from(id.number())) else { return format!("member {}", id.number()) };
        let address = info.address.ip();
        let servers = self.report.services.iter().flat_map(|service| &service.servers);
        let name = servers.into_iter().find(|(_, ip, port)| *ip == address && *port == info.port);
        let name = name.map_or_else(String::new, |(name, ..)| format!("{name} "));
        if info.port == 0 { format!("{name}{address}") } else { format!("{name}{}", SocketAddr::new(address, info.port)) }
    }

    fn nat_flow(&self, index: u32) -> String {
        match self.tables.nat_flows.record(index) {
            Ok(flow) => format!("known, from port {} to {}", u16::from_be(flow.snat_port), flow.server),
            Err(_) => "known".into(),
        }
    }
}

fn explain_drop(reason: Drop, answered: bool) -> String {
    let text = reason.explanation().trim();
    if answered { format!("{text} The sender is told.") } else { text.into() }
}

fn flow_state(state: FlowState) -> &'static str {
    match state {
        FlowState::Syn => "its SYN was seen",
        FlowState::Acknowledged => "acknowledged",
        FlowState::Proven => "proven",
        FlowState::Closed => "closed",
    }
}

fn way(header: &Header) -> String {
    let bytes: [u8; 96] = bytemuck::cast(header.bytes);
    let mac: Vec<String> = bytes[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = u16::from_be_bytes([bytes[14], bytes[15]]) & 0xfff;
    let vlan = if header.link_bytes == 18 { format!(" in VLAN {tag}") } else { String::new() };
    format!("{} by interface {}{vlan} to {}, packets up to {} bytes", forward_word(header.kind), header.ifindex, mac.join(":"), header.mtu)
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
    let reason = told.drop_reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    line("decision", &Some(format!("{}{reason}: {}", told.decision, told.why)))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use lb_common::maps::ForwardKind;

    use super::{Flow, FlowError, Kind, Packet, Protocol, way};
    use crate::control::{
        Endpoint,
        header::{NextHop, Target, build},
    };

    fn flow(ends: &[&str], protocol: Option<Protocol>) -> Result<Flow, FlowError> {
        let ends = ends.iter().map(|&end| end.to_owned()).collect();
        Packet { ends, protocol, kind: Kind::Syn }.flow(50_000)
    }

    #[test]
    fn a_packet_may_be_written_in_several_ways() {
        let tcp = Flow {
            source: "192.0.2.7:1234".parse().unwrap(),
            destination: "198.51.100.1:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            kind: Kind::Syn,
            is_port_chosen: false,
        };
        let (from, to) = ("192.0.2.7:1234", "198.51.100.1:80");
        for ends in [vec![from, to], vec![from, "->", to], vec![from, "→", to]] {
            assert_eq!(flow(&ends, None), Ok(tcp));
            let one = ends.join(" ");
            assert_eq!(flow(&[&one], None), Ok(tcp));
            assert_eq!(flow(&[&format!("{one}/udp")], None), Ok(Flow { protocol: Protocol::Udp, ..tcp }));
        }
        for ends in [vec!["tcp", from, "→", to], vec!["tcp", from, to]] {
            assert_eq!(flow(&ends, None), Ok(tcp), "as the command prints it");
        }
        assert_eq!(flow(&[&format!("{from}→{to}/tcp")], Some(Protocol::Tcp)), Ok(tcp));
        let chosen = Flow { source: "192.0.2.7:50000".parse().unwrap(), is_port_chosen: true, ..tcp };
        assert_eq!(flow(&["192.0.2.7", to], None), Ok(chosen));
        assert_eq!(flow(&["[2001:db8::7]", "[2001:db8::1]:80"], None).unwrap().source, "[2001:db8::7]:50000".parse().unwrap());
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
        assert_eq!(flow(&["192.0.2.7:1", "198.51.100.1:80/udp"], Some(Protocol::Tcp)), Err(FlowError::Protocol("udp".into())));
    }

    #[test]
    fn the_way_to_a_server_names_its_vlan() {
        let server = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        let target = Target {
            forward: ForwardKind::Dsr,
            server: Endpoint { address: server, port: 0 },
            vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            tunnel_source: None,
            gue_port: 6080,
            planes: None,
        };
        let by = |vlan| {
            let hop = NextHop { ifindex: 7, vlan, source_mac: [1; 6], target_mac: [2; 6], mtu: 1500, source: server };
            way(&build(&target, &hop).expect("all addresses are of one family"))
        };
        assert_eq!(by(None), "dsr by interface 7 to 02:02:02:02:02:02, packets up to 1500 bytes");
        assert_eq!(by(Some(0x105)), "dsr by interface 7 in VLAN 261 to 02:02:02:02:02:02, packets up to 1500 bytes");
    }
}
