//! The sockets of adverts: one for each interface and family.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns sockets")]

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, sendmsg};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::frames::{CONTROL, HOP_LIMIT, VRRP};
use crate::vrrp::{
    addresses::{GROUP4, GROUP6},
    packet::{Ends, Received},
    terms::Family,
};

/// An advert with 255 addresses of IPv6 and a trailer fits.
const BUFFER_BYTES: usize = 8192;

/// The socket of an interface and a family.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    family: Family,
    pub(super) ifindex: u32,
}

impl Wire {
    pub(super) fn open(interface: &str, ifindex: u32, family: Family) -> io::Result<Self> {
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(i32::from(VRRP))))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        match family {
            Family::V4 => {
                socket.join_multicast_v4_n(&GROUP4, &InterfaceIndexOrAddress::Index(ifindex))?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(HOP_LIMIT.into())?;
                socket.set_ttl_v4(HOP_LIMIT.into())?;
                socket.set_tos_v4(CONTROL.into())?;
            }
            Family::V6 => {
                socket.join_multicast_v6(&GROUP6, ifindex)?;
                socket.set_multicast_if_v6(ifindex)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_tclass_v6(CONTROL.into())?;
                socket.set_recv_hoplimit_v6(true)?;
                nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        Ok(Self { socket, family, ifindex })
    }

    /// Whether the kernel still gives it what is sent to the group. An interface that loses its addresses for a moment, as with an MTU below that of its
    /// family, forgets the groups that sockets are in (linux v6.18 net/ipv6/addrconf.c, addrconf_notify; net/ipv4/devinet.c, inetdev_event).
    pub(super) fn is_joined(&self) -> bool {
        let (file, group) = match self.family {
            Family::V4 => ("/proc/thread-self/net/igmp", format!("{:08X}", u32::from_ne_bytes(GROUP4.octets()))),
            Family::V6 => ("/proc/thread-self/net/igmp6", GROUP6.octets().map(|octet| format!("{octet:02x}")).concat()),
        };
        // What cannot be read tells nothing.
        std::fs::read_to_string(file).map_or(true, |text| has_joined(&text, self.family, self.ifindex, &group))
    }

    /// Sends a payload from an address of the interface.
    pub(super) fn send(&self, ends: Ends, payload: &[u8]) -> io::Result<()> {
        let slices = [io::IoSlice::new(payload)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        match (ends.source, ends.destination) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                let in_addr = |address: Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
                let info = libc::in_pktinfo {
                    ipi_ifindex: self.ifindex as i32,
                    ipi_spec_dst: in_addr(source),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendmsg(fd, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: self.ifindex };
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, self.ifindex));
                sendmsg(fd, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    /// Takes one packet that waits, if one does.
    pub(super) fn receive(&self, take: &mut dyn FnMut(&Received<'_>)) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_BYTES];
        match self.family {
            Family::V4 => {
                let received = rustix::net::recv(&self.socket, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT);
                let length = match received {
                    Ok((length, _)) => length,
                    Err(rustix::io::Errno::AGAIN) => return Ok(false),
                    Err(error) => return Err(error.into()),
                };
                if let Some(received) = of_ipv4(&buffer[..length.min(BUFFER_BYTES)]) {
                    take(&received);
                }
            }
            Family::V6 => {
                let mut control = nix::cmsg_space!(libc::in6_pktinfo, i32);
                let mut slices = [IoSliceMut::new(&mut buffer)];
                let message = match recvmsg::<SockaddrIn6>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)
                {
                    Ok(message) => message,
                    Err(nix::errno::Errno::EAGAIN) => return Ok(false),
                    Err(error) => return Err(error.into()),
                };
                let (mut destination, mut hop_limit) = (None, None);
                for one in message.cmsgs()? {
                    if let ControlMessageOwned::Ipv6PacketInfo(info) = one {
                        destination = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                    } else if let ControlMessageOwned::Ipv6HopLimit(limit) = one {
                        hop_limit = u8::try_from(limit).ok();
                    }
                }
                let source = message.address.map(|address| IpAddr::from(address.ip()));
                let length = message.bytes;
                if let (Some(source), Some(destination), Some(hop_limit)) = (source, destination, hop_limit) {
                    take(&Received { ends: Ends { source, destination }, hop_limit, payload: &buffer[..length] });
                }
            }
        }
        Ok(true)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Of proc(5)'s files: that of IPv4 has a line for each interface, and indented ones for its groups.
fn has_joined(text: &str, family: Family, ifindex: u32, group: &str) -> bool {
    let mut of_interface = None;
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_interface_line = family == Family::V6 || !line.starts_with(['\t', ' ']);
        if is_interface_line {
            of_interface = words.next().and_then(|number| number.parse::<u32>().ok());
        }
        let found = if family == Family::V6 { words.nth(1) } else { words.next().filter(|_| !is_interface_line) };
        of_interface == Some(ifindex) && found.is_some_and(|found| found.eq_ignore_ascii_case(group))
    })
}

/// A raw socket of IPv4 gives the header too.
fn of_ipv4(packet: &[u8]) -> Option<Received<'_>> {
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let ends = Ends { source: address(12)?, destination: address(16)? };
    let payload = packet.get(header_bytes..length.min(packet.len())).filter(|_| header_bytes >= 20)?;
    Some(Received { ends, hop_limit: *packet.get(8)?, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_the_kernels_lists() {
        let v4 = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                  2\teth0      :     2      V3\n\t\t\t\t120000E0     1 0:00000000\t\t0\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        assert!(has_joined(v4, Family::V4, 2, "120000E0") && !has_joined(v4, Family::V4, 1, "120000E0"));
        let v6 = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
                  2    eth0            ff020000000000000000000000000012     1 00000004 0\n";
        let group = "ff020000000000000000000000000012";
        assert!(has_joined(v6, Family::V6, 2, group) && !has_joined(v6, Family::V6, 1, group) && !has_joined("", Family::V6, 2, group));
    }

    #[test]
    fn the_payload_is_behind_the_options_of_the_header() {
        let mut packet = vec![0x46, 0, 0, 28, 0, 0, 0, 0, 255, 112, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18, 1, 1, 1, 1, 9, 8, 7, 6];
        let received = of_ipv4(&packet).unwrap();
        assert_eq!((received.payload, received.hop_limit), (&[9, 8, 7, 6][..], 255));
        assert_eq!((received.ends.source.to_string(), received.ends.destination.to_string()), ("192.0.2.1".into(), "224.0.0.18".into()));
        // Padding of a short frame is no payload.
        packet.extend([0; 18]);
        assert_eq!(of_ipv4(&packet).unwrap().payload, [9, 8, 7, 6]);
        packet[0] = 0x44;
        assert!(of_ipv4(&packet).is_none());
        assert!(of_ipv4(&[]).is_none());
    }
}
