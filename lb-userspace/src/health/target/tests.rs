use super::*;
use crate::config::{ConfigText, parse};

/// The routes of the servers of pool `p`, by name.
fn routes(node: &str, binds: &str, pool: &str) -> Vec<(String, Route, u16)> {
    let text = format!("[node]\ninterfaces = 'eth0'\n{node}\n[listener.l]\nmode = 'l4'\nbind = {binds}\npool = 'p'\n[pool.p]\n{pool}\n");
    let (config, _) = parse(&ConfigText::new("weir.toml", &text), "host").unwrap();
    targets(&config).into_iter().map(|(name, (target, _))| (name.server, target.route, target.port)).collect()
}

fn path(vip: &str, port: u16, forward: ForwardKind) -> Path {
    Path { vip: vip.parse().unwrap(), port, forward, gue_port: 0, tunnel_source: None, mark: 0 }
}

#[test]
fn every_vip_of_the_servers_family_is_asked_in_the_pools_mode() {
    let binds = "['192.0.2.2:443', '192.0.2.1:80', '192.0.2.1:53/udp', '[2001:db8::1]:80']";
    let servers = "servers.a = '10.0.0.1'\nservers.b = 'fd00::1'";
    let found = routes("", binds, &format!("forward = 'ipip'\ncheck = {{ tcp = true, via = 'datapath' }}\n{servers}"));
    let v4 = vec![path("192.0.2.1", 80, ForwardKind::Ipip4), path("192.0.2.2", 443, ForwardKind::Ipip4)];
    let v6 = vec![path("2001:db8::1", 80, ForwardKind::Ipip6)];
    assert_eq!(found, [("a".into(), Route::Datapath(v4), 80), ("b".into(), Route::Datapath(v6), 80)]);
    let found = routes(
        "",
        &binds.replace(", '[2001:db8::1]:80'", ""),
        "forward = 'dsr'\ncheck = { udp = { send = '?' }, via = 'datapath' }\nservers.a = '10.0.0.1'",
    );
    let asked = vec![path("192.0.2.1", 53, ForwardKind::Dsr), path("192.0.2.2", 443, ForwardKind::Dsr)];
    assert_eq!(found, [("a".into(), Route::Datapath(asked), 53)], "UDP where there is some");
}

#[test]
fn a_tunnel_has_the_configured_port_and_source() {
    let node = "tunnel_source4 = '192.0.2.9'";
    let pool = "forward = 'gue'\ngue_port = 7000\ncheck = { tcp = true, port = 8080, via = 'datapath' }\nservers.a = '10.0.0.1'";
    let wanted = Path { gue_port: 7000, tunnel_source: Some("192.0.2.9".parse().unwrap()), ..path("192.0.2.1", 8080, ForwardKind::Gue4) };
    assert_eq!(routes(node, "'192.0.2.1:*'", pool), [("a".into(), Route::Datapath(vec![wanted]), 8080)]);
}

#[test]
fn behind_nat_the_server_is_asked_as_translated_packets_ask_it() {
    let pool = |rest: &str| format!("{rest}\ncheck = {{ tcp = true, via = 'datapath' }}\nservers.a = '10.0.0.1:8080'");
    assert_eq!(routes("", "'192.0.2.1:80'", &pool("")), [("a".into(), Route::Direct, 8080)]);
    let source = Route::From("10.0.0.9".parse().unwrap());
    assert_eq!(routes("", "'192.0.2.1:80'", &pool("snat = ['10.0.0.9']")), [("a".into(), source, 8080)]);
}

#[test]
fn so_many_vips_are_asked_and_no_more() {
    let binds: Vec<String> = (1..=20).map(|number| format!("'192.0.2.{number}:80'")).collect();
    let found =
        routes("", &format!("[{}]", binds.join(", ")), "forward = 'dsr'\ncheck = { tcp = true, via = 'datapath' }\nservers.a = '10.0.0.1'");
    let Route::Datapath(paths) = &found[0].1 else { panic!("{found:?}") };
    assert_eq!((paths.len(), paths[0].vip.to_string()), (MOST_PATHS, "192.0.2.1".into()));
}
