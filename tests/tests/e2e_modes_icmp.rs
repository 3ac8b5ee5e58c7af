//! What routers and hosts say about packets, and packets of every size: path MTU discovery, echo, fragments.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use weir_tests::{
    lab::{Far, Host, Shape, Topology, Weir, tcp_bulk, wait_until},
    modes::{self, ECHO, Mode},
    peer::{
        message::{HEADER_BYTES, Message},
        udp::{self, Answer},
    },
};

const NARROW: u32 = 1300;
/// Leaves more than the 1 280 bytes that IPv6 may not go below.
const NARROW_FOR_TUNNELS: u32 = 1400;
const SOON: Duration = Duration::from_secs(10);

/// How often the data plane did something, over all services.
fn noted(weir: &Weir<'_>, what: &str) -> u64 {
    let status = weir.status().unwrap();
    let services = status["services"].as_array().unwrap();
    services.iter().chain([&status]).filter_map(|counts| counts["notes"][what].as_u64()).sum()
}

/// Forgets what the hosts have learned about paths.
fn forget_paths(hosts: &[Host]) {
    for host in hosts {
        host.namespace.ip("route flush cache").unwrap();
        host.namespace.ip("-6 route flush cache").unwrap();
    }
}

fn servers_hear_a_router_beyond_the_client(shape: Shape, modes: &[Mode]) {
    let lab = Topology::builder(shape).build().unwrap();
    let far = Far::behind(lab.client(), 8, NARROW).unwrap();
    far.route_on(lab.router.as_ref().unwrap_or(lab.node()), lab.client()).unwrap();
    let _servers = modes::serve(&lab, modes).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, modes)).unwrap();
    for (index, mode) in modes.iter().enumerate() {
        forget_paths(&lab.servers);
        let before = noted(&weir, "icmp-forwarded");
        let mut heard = std::collections::BTreeSet::new();
        wait_until("both servers to be asked", SOON, || {
            let carried = tcp_bulk(&far.host.namespace, modes::vip(&lab, modes, index, ECHO), 1, SOON);
            heard.insert(carried.unwrap_or_else(|error| panic!("{mode}: {error:#}")).server);
            heard.len() == 2
        })
        .unwrap();
        let told = noted(&weir, "icmp-forwarded") - before;
        assert!(told >= 2, "{mode}: {told} errors were forwarded");
    }
}

#[test]
fn a_server_hears_a_router_beyond_the_client_through_the_node() {
    servers_hear_a_router_beyond_the_client(Shape::TwoArmed, Mode::PLAIN);
}

#[test]
fn a_server_that_answers_past_the_node_hears_a_router_beyond_the_client() {
    servers_hear_a_router_beyond_the_client(Shape::Routed, Mode::PLAIN);
}

#[test]
fn a_server_behind_a_tunnel_hears_a_router_beyond_the_client() {
    servers_hear_a_router_beyond_the_client(Shape::TwoArmed, Mode::IPIP);
    servers_hear_a_router_beyond_the_client(Shape::Routed, Mode::GUE);
}

/// A narrow link between the node and the server, of which neither knows.
fn clients_hear_a_router_before_the_server(modes: &[Mode]) {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let far = Far::behind(&lab.servers[0], 20, NARROW_FOR_TUNNELS).unwrap();
    far.route_on(lab.node(), &lab.servers[0]).unwrap();
    let _servers = modes::serve_by([&far.host], &lab, modes).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration_by(&[&far.host], &lab, modes)).unwrap();
    for (index, mode) in modes.iter().enumerate() {
        forget_paths(&lab.clients);
        // A path that an earlier mode has made known shows in the SYN already.
        let told = || ["icmp-forwarded", "too-big-sent", "mss-clamped"].iter().map(|what| noted(&weir, what)).sum::<u64>();
        let (vip, before) = (modes::vip(&lab, modes, index, ECHO), told());
        let carried = tcp_bulk(&lab.client().namespace, vip, 2, SOON).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        println!("{mode}: 2 MiB each way in {} ms", carried.time.as_millis());
        assert!(told() > before, "{mode}: the client was not told");
        every_size(lab.client(), vip, [1200, 1300, 1400, 1500, 4000]).unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

#[test]
fn a_client_hears_a_router_before_the_server_through_nat() {
    clients_hear_a_router_before_the_server(&Mode::PLAIN[..2]);
}

#[test]
fn a_narrow_path_to_a_server_behind_ipip_is_learned() {
    // NAT beside it makes the tunnel's source an address that the data plane looks at too.
    clients_hear_a_router_before_the_server(&[Mode::IPIP, &Mode::PLAIN[..2]].concat());
}

#[test]
fn a_narrow_path_to_a_server_behind_gue_is_learned() {
    clients_hear_a_router_before_the_server(Mode::GUE);
}

/// Sends a checked datagram of `bytes` from a socket, again where the answer does not come, and tells who answered and after how many tries.
fn ask(socket: &UdpSocket, number: u64, bytes: usize) -> io::Result<(String, u32)> {
    let message = Message::filled(77, number, bytes - HEADER_BYTES);
    for tries in 1..=5 {
        match udp::ask(socket, &message) {
            Ok(Answer::Right(name)) => return Ok((name, tries)),
            Ok(Answer::Changed) => return Err(io::Error::other("the bytes were changed")),
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Datagrams of every size around the MTU, then of several fragments, from one socket. Returns how many had to be sent again.
fn every_size(host: &Host, to: SocketAddr, sizes: impl IntoIterator<Item = usize> + Send) -> io::Result<u32> {
    host.namespace.enter(|| {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let (first, mut again) = (ask(&socket, 0, 100)?.0, 0);
        for (number, bytes) in (1..).zip(sizes) {
            let (server, tries) = ask(&socket, number, bytes).map_err(|error| io::Error::other(format!("{bytes} bytes: {error}")))?;
            if server != first {
                return Err(io::Error::other(format!("{bytes} bytes went to {server} in place of {first}")));
            }
            again += tries - 1;
        }
        Ok(again)
    })
}

fn sizes_around_the_mtu() -> impl Iterator<Item = usize> + Send + Clone {
    (1380..=1530).chain([2900, 2960, 3000, 4500, 8000, 20_000, 60_000])
}

fn datagrams_of_every_size_arrive(shape: Shape, modes: &[Mode], most_again: u32) {
    let lab = Topology::builder(shape).build().unwrap();
    let _servers = modes::serve(&lab, modes).unwrap();
    let _weir = Weir::start(lab.node(), &modes::configuration(&lab, modes)).unwrap();
    for (index, mode) in modes.iter().enumerate() {
        let again = every_size(lab.client(), modes::vip(&lab, modes, index, ECHO), sizes_around_the_mtu());
        let again = again.unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert!(again <= most_again, "{mode}: {again} datagrams had to be sent again");
    }
}

#[test]
fn datagrams_of_every_size_arrive_whole_at_one_server() {
    datagrams_of_every_size_arrive(Shape::TwoArmed, Mode::PLAIN, 0);
}

#[test]
fn datagrams_of_every_size_arrive_whole_past_the_node() {
    datagrams_of_every_size_arrive(Shape::Routed, Mode::PLAIN, 0);
}

#[test]
fn datagrams_of_every_size_arrive_whole_through_tunnels() {
    // Once the first has been found too big, the client fragments.
    datagrams_of_every_size_arrive(Shape::TwoArmed, Mode::IPIP, 1);
    datagrams_of_every_size_arrive(Shape::Routed, Mode::GUE, 1);
}

/// Echo requests with these numbers of bytes, and whether all were answered.
fn is_echoed(host: &Host, to: IpAddr, sizes: &[usize]) -> io::Result<bool> {
    host.namespace.enter(|| {
        let (protocol, domain, request, reply) = match to {
            IpAddr::V4(_) => (Protocol::ICMPV4, Domain::IPV4, 8, 0),
            IpAddr::V6(_) => (Protocol::ICMPV6, Domain::IPV6, 128, 129),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        for (sequence, bytes) in (1_u8..).zip(sizes) {
            let payload = Message::filled(1, sequence.into(), *bytes).payload;
            let mut message = [&[request, 0, 0, 0, 0x77, 0x77, 0, sequence], &payload[..]].concat();
            if to.is_ipv4() {
                let sum = checksum(&message).to_be_bytes();
                message[2..4].copy_from_slice(&sum);
            }
            socket.send(&message)?;
            let mut buffer = [MaybeUninit::uninit(); 2048];
            loop {
                let length = match socket.recv(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                };
                // IPv4 gives the IP header too.
                let start = if to.is_ipv4() { 20 } else { 0 };
                let answer: Vec<u8> = buffer[start..length].iter().map(|byte| byte_of(*byte)).collect();
                if answer[0] == reply && answer[4..8] == message[4..8] && answer[8..] == payload[..] {
                    break;
                }
            }
        }
        Ok(true)
    })
}

#[allow(unsafe_code, reason = "the standard library has no safe reading of a byte that the kernel wrote")]
fn byte_of(byte: MaybeUninit<u8>) -> u8 {
    // SAFETY: the kernel wrote all bytes below the length that `recv` returned.
    unsafe { byte.assume_init() }
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

#[test]
fn vips_answer_echo_requests() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    for (index, mode) in Mode::PLAIN.iter().enumerate() {
        let (vip, before) = (modes::vip(&lab, Mode::PLAIN, index, 0).ip(), noted(&weir, "echo-replied"));
        assert!(is_echoed(lab.client(), vip, &[0, 1, 56, 57, 1000, 1452]).unwrap(), "{mode}");
        assert_eq!(noted(&weir, "echo-replied") - before, 6, "{mode}");
    }
}

#[test]
fn the_mss_of_both_sides_fits_a_smaller_network_of_the_servers() {
    let lab = Topology::builder(Shape::TwoArmed).server_mtu(NARROW).build().unwrap();
    let modes: Vec<Mode> = Mode::PLAIN.iter().copied().filter(|mode| mode.forward == "nat").collect();
    let _servers = modes::serve(&lab, &modes).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, &modes)).unwrap();
    for (index, mode) in modes.iter().enumerate() {
        let before = noted(&weir, "mss-clamped");
        tcp_bulk(&lab.client().namespace, modes::vip(&lab, &modes, index, ECHO), 4, SOON)
            .unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        assert_eq!(noted(&weir, "mss-clamped") - before, 1, "{mode}: the SYN was to be clamped, the answer fits by itself");
        assert_eq!(noted(&weir, "too-big-sent"), 0, "{mode}");
    }
}

#[test]
fn a_client_with_too_large_datagrams_is_told_and_recovers() {
    let lab = Topology::builder(Shape::TwoArmed).server_mtu(NARROW).build().unwrap();
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    for (index, mode) in Mode::PLAIN.iter().enumerate() {
        forget_paths(&lab.clients);
        let before = noted(&weir, "too-big-sent");
        let vip = modes::vip(&lab, Mode::PLAIN, index, ECHO);
        // DF is set on the first, the client learns, and fragments the next.
        let again = every_size(lab.client(), vip, [1400, 1450, 3000]).unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!((again, noted(&weir, "too-big-sent") - before), (1, 1), "{mode}");
    }
}
