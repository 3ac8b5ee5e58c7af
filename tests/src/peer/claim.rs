//! A host that says of an address that it has it, or asks who has, and an ear for what is said.

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

/// A link-layer address as `ip` writes it.
///
/// # Panics
/// If it is none.
pub fn octets(mac: &str) -> Mac {
    let octets: Vec<u8> = mac.trim().split(':').map(|octet| u8::from_str_radix(octet, 16).expect("two digits")).collect();
    octets.try_into().expect("six of them")
}

/// Says again and again, so many times a second, that an address is at `mac`: by gratuitous requests and answers, or unsolicited advertisements. Gives how
/// many frames there were.
pub fn claim(interface: &str, address: IpAddr, mac: Mac, rate: u32, time: Duration) -> io::Result<u64> {
    say(interface, &claims(address, mac)?, rate, time)
}

/// Asks the whole link again and again who has an address, as the host with the address and link-layer address `asker`. Gives how many questions there were.
///
/// # Panics
/// If the addresses are of two families.
pub fn solicit(interface: &str, address: IpAddr, asker: (IpAddr, Mac), rate: u32, time: Duration) -> io::Result<u64> {
    say(interface, &[question(address, asker)?], rate, time)
}

fn say(interface: &str, frames: &[Vec<u8>], rate: u32, time: Duration) -> io::Result<u64> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    let to = link_address(index.cast_signed())?;
    let (began, mut rounds, mut sent) = (Instant::now(), 0, 0);
    loop {
        for frame in frames {
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

fn question(address: IpAddr, asker: (IpAddr, Mac)) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    let (source, mac) = asker;
    match (address, source) {
        (IpAddr::V4(address), IpAddr::V4(source)) => {
            let arp = ArpEthIpv4Packet {
                operation: ArpOperation::REQUEST,
                sender_mac: mac,
                sender_ipv4: source.octets(),
                target_mac: [0; 6],
                target_ipv4: address.octets(),
            };
            PacketBuilder::ethernet2(mac, [0xff; 6]).arp(arp.into()).write(&mut frame)
        }
        (IpAddr::V6(address), IpAddr::V6(source)) => {
            let address = address.octets();
            let [.., a, b, c] = address;
            let body = [&address[..], &[1, 1], &mac].concat();
            // The solicited-node address (RFC 4291 s2.7.1), and how it goes by Ethernet (RFC 2464 s7).
            PacketBuilder::ethernet2(mac, [0x33, 0x33, 0xff, a, b, c])
                .ipv6(source.octets(), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c], 255)
                .icmpv6_raw(135, 0, [0; 4])
                .write(&mut frame, &body)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{address} and {source} are of two families"),
    }
    .map_err(io::Error::other)?;
    Ok(frame)
}

fn claims(address: IpAddr, mac: Mac) -> io::Result<Vec<Vec<u8>>> {
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

/// Who says by ARP, for so long, that this address is its own.
pub fn count_arp(interface: &str, address: [u8; 4], time: Duration) -> io::Result<Vec<Mac>> {
    let arp = u16::from(EtherType::ARP).to_be_bytes();
    let frames = hear(interface, time, |frame| frame[12..14] == arp && frame[28..32] == address)?;
    Ok(frames.iter().map(|(_, frame)| frame[22..28].try_into().expect("six bytes")).collect())
}

/// What comes in and goes out by an interface for so long, of frames that are picked, and when. Of each the first 128 bytes, or fewer and zeros.
pub fn hear(interface: &str, time: Duration, picks: impl Fn(&[u8]) -> bool) -> io::Result<Vec<(Instant, Vec<u8>)>> {
    let until = Instant::now() + time;
    let all = Protocol::from(libc::ETH_P_ALL.cast_unsigned().try_into().map(|all: u16| i32::from(all.to_be())).expect("3"));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all))?;
    socket.bind(&link_address(rustix::net::netdevice::name_to_index(&socket, interface)?.cast_signed())?)?;
    let mut heard = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(heard);
        }
        socket.set_read_timeout(Some(left))?;
        let mut frame = [0; 128];
        match recv(&socket, &mut frame[..], RecvFlags::empty()) {
            Ok(_) if picks(&frame) => heard.push((Instant::now(), frame.to_vec())),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
