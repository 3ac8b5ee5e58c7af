//! Links and addresses by netlink, and frames on a link. Requests are answered before the call returns.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns netlink and packet sockets")]
#![allow(unsafe_code, reason = "a packet socket's address has no safe constructor")]

use std::{
    collections::BTreeMap,
    io, mem,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rtnetlink::{
    MulticastGroup,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo},
        link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode},
        route::{RouteAttribute, RouteType},
        tc::{TcAttribute, TcHandle, TcMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use socket2::{Domain, SockAddr, Type};

use super::{claims_io::Ears, desk::LinkState, frames::Sender, order::AddressOrder};
use crate::netlink::{AssignedAddress, Link, VRRP_PROTOCOL, routes};

/// An address goes away so long after it was renewed last.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// Renewed so often.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(1);

const DATAGRAM_BYTES: usize = 64 * 1024;

/// What a notification says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// A link's carrier.
    Carrier(String, bool),
    /// Links or addresses are others.
    Changed,
    /// An address of a virtual router went.
    Lost,
}

/// The sockets of this namespace.
pub(super) struct Kernel {
    requests: Socket,
    news: Socket,
    frames: socket2::Socket,
    pub(super) ears: Ears,
    sequence: u32,
}

impl Kernel {
    /// To be called before a process opens what others wait to see closed.
    pub(super) fn open() -> io::Result<Self> {
        // Packet sockets come first: see `Ears`. Protocol 0 receives nothing.
        let frames = socket2::Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
        let ears = Ears::reserve()?;
        let mut requests = Socket::new(NETLINK_ROUTE)?;
        requests.bind_auto()?;
        let mut news = Socket::new(NETLINK_ROUTE)?;
        news.bind(&SocketAddr::new(0, 0))?;
        news.set_non_blocking(true)?;
        for group in [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr] {
            news.add_membership(group as u32)?;
        }
        Ok(Self { requests, news, frames, ears, sequence: 0 })
    }

    /// What readiness means news.
    pub(super) fn news_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Takes what waits.
    pub(super) fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            match self.news.recv_from(&mut datagram, libc::MSG_DONTWAIT) {
                // Only port 0 is the kernel.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => messages(&datagram).filter_map(|message| meaning(&message)).for_each(|one| news.push(one)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return news,
                // Some were lost: everything is read again.
                Err(_) => {
                    news.push(News::Changed);
                    return news;
                }
            }
        }
    }

    /// Every link by name, with its addresses.
    pub(super) fn links(&mut self) -> io::Result<BTreeMap<String, LinkState>> {
        let mut names = BTreeMap::new();
        let mut links = BTreeMap::new();
        for message in self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            if let RouteNetlinkMessage::NewLink(link) = message {
                let link = Link::from_message(&link);
                names.insert(link.ifindex, link.name.clone());
                let has_carrier = link.is_usable();
                let is_macvlan = link.kind.as_deref() == Some("macvlan") && !link.lower_is_elsewhere;
                let state = LinkState {
                    ifindex: link.ifindex,
                    has_carrier,
                    mac: link.mac,
                    has_xdp: link.xdp.is_some(),
                    is_up: link.is_up,
                    macvlan_on: link.lower.filter(|_| is_macvlan),
                    ..LinkState::default()
                };
                links.insert(link.name, state);
            }
        }
        for message in self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(message) = message
                && let Some(one) = AssignedAddress::from_message(&message)
                && let Some(link) = names.get(&one.ifindex).and_then(|name| links.get_mut(name))
            {
                match (is_marked(&message), one.is_tentative || one.is_ours) {
                    (true, _) => _ = link.marked.insert(one.address),
                    (false, false) => link.own.push(one.address),
                    (false, true) => {}
                }
            }
        }
        Ok(links)
    }

    /// Adds an address for a lease, or renews it. On a macvlan it has no route: what goes to its network goes by the link below.
    pub(super) fn lease(&mut self, order: &AddressOrder, link: &LinkState) -> io::Result<()> {
        let message = leased(order, link.ifindex, link.macvlan_on.is_none());
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Makes a macvlan upon a link. It is down. In private mode the link below would not hear what another node sends from the same address (linux
    /// v6.18 drivers/net/macvlan.c, macvlan_handle_frame).
    pub(super) fn add_macvlan(&mut self, name: &str, mac: [u8; 6], lower: u32, alias: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        let info = vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]))];
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(lower),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(info),
        ];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
        // A link that is made takes no alias (linux v6.18 net/core/rtnetlink.c, rtnl_create_link).
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(alias.to_owned())];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK)
    }

    /// The links with this alias, by their numbers.
    pub(super) fn aliased(&mut self, alias: &str) -> io::Result<Vec<u32>> {
        let has_alias = |link: &LinkMessage| link.attributes.contains(&LinkAttribute::IfAlias(alias.to_owned()));
        let links = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let number = |message| {
            let RouteNetlinkMessage::NewLink(link) = message else { return None };
            has_alias(&link).then_some(link.header.index)
        };
        Ok(links.into_iter().filter_map(number).collect())
    }

    /// Turns a link on or off.
    pub(super) fn set_up(&mut self, ifindex: u32, is_up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if is_up { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK)
    }

    /// Has a link drop all that leaves by it, whatever the kernel itself would say there: answers, reports of multicast groups.
    pub(super) fn silence(&mut self, ifindex: u32) -> io::Result<()> {
        let mut message = at_root(ifindex);
        message.attributes = vec![TcAttribute::Kind("blackhole".into())];
        self.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Undoes [`Self::silence`]. One that is not silent is no error.
    pub(super) fn unsilence(&mut self, ifindex: u32) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelQueueDiscipline(at_root(ifindex)), NLM_F_ACK) {
            // The queue that a link has by itself cannot be removed (linux v6.18 net/sched/sch_api.c, __tc_get_qdisc).
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes a link.
    pub(super) fn remove_link(&mut self, ifindex: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK)
    }

    /// Whether packets to an address are taken by this host, because it is on this link.
    pub(super) fn is_local(&mut self, address: IpAddr, ifindex: u32) -> bool {
        let mut request = routes::request(address);
        request.attributes.push(RouteAttribute::Oif(ifindex));
        let answer = self.exchange(RouteNetlinkMessage::GetRoute(request), NLM_F_ACK).unwrap_or_default();
        answer.iter().any(|message| matches!(message, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local))
    }

    /// Removes an address. One that is gone is no error.
    pub(super) fn remove(&mut self, order: &AddressOrder, ifindex: u32) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelAddress(named(order, ifindex)), NLM_F_ACK) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }

    /// Sends a frame on a link.
    pub(super) fn send_frame(&self, frame: &[u8], ifindex: u32) -> io::Result<()> {
        self.frames.send_to(frame, &link_address(ifindex, [0; 2])?).map(drop)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, flags).map(drop)
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_DUMP)
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.requests.send(&bytes, 0)?;
        let mut answer = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            self.requests.recv(&mut datagram, 0)?;
            for message in messages(&datagram).filter(|message| message.header.sequence_number == self.sequence) {
                if let NetlinkPayload::InnerMessage(message) = message.payload {
                    answer.push(message);
                } else if let NetlinkPayload::Error(error) = &message.payload {
                    return if error.code.is_none() { Ok(answer) } else { Err(error.to_io()) };
                } else if let NetlinkPayload::Done(_) = message.payload {
                    return Ok(answer);
                }
            }
        }
    }
}

/// The queue that all leaves a link by.
fn at_root(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message
}

/// Whether an interface passes packets of IPv6 on.
pub(super) fn sender_on(interface: &str) -> Sender {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() != "0" => Sender::Router,
        Ok(_) | Err(_) => Sender::Host,
    }
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    std::iter::from_fn(move || {
        loop {
            let length = NetlinkBuffer::new_checked(datagram).ok()?.length() as usize;
            let message = NetlinkMessage::deserialize(&datagram[..length]);
            // Messages are aligned to 4 bytes (NLMSG_ALIGN).
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            // What cannot be understood is of no concern here.
            if let Ok(message) = message {
                return Some(message);
            }
        }
    })
}

fn meaning(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<News> {
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return None };
    if let RouteNetlinkMessage::NewLink(link) = message {
        let link = Link::from_message(link);
        return Some(News::Carrier(link.name.clone(), link.is_usable()));
    } else if let RouteNetlinkMessage::DelLink(_) = message {
        return Some(News::Changed);
    } else if let RouteNetlinkMessage::NewAddress(address) = message {
        // Ours are renewed all the time.
        return (!is_marked(address)).then_some(News::Changed);
    } else if let RouteNetlinkMessage::DelAddress(address) = message {
        return Some(if is_marked(address) { News::Lost } else { News::Changed });
    }
    None
}

/// Whether an address has the mark of virtual routers.
fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::from(VRRP_PROTOCOL)))
}

fn named(order: &AddressOrder, ifindex: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if order.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = order.prefix_len;
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(order.address), AddressAttribute::Address(order.address)];
    message
}

/// IPv6: no duplicate detection, for the other node may have it still, and deprecated, so that the host does not choose it by itself (RFC 6724 s5 rule 3).
fn leased(order: &AddressOrder, ifindex: u32, has_route: bool) -> AddressMessage {
    let mut message = named(order, ifindex);
    let is_whole = order.prefix_len == if order.address.is_ipv4() { 32 } else { 128 };
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = LEASE.as_secs() as u32;
    lifetimes.ifa_preferred = if order.address.is_ipv4() { lifetimes.ifa_valid } else { 0 };
    let mut flags = AddressFlags::empty();
    if order.address.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    if is_whole || !has_route {
        flags |= AddressFlags::Noprefixroute;
    }
    message.attributes.extend(order.label.clone().map(AddressAttribute::Label));
    message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    message.attributes.push(AddressAttribute::Flags(flags));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(VRRP_PROTOCOL)));
    message
}

/// A link, for packets of this Ethernet protocol.
pub(super) fn link_address(ifindex: u32, protocol: [u8; 2]) -> io::Result<SockAddr> {
    let length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `init` fills the storage, which is zeroed and larger, as a whole sockaddr_ll, and says its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, storage_length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_protocol = u16::from_ne_bytes(protocol);
            (*link).sll_ifindex = ifindex as i32;
            *storage_length = length;
            Ok(())
        })?
    };
    Ok(address)
}

/// Whether the host has the address without our mark on the link.
pub(super) fn is_somebody_elses(link: &LinkState, address: IpAddr) -> bool {
    link.own.contains(&address)
}
