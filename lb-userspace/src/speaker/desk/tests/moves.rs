//! Routers whose link-layer address or place becomes another.

use std::collections::BTreeMap;

use super::{Desk, LinkState, done, hear, later, link, links, moment, order, router, state};
use crate::{speaker::order::RouterOrder, vrrp::packet::ChecksumForm};

#[test]
fn another_link_layer_address_is_announced() {
    let (mut desk, at) = (Desk::default(), moment());
    desk.handle_links(links(link()), at);
    desk.handle_order(order(&[("www", router("10.0.0.100"))]), at);
    desk.handle_timeout(desk.poll_timeout().unwrap());
    assert_eq!(state(&desk, at), ["active"]);
    done(&mut desk);
    desk.handle_links(links(link()), at);
    assert_eq!(done(&mut desk), [] as [String; 0]);
    desk.handle_links(links(LinkState { mac: Some([2, 0, 0, 0, 0, 9]), ..link() }), at);
    assert_eq!(done(&mut desk), ["announce 10.0.0.100", "advert 100 to 224.0.0.18 from 10.0.0.1"]);

    // A link that is down as well stays a fault.
    desk.handle_links(links(LinkState { has_carrier: false, ..link() }), at);
    assert_eq!(state(&desk, at), ["fault"]);
}

#[test]
fn an_active_router_hands_over_before_it_becomes_another() {
    let (mut desk, at) = (Desk::default(), moment());
    let both = || BTreeMap::from([("eth0".to_owned(), link()), ("eth1".to_owned(), LinkState { ifindex: 3, ..link() })]);
    let on = |interface: &str| order(&[("www", RouterOrder { interface: interface.into(), ..router("10.0.0.100") })]);
    desk.handle_links(both(), at);
    desk.handle_order(on("eth0"), at);
    // A backup has nothing to hand over.
    desk.handle_order(on("eth1"), at);
    assert_eq!((desk.view(at)[0].interface.as_str(), desk.takes_order_again()), ("eth1", false));
    desk.handle_order(on("eth0"), at);
    desk.handle_timeout(desk.poll_timeout().unwrap());
    assert_eq!(state(&desk, at), ["active"]);
    done(&mut desk);

    let at = later(at, 500);
    desk.handle_order(on("eth1"), at);
    assert_eq!((state(&desk, at), desk.view(at)[0].interface.as_str()), (vec!["yielding".to_owned()], "eth0"));
    // What it is to be may change meanwhile.
    desk.handle_order(on("eth1"), at);
    assert!(!desk.takes_order_again());
    hear(&mut desk, 50, ChecksumForm::Message, later(at, 4));
    assert!(done(&mut desk).contains(&"remove 10.0.0.100".to_owned()));
    assert_eq!((state(&desk, at), desk.takes_order_again(), desk.takes_order_again()), (vec![], true, false));
    desk.handle_order(on("eth1"), later(at, 5));
    assert!(!desk.takes_order_again());
    desk.handle_order(on("eth1"), later(at, 5));
    assert_eq!((state(&desk, at), desk.view(at)[0].interface.as_str()), (vec!["backup".to_owned()], "eth1"));

    // Gone from the file while it hands over, it does not come back.
    desk.handle_timeout(desk.poll_timeout().unwrap());
    desk.handle_order(on("eth0"), later(at, 1000));
    desk.handle_order(order(&[]), later(at, 1000));
    while let Some(due) = desk.poll_timeout() {
        desk.handle_timeout(due);
    }
    assert!(desk.is_empty() && !desk.takes_order_again());

    // Nor if it has handed over by then.
    desk.handle_order(on("eth0"), later(at, 2000));
    desk.handle_timeout(desk.poll_timeout().unwrap());
    desk.handle_order(on("eth1"), later(at, 3000));
    hear(&mut desk, 50, ChecksumForm::Message, later(at, 3004));
    desk.handle_order(order(&[]), later(at, 3005));
    assert!(desk.is_empty() && !desk.takes_order_again());
}
