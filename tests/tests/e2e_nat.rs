//! An L4 listener in front of a NAT pool, end to end.

use weir_tests::{
    demo,
    lab::{Shape, Topology, Weir, http_tally},
};

const WEB: &str = r#"
[listener.web]
mode = "l4"
bind = ["10.1.0.100:80"]
pool = "web"

[pool.web]
forward = "nat"
servers.s1 = "10.2.0.11:80"
servers.s2 = "10.2.0.12:80"
"#;

#[test]
fn requests_to_the_vip_are_shared_by_the_servers() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().enumerate().map(|server| demo::serve(server).unwrap()).collect();
    let _weir = Weir::start(lab.node(), WEB).unwrap();
    let tally = http_tally(&lab.client().namespace, "http://10.1.0.100/", 40).unwrap();
    assert_eq!(tally.keys().collect::<Vec<_>>(), ["s1", "s2"]);
}

#[test]
fn requests_are_served_while_the_daemon_is_dead() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().enumerate().map(|server| demo::serve(server).unwrap()).collect();
    let mut weir = Weir::start(lab.node(), WEB).unwrap();
    weir.kill_9().unwrap();
    assert_eq!(http_tally(&lab.client().namespace, "http://10.1.0.100/", 10).unwrap().values().sum::<usize>(), 10);
    weir.run().unwrap();
    assert_eq!(http_tally(&lab.client().namespace, "http://10.1.0.100/", 10).unwrap().values().sum::<usize>(), 10);
}
