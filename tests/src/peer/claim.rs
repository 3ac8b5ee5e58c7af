//! A host that says of an address that it has it, and an ear for those who do.

use std::{
    io,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, PacketBuilder};
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use super::flood::link_address;

type Mac = [u8; 6];

/// Says again and again, so many times a second, that an address is at `mac`: by gratuitous requests and answers, or unsolicited advertisements. Gives how
/// many frames there were.
pub fn claim(interface: &str, address: IpAddr, mac: Mac, rate: u32, time: Duration) -> io::Result<u64> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    let to = link_address(index.cast_signed())?;
    let frames = frames(address, mac)?;
    let (began, mut rounds, mut sent) = (Instant::now(), 0, 0);
    loop {
        for frame in &frames {
            // A full queue is a flood, too.
            sent += u64::from(socket.send_to(frame, &to).is_ok());
        }
        rounds += 1;
        let next = Duration::from_secs(rounds) / rate;
        if next >= time {
            return Ok(sent);
        }
        thread::sleep(next.saturating_sub(began.elapsed()));
    }
}

fn frames(address: IpAddr, mac: Mac) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>| {
        let mut frame = Vec::new();
        write(&mut frame).map_err(io::Error::other)?;
        frames.push(frame);
        io::Result::Ok(())
    };
    match address {
        IpAddr::V4(address) => {
            for (operation, target) in [(ArpOperation::REQUEST, [0; 6]), (ArpOperation::REPLY, mac)] {
                let arp = ArpEthIpv4Packet {
                    operation,
                    sender_mac: mac,
                    sender_ipv4: address.octets(),
                    target_mac: target,
                    target_ipv4: address.octets(),
                };
                add(&|frame| PacketBuilder::ethernet2(mac, [0xff; 6]).arp(arp.clone().into()).write(frame))?;
            }
        }
        IpAddr::V6(address) => {
            let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            let body = [&address.octets()[..], &[2, 1], &mac].concat();
            add(&|frame| {
                PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 1])
                    .ipv6(address.octets(), all_nodes, 255)
                    // Override (RFC 4861 s4.4).
                    .icmpv6_raw(136, 0, [0x20, 0, 0, 0])
                    .write(frame, &body)
            })?;
        }
    }
    Ok(frames)
}

/// Counts the ARP frames that come with this address as their sender's, for so long.
pub fn count_arp(address: [u8; 4], time: Duration) -> io::Result<Vec<Mac>> {
    let until = Instant::now() + time;
    let arp = Protocol::from(i32::from(u16::from(EtherType::ARP).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(arp))?;
    let mut senders = Vec::new();
    let mut frame = [0; 128];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(senders);
        }
        socket.set_read_timeout(Some(left))?;
        match recv(&socket, &mut frame[..], RecvFlags::empty()) {
            Ok(_) if frame[28..32] == address => senders.push(frame[22..28].try_into().expect("six bytes")),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
