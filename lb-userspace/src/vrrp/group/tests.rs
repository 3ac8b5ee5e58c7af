#![allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone")]

use std::{net::IpAddr, time::Duration};

use super::*;
use crate::vrrp::{
    addresses::AddressList,
    machine::{Link, Output},
    packet::Advert,
    settings::{Announcing, Claims, Identity, Preempt, Reach, Settings},
    simulation::world::Random,
    terms::{Interval, Priority, RouterId, Version},
};

/// A node with an inner and an outer link, whose routers are one group.
struct Node {
    routers: Vec<Router>,
    group: Group,
    now: Instant,
    /// What the members said, to be heard by another node.
    said: Vec<(usize, IpAddr, Advert)>,
}

fn interval() -> Interval {
    Interval::from_centiseconds(10).unwrap()
}

impl Node {
    fn new(members: u8) -> Self {
        Self::of(members, 5, 100)
    }

    fn of(members: u8, last: u8, priority: u8) -> Self {
        let now = Instant::now();
        let router = |member: u8| {
            let identity = Identity { router: RouterId::new(member + 1).unwrap(), version: Version::V3 };
            let settings = Settings {
                primary: IpAddr::from([10, 0, member, last]),
                interval: interval(),
                reach: Reach::Multicast,
                preempt: Preempt::AtOnce,
                start_delay: Duration::ZERO,
                yield_hold: None,
                announcing: Announcing::default(),
                claims: Claims::WithGroup,
            };
            let addresses = AddressList::new(&[IpAddr::from([10, 0, member, 100])]).unwrap();
            Router::new(identity, settings, Priority::new(priority).unwrap(), addresses, now).unwrap()
        };
        let mut node = Self { routers: (0..members).map(router).collect(), group: Group::new(usize::from(members)), now, said: Vec::new() };
        for member in 0..usize::from(members) {
            node.tell(member, |router, now| router.handle_start(&[], now));
        }
        node
    }

    fn active(members: u8) -> Self {
        let mut node = Self::new(members);
        node.pass(500);
        assert!(node.states().iter().all(|state| *state == State::Active));
        node
    }

    /// As the driver does it.
    fn tell(&mut self, member: usize, what: impl FnOnce(&mut Router, Instant)) {
        what(&mut self.routers[member], self.now);
        self.group.handle_member(MemberNumber(member), &self.routers[member]);
        for _ in 0..20 {
            let Some((MemberNumber(to), order)) = self.group.poll_output() else { return self.collect() };
            order.give(&mut self.routers[to], self.now);
            self.group.handle_member(MemberNumber(to), &self.routers[to]);
        }
        panic!("the group orders without end");
    }

    fn collect(&mut self) {
        for (member, router) in self.routers.iter_mut().enumerate() {
            let source = router.settings().primary;
            while let Some(output) = router.poll_output() {
                if let Output::Send { advert, .. } = output {
                    self.said.push((member, source, advert));
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            let due = self.routers.iter().enumerate().filter_map(|(at, router)| Some((router.poll_timeout()?, at))).min();
            let Some((at, member)) = due.filter(|(at, _)| *at <= until) else { break };
            self.now = at.max(self.now);
            self.tell(member, Router::handle_timeout);
        }
        self.now = until;
    }

    fn hears(&mut self, member: usize, number: u8) {
        let advert = Advert {
            version: Version::V3,
            router: self.routers[member].identity().router,
            priority: number.into(),
            interval: interval(),
            addresses: self.routers[member].addresses().clone(),
        };
        self.tell(member, |router, now| router.handle_advert(IpAddr::from([10, 0, 0, 9]), &advert, now).unwrap());
    }

    fn states(&self) -> Vec<State> {
        self.routers.iter().map(Router::state).collect()
    }
}

#[test]
fn members_become_active_together() {
    let mut node = Node::new(3);
    for _ in 0..10 {
        node.hears(2, 200);
        node.pass(100);
        assert_eq!(node.states(), [State::Backup; 3]);
    }
    assert_eq!(node.routers.iter().map(Router::is_claiming).collect::<Vec<_>>(), [true, true, false]);
    node.pass(300);
    assert_eq!(node.states(), [State::Active; 3]);
}

#[test]
fn a_claim_ends_when_another_router_is_active() {
    let mut node = Node::new(2);
    for _ in 0..5 {
        node.hears(1, 200);
        node.pass(100);
    }
    node.hears(0, 200);
    node.pass(330);
    // The second would, the first heard somebody since.
    node.hears(0, 200);
    node.pass(200);
    assert_eq!(node.states(), [State::Backup; 2]);
    node.pass(500);
    assert_eq!(node.states(), [State::Active; 2]);
}

#[test]
fn all_hand_over_when_one_gives_way() {
    let mut node = Node::active(3);
    node.hears(1, 200);
    assert_eq!(node.states(), [State::Yielding, State::Backup, State::Yielding]);
    node.hears(0, 200);
    assert_eq!(node.states(), [State::Backup, State::Backup, State::Yielding]);
    // Nobody takes the third's addresses: it gives them up all the same, and none comes back alone.
    for _ in 0..20 {
        node.pass(100);
        node.hears(1, 200);
        node.hears(0, 200);
    }
    assert_eq!(node.states(), [State::Backup; 3]);
}

#[test]
fn a_fault_of_one_is_a_fault_of_all_until_nobody_has_one() {
    let mut node = Node::active(3);
    node.tell(0, |router, now| router.handle_link(Link::Down, now));
    // Those whose links are well serve until another node does, or nobody would.
    assert_eq!(node.states(), [State::Fault, State::Yielding, State::Yielding]);
    node.hears(1, 50);
    assert_eq!(node.states(), [State::Fault, State::Fault, State::Yielding]);
    node.pass(500);
    assert_eq!(node.states(), [State::Fault; 3]);
    node.tell(1, |router, now| router.handle_fault(FaultCause::Tracked, now));
    node.tell(0, |router, now| router.handle_link(Link::Up, now));
    assert_eq!(node.states(), [State::Fault; 3]);
    node.tell(1, |router, now| router.handle_fault_over(FaultCause::Tracked, now));
    assert_eq!(node.states(), [State::Backup; 3]);
    node.pass(800);
    assert_eq!(node.states(), [State::Active; 3]);
}

#[test]
fn a_group_that_is_made_anew_ends_the_fault_of_the_former() {
    let mut node = Node::active(2);
    node.tell(0, |router, now| router.handle_link(Link::Down, now));
    node.pass(500);
    assert_eq!(node.states(), [State::Fault; 2]);
    node.group = Group::new(2);
    node.routers[0].handle_link(Link::Up, node.now);
    node.tell(0, |_, _| {});
    node.tell(1, |_, _| {});
    assert_eq!(node.states(), [State::Backup; 2]);
}

#[test]
fn a_yield_of_one_is_followed_by_all() {
    let mut node = Node::active(2);
    node.tell(0, Router::handle_yield);
    assert_eq!(node.states(), [State::Yielding, State::Active]);
    node.hears(0, 50);
    assert_eq!(node.states(), [State::Backup, State::Yielding]);
    node.hears(1, 50);
    for _ in 0..30 {
        node.pass(100);
        node.hears(0, 50);
        node.hears(1, 50);
        assert_eq!(node.states(), [State::Backup; 2]);
    }
    node.tell(0, Router::handle_ready);
    for _ in 0..10 {
        node.pass(100);
        node.hears(0, 50);
        node.hears(1, 50);
    }
    assert_eq!(node.states(), [State::Active; 2]);
}

#[test]
fn held_over_addresses_are_given_up_if_the_group_does_not_take_over() {
    let mut node = Node::new(2);
    let held = node.routers[1].addresses().as_slice().to_vec();
    node.routers[1].handle_halt(node.now);
    node.tell(1, |router, now| router.handle_start(&held, now));
    assert_eq!(node.states(), [State::Backup, State::HeldOver]);
    for _ in 0..9 {
        node.hears(0, 200);
        node.pass(100);
    }
    assert_eq!(node.states(), [State::Backup; 2]);
}

/// Two nodes with two links between them, each of which may be cut.
struct Pair {
    nodes: [Node; 2],
    is_cut: [bool; 2],
}

impl Pair {
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            for of in 0..2 {
                self.nodes[of].pass(1);
                for (member, source, advert) in std::mem::take(&mut self.nodes[of].said) {
                    if !self.is_cut[member] {
                        let other = &mut self.nodes[1 - of];
                        other.tell(member, |router, now| _ = router.handle_advert(source, &advert, now));
                    }
                }
            }
        }
    }
}

#[test]
fn the_members_of_one_node_are_active_after_any_disturbance() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut pair = Pair { nodes: [Node::of(2, 5, 200), Node::of(2, 6, 100)], is_cut: [false; 2] };
        for _ in 0..8 {
            pair.pass(random.below(800));
            let (of, member) = (random.below(2) as usize, random.below(2) as usize);
            match random.below(6) {
                0 => pair.is_cut[member] = !pair.is_cut[member],
                1 => pair.nodes[of].tell(member, |router, now| router.handle_fault(FaultCause::Tracked, now)),
                2 => pair.nodes[of].tell(member, |router, now| router.handle_fault_over(FaultCause::Tracked, now)),
                3 => pair.nodes[of].tell(member, |router, now| router.handle_link(Link::Down, now)),
                4 => pair.nodes[of].tell(member, |router, now| router.handle_link(Link::Up, now)),
                _ => pair.nodes[of].tell(member, Router::handle_yield),
            }
        }
        pair.is_cut = [false; 2];
        for of in 0..2 {
            for member in 0..2 {
                pair.nodes[of].tell(member, |router, now| router.handle_fault_over(FaultCause::Tracked, now));
                pair.nodes[of].tell(member, |router, now| router.handle_link(Link::Up, now));
                pair.nodes[of].tell(member, Router::handle_ready);
            }
        }
        pair.pass(3000);
        let states = pair.nodes.each_ref().map(Node::states);
        assert_eq!(states, [vec![State::Active; 2], vec![State::Backup; 2]], "seed {seed}");
    }
}
