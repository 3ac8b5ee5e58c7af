//! Where a packet would go and why, by the decision that the kernel program makes, on the tables that it reads.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    decide::{Decision, Ingress, decide},
    maps::Header,
    packet::{ETH_IPV4, ETH_IPV6, tcp},
    reason::Drop,
    tables::Step,
    words::{FlowState, MemberId, ServiceId, SlotState, SlotWord},
};

use super::{
    InspectError,
    status::{forward_word, protocol_word, state_word},
};
use crate::{
    admin::{
        answer::{Explanation, SlotView},
        api::{PacketKind, PacketQuestion, Transport},
    },
    dataplane::{self, Observer, PinDir, Tables},
    runtime::report::Report,
    speaker::order::RouterView,
};

pub(super) fn explain(tables: &Tables, pins: &PinDir, report: &Report, packet: &PacketQuestion) -> Result<Explanation, InspectError> {
    if packet.source.is_ipv4() != packet.destination.is_ipv4() {
        return Err(InspectError::Question("source and destination are of different families".into()));
    }
    let observer = Observer::new(tables, dataplane::moment(pins)?);
    let (decision, _) = decide(&observer, frame(packet).as_slice(), &Ingress { ifindex: 0, mac: [0; 3], kind: 0 });
    Ok(Teller { tables, report }.tell(packet, &decision, &observer.passed()))
}

/// A frame as the packet would arrive, with no more in it than the decision reads.
fn frame(packet: &PacketQuestion) -> Vec<u8> {
    let mut transport = Vec::new();
    transport.extend(packet.source.port().to_be_bytes());
    transport.extend(packet.destination.port().to_be_bytes());
    let protocol = match packet.protocol {
        Transport::Tcp => {
            let flags = match packet.kind {
                PacketKind::Syn => tcp::SYN,
                PacketKind::Ack => tcp::ACK,
                PacketKind::Fin => tcp::FIN | tcp::ACK,
                PacketKind::Rst => tcp::RST,
            };
            transport.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            6
        }
        Transport::Udp => {
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
    fn tell(&self, packet: &PacketQuestion, decision: &Decision, passed: &[Step]) -> Explanation {
        let protocol = if packet.protocol == Transport::Tcp { "tcp" } else { "udp" };
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
        told.note = note_of(packet.destination.ip(), &self.report.vrrp);
        told
    }

    fn conclude(&self, told: &mut Explanation, decision: &Decision) {
        let (word, why) = match decision {
            Decision::Pass if told.service.is_some() => ("pass", "it concerns a service, but the host itself handles it".into()),
            Decision::Pass => ("pass", "no service has this address, port and protocol: the host gets it".into()),
            Decision::Drop(refusal) => {
                told.drop_reason = Some(refusal.reason.word().into());
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
        told.decision = word.into();
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

    fn slot(&self, index: u32, word: SlotWord, _known: bool, passed: &[Step]) -> SlotView {
        let service = passed.iter().find_map(|step| if let Step::Service(id) = step { Some(*id) } else { None });
        let of = service.and_then(|id| self.tables.services.record(u32::from(id.0)).ok()).map_or(0, |record| record.slot_mask + 1);
        let state = match word.state() {
            SlotState::Clean => "clean",
            SlotState::Learning { .. } => "learning",
            SlotState::Settled => "settled",
        };
        let name = |member: Option<MemberId>| member.map(|member| self.member(member));
        SlotView { index, of, state: state.into(), current: name(word.current()), default: name(word.default()) }
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

/// That a virtual address is not here, and where it is.
fn note_of(destination: IpAddr, routers: &[RouterView]) -> Option<String> {
    let virtual_address = |router: &RouterView| router.addresses.iter().find(|one| one.address == destination).cloned();
    let (router, address) = routers.iter().find_map(|router| Some((router, virtual_address(router)?)))?;
    if address.is_held || router.state == "active" {
        return None;
    }
    let state = if router.state == "fault" { "has a fault".to_owned() } else { format!("is {}", router.state) };
    let holder = address.holder.or(router.active).map_or_else(
        || format!("this node has not {destination}, and nobody is known to have it"),
        |holder| format!("{holder} has {destination}"),
    );
    Some(format!("virtual router {} {state} here: {holder}", router.router))
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use lb_common::maps::ForwardKind;

    use super::{note_of, way};
    use crate::{
        control::{
            Endpoint,
            header::{NextHop, Target, build},
        },
        speaker::order::{AddressView, RouterView},
    };

    #[test]
    fn an_address_that_another_node_has_is_told() {
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let note = |state: &str, is_held: bool, holder: Option<IpAddr>| {
            let address = AddressView { address: ip(10), prefix_len: 24, device: "eth0".into(), is_held, holder };
            let router = RouterView { router: "www".into(), state: state.into(), addresses: vec![address], ..RouterView::default() };
            [note_of(ip(10), std::slice::from_ref(&router)), note_of(ip(11), &[router])]
        };
        let told = |text: &str| [Some(text.to_owned()), None];
        assert_eq!(note("backup", false, Some(ip(2))), told("virtual router www is backup here: 192.0.2.2 has 192.0.2.10"));
        let nobody = "virtual router www has a fault here: this node has not 192.0.2.10, and nobody is known to have it";
        assert_eq!(note("fault", false, None), told(nobody));
        for (state, is_held) in [("active", true), ("held-over", true), ("active", false)] {
            assert_eq!(note(state, is_held, None), [None, None]);
        }
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
