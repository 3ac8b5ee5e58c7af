use std::{path::PathBuf, time::Duration};

use super::{
    super::model::{Check, CheckTls, HttpProbe, HttpVersion, Pace, Probe, Step, Via},
    NODE, accepted, findings, read,
};

/// A file with a pool around the lines that a test is about; they begin at line 9.
fn web(pool: &str) -> String {
    format!("{NODE}[listener.web]\nmode = 'l4'\nbind = '192.0.2.10:80'\npool = 'web'\n[pool.web]\n{pool}\nservers.a = '10.0.0.1'\n")
}

fn check(pool: &str) -> Check {
    accepted(&web(pool)).pools["web"].check.clone().expect("the pool is checked")
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_check_has_the_documented_defaults() {
    let pace = Pace { interval: MS(2000), interval_unsure: MS(1000), interval_down: MS(2000), timeout: MS(1000), rise: 2, fall: 3 };
    let expected = Check { probe: Probe::Tcp(vec![]), tls: None, port: None, via: Via::Direct, pace };
    assert_eq!(check("check = true"), expected);
    assert_eq!(check("check.tcp = true"), expected);
    assert_eq!(pace.detection(), MS(5000), "less than fall x interval");
    let own = "check = { tcp = true, interval = '1s', interval_unsure = '200ms', interval_down = '5s', timeout = '150ms', rise = 1, fall = 5, port = 81 }";
    let pace = Pace { interval: MS(1000), interval_unsure: MS(200), interval_down: MS(5000), timeout: MS(150), rise: 1, fall: 5 };
    assert_eq!(check(own), Check { pace, port: Some(81), ..expected });
    assert_eq!(pace.detection(), MS(1000 + 4 * 200 + 150));
}

#[test]
fn every_kind_of_check_is_read() {
    let probe = |pool: &str| check(pool).probe;
    let steps = vec![Step::Send(b"PING\r\n".to_vec()), Step::Expect(b"+PONG".to_vec()), Step::ExpectMatch("^ok".into())];
    let dialogue = "check.tcp = [{ send = \"PING\\r\\n\" }, { expect_hex = '2b 50 4f4e47' }, { expect_regex = '^ok' }]";
    assert_eq!(probe(dialogue), Probe::Tcp(steps));
    assert_eq!(probe("check.grpc = true"), Probe::Grpc { service: String::new() });
    assert_eq!(probe("check.grpc = 'a.B'"), Probe::Grpc { service: "a.B".into() });
    assert_eq!(probe("check.mysql = true"), Probe::Mysql { user: None });
    assert_eq!(probe("check.mysql = 'probe'"), Probe::Mysql { user: Some("probe".into()) });
    assert_eq!(probe("check.pgsql = true"), Probe::Pgsql { user: "weir".into() });
    assert_eq!(probe("check.udp = { send_hex = '00ff', expect = '' }"), Probe::Udp { send: vec![0, 255], expect: Some(vec![]) });
    let weak = read(&web("check.udp = { send = 'x' }")).unwrap().0.pools["web"].check.clone().map(|check| check.probe);
    assert_eq!(weak, Some(Probe::Udp { send: b"x".to_vec(), expect: None }));
    assert_eq!(probe("check.command = ['/bin/true', 'x']"), Probe::Command { argv: vec!["/bin/true".into(), "x".into()] });
    let tls = check("check.tls = true");
    assert_eq!((tls.probe, tls.tls), (Probe::Tls, Some(CheckTls { verify: false, ca: None, sni: None })));
    let tls = check("check = { tcp = true, tls = { ca = '/ca.pem', sni = 'A.example' } }").tls;
    assert_eq!(tls, Some(CheckTls { verify: true, ca: Some(PathBuf::from("/ca.pem")), sni: Some("a.example".into()) }));
}

#[test]
fn an_http_check_says_what_it_asks_and_what_is_good() {
    let plain = HttpProbe {
        method: "GET".into(),
        path: "/healthz".into(),
        version: HttpVersion::Http11,
        headers: [].into(),
        body: vec![],
        status: vec![(200, 399)],
        contains: None,
        matches: None,
    };
    assert_eq!(check("check.http = 'GET /healthz'").probe, Probe::Http(Box::new(plain.clone())));
    assert_eq!(check("check.http = '/healthz'").probe, Probe::Http(Box::new(plain.clone())));
    let full = "check = { http = 'POST /q?x=1', version = '1.0', headers = { Host = 'a.example', X-Y = 'z' }, body = 'b', \
                expect = { status = [200, '300-302'], body = 'ok', body_regex = 'o+k' } }";
    let expected = HttpProbe {
        method: "POST".into(),
        path: "/q?x=1".into(),
        version: HttpVersion::Http10,
        headers: [("host".into(), "a.example".into()), ("x-y".into(), "z".into())].into(),
        body: b"b".to_vec(),
        status: vec![(200, 200), (300, 302)],
        contains: Some("ok".into()),
        matches: Some("o+k".into()),
    };
    assert_eq!(check(full).probe, Probe::Http(Box::new(expected)));
}

#[test]
fn pools_inherit_a_check_key_by_key_and_can_do_without() {
    let text = |pool: &str| format!("{}[defaults]\ncheck = {{ tcp = true, interval = '4s', rise = 7 }}\nslow_start = '30s'\n", web(pool));
    let of = |pool: &str| accepted(&text(pool)).pools["web"].as_ref().clone();
    let inherited = of("").check.unwrap();
    assert_eq!((inherited.probe, inherited.pace.interval, inherited.pace.rise), (Probe::Tcp(vec![]), MS(4000), 7));
    let own = of("check = { http = '/x', interval = '1s' }").check.unwrap();
    assert_eq!((own.pace.interval, own.pace.rise, matches!(own.probe, Probe::Http(_))), (MS(1000), 7, true));
    assert_eq!(of("check = false\nslow_start = 'off'").check, None);
    assert_eq!(of("").slow_start, MS(30_000));
    assert_eq!(accepted(&web("check = true\npanic_threshold = '50%'")).pools["web"].panic_threshold_pct, 50);
}

#[test]
fn every_fault_of_a_check_has_its_place_and_a_cure() {
    let cases = [
        ("check.htpp = '/x'", "9:7: error: unknown key `htpp` in [pool.web.check] | did you mean `http`?"),
        (
            "check.tcp = false",
            "9:13: error: `pool.web.check.tcp` must be true or say what is asked | tcp = [{ send = \"PING\\r\\n\" }, { expect = \"+PONG\" }]",
        ),
        (
            "check = { tcp = true, mysql = true }",
            "9:31: error: a check asks one thing, and this is the second | `tls`, `port` and `via` go with any of them",
        ),
        (
            "check.tcp = [{ send = 'a', expect = 'b' }]",
            "9:14: error: a step does one thing | one of `send`, `send_hex`, `expect`, `expect_hex`, `expect_regex`",
        ),
        (
            "check.tcp = [{ expect_regex = '(' }]",
            "9:31: error: bad value for `pool.web.check.tcp.expect_regex`: \"(\" is not a regular expression | the syntax is that of RE2, without look-around and back-references",
        ),
        (
            "check.udp = { send_hex = '0g' }",
            "9:26: error: bad value for `pool.web.check.udp.send_hex`: \"0g\" is not in hex | two digits a byte, with spaces or without: \"01 ff\"",
        ),
        (
            "check.udp = { expect = 'x' }",
            "9:13: error: missing key `send` in [pool.web.check.udp] | udp = { send_hex = \"00\", expect_hex = \"\" }: an empty `expect` is any answer",
        ),
        (
            "check = { http = 'FETCH /' }",
            "9:18: error: bad value for `pool.web.check.http`: \"FETCH /\" is not a method and a path | write \"GET /healthz\", with GET, HEAD, POST, PUT or OPTIONS",
        ),
        (
            "check = { tcp = true, expect = { status = 200 } }",
            "9:43: error: this is of an HTTP check, and there is none | add http = \"GET /healthz\"",
        ),
        (
            "check = { http = '/x', expect = { status = '500-200' } }",
            "9:44: error: bad value for `pool.web.check.expect.status`: \"500-200\" is not a status, or a range of them | write 200, \"200-399\", or a list of these",
        ),
        ("check = { http = '/x', headers = { \"a b\" = 'c' } }", "9:34: error: `a b` is no header field"),
        (
            "check.command = 'true'",
            "9:17: error: bad value for `pool.web.check.command`: \"true\" is not an absolute path | write it from the root: it begins with `/`",
        ),
        (
            "check = { tcp = true, interval = '5ms' }",
            "9:34: error: bad value for `pool.web.check.interval`: \"5ms\" is not from 10ms to 1h | the unit belongs to the number: \"500ms\", \"30s\", \"10m\", \"1h30m\"",
        ),
        (
            "check = { tcp = true, via = 'tunnel' }",
            "9:29: error: `pool.web.check.via` cannot be \"tunnel\" | there are `direct`, `datapath`",
        ),
        (
            "check = { command = ['/bin/true'], via = 'datapath' }",
            "8:1: error: a command asks the server itself, by whatever way it takes | leave out check.via",
        ),
        (
            "check = { tls = { sni = '-x' } }",
            "9:25: error: bad value for `pool.web.check.tls.sni`: \"-x\" is not the name of a host | write \"www.example.com\"",
        ),
        (
            "panic_threshold = '120%'",
            "9:19: error: bad value for `pool.web.panic_threshold`: \"120%\" is not a percentage | write \"50%\", or \"off\"",
        ),
        (
            "slow_start = '30s'",
            "8:1: warning: `slow_start` and `panic_threshold` have no effect: no check finds servers down | add check.tcp = true",
        ),
        (
            "check.http = '/'",
            "8:1: advice: the check asks for `/` | a path made for the purpose tells whether the server can do its work: \"GET /healthz\"",
        ),
        (
            "check = { tcp = true, timeout = '3s' }",
            "8:1: warning: a check may take longer than the interval: the next one waits for it | lower check.timeout, or raise check.interval",
        ),
    ];
    for (pool, expected) in cases {
        assert_eq!(findings(&web(pool)), [expected], "{pool}");
    }
}

#[test]
fn a_check_needs_a_port() {
    let any_port = web("check = true").replace("192.0.2.10:80", "192.0.2.10:*");
    assert_eq!(findings(&any_port), ["10:13: error: nobody says by which port `a` is checked | give check.port, or the server a port"]);
    // One of blue and green is there before it is used.
    let spare = web("check.tcp = true\nservers.b = '10.0.0.9'") + "[pool.spare]\ncheck.tcp = true\nservers.a = '10.0.0.1'\n";
    assert!(read(&spare).is_ok(), "{:?}", findings(&spare));
    accepted(&any_port.replace("check = true", "check = { tcp = true, port = 22 }"));
    accepted(&any_port.replace("check = true", "check.command = '/bin/true'"));
}

#[test]
fn a_check_through_the_data_path_needs_a_vip_of_the_servers_family() {
    let tunnel = |servers: &str| {
        web(&format!("forward = 'ipip'\ncheck = {{ tcp = true, via = 'datapath' }}\n{servers}")).replace("servers.a = '10.0.0.1'", "")
    };
    accepted(&tunnel("servers.b = '10.0.0.2'"));
    let refused = findings(&tunnel("servers.b = 'fd00::2'"));
    assert!(
        refused[0].contains("error: `b` is reached by IPv6, and no VIP of its pool is: it cannot be checked through the data path"),
        "{refused:?}"
    );
}
