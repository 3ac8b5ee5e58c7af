//! Servers that the DNS knows: they come and go with its answers, stay when it fails, and outlive the daemon.

use std::{
    fs,
    net::SocketAddr,
    ops::Deref,
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_tests::{
    lab::{DnsServer, TcpServer, Weir, wait_until},
    operator::{done, refused, said},
    web::{PORT, Web},
};

const SOON: Duration = Duration::from_secs(20);
const DNS_PORT: u16 = 5353;

struct Fixture(Web);

impl Deref for Fixture {
    type Target = Web;

    fn deref(&self) -> &Web {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self(Web::new())
    }

    /// The third server is the name server, too.
    fn nameserver(&self) -> SocketAddr {
        SocketAddr::new(self.lab.servers[2].v4.into(), DNS_PORT)
    }

    fn dns(&self, zone: &str) -> DnsServer {
        DnsServer::start(&self.lab.servers[2].namespace, self.nameserver(), zone).unwrap()
    }

    /// A zone in which `api` has these servers, from 1.
    fn api(&self, servers: &[usize]) -> String {
        servers.iter().map(|number| format!("api.lab 1 A {}\n", self.lab.servers[number - 1].v4)).collect()
    }

    fn config(&self, pool: &str) -> String {
        format!(
            "\n[dns]\nnameservers = \"{}\"\nttl_min = \"1s\"\ntimeout = \"1s\"\n\n[listener.web]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"web\"\nslots = 4096\n\n[pool.web]\n{pool}\n",
            self.nameserver(),
            self.lab.vip4()
        )
    }

    /// The name of an address of an entry.
    fn name(&self, entry: &str, number: usize) -> String {
        format!("web/{entry}@{}", self.lab.servers[number - 1].v4)
    }
}

/// A time in which a lookup that is waited for, or an answer after a failed one, would not come.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// Any certificate: whose it is does not matter here.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBczCCARmgAwIBAgIUETWKC8Hhshpf8mU4RZM4an7bxrcwCgYIKoZIzj0EAwIw\n\
DjEMMAoGA1UEAwwDbGFiMCAXDTI2MTEyMTEzNDUxNloYDzIxMjYxMDI4MTM0NTE2\n\
WjAOMQwwCgYDVQQDDANsYWIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQmCldk\n\
xS4AlgI5UdjVJ+htqxieFoKYV9L79yqy7m/vdVKJttSmGxrPPou1E98qdB9haa5+\n\
Y6xW1cDWRifTsjNVo1MwUTAdBgNVHQ4EFgQUzMt2KO2UAysCr+4YZCydIQJ0QOIw\n\
HwYDVR0jBBgwFoAUzMt2KO2UAysCr+4YZCydIQJ0QOIwDwYDVR0TAQH/BAUwAwEB\n\
/zAKBggqhkjOPQQDAgNIADBFAiBwtwocWgrs5HQavJs2M0koql1IsWTMfkkqdBm2\n\
vi7T0QIhAN4JpwU2K+RM3B/vPvyp0JtY13Oh9p4dILuW8U4Q9h7b\n\
-----END CERTIFICATE-----\n\
";

fn servers(weir: &Weir<'_>) -> Vec<(String, Value)> {
    let output = weir.operate(&["server", "list", "-o", "json"]).unwrap();
    let servers: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} {:?}", said(&output)));
    servers.as_array().unwrap().iter().map(|server| (server["server"].as_str().unwrap().to_owned(), server.clone())).collect()
}

#[test]
fn servers_follow_the_answers_and_stay_when_the_dns_fails() {
    let fixture = Fixture::new();
    let dns = fixture.dns(&fixture.api(&[1]));
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("servers.api = { name = \"api.lab\" }")).unwrap();
    // The first answer is awaited.
    assert_eq!(fixture.served(), ["s1"]);
    let (first, second) = (fixture.name("api", 1), fixture.name("api", 2));
    assert_eq!(servers(&weir).iter().map(|(name, _)| name).collect::<Vec<_>>(), [&first]);

    dns.say(&fixture.api(&[1, 2])).unwrap();
    fixture.await_served(&weir, &["s1", "s2"]);
    done(&weir, &["drain", &first]);
    assert_eq!(fixture.served(), ["s2"]);
    done(&weir, &["ready", "web/api@*"]);
    assert_eq!(fixture.served(), ["s1", "s2"]);
    let events = done(&weir, &["events"]);
    let told = format!("the DNS has another answer for api.lab: came {}", fixture.lab.servers[1].v4);
    assert!(events.contains(&told), "{events}");

    // Each kind of failure is told, and the last answer stays.
    let status = || said(&weir.operate(&["status"]).unwrap()).1;
    for (zone, words) in [
        ("", "api.lab has no address, or does not exist"),
        ("api.lab servfail\n", "api.lab: the name server answers"),
        ("api.lab silence\n", "no answer within 1s"),
        ("api.lab 1 AAAA 2001:db8::1\n", "api.lab has no address, or does not exist"),
    ] {
        dns.say(zone).unwrap();
        let words = format!("the lookup of api.lab fails: {words}");
        wait_until("the failure to be told", SOON, || status().contains(&words)).unwrap_or_else(|error| panic!("{error}\n{}", status()));
        assert_eq!(fixture.served(), ["s1", "s2"]);
    }
    assert!(status().contains("the last answer stays, with 2 servers"), "{}", status());
    assert!(done(&weir, &["events"]).contains("the lookup of api.lab fails, its servers stay: api.lab has no address, or does not exist"));

    // A start without the DNS is no blackout.
    drop(dns);
    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);
    // Nor is one that knows nothing but what is loaded.
    weir.terminate().unwrap();
    let state = weir.config().parent().unwrap().join("state");
    for name in ["names.json", "state.json"] {
        fs::remove_file(state.join(name)).unwrap();
    }
    weir.run().unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"], "{}", weir.stderr());
    let dns = fixture.dns(&fixture.api(&[2]));
    fixture.await_served(&weir, &["s2"]);
    assert_eq!(servers(&weir).iter().map(|(name, _)| name).collect::<Vec<_>>(), [&second]);
    drop(dns);
}

#[test]
fn names_are_checked_and_weighted_like_any_server_and_srv_records_give_ports() {
    let fixture = Fixture::new();
    let [s1, s2] = [0, 1].map(|index: usize| fixture.lab.servers[index].v4);
    let other = TcpServer::start(&fixture.lab.servers[0].namespace, "other", PORT + 1).unwrap();
    let zone = format!(
        "_web._tcp.lab 1 SRV 10 30 {PORT} one.lab\n_web._tcp.lab 1 SRV 10 10 {PORT} two.lab\n_web._tcp.lab 1 SRV 20 1 {} one.lab\none.lab 60 A {s1}\ntwo.lab 60 A {s2}\n",
        PORT + 1
    );
    let _dns = fixture.dns(&zone);
    let pool = "servers.all = { srv = \"_web._tcp.lab\" }\ncheck = { tcp = true, interval = \"200ms\" }";
    let weir = Weir::start(fixture.lab.node(), &fixture.config(pool)).unwrap();
    let list = servers(&weir);
    let shape: Vec<_> = list.iter().map(|(name, server)| (name.as_str(), &server["configured_weight"], &server["backup"])).collect();
    let names = [format!("web/all@{s1}:{PORT}"), format!("web/all@{s1}:{}", PORT + 1), format!("web/all@{s2}:{PORT}")];
    let expected: Vec<(&str, Value, Value)> =
        vec![(&names[0], 30.into(), false.into()), (&names[1], 1.into(), true.into()), (&names[2], 10.into(), false.into())];
    assert_eq!(shape, expected.iter().map(|(name, weight, backup)| (*name, weight, backup)).collect::<Vec<_>>());
    assert_eq!(fixture.served(), ["s1", "s2"]);
    drop(other);
    let why = |name: &str| servers(&weir).iter().find(|(known, _)| known == name).map(|(_, server)| server["why"].clone());
    wait_until("the check to find the dead one", SOON, || why(&names[1]) == Some("unhealthy".into())).unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);

    // A look at a configuration asks nobody.
    let path = weir.config().with_file_name("more.toml");
    let text = fs::read_to_string(weir.config()).unwrap() + "servers.more = { name = \"more.lab\" }\n";
    fs::write(&path, text).unwrap();
    let mut check = fixture.lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
    let (code, text) = said(&check.arg("check").arg(&path).output().unwrap());
    assert!(code == Some(0) && text.contains("0 servers, 2 names to look up"), "{text}");
    let diff = done(&weir, &["diff", path.to_str().unwrap()]);
    assert!(diff.contains("no service changes") && diff.contains("more.lab is looked up when it is applied"), "{diff}");
}

#[test]
fn authorities_of_checks_that_break_are_told_until_they_are_whole_again() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare(fixture.lab.node(), "").unwrap();
    let ca = weir.config().with_file_name("ca.pem");
    fs::write(&ca, CERTIFICATE).unwrap();
    let pool =
        format!("servers.s1 = \"{}\"\ncheck = {{ tcp = true, interval = \"200ms\", tls = {{ ca = {ca:?} }} }}", fixture.lab.servers[0].v4);
    weir.write_config(&fixture.config(&pool)).unwrap();
    weir.run().unwrap();
    let told = || said(&weir.operate(&["status"]).unwrap()).1.contains("certificate authorities of checks: ");
    assert!(!told());
    for broken in [Some("broken"), None] {
        broken.map_or_else(|| fs::remove_file(&ca), |text| fs::write(&ca, text)).unwrap();
        wait_until("the loss to be told", SOON, told).unwrap();
        fs::write(&ca, CERTIFICATE).unwrap();
        wait_until("the file to be read again", SOON, || !told()).unwrap();
    }
    assert!(weir.stderr().contains("certificate authorities of checks are read again"), "{}", weir.stderr());
}

#[test]
fn a_silent_name_holds_up_nothing_and_another_name_server_is_asked_at_once() {
    let fixture = Fixture::new();
    let [s1, s2] = [0, 1].map(|index: usize| fixture.lab.servers[index].v4);
    let silent = SocketAddr::new(s2.into(), DNS_PORT);
    let _silent = DnsServer::start(&fixture.lab.servers[1].namespace, silent, "api.lab silence\n").unwrap();
    let _dns = fixture.dns(&format!("api.lab 1 A {s2}\n"));
    let config = |pool: &str| fixture.config(pool).replace("timeout = \"1s\"", "timeout = \"20s\"");
    let weir =
        Weir::start(fixture.lab.node(), &config(&format!("servers.a = \"{s1}\"\ncheck = {{ tcp = true, interval = \"200ms\" }}"))).unwrap();
    assert_eq!(fixture.served(), ["s1"]);

    let named = config("servers.api = { name = \"api.lab\" }\ncheck = { tcp = true, interval = \"200ms\" }");
    weir.write_config(&named.replace(&fixture.nameserver().to_string(), &silent.to_string())).unwrap();
    let began = Instant::now();
    done(&weir, &["apply"]);
    let list = servers(&weir);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(list.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["web/a"], "{}", weir.stderr());
    assert_eq!(fixture.served(), ["s1"], "who was there stays");
    let told = said(&weir.operate(&["status"]).unwrap()).1;
    assert!(told.contains("pool web keeps a until its names are looked up"), "{told}");

    weir.write_config(&named).unwrap();
    let began = Instant::now();
    done(&weir, &["apply"]);
    let is_followed = || servers(&weir).iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() == [fixture.name("api", 2)];
    wait_until("the right name server to be asked", SOON, is_followed).unwrap_or_else(|error| panic!("{error} {}", weir.stderr()));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    fixture.await_served(&weir, &["s2"]);
}

#[test]
fn what_is_said_of_one_address_of_a_name_is_not_written_into_the_file() {
    let fixture = Fixture::new();
    let _dns = fixture.dns(&fixture.api(&[1, 2]));
    let weir = Weir::start(fixture.lab.node(), &fixture.config("servers.api = { name = \"api.lab\" }")).unwrap();
    fixture.await_served(&weir, &["s1", "s2"]);
    let before = fs::read_to_string(weir.config()).unwrap();
    let first = fixture.name("api", 1);
    refused(&weir, &["weight", &first, "5", "--save"], "hint: write pool.web.servers.api.weight into ");
    refused(&weir, &["server", "remove", &first, "--save"], "hint: take pool.web.servers.api out of ");
    refused(&weir, &["weight", "web/*", "5", "--save"], "is an address of api.lab");
    // Beside the file it is for this address, and one with an address of its own is written.
    done(&weir, &["weight", &first, "5"]);
    assert_eq!(servers(&weir).iter().find(|(name, _)| *name == first).unwrap().1["weight"], 5);
    assert_eq!(fs::read_to_string(weir.config()).unwrap(), before);
    done(&weir, &["server", "add", "web/own", &fixture.lab.servers[2].v4.to_string(), "--save"]);
    assert!(fs::read_to_string(weir.config()).unwrap().contains("servers.own = "));
    assert_eq!(fixture.served_of(3), ["s1", "s2", "s3"]);
}
