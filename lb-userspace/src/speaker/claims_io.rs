//! The sockets that hear who else claims this node's addresses: one for each link and family where routers are or were active.
//!
//! **Which device.** A frame to all is seen by a link before its macvlans get copies of it: so the link below is listened on, and not the macvlan.
//!
//! **Deaf, not closed.** To close a packet socket the kernel waits until no CPU can be in it (linux v6.18 net/packet/af_packet.c, packet_release:
//! synchronize_net): 14 ms each, measured, longer than an advert may be late. So a link where this node has nothing keeps its socket, with a filter that lets
//! nothing pass.
//!
//! **Low numbers.** Of a process that is killed the kernel closes the files of greater numbers first (linux v6.18 kernel/task_work.c, task_work_run). The heir
//! waits for a pipe's end and for the lock: with two packet sockets of greater numbers it had these after 25 ms, with two of lower ones after 0.7 ms.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns packet sockets")]

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, recv};
use socket2::{Domain, SockFilter, Socket, Type};

use super::{
    claim::{Claim, FRAME_BYTES, Instruction, Watch, claim_of, deaf, filter},
    frames::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
    kernel_io::link_address,
};
use crate::vrrp::terms::Family;

/// Frames of a socket that are read at once. The kernel drops what its queue cannot take.
const MOST_FRAMES: usize = 256;
/// More links and families than a node has where it speaks.
const RESERVED: usize = 16;
/// Who has heard something listens again so late: a flood wakes the process so often at most.
const PAUSE: Duration = Duration::from_millis(2);

/// The sockets by link and family. One is closed when its link has gone and another one has its name: there are as many as links that the configuration
/// has named.
#[derive(Debug)]
pub(super) struct Ears {
    ears: BTreeMap<(String, Family), Ear>,
    /// Files whose numbers sockets get.
    reserved: Vec<File>,
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Ear {
    socket: Socket,
    watch: Watch,
}

impl Ears {
    /// Reserves low numbers.
    pub(super) fn reserve() -> io::Result<Self> {
        let reserved = (0..RESERVED).map(|_| File::open("/dev/null")).collect::<io::Result<_>>()?;
        Ok(Self { ears: BTreeMap::new(), reserved, paused_until: None })
    }

    /// Listens for these, and for nothing else.
    pub(super) fn listen_for(&mut self, watches: BTreeMap<(String, Family), Watch>) {
        for (place, ear) in &mut self.ears {
            if !watches.contains_key(place) && !ear.watch.addresses.is_empty() && attach(&ear.socket, &deaf()).is_ok() {
                ear.watch.addresses.clear();
            }
        }
        for (place, watch) in watches {
            if self.ears.get(&place).is_some_and(|ear| ear.watch == watch) {
                continue;
            }
            // What fails is tried again within a second.
            let known = self.ears.remove(&place).filter(|ear| ear.watch.ifindex == watch.ifindex);
            let heard = match known {
                Some(ear) => ear.turn_to(place.1, &watch),
                None => {
                    // A socket gets the lowest number that is free.
                    drop(self.reserved.pop());
                    Ear::open(place.1, &watch)
                }
            };
            if let Ok(ear) = heard {
                self.ears.insert(place, ear);
            }
        }
    }

    /// Takes what waits.
    pub(super) fn claims(&mut self, now: Instant) -> Vec<Claim> {
        let mut claims = Vec::new();
        if self.paused_until.is_some_and(|until| now < until) {
            return claims;
        }
        let heard = self.ears.values().map(|ear| ear.hear(&mut claims)).sum::<usize>();
        self.paused_until = (heard > 0).then(|| now + PAUSE);
        claims
    }

    /// When it listens again, if it does not.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.paused_until
    }

    /// What readiness means claims; none while it pauses.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ears.values().filter(|_| self.paused_until.is_none()).map(|ear| ear.socket.as_fd())
    }
}

impl Ear {
    fn open(family: Family, watch: &Watch) -> io::Result<Self> {
        // With protocol 0 it hears nothing before it has its filter. A socket of one protocol is given nothing that this host sends.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
        attach(&socket, &filter(family, watch))?;
        let protocol = match family {
            Family::V4 => ETHERTYPE_ARP,
            Family::V6 => ETHERTYPE_IPV6,
        };
        socket.bind(&link_address(watch.ifindex, protocol)?)?;
        Ok(Self { socket, watch: watch.clone() })
    }

    fn turn_to(self, family: Family, watch: &Watch) -> io::Result<Self> {
        attach(&self.socket, &filter(family, watch))?;
        Ok(Self { watch: watch.clone(), ..self })
    }

    /// Reads frames, and gives how many there were.
    fn hear(&self, claims: &mut Vec<Claim>) -> usize {
        let mut frame = [0; FRAME_BYTES];
        for read in 0..MOST_FRAMES {
            match recv(&self.socket, &mut frame[..], RecvFlags::DONTWAIT) {
                Ok((bytes, _)) => claims.extend(claim_of(&frame[..bytes.min(FRAME_BYTES)])),
                // Also that the link went down, which is said once (ENETDOWN).
                Err(_) => return read,
            }
        }
        MOST_FRAMES
    }
}

fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    let instruction = |one: &Instruction| SockFilter::new(one.code, one.if_so, one.if_not, one.value);
    socket.attach_filter(&program.iter().map(instruction).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;
    use crate::speaker::frames::{Sender, announcement};

    const OWN: [u8; 6] = [0x02, 0x10, 0x20, 0x30, 0x40, 0x50];

    /// What the kernel lets pass: filters of sockets of any kind see the first byte that was sent first.
    fn passes(program: &[Instruction], frame: &[u8]) -> bool {
        let (sender, receiver) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        receiver.set_nonblocking(true).unwrap();
        attach(&receiver, program).unwrap();
        // What a filter drops is refused to its sender.
        let _is_dropped = sender.send(frame);
        recv(&receiver, &mut [0; 2048][..], RecvFlags::DONTWAIT).is_ok()
    }

    fn watch(addresses: &[&str]) -> Watch {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Watch { ifindex: 2, addresses, own: BTreeSet::from([[2, 0, 0, 0, 0, 1], OWN]) }
    }

    fn announced(address: &str, mac: [u8; 6]) -> Vec<Vec<u8>> {
        announcement(address.parse().unwrap(), mac, Sender::Host)
    }

    #[test]
    fn the_kernel_lets_pass_what_others_say_of_the_addresses_alone() {
        let held = ["192.0.2.1", "192.0.2.200", "2001:db8::1", "2001:db8:1:2:3:4:5:6"];
        let others = ["192.0.2.2", "2001:db8::2", "2001:db9::1", "2001:db8:1:2:3:4:6:6", "2001:db8:1:2:4:4:5:6"];
        // Each differs from the own ones in the first or the last bytes alone.
        let foreign = [[2, 0, 0, 0, 0, 7], [0x02, 0x10, 0x20, 0x30, 0x40, 0x51], [0x02, 0x11, 0x20, 0x30, 0x40, 0x50]];
        for (address, is_held) in held.map(|one| (one, true)).into_iter().chain(others.map(|one| (one, false))) {
            let family = Family::of(address.parse::<IpAddr>().unwrap());
            let program = filter(family, &watch(&held));
            for mac in foreign {
                for frame in announced(address, mac) {
                    assert_eq!(passes(&program, &frame), is_held, "{address} at {mac:?}");
                    assert!(!passes(&deaf(), &frame));
                }
            }
            for frame in announced(address, OWN) {
                assert!(!passes(&program, &frame), "{address}");
            }
        }
    }

    #[test]
    fn the_kernel_drops_probes_parts_of_frames_and_other_messages() {
        let [four, six] = [Family::V4, Family::V6].map(|family| filter(family, &watch(&["192.0.2.1", "2001:db8::1"])));
        let arp = announced("192.0.2.1", [2, 0, 0, 0, 0, 7]).remove(0);
        let advertisement = announced("2001:db8::1", [2, 0, 0, 0, 0, 7]).remove(0);
        let changed = |frame: &[u8], at: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            frame
        };
        assert!(passes(&four, &arp) && passes(&six, &advertisement));
        for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16), (28, 0)] {
            assert!(!passes(&four, &changed(&arp, at, value)), "{at}");
        }
        for (at, value) in [(20, 6), (21, 254), (54, 135)] {
            assert!(!passes(&six, &changed(&advertisement, at, value)), "{at}");
        }
        assert!(!passes(&four, &arp[..31]) && !passes(&six, &advertisement[..77]));
    }

    #[test]
    fn a_filter_of_many_addresses_is_taken_and_lets_pass_what_is_compared_later() {
        for count in [128, 129] {
            let addresses: Vec<String> = (0..count).map(|number| format!("2001:db8::{number:x}")).collect();
            let program = filter(Family::V6, &watch(&addresses.iter().map(String::as_str).collect::<Vec<_>>()));
            let last = announced(&addresses[count - 1], [2, 0, 0, 0, 0, 7]).remove(0);
            let another = announced("2001:db8::ffff", [2, 0, 0, 0, 0, 7]).remove(0);
            assert_eq!((passes(&program, &last), passes(&program, &another)), (true, count == 129));
        }
    }
}
