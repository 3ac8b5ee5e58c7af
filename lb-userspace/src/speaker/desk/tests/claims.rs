//! What a desk has done, and says, when others claim addresses.

use super::*;
use crate::{speaker::claim::Claim, vrrp::terms::Family};

const OTHERS: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const WORDS: &str = "02:00:00:00:00:99 claims 10.0.0.100 too";

/// A router that has been active for two seconds, and has been told so.
fn active(more: impl FnOnce(&mut RouterOrder)) -> (Desk, Moment) {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    let mut wanted = router("10.0.0.100");
    more(&mut wanted);
    desk.handle_order(order(&[("www", wanted)]), at);
    let mut at = later(at, 400);
    desk.handle_timeout(at.now);
    for _ in 0..20 {
        at = later(at, 100);
        desk.handle_timeout(at.now);
    }
    assert_eq!(state(&desk, at), ["active"]);
    done(&mut desk);
    (desk, at)
}

fn claim(mac: [u8; 6]) -> [Claim; 1] {
    [Claim { address: ip("10.0.0.100"), mac }]
}

/// What is done beside adverts, up to this time.
fn passes(desk: &mut Desk, at: Moment, until_ms: u64) -> (Vec<String>, Moment) {
    let mut all = Vec::new();
    let mut now = at;
    for ms in 1..=until_ms {
        now = later(at, ms);
        desk.handle_timeout(now.now);
        if ms % 1000 == 0 {
            desk.handle_silence(now.now);
        }
        all.extend(done(desk).into_iter().filter(|what| !what.starts_with("advert ")));
    }
    (all, now)
}

fn said(words: &str, is_over: bool) -> String {
    format!("Conflict(Conflicting {{ router: \"www\", peer: None, what: {words:?}, is_over: {is_over} }})")
}

#[test]
fn an_address_that_another_host_claims_is_announced_at_once_and_told_until_ten_seconds_without() {
    let (mut desk, at) = active(|_| {});
    desk.handle_claims(&claim(OTHERS), at.now);
    assert_eq!(desk.poll_timeout(), Some(later(at, 5).now).min(desk.poll_timeout()));
    let (what, at) = passes(&mut desk, at, 1000);
    assert_eq!(what, ["announce 10.0.0.100".to_owned(), said(WORDS, false)]);
    let view = desk.view(at).remove(0).claims.remove(0);
    assert_eq!((view.mac.as_str(), view.addresses, view.heard_ms_ago), ("02:00:00:00:00:99", vec![ip("10.0.0.100")], 1000));
    let (what, at) = passes(&mut desk, at, 10_000);
    assert_eq!(what, [said(WORDS, true)]);
    assert_eq!(desk.view(at)[0].claims, []);
}

#[test]
fn a_claim_is_answered_five_milliseconds_later_and_only_once() {
    let (mut desk, at) = active(|_| {});
    desk.handle_claims(&claim(OTHERS), at.now);
    desk.handle_claims(&claim(OTHERS), later(at, 1).now);
    assert_eq!(passes(&mut desk, at, 4).0, [""; 0]);
    assert_eq!(passes(&mut desk, later(at, 4), 1).0, ["announce 10.0.0.100"]);
    assert_eq!(passes(&mut desk, later(at, 5), 200).0, [""; 0]);
}

#[test]
fn whoever_claims_each_millisecond_is_answered_four_times_and_then_once_a_gap() {
    let (mut desk, at) = active(|order| order.announce_gap_ms = 1000);
    let mut announced = Vec::new();
    for ms in 0..5000 {
        let now = later(at, ms);
        desk.handle_timeout(now.now);
        desk.handle_claims(&claim([2, 0, 0, 0, (ms >> 8) as u8, ms as u8]), now.now);
        announced.extend(done(&mut desk).iter().filter(|what| what.starts_with("announce")).map(|_| ms));
    }
    assert_eq!(announced[..4], [5, 10, 15, 20]);
    assert!(announced[3..].windows(2).all(|pair| pair[1] - pair[0] >= 980), "{announced:?}");
    assert_eq!(announced.len(), 8);
    // As many claimants as anybody needs to know are remembered.
    desk.handle_silence(later(at, 5000).now);
    assert_eq!(desk.view(later(at, 5000))[0].claims.len(), 8);
}

#[test]
fn who_takes_over_claims_nothing() {
    let (mut desk, at) = active(|_| {});
    desk.handle_claims(&claim(OTHERS), at.now);
    hear(&mut desk, 200, ChecksumForm::Message, later(at, 1));
    // Told at the next look, if it were a conflict.
    let (what, at) = passes(&mut desk, later(at, 1), 300);
    desk.handle_silence(at.now);
    let what = [what, done(&mut desk)].concat();
    assert!(what.iter().all(|what| !what.contains("announce") && !what.contains("claims")), "{what:?}");
    assert_eq!(desk.view(at)[0].claims, []);
    // Its later announcements are its right.
    desk.handle_claims(&claim(OTHERS), at.now);
    assert_eq!(passes(&mut desk, at, 40).0.iter().filter(|what| what.contains("announce")).count(), 0);
}

#[test]
fn the_one_before_that_still_speaks_is_answered_and_not_told() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
    let at = later(at, 400);
    desk.handle_timeout(at.now);
    done(&mut desk);
    desk.handle_claims(&claim(OTHERS), later(at, 900).now);
    assert_eq!(passes(&mut desk, at, 4000).0, ["announce 10.0.0.100"]);
    // One that goes on is no mistake.
    desk.handle_claims(&claim(OTHERS), later(at, 4000).now);
    assert_eq!(passes(&mut desk, later(at, 4000), 1000).0, ["announce 10.0.0.100".to_owned(), said(WORDS, false)]);
}

#[test]
fn one_that_yields_or_waits_leaves_claims_alone_and_a_told_one_is_over() {
    let (mut desk, at) = active(|_| {});
    desk.handle_claims(&claim(OTHERS), at.now);
    let (_, at) = passes(&mut desk, at, 1000);
    desk.handle_yield(&["www".to_owned()], at.now);
    done(&mut desk);
    desk.handle_claims(&claim(OTHERS), at.now);
    hear(&mut desk, 200, ChecksumForm::Message, later(at, 100));
    done(&mut desk);
    desk.handle_claims(&claim(OTHERS), later(at, 120).now);
    assert_eq!(passes(&mut desk, later(at, 120), 100).0, [""; 0]);
    desk.handle_silence(later(at, 220).now);
    assert_eq!(done(&mut desk), [said(WORDS, true)]);
}

#[test]
fn a_node_does_not_contradict_itself() {
    let (mut desk, at) = active(|order| {
        (order.virtual_mac, order.addresses[0].device) = (Some("vrrp4-7".into()), "vrrp4-7".into());
    });
    let links = BTreeMap::from([
        ("eth0".to_owned(), link()),
        ("eth1".to_owned(), LinkState { ifindex: 3, mac: Some([2, 0, 0, 0, 0, 2]), ..LinkState::default() }),
        ("vrrp4-7".to_owned(), LinkState { ifindex: 4, mac: Some([0, 0, 0x5e, 0, 1, 7]), macvlan_on: Some(2), ..LinkState::default() }),
    ]);
    desk.handle_links(links, at);
    for own in [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0, 0, 0x5e, 0, 1, 7]] {
        desk.handle_claims(&claim(own), at.now);
    }
    assert_eq!(passes(&mut desk, at, 3000).0, [""; 0]);
    // Frames for a macvlan come by the link below.
    let watches = desk.watches();
    let [((link, family), watch)] = watches.iter().collect::<Vec<_>>()[..] else { panic!("{watches:?}") };
    assert_eq!((link.as_str(), *family, watch.ifindex), ("eth0", Family::V4, 2));
    assert_eq!(watch.addresses, BTreeSet::from([ip("10.0.0.100")]));
    assert_eq!(watch.own, BTreeSet::from([[0, 0, 0x5e, 0, 1, 7], [2, 0, 0, 0, 0, 1]]));
    // Who is not active listens for nothing.
    desk.handle_yield(&["www".to_owned()], later(at, 3000).now);
    assert_eq!(desk.watches(), BTreeMap::new());
}

#[test]
fn of_one_that_claims_much_a_few_addresses_are_named() {
    let (mut desk, at) = active(|order| {
        order.addresses =
            (100..105).map(|last| AddressOrder { address: ip(&format!("10.0.0.{last}")), ..order.addresses[0].clone() }).collect();
    });
    let claims: Vec<Claim> = (100..106).map(|last| Claim { address: ip(&format!("10.0.0.{last}")), mac: OTHERS }).collect();
    desk.handle_claims(&claims, at.now);
    let (what, _) = passes(&mut desk, at, 1000);
    let words = "02:00:00:00:00:99 claims 10.0.0.100, 10.0.0.101, 10.0.0.102 and 2 more too";
    assert_eq!(what[1..], [said(words, false)]);
}
