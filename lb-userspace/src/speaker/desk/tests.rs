//! What the desk has done on each event.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Desk, Doing, LinkState, Moment};
use crate::{
    speaker::order::{AddressOrder, HeardNumber, Memory, Order, PreemptOrder, Resume, RouterOrder, Said, ToldState, TrackOrder, Watched},
    vrrp::{
        packet::{Advert, Authentication, ChecksumForm, Ends, Received, checksum_form_of},
        terms::{AdvertPriority, Interval, Priority, RouterId, Version},
    },
};

mod claims;
mod moves;

const BOOT: Duration = Duration::from_secs(1000);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn moment() -> Moment {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
    let now = Instant::now() + Duration::from_secs(100);
    Moment { now, boot: BOOT, wall: Duration::from_secs(5000) }
}

fn later(at: Moment, ms: u64) -> Moment {
    let by = Duration::from_millis(ms);
    Moment { now: at.now + by, boot: at.boot + by, wall: at.wall + by }
}

fn router(address: &str) -> RouterOrder {
    RouterOrder {
        interface: "eth0".into(),
        router_id: 7,
        version: 3,
        priority: 100,
        interval_ms: 100,
        virtual_mac: None,
        addresses: vec![AddressOrder { address: ip(address), prefix_len: 24, device: "eth0".into(), label: None }],
        source: None,
        peers: BTreeSet::new(),
        min_hop_limit: 255,
        preempt: PreemptOrder::AtOnce,
        start_delay_ms: 0,
        yield_hold_ms: None,
        announce_again_ms: None,
        announce_every_ms: None,
        announce_gap_ms: 1000,
        password: None,
        keys: BTreeMap::new(),
        key: 0,
        has_pseudo_header: None,
        group: None,
        tracks: Vec::new(),
        resume: None,
    }
}

fn order(routers: &[(&str, RouterOrder)]) -> Order {
    let routers = routers.iter().map(|(name, router)| ((*name).to_owned(), router.clone())).collect();
    Order { routers, data_plane: vec!["eth0".into()], pin_dir: "/nowhere".into() }
}

fn link() -> LinkState {
    LinkState {
        ifindex: 2,
        has_carrier: true,
        mac: Some([2, 0, 0, 0, 0, 1]),
        has_xdp: true,
        is_up: true,
        macvlan_on: None,
        own: vec![ip("10.0.0.1"), ip("fd00::1"), ip("fe80::1")],
        marked: BTreeSet::new(),
    }
}

fn links(link: LinkState) -> BTreeMap<String, LinkState> {
    BTreeMap::from([("eth0".to_owned(), link)])
}

/// What is done, in short.
fn done(desk: &mut Desk) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(doing) = desk.poll_doing() {
        let list = |addresses: &[AddressOrder]| addresses.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" ");
        done.push(match &doing {
            Doing::Transmit { ends, payload, .. } => format!("advert {} to {} from {}", payload[2], ends.destination, ends.source),
            Doing::Add { addresses, .. } => format!("add {}", list(addresses)),
            Doing::Remove { addresses, .. } => format!("remove {}", list(addresses)),
            Doing::Announce { addresses } => format!("announce {}", list(addresses)),
            Doing::Say(Said::Changed(changed)) => format!("{} {}: {}", changed.router, changed.to, changed.reason),
            Doing::Say(said) => format!("{said:?}"),
        });
    }
    done
}

fn state(desk: &Desk, at: Moment) -> Vec<String> {
    desk.view(at).into_iter().map(|view| view.state).collect()
}

fn hear(desk: &mut Desk, priority: u8, form: ChecksumForm, at: Moment) {
    let advert = Advert {
        version: Version::V3,
        router: RouterId::new(7).unwrap(),
        priority: AdvertPriority::Holds(Priority::new(priority).unwrap()),
        interval: Interval::new(Duration::from_millis(100), Version::V3).unwrap(),
        addresses: crate::vrrp::addresses::AddressList::new(&[ip("10.0.0.100")]).unwrap(),
    };
    let ends = Ends { source: ip("10.0.0.2"), destination: ip("224.0.0.18") };
    let payload = advert.encode(ends, form, Authentication::None);
    desk.handle_packet("eth0", &Received { ends, hop_limit: 255, payload: &payload }, at.now);
}

#[test]
fn adverts_come_from_the_virtual_mac_while_the_router_is_active() {
    let mut desk = Desk::default();
    let at = moment();
    desk.handle_links(links(link()), at);
    let mut wanted = router("10.0.0.100");
    (wanted.virtual_mac, wanted.addresses[0].device) = (Some("vrrp4-7".into()), "vrrp4-7".into());
    desk.handle_order(order(&[("www", wanted)]), at);
    assert_eq!(desk.macvlans().iter().map(|one| (one.mac, one.is_up)).collect::<Vec<_>>(), [([0, 0, 0x5e, 0, 1, 7], false)]);
    let sources = |desk: &mut Desk| {
        let mut sources = Vec::new();
        while let Some(doing) = desk.poll_doing() {
            if let Doing::Transmit { mac, payload, .. } = doing {
                sources.push((mac.is_some(), payload[2]));
            }
        }
        sources
    };
    let at = later(at, 400);
    desk.handle_timeout(at.now);
    assert_eq!(sources(&mut desk), [(true, 100)]);
    assert!(desk.macvlans()[0].is_up);
    // One that hands over does not draw frames back.
    desk.handle_yield(&["www".to_owned()], at.now);
    assert_eq!(sources(&mut desk), [(false, 0)]);
}

#[test]
fn a_router_takes_its_addresses_then_tells_the_link_then_the_others() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
    assert_eq!(done(&mut desk), ["www backup: started"]);
    let due = desk.poll_timeout().unwrap();
    desk.handle_timeout(due);
    let taken =
        ["add 10.0.0.100", "announce 10.0.0.100", "advert 100 to 224.0.0.18 from 10.0.0.1", "www active: no active router was heard"];
    assert_eq!(done(&mut desk), taken);
    assert_eq!(desk.held().len(), 1);
    // It goes without the order.
    desk.handle_order(Order::default(), later(at, 400));
    assert_eq!(done(&mut desk)[0], "advert 0 to 224.0.0.18 from 10.0.0.1");
    desk.handle_timeout(desk.poll_timeout().unwrap());
    while let Some(due) = desk.poll_timeout() {
        desk.handle_timeout(due);
    }
    assert!(desk.is_empty(), "{:?}", done(&mut desk));
}

#[test]
fn an_address_that_is_to_be_elsewhere_moves_and_nobody_is_told_that_it_went() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
    desk.handle_timeout(desk.poll_timeout().unwrap());
    done(&mut desk);
    let mut wanted = router("10.0.0.100");
    wanted.addresses[0].prefix_len = 32;
    desk.handle_order(order(&[("www", wanted.clone())]), at);
    assert_eq!(done(&mut desk), ["remove 10.0.0.100", "add 10.0.0.100", "announce 10.0.0.100"]);
    (wanted.virtual_mac, wanted.addresses[0].device) = (Some("vrrp4-7".into()), "vrrp4-7".into());
    desk.handle_order(order(&[("www", wanted)]), at);
    // Another interface can have it before.
    assert_eq!(done(&mut desk), ["add 10.0.0.100", "announce 10.0.0.100", "remove 10.0.0.100"]);
    assert_eq!((state(&desk, at), desk.held()[0].device.as_str()), (vec!["active".to_owned()], "vrrp4-7"));
}

#[test]
fn addresses_that_another_node_has_are_given_up_in_a_moment_and_others_at_once() {
    let at = moment();
    let removed = |what: &dyn Fn(&mut Desk)| {
        let mut desk = Desk::default();
        desk.handle_links(links(link()), at);
        desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
        desk.handle_timeout(desk.poll_timeout().unwrap());
        what(&mut desk);
        let doings = std::iter::from_fn(|| desk.poll_doing());
        doings
            .filter_map(|doing| if let Doing::Remove { is_handed_over, .. } = doing { Some(is_handed_over) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(removed(&|desk| hear(desk, 200, ChecksumForm::Message, later(at, 400))), [true]);
    assert_eq!(removed(&|desk| desk.handle_carrier("eth0", false, later(at, 400))), [false]);
    assert_eq!(removed(&|desk| desk.handle_halt(later(at, 400).now)), [false]);
}

#[test]
fn a_router_without_an_address_to_speak_from_waits_and_says_so() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
    assert_eq!((desk.view(at)[0].state.as_str(), desk.view(at)[0].why.as_str()), ("fault", "interface eth0 is not there"));
    desk.handle_links(links(LinkState { own: Vec::new(), ..link() }), at);
    assert_eq!(desk.view(at)[0].why, "interface eth0 has no address to speak from");
    desk.handle_links(links(link()), at);
    assert_eq!(state(&desk, at), ["backup"]);
    // Later it is told once, too.
    desk.handle_links(links(LinkState { own: Vec::new(), ..link() }), at);
    assert_eq!(desk.view(at)[0].faults, ["interface eth0 has no address to speak from"]);
    desk.handle_links(links(link()), at);
    assert_eq!((state(&desk, at).remove(0), desk.view(at)[0].faults.len()), ("backup".to_owned(), 0));
}

#[test]
fn adverts_come_from_the_link_local_address_unless_peers_are_elsewhere() {
    let at = moment();
    let source = |router: RouterOrder| {
        let mut desk = Desk::default();
        desk.handle_links(links(link()), at);
        desk.handle_order(order(&[("www", router)]), at);
        desk.view(at)[0].source.unwrap()
    };
    assert_eq!(source(router("fd00::100")), ip("fe80::1"));
    assert_eq!(source(RouterOrder { peers: [ip("fd00::1"), ip("fd00::2")].into(), ..router("fd00::100") }), ip("fd00::1"));
    // RFC 9568 s5.1.2.1: no other address will do, and while it is tentative it is none.
    let (mut desk, with_source) = (Desk::default(), RouterOrder { source: Some(ip("10.0.0.9")), ..router("10.0.0.100") });
    desk.handle_links(links(LinkState { own: vec![ip("10.0.0.1"), ip("fd00::1")], ..link() }), at);
    desk.handle_order(order(&[("six", router("fd00::100")), ("www", with_source)]), at);
    assert_eq!(
        desk.view(at).into_iter().map(|view| (view.state, view.faults)).collect::<Vec<_>>(),
        [
            ("fault".to_owned(), vec!["interface eth0 has no link-local address to speak from".to_owned()]),
            ("fault".to_owned(), vec!["interface eth0 has not the address 10.0.0.9, the source of its adverts".to_owned()]),
        ]
    );
    // An owner's own address is taken if there is no other.
    assert_eq!(source(router("10.0.0.1")), ip("10.0.0.1"));
}

#[test]
fn what_is_watched_moves_the_priority_or_is_a_fault() {
    let (mut desk, at) = (Desk::default(), moment());
    let track = |how, weight| TrackOrder { name: "x".into(), how, weight };
    let with = |tracks: Vec<TrackOrder>| order(&[("www", RouterOrder { tracks, ..router("10.0.0.100") })]);
    desk.handle_links(links(link()), at);
    desk.handle_order(with(vec![track(Watched::Up, Some(-20)), track(Watched::DataPlane, None)]), at);
    assert_eq!((desk.view(at)[0].priority, state(&desk, at)), (100, vec!["backup".to_owned()]));
    desk.handle_order(with(vec![track(Watched::Down("it is off".into()), Some(-20)), track(Watched::DataPlane, None)]), at);
    assert_eq!(desk.view(at)[0].priority, 80);
    desk.handle_links(links(LinkState { has_xdp: false, ..link() }), at);
    assert_eq!(state(&desk, at), ["fault"]);
    // And why.
    assert_eq!(desk.view(at)[0].faults, ["x: interface eth0 has not our program"]);
    let why: Vec<Option<String>> = desk.view(at)[0].tracks.iter().map(|track| track.why.clone()).collect();
    assert_eq!(why, [Some("it is off".to_owned()), Some("interface eth0 has not our program".to_owned())]);
    desk.handle_links(links(link()), at);
    assert_eq!(state(&desk, at), ["backup"]);
    desk.handle_carrier("eth0", false, at);
    assert_eq!(state(&desk, at), ["fault"]);
    desk.handle_carrier("eth0", true, at);
    assert_eq!(state(&desk, at), ["backup"]);
}

#[test]
fn a_router_with_a_fault_forgets_an_active_one_that_is_silent() {
    let (mut desk, at) = (Desk::default(), moment());
    let fault = TrackOrder { name: "x".into(), how: Watched::Down("it is off".into()), weight: None };
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", RouterOrder { tracks: vec![fault], ..router("10.0.0.100") })]), at);
    hear(&mut desk, 50, ChecksumForm::Message, at);
    let active = |at: Moment| (desk.view(at)[0].active, desk.view(at)[0].addresses[0].holder);
    assert_eq!([active(at), active(later(at, 401))], [(Some(ip("10.0.0.2")), Some(ip("10.0.0.2"))), (None, None)]);
}

#[test]
fn the_next_process_goes_on_as_active_only_while_nobody_can_have_taken_over() {
    let at = moment();
    let begin = |active_until_ms, marked: &[IpAddr]| {
        let mut desk = Desk::default();
        desk.handle_links(links(LinkState { marked: marked.iter().copied().collect(), ..link() }), at);
        let resume = Some(Resume { active_until_ms: Some(active_until_ms), ..Resume::default() });
        desk.handle_order(order(&[("www", RouterOrder { resume, ..router("10.0.0.100") })]), at);
        state(&desk, at).remove(0)
    };
    let boot_ms = BOOT.as_millis() as u64;
    assert_eq!(begin(boot_ms + 1, &[ip("10.0.0.100")]), "active");
    assert_eq!(begin(boot_ms, &[ip("10.0.0.100")]), "held-over");
    assert_eq!(begin(boot_ms + 1, &[]), "backup");
}

#[test]
fn the_next_process_tells_nothing_of_a_state_that_goes_on() {
    let at = moment();
    let begin = |state: &str| {
        let mut desk = Desk::default();
        desk.handle_links(links(LinkState { marked: [ip("10.0.0.100")].into(), ..link() }), at);
        let told = Some(ToldState { state: state.into(), since_ms: 7, why: "it was so".into() });
        let resume = Some(Resume { active_until_ms: Some(BOOT.as_millis() as u64 + 1), told, ..Resume::default() });
        desk.handle_order(order(&[("www", RouterOrder { resume, ..router("10.0.0.100") })]), at);
        let told: Vec<String> = done(&mut desk).into_iter().filter(|line| line.starts_with("www ")).collect();
        (desk, told)
    };
    let (mut desk, told) = begin("active");
    let view = desk.view(at).remove(0);
    assert_eq!((told, view.state.as_str(), view.since_ms, view.why.as_str()), (vec![], "active", 7, "it was so"));
    desk.handle_yield(&["www".to_owned()], at.now);
    assert_eq!(done(&mut desk)[1..], ["www yielding: told to yield"]);
    assert_eq!(desk.view(at)[0].since_ms, 5_000_000);
    // It was another one.
    let (desk, told) = begin("backup");
    assert_eq!((told.len(), desk.view(at)[0].since_ms), (2, 5_000_000));
}

#[test]
fn a_group_becomes_active_as_one() {
    let (mut desk, at) = (Desk::default(), moment());
    let of = |router_id, address: &str| RouterOrder { group: Some("all".into()), router_id, ..router(address) };
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("a", of(7, "10.0.0.100")), ("b", of(8, "10.0.0.101"))]), at);
    let fault = RouterOrder {
        tracks: vec![TrackOrder { name: "x".into(), how: Watched::Down("it is off".into()), weight: None }],
        ..of(8, "10.0.0.101")
    };
    for _ in 0..3 {
        let due = desk.poll_timeout().unwrap();
        desk.handle_timeout(due);
    }
    assert_eq!(state(&desk, at), ["active", "active"]);
    desk.handle_order(order(&[("a", of(7, "10.0.0.100")), ("b", fault)]), later(at, 500));
    for _ in 0..20 {
        if let Some(due) = desk.poll_timeout() {
            desk.handle_timeout(due);
        }
    }
    assert_eq!(state(&desk, at), ["fault", "fault"]);
    assert_eq!(desk.held().len(), 0);
}

#[test]
fn a_fault_of_a_group_ends_with_the_group_however_that_ends() {
    let fault = || vec![TrackOrder { name: "x".into(), how: Watched::Down("it is off".into()), weight: None }];
    let of = |group: Option<&str>, router_id, tracks| RouterOrder {
        group: group.map(str::to_owned),
        router_id,
        tracks,
        ..router(&format!("10.0.0.{router_id}"))
    };
    let alone = || of(None, 100, vec![]);
    let left: [Vec<(&str, RouterOrder)>; 4] = [
        vec![("a", alone())],
        vec![("a", of(Some("all"), 100, vec![]))],
        vec![("a", of(Some("other"), 100, vec![])), ("b", of(Some("all"), 101, fault()))],
        vec![("a", of(Some("other"), 100, vec![])), ("b", of(None, 101, fault())), ("c", of(Some("other"), 102, vec![]))],
    ];
    for routers in left {
        let (mut desk, at) = (Desk::default(), moment());
        desk.handle_links(links(link()), at);
        desk.handle_order(order(&[("a", of(Some("all"), 100, vec![])), ("b", of(Some("all"), 101, fault()))]), at);
        assert_eq!(state(&desk, at), ["fault", "fault"]);
        desk.handle_order(order(&routers), at);
        for _ in 0..6 {
            desk.poll_timeout().into_iter().for_each(|due| desk.handle_timeout(due));
        }
        assert_eq!(state(&desk, at)[0], "active", "{routers:?}");
    }
}

#[test]
fn a_router_of_another_number_that_names_an_address_of_ours_is_told() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", RouterOrder { router_id: 8, ..router("10.0.0.100") })]), at);
    hear(&mut desk, 200, ChecksumForm::Message, at);
    let refusing = desk.view(at)[0].refusing.clone();
    assert_eq!(
        refusing.iter().map(|one| (one.source, one.why.as_str())).collect::<Vec<_>>(),
        [(ip("10.0.0.2"), "it is of virtual router 7, and names an address of this one")]
    );
    desk.handle_order(order(&[("www", RouterOrder { router_id: 9, ..router("10.0.0.101") })]), at);
    hear(&mut desk, 200, ChecksumForm::Message, at);
    assert_eq!(desk.view(at)[0].refusing.len(), 0);
}

#[test]
fn why_a_router_of_precedence_waits_is_told() {
    let at = moment();
    let why = |router: RouterOrder| {
        let mut desk = Desk::default();
        desk.handle_links(links(link()), at);
        desk.handle_order(order(&[("www", router)]), at);
        hear(&mut desk, 50, ChecksumForm::Message, at);
        hear(&mut desk, 50, ChecksumForm::Message, later(at, 100));
        desk.view(later(at, 100))[0].why.clone()
    };
    assert_eq!(
        why(RouterOrder { preempt: PreemptOrder::Never, ..router("10.0.0.100") }),
        "10.0.0.2 is active; preempt = false leaves it alone"
    );
    let delayed = RouterOrder { preempt: PreemptOrder::AfterMs(5000), ..router("10.0.0.100") };
    assert_eq!(why(delayed), "10.0.0.2 is active; preempt_delay is over in 5 s");
    let delayed = RouterOrder { start_delay_ms: 9000, ..router("10.0.0.100") };
    assert_eq!(why(delayed), "10.0.0.2 is active; start_delay is over in 9 s");
    assert_eq!(why(RouterOrder { priority: 40, preempt: PreemptOrder::Never, ..router("10.0.0.100") }), "10.0.0.2 is active");
}

#[test]
fn a_router_answers_in_the_checksum_that_it_heard() {
    let at = moment();
    for form in [ChecksumForm::Message, ChecksumForm::PseudoHeader] {
        let mut desk = Desk::default();
        desk.handle_links(links(link()), at);
        desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
        hear(&mut desk, 50, form, at);
        desk.handle_timeout(desk.poll_timeout().unwrap());
        let mut sent = None;
        while let Some(doing) = desk.poll_doing() {
            if let Doing::Transmit { ends, payload, .. } = doing {
                sent = checksum_form_of(&Received { ends, hop_limit: 255, payload: &payload });
            }
        }
        assert_eq!(sent, Some(form));
    }
}

#[test]
fn adverts_that_count_for_nothing_are_counted_by_reason() {
    let (mut desk, at) = (Desk::default(), moment());
    let keys = BTreeMap::from([(1, "0123456789abcdef".to_owned())]);
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", RouterOrder { keys, key: 1, ..router("10.0.0.100") })]), at);
    hear(&mut desk, 200, ChecksumForm::Message, at);
    assert_eq!(desk.view(at)[0].refused, BTreeMap::from([("it is not authenticated".to_owned(), 1)]));
    // Its sender may be active: that is told once, and when it is over.
    let conflicts = |desk: &mut Desk| {
        let mut conflicts = Vec::new();
        while let Some(doing) = desk.poll_doing() {
            if let Doing::Say(Said::Conflict(conflict)) = doing {
                conflicts.push((conflict.peer, conflict.what, conflict.is_over));
            }
        }
        conflicts
    };
    let what = || "its adverts count for nothing: it is not authenticated".to_owned();
    assert_eq!(conflicts(&mut desk), [(Some(ip("10.0.0.2")), what(), false)]);
    let at = later(at, 9000);
    hear(&mut desk, 200, ChecksumForm::Message, at);
    desk.handle_silence(at.now);
    assert_eq!((conflicts(&mut desk), desk.view(at)[0].refusing.len()), (vec![], 1));
    let at = later(at, 10_001);
    desk.handle_silence(at.now);
    assert_eq!((conflicts(&mut desk), desk.view(at)[0].refusing.len()), (vec![(Some(ip("10.0.0.2")), what(), true)], 0));
}

#[test]
fn of_each_address_the_view_tells_who_names_it_and_what_the_host_has_for_itself() {
    let (mut desk, at) = (Desk::default(), moment());
    let mut wanted = router("10.0.0.100");
    wanted.addresses.push(AddressOrder { address: ip("10.0.0.101"), ..wanted.addresses[0].clone() });
    desk.handle_links(links(LinkState { own: vec![ip("10.0.0.1"), ip("10.0.0.101")], ..link() }), at);
    desk.handle_order(order(&[("www", wanted.clone())]), at);
    hear(&mut desk, 200, ChecksumForm::Message, at);
    let view = desk.view(at).remove(0);
    assert_eq!((view.state.as_str(), view.why.as_str()), ("backup", "10.0.0.2 is active"));
    // The active one names the first alone.
    assert_eq!(view.addresses.iter().map(|one| one.holder).collect::<Vec<_>>(), [Some(ip("10.0.0.2")), None]);
    assert_eq!(view.peers[0].conflicts, ["it has other addresses: only here 10.0.0.101"]);
    let mut same = wanted.clone();
    same.addresses.truncate(1);
    desk.handle_order(order(&[("www", same)]), at);
    assert_eq!(desk.view(at)[0].peers[0].conflicts, Vec::<String>::new());
    desk.handle_order(order(&[("www", wanted.clone())]), at);
    assert_eq!(view.strays, ["10.0.0.101 is eth0's own: it stays there while another node is active"]);
    // An owner has them for itself.
    desk.handle_order(order(&[("www", RouterOrder { priority: 255, ..wanted })]), at);
    assert_eq!(desk.view(at)[0].strays.len(), 1);
    for _ in 0..3 {
        desk.poll_timeout().into_iter().for_each(|due| desk.handle_timeout(due));
    }
    assert_eq!((desk.view(at)[0].state.as_str(), desk.view(at)[0].strays.len()), ("active", 0));
}

#[test]
fn a_list_of_peers_that_names_this_node_alone_is_told() {
    let (mut desk, at) = (Desk::default(), moment());
    let with =
        |peers: &[&str]| order(&[("www", RouterOrder { peers: peers.iter().map(|peer| ip(peer)).collect(), ..router("10.0.0.100") })]);
    desk.handle_links(links(link()), at);
    for (peers, count) in [(&["10.0.0.1"][..], 1), (&["10.0.0.1", "10.0.0.2"], 0), (&[], 0)] {
        desk.handle_order(with(peers), at);
        assert_eq!(desk.view(at)[0].strays.len(), count, "{peers:?}");
    }
}

#[test]
fn weights_of_a_group_count_for_all_its_members_and_once() {
    let (mut desk, at) = (Desk::default(), moment());
    let track = |name: &str, weight| TrackOrder { name: name.into(), how: Watched::Down("it is off".into()), weight: Some(weight) };
    let of =
        |router_id, address: &str, tracks: Vec<TrackOrder>| RouterOrder { group: Some("all".into()), router_id, tracks, ..router(address) };
    desk.handle_links(links(link()), at);
    let a = of(7, "10.0.0.100", vec![track("x", -20), track("y", -5)]);
    let b = of(8, "10.0.0.101", vec![track("x", -20)]);
    desk.handle_order(order(&[("a", a), ("b", b)]), at);
    assert_eq!(desk.view(at).iter().map(|view| view.priority).collect::<Vec<_>>(), [75, 75]);
}

#[test]
fn peers_that_send_like_any_host_are_heard_where_that_is_chosen() {
    let hears = |min_hop_limit, hop_limit| {
        let (mut desk, at) = (Desk::default(), moment());
        desk.handle_links(links(link()), at);
        let peers = [ip("fd00::2")].into();
        desk.handle_order(order(&[("www", RouterOrder { peers, min_hop_limit, ..router("fd00::100") })]), at);
        let advert = Advert {
            version: Version::V3,
            router: RouterId::new(7).unwrap(),
            priority: AdvertPriority::Holds(Priority::new(200).unwrap()),
            interval: Interval::new(Duration::from_millis(100), Version::V3).unwrap(),
            addresses: crate::vrrp::addresses::AddressList::new(&[ip("fd00::100")]).unwrap(),
        };
        let ends = Ends { source: ip("fd00::2"), destination: ip("fd00::1") };
        let payload = advert.encode(ends, ChecksumForm::Message, Authentication::None);
        desk.handle_packet("eth0", &Received { ends, hop_limit, payload: &payload }, at.now);
        desk.view(at)[0].heard
    };
    assert_eq!([hears(64, 64), hears(64, 63), hears(255, 254), hears(255, 255)], [1, 0, 0, 1]);
}

#[test]
fn what_the_kernel_refuses_is_a_fault_until_it_is_tried_again() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
    desk.handle_timeout(desk.poll_timeout().unwrap());
    desk.handle_trouble("www", Some("no".into()), at.now);
    assert_eq!((state(&desk, at).remove(0), desk.troubled()), ("fault".to_owned(), vec!["www".to_owned()]));
    assert!(desk.view(at)[0].faults.contains(&"no".to_owned()));
    desk.handle_trouble("www", None, at.now);
    assert_eq!((state(&desk, at).remove(0), desk.troubled()), ("backup".to_owned(), vec![]));
}

#[test]
fn the_numbers_of_an_earlier_speaker_go_on() {
    let at = moment();
    let heard = vec![HeardNumber { source: ip("10.0.0.2"), key: 1, epoch: 8, number: 9 }];
    let later_than_any_clock = u64::MAX - 5;
    let memory = Memory { epoch: Some(later_than_any_clock), heard: heard.clone() };
    let resume = Some(Resume { memory, ..Resume::default() });
    let keys = BTreeMap::from([(1, "0123456789abcdef".to_owned())]);
    let with_keys = RouterOrder { keys, key: 1, resume, ..router("10.0.0.100") };
    let mut desk = Desk::default();
    desk.handle_order(order(&[("www", with_keys.clone()), ("plain", router("10.0.0.101"))]), at);
    let memory_of = |desk: &Desk, name: &str| desk.view(at).into_iter().find(|view| view.router == name).and_then(|view| view.memory);
    assert_eq!(memory_of(&desk, "www"), Some(Memory { epoch: Some(later_than_any_clock + 1), heard: heard.clone() }));
    assert_eq!(memory_of(&desk, "plain"), None);
    // Another router of the name goes on, too.
    desk.handle_order(order(&[("www", RouterOrder { router_id: 9, resume: None, ..with_keys })]), at);
    assert_eq!(memory_of(&desk, "www"), Some(Memory { epoch: Some(later_than_any_clock + 2), heard }));
}
