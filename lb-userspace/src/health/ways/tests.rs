use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    config::model::{Pace, Probe},
    control::standing::ServerName,
    health::{monitor::Presumption, target::Target},
};

const SECOND: Duration = Duration::from_secs(1);

fn path(vip: &str, forward: ForwardKind) -> Path {
    Path { vip: vip.parse().unwrap(), port: 80, forward, gue_port: 6080, tunnel_source: None, mark: 0 }
}

fn wanted(servers: &[(&str, Vec<Path>)]) -> Wanted {
    let pace = Pace { interval: SECOND, interval_unsure: SECOND, interval_down: SECOND, timeout: SECOND, rise: 1, fall: 1 };
    let one = |(address, paths): &(&str, Vec<Path>)| {
        let target = Target {
            seat: SocketAddr::new(address.parse().unwrap(), 0),
            address: address.parse().unwrap(),
            port: 80,
            route: Route::Datapath(paths.clone()),
            probe: Probe::Tcp(Vec::new()),
            tls: None,
            timeout: SECOND,
        };
        (ServerName::new("p", address.replace([':', '.'], "-")), (target, pace, Presumption::Up))
    };
    servers.iter().map(one).collect()
}

fn marks(wanted: &Wanted) -> Vec<u32> {
    let paths = wanted.values().flat_map(|(target, ..)| match &target.route {
        Route::Datapath(paths) => paths.clone(),
        Route::Direct | Route::From(_) => Vec::new(),
    });
    paths.map(|path| path.mark).collect()
}

#[test]
fn a_way_keeps_its_number_while_somebody_wants_it() {
    let mut ways = Ways::default();
    let (one, other) = (path("192.0.2.1", ForwardKind::Dsr), path("192.0.2.2", ForwardKind::Dsr));
    let mut first = wanted(&[("10.0.0.1", vec![one, other])]);
    assert_eq!(ways.number(&mut first).unwrap().len(), 2);
    assert_eq!(marks(&first), [WAY_MARK | 1, WAY_MARK | 2]);

    let mut second = wanted(&[("10.0.0.1", vec![other]), ("10.0.0.2", vec![other])]);
    let told = ways.number(&mut second).unwrap();
    assert_eq!(marks(&second), [WAY_MARK | 2, WAY_MARK | 3]);
    assert!(matches!(told[..], [Told::Gone(gone), Told::Set(set, _)] if gone == WAY_MARK | 1 && set == WAY_MARK | 3), "{told:?}");

    let mut again = wanted(&[("10.0.0.1", vec![other]), ("10.0.0.2", vec![other])]);
    assert_eq!((ways.number(&mut again).unwrap(), again), (vec![], second));
}

#[test]
fn ways_without_a_number_have_none() {
    let mut ways = Ways::default();
    let addresses: Vec<String> = (0..WAYS_MAX + 2).map(|number| std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string()).collect();
    let dsr = vec![path("192.0.2.1", ForwardKind::Dsr)];
    let mut many = wanted(&addresses.iter().map(|address| (address.as_str(), dsr.clone())).collect::<Vec<_>>());
    assert_eq!(ways.number(&mut many).unwrap().len() as u32, WAYS_MAX - 1);
    assert_eq!(marks(&many).iter().filter(|mark| **mark == 0).count(), 3);
}

#[test]
fn the_outer_header_is_the_data_paths_without_the_link_layer() {
    let gue = Path { tunnel_source: Some("10.0.0.9".parse().unwrap()), ..path("192.0.2.1", ForwardKind::Gue4) };
    let way = record("10.0.0.1".parse().unwrap(), &gue).unwrap();
    let bytes: [u8; OUTER_BYTES] = bytemuck::cast(way.outer);
    assert_eq!(bytes[..20], [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1]);
    assert_eq!(bytes[20..32], [0, 0, 0x17, 0xc0, 0, 0, 0, 0, 0, 4, 0, 0]);
    assert_eq!((way.takes_source, way.kind, bytes[32..].iter().all(|byte| *byte == 0)), (0, ForwardKind::Gue4 as u8, true));
    let ipip = record("fd00::1".parse().unwrap(), &path("2001:db8::1", ForwardKind::Ipip6)).unwrap();
    let bytes: [u8; OUTER_BYTES] = bytemuck::cast(ipip.outer);
    assert_eq!((bytes[6], &bytes[8..24], bytes[39], ipip.takes_source), (41, &[0; 16][..], 1, 1));
    let crossed = record("10.0.0.1".parse().unwrap(), &path("2001:db8::1", ForwardKind::Ipip6));
    assert!(matches!(crossed, Err(HeaderError::Family { .. })));
}
