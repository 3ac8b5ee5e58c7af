//! A server and, across a cable, a namespace that is load balancer and client at once.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "makes namespaces and runs ip(8) in them")]

use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use clap::Parser as _;
use lb_userspace::cli::{
    Exit,
    server_setup::{Args, run},
};
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, ipproto, recv, sendto, socket_with, sockopt,
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

static LABS: AtomicU32 = AtomicU32::new(0);

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

/// `server`, where the calling thread is: eth0 10.9.0.1/24, fd09::1/64, default routes to — `far`: eth0 10.9.0.9, fd09::9, and the clients'
/// addresses 198.51.100.7 and 2001:db8:f::7. Removed when dropped.
pub(crate) struct Lab {
    server: String,
    far: String,
    root: PathBuf,
    sender4: OwnedFd,
    sender6: OwnedFd,
    receiver4: OwnedFd,
    receiver6: OwnedFd,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let name = format!("weir-ss-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let (server, far) = (format!("{name}-server"), format!("{name}-far"));
        let root = std::env::temp_dir().join(&name);
        fs::create_dir(&root).unwrap();
        mount("bpf", &root, "bpf", MountFlags::empty(), None).expect("tests of a server's setup need root");
        for namespace in [&server, &far] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        enter(&far);
        ip(&format!("link add eth0 type veth peer name eth0 netns {server}"));
        // A link-local address of the kernel's own making is of no use while its duplicates are looked for.
        ip("link set eth0 addrgenmode none");
        for address in [
            "10.9.0.9/24 dev eth0",
            "fd09::9/64 dev eth0 nodad",
            "fe80::9/64 dev eth0 nodad",
            "198.51.100.7/32 dev lo",
            "2001:db8:f::7/128 dev lo",
        ] {
            ip(&format!("address add {address}"));
        }
        ip("link set eth0 up");
        let raw = |family, protocol: Protocol| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
        let receiver = |family| {
            let socket = raw(family, ipproto::TCP);
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DEADLINE)).unwrap();
            socket
        };
        let (sender4, sender6) = (raw(AddressFamily::INET, ipproto::RAW), raw(AddressFamily::INET6, ipproto::RAW));
        let (receiver4, receiver6) = (receiver(AddressFamily::INET), receiver(AddressFamily::INET6));
        enter(&server);
        ip("link set eth0 addrgenmode none");
        ip("link set eth0 up");
        let lab = Self { server, far, root, sender4, sender6, receiver4, receiver6 };
        lab.address("eth0");
        lab
    }

    /// Gives the server's addresses and default routes to this interface.
    pub(crate) fn address(&self, interface: &str) {
        ip(&format!("address replace 10.9.0.1/24 dev {interface}"));
        ip(&format!("address replace fd09::1/64 dev {interface} nodad"));
        ip(&format!("address replace fe80::1/64 dev {interface} nodad"));
        // The kernel makes IPv6 addresses local some time after it has added them.
        until("addresses are local", || ["fd09::1", "fe80::1"].iter().all(|own| ip("-6 route show table local").contains(own)));
        ip(&format!("route replace default via 10.9.0.9 dev {interface}"));
        ip(&format!("-6 route replace default via fd09::9 dev {interface}"));
    }

    /// `ip` in the far namespace.
    pub(crate) fn far(&self, words: &str) -> String {
        ip(&format!("-n {} {words}", self.far))
    }

    /// A shell command in the far namespace.
    pub(crate) fn far_shell(&self, command: &str) {
        let status = Command::new("ip").args(["netns", "exec", &self.far, "sh", "-c", command]).status().unwrap();
        assert!(status.success(), "{command}");
    }

    /// Sends a packet, headers and all, from the far side.
    pub(crate) fn send(&self, packet: &[u8]) {
        let (socket, target): (_, IpAddr) = if packet[0] >> 4 == 4 {
            (&self.sender4, <[u8; 4]>::try_from(&packet[16..20]).unwrap().into())
        } else {
            (&self.sender6, <[u8; 16]>::try_from(&packet[24..40]).unwrap().into())
        };
        let target: SocketAddrAny = std::net::SocketAddr::new(target, 0).into();
        assert_eq!(sendto(socket, packet, SendFlags::empty(), &target).unwrap(), packet.len());
    }

    /// The next TCP segment that comes to the far side: source port and flags.
    pub(crate) fn segment(&self, is_v4: bool) -> (u16, u8) {
        let mut bytes = [0; 2048];
        // IPv6 sockets are given no IP header.
        let (socket, header_bytes) = if is_v4 { (&self.receiver4, 20) } else { (&self.receiver6, 0) };
        let (length, _) = recv(socket, &mut bytes, RecvFlags::empty()).expect("a segment comes");
        let segment = &bytes[header_bytes..length];
        (u16::from_be_bytes([segment[0], segment[1]]), segment[13])
    }

    /// `weir server-setup` with these words: how it ended, stdout, stderr.
    pub(crate) fn weir(&self, words: &str) -> (Exit, String, String) {
        self.weir_with_pins(&self.pins(), words)
    }

    /// The same with another pin directory.
    pub(crate) fn weir_with_pins(&self, pins: &std::path::Path, words: &str) -> (Exit, String, String) {
        let record = self.record().display().to_string();
        let pins = pins.display().to_string();
        let places = ["--record", &record, "--pin-dir", &pins];
        let line = ["server-setup"].into_iter().chain(words.split_whitespace()).chain(places);
        let line = CommandLine::try_parse_from(line).unwrap();
        let (mut out, mut err) = (vec![], vec![]);
        let exit = run(&line.args, &mut out, &mut err).unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    pub(crate) fn add(&self, words: &str) -> String {
        let (exit, out, err) = self.weir(&format!("add {words}"));
        assert_eq!((exit, err.as_str()), (Exit::Fine, ""), "{words}: {out}");
        out
    }

    pub(crate) fn remove(&self) {
        let (exit, _, err) = self.weir("remove");
        assert_eq!((exit, err.as_str()), (Exit::Fine, ""));
    }

    pub(crate) fn record(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}.json", self.server))
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("server")
    }

    /// All that a setup may change.
    pub(crate) fn state(&self) -> Vec<String> {
        let mut state = vec![ip("-o address"), ip("route show table all"), ip("-6 route show table all"), ip("-o link")];
        for device in ["all", "default", "lo", "eth0"] {
            for setting in ["arp_ignore", "arp_announce", "rp_filter", "accept_local"] {
                state.push(format!("{device} {setting} {}", setting_of(device, setting)));
            }
        }
        let pins = fs::read_dir(&self.root).unwrap().map(|entry| format!("{:?}", entry.unwrap().path()));
        state.extend(pins);
        state.push(format!("record: {}", self.record().exists()));
        state
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
        let _ = fs::remove_file(self.record());
        let _ = fs::remove_file(self.record().with_extension("lock"));
        for namespace in [&self.server, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

pub(crate) fn setting_of(device: &str, setting: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/{setting}")).unwrap().trim().to_owned()
}

pub(crate) fn set(device: &str, setting: &str, value: u32) {
    fs::write(format!("/proc/sys/net/ipv4/conf/{device}/{setting}"), value.to_string()).unwrap();
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `ip` with these words, in the calling thread's namespace.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn enter(namespace: &str) {
    let namespace = open(format!("/run/netns/{namespace}"), OFlags::RDONLY, Mode::empty()).unwrap();
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
}
