//! What `l4` measures: configurations, and the cases of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::maps::{ForwardKind, Service, Settings};
use lb_userspace::config::model::Limits;

use super::{
    frame::{Frame, Segment},
    world::{Slots, Spec},
};

/// One configuration of the data plane.
pub struct Group {
    /// What the table calls it.
    pub name: &'static str,
    /// What [`lb_userspace::dataplane::Features::of`] makes of it.
    pub features: u32,
    /// Sizes of its tables.
    pub limits: Limits,
    /// Its services.
    pub services: Vec<Spec>,
    /// What state their slots are in.
    pub slots: Slots,
    /// What is measured.
    pub cases: Vec<Case>,
}

/// What has to be there before a round, or may not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// As the warming-up runs left it.
    Kept,
    /// The warming-up runs open connections by SYNs first.
    Opened,
    /// These tables are emptied before each round, in which each flow comes once.
    Emptied(&'static [&'static str]),
}

/// One measurement.
pub struct Case {
    /// What the table calls it.
    pub name: &'static str,
    /// What is sent.
    pub frame: Frame,
    /// From how many sources.
    pub flows: u32,
    /// What the tables hold.
    pub state: State,
    /// Whether each packet goes to a server.
    pub is_forwarded: bool,
    /// The multiple of the no-op's time that it should stay below.
    pub target: Option<f64>,
    /// Katran's (IPIP).
    pub rival: Option<f64>,
}

const MANY: u32 = 1 << 17;
const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));
const WEB: u16 = 80;
const DNS: u16 = 53;
const NAT_STATE: &[&str] = &["NAT_LINES", "NAT_PORTS"];

/// Everything that is measured, in the order of the table.
pub fn all() -> Vec<Group> {
    vec![ipip(), learning(), ipv6(), gue(), dsr(), nat(), guarded(), everything(), many_nat_flows(), many_cached_flows()]
}

fn tcp(vip: IpAddr, forward: ForwardKind) -> Spec {
    Spec { vip, port: WEB, protocol: 6, forward, flags: 0 }
}

fn udp(vip: IpAddr, forward: ForwardKind) -> Spec {
    Spec { vip, port: DNS, protocol: 17, forward, flags: 0 }
}

fn group(name: &'static str, features: u32, services: Vec<Spec>, cases: Vec<Case>) -> Group {
    Group { name, features, limits: Limits::default(), services, slots: Slots::Clean, cases }
}

impl Case {
    fn new(name: &'static str, destination: IpAddr, segment: Segment, flows: u32) -> Self {
        let port = if segment == Segment::Udp { DNS } else { WEB };
        let frame = Frame { destination, port, segment };
        Self { name, frame, flows, state: State::Kept, is_forwarded: true, target: None, rival: None }
    }

    fn below(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    fn against(self, rival: f64) -> Self {
        Self { rival: Some(rival), ..self }
    }

    fn with(self, state: State) -> Self {
        Self { state, ..self }
    }
}

fn ipip() -> Group {
    let services = vec![tcp(VIP4, ForwardKind::Ipip4), udp(OTHER4, ForwardKind::Ipip4)];
    let cases = vec![
        Case::new("TCP established, 1 flow", VIP4, Segment::Data, 1).below(3.0).against(5.0),
        Case::new("TCP established, 131k flows", VIP4, Segment::Data, MANY).below(4.0).against(8.9),
        Case::new("TCP SYN of new flows, 131k", VIP4, Segment::Syn, MANY).below(4.5).against(19.7),
        Case::new("UDP, 1 flow", OTHER4, Segment::Udp, 1).against(6.0),
        Case::new("UDP, 131k flows", OTHER4, Segment::Udp, MANY).below(4.5).against(10.0),
        Case { is_forwarded: false, ..Case::new("not for us", NOBODY, Segment::Data, 1).below(2.2).against(2.5) },
    ];
    group("IPIP", Settings::IPIP, services, cases)
}

const OTHER4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn learning() -> Group {
    let new = Case::new("TCP SYN of new flows, 131k", VIP4, Segment::Syn, MANY).with(State::Emptied(&["FLOWS"]));
    let cases = vec![new.below(6.0).against(19.7), Case::new("TCP established, 131k flows", VIP4, Segment::Data, MANY).against(8.9)];
    Group { slots: Slots::Learning, ..group("IPIP, learning slots", Settings::IPIP, vec![tcp(VIP4, ForwardKind::Ipip4)], cases) }
}

fn ipv6() -> Group {
    let cases = vec![
        Case::new("TCP established, 1 flow", VIP6, Segment::Data, 1).below(3.2).against(5.1),
        Case::new("TCP established, 131k flows", VIP6, Segment::Data, MANY),
    ];
    group("IPv6 in IPv6", Settings::IPIP | Settings::IPV6, vec![tcp(VIP6, ForwardKind::Ipip6)], cases)
}

fn gue() -> Group {
    let cases = vec![
        Case::new("TCP established, 1 flow", VIP4, Segment::Data, 1).below(3.5).against(12.3),
        Case::new("TCP established, 131k flows", VIP4, Segment::Data, MANY),
    ];
    group("GUE", Settings::GUE, vec![tcp(VIP4, ForwardKind::Gue4)], cases)
}

fn dsr() -> Group {
    let cases = vec![
        Case::new("TCP established, 1 flow", VIP4, Segment::Data, 1).below(2.8),
        Case::new("TCP established, 131k flows", VIP4, Segment::Data, MANY),
    ];
    group("DSR", Settings::DSR, vec![tcp(VIP4, ForwardKind::Dsr)], cases)
}

fn nat() -> Group {
    let cases = vec![
        Case::new("TCP established, 1 flow", VIP4, Segment::Data, 1).with(State::Opened),
        Case::new("TCP established, 131k flows", VIP4, Segment::Data, MANY).with(State::Opened).below(6.5),
        Case::new("TCP SYN of new flows, 131k", VIP4, Segment::Syn, MANY).with(State::Emptied(NAT_STATE)).below(9.0),
    ];
    group("NAT", Settings::NAT, vec![tcp(VIP4, ForwardKind::Nat)], cases)
}

fn guarded() -> Group {
    let guard = |spec| Spec { flags: Service::SOURCE_RULES | Service::DENY_OTHERS | Service::RATE, ..spec };
    let services = vec![guard(tcp(VIP4, ForwardKind::Ipip4)), guard(udp(OTHER4, ForwardKind::Ipip4))];
    let cases = vec![
        Case::new("TCP established, 1 flow", VIP4, Segment::Data, 1),
        Case::new("TCP established, 131k flows", VIP4, Segment::Data, MANY),
        Case::new("TCP SYN of new flows, 131k", VIP4, Segment::Syn, MANY),
        Case::new("UDP, 131k flows", OTHER4, Segment::Udp, MANY),
    ];
    let features = Settings::IPIP | Settings::SOURCE_RULES | Settings::RATE;
    Group { slots: Slots::Settled, ..group("IPIP, allow list, rate limit, settled slots", features, services, cases) }
}

fn everything() -> Group {
    let features =
        Settings::IPV6 | Settings::NAT | Settings::SOURCE_RULES | Settings::RATE | Settings::IPIP | Settings::GUE | Settings::DSR;
    let services = vec![tcp(VIP4, ForwardKind::Ipip4), tcp(VIP6, ForwardKind::Ipip6), tcp(OTHER4, ForwardKind::Nat)];
    let cases = vec![
        Case::new("IPIP, TCP established, 1 flow", VIP4, Segment::Data, 1),
        Case::new("IPIP, TCP established, 131k flows", VIP4, Segment::Data, MANY),
        Case::new("IPv6, TCP established, 1 flow", VIP6, Segment::Data, 1),
        Case::new("NAT, TCP established, 131k flows", OTHER4, Segment::Data, MANY).with(State::Opened),
        Case { is_forwarded: false, ..Case::new("not for us", NOBODY, Segment::Data, 1) },
    ];
    group("every feature on", features, services, cases)
}

fn many_nat_flows() -> Group {
    let cases = vec![Case::new("TCP established, 655k flows", VIP4, Segment::Data, 5 << 17).with(State::Opened)];
    let limits = Limits { nat_flows: 1 << 20, ..Limits::default() };
    Group { limits, ..group("NAT, 1 M ports", Settings::NAT, vec![tcp(VIP4, ForwardKind::Nat)], cases) }
}

fn many_cached_flows() -> Group {
    let limits = Limits { flows: 1 << 22, ..Limits::default() };
    let cases = vec![Case::new("TCP established, 3.4M flows", VIP4, Segment::Data, 13 << 18)];
    let group = group("IPIP, cache of 4 M flows, learning slots", Settings::IPIP, vec![tcp(VIP4, ForwardKind::Ipip4)], cases);
    Group { limits, slots: Slots::Learning, ..group }
}
