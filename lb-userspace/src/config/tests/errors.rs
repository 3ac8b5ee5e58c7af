use super::{super::ConfigText, NODE, findings, read};

/// A file with a listener and a pool around the lines that a test is about; the listener's begin at line 8, the pool's after them.
fn web(listener: &str, pool: &str) -> String {
    format!("{NODE}[listener.web]\nmode = 'l4'\nbind = '192.0.2.10:80'\npool = 'web'\n{listener}\n[pool.web]\n{pool}\n")
}

const SERVER: &str = "servers.a = '10.0.0.1'";

#[test]
fn ten_errors_of_one_file_are_told_at_once() {
    let text = "\
[node]
interface = [\"eth0\"]
xdp = \"nativ\"
[limits]
flows = 5_000_000
[listener.web]
mode = \"l4\"
bind = [\"192.0.2.10:80-90\", \"0.0.0.0:80\", \"2001:db8::10:80\"]
pool = \"wep\"
slots = 1000
timeout = { tcp = \"5h\" }
[pool.web]
forward = \"nat\"
servers.a = { adress = \"10.0.0.1\" }
";
    assert_eq!(
        findings(text),
        [
            "1:1: error: missing key `interfaces` in [node] | name the network interfaces that packets come in by: [\"eth0\"]",
            "2:1: error: unknown key `interface` in [node] | did you mean `interfaces`?",
            "3:7: error: `node.xdp` cannot be \"nativ\" | did you mean `native`?",
            "5:9: error: `limits.flows` must be from 1024 to 4194304, not 5000000",
            "8:9: error: bad value for `listener.web.bind`: \"80-90\" is a range of ports | write one bind for each port, or \":*\" for every port that no other bind takes",
            "8:29: error: bad value for `listener.web.bind`: 0.0.0.0 is the unspecified address | write the one address that packets are sent to",
            "8:43: error: bad value for `listener.web.bind`: \"2001:db8::10:80\" has no brackets around its IPv6 address | write \"[2001:db8::10]:443\"",
            "9:8: error: there is no pool `wep` | did you mean `web`?",
            "10:9: error: `listener.web.slots` must be a power of two, not 1000 | the nearest are 512 and 1024",
            "11:19: error: bad value for `listener.web.timeout.tcp`: \"5h\" is not from 1s to 4h | the unit belongs to the number: \"500ms\", \"30s\", \"10m\", \"1h30m\"",
            "14:13: error: missing key `address` in [pool.web.servers.a] | an IP address, with a port or without: \"10.0.1.11:80\"; or a `name` or `srv` to look up",
            "14:15: error: unknown key `adress` in [pool.web.servers.a] | did you mean `address`?",
        ]
    );
}

#[test]
fn a_finding_is_shown_over_its_line_with_a_caret_and_a_hint() {
    let text = ConfigText::new("weir.toml", "[node]\ninterfaces = [\"eth0\"]\nxpd = \"auto\"\n");
    let errors = read(&text.text).unwrap_err();
    let expected = "\
error: unknown key `xpd` in [node]
 --> weir.toml:3:1
  |
3 | xpd = \"auto\"
  | ^^^
  |
  = hint: did you mean `xdp`?";
    assert_eq!(errors[0].render(&text), expected);
}

#[test]
fn json_has_the_place_as_editors_count_it() {
    let text = ConfigText::new("weir.toml", "[node]\r\nname = 'ü' \r\ninterfaces = ['ü', 5]\r\n");
    let errors = read(&text.text).unwrap_err();
    let json = serde_json::to_string(&errors[0].located(&text)).unwrap();
    assert_eq!(
        json,
        r#"{"severity":"error","file":"weir.toml","line":3,"column":20,"message":"`node.interfaces` must be a string, not an integer","hint":null}"#
    );
}

#[test]
fn every_line_with_a_syntax_error_is_told_and_its_section_not_judged_further() {
    let text = "[node]\nname = lb1 x\ninterfaces = [\"eth0\"\nxpd = 1\n[limits]\nflow = 3\nmembers = 70_000\n[pool.x]\ny = \"\n";
    assert_eq!(
        findings(text),
        [
            "2:8: error: string values must be quoted, expected literal string",
            "4:1: error: missing comma between array elements, expected `,`",
        ]
    );
}

#[test]
fn several_lines_of_one_section_with_syntax_errors_are_all_told() {
    let text = "[node]\nname = lb1\ninterfaces = [\"eth0\"]\nslot_seed = 'a\nxdp = \npin_dir = /x\n";
    let lines: Vec<String> = findings(text).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["2", "4", "5", "6"]);
}

#[test]
fn the_bpf_file_system_itself_is_no_pin_directory() {
    for path in ["/sys/fs/bpf", "/sys/fs/bpf/", "/sys//fs/./bpf", "/"] {
        let findings = findings(&format!("[node]\ninterfaces = 'a'\nslot_seed = 'x'\npin_dir = '{path}'\n"));
        assert!(findings[0].starts_with("4:11: error: `node.pin_dir` must be a folder of its own"), "{findings:?}");
    }
}

#[test]
fn of_many_unknown_pools_the_first_have_a_suggestion() {
    let mut text = String::from("[node]\ninterfaces = 'a'\nslot_seed = 'x'\n[defaults]\nmode = 'l4'\n");
    for number in 0..300 {
        let name = format!("a-rather-long-name-of-a-pool-that-somebody-thought-of-{number}");
        text += &format!(
            "[listener.l{number}]\nbind = '10.{}.{}.1:80'\npool = 'x{name}'\n[pool.{name}]\nservers.s = '10.200.0.1'\n",
            number / 200,
            number % 200
        );
    }
    let findings = findings(&text);
    assert_eq!(findings.iter().filter(|line| line.contains("there is no pool")).count(), 300);
    assert_eq!(findings.iter().filter(|line| line.contains("did you mean")).count(), 20);
}

#[test]
fn sections_without_a_syntax_error_are_judged_but_nothing_is_called_missing() {
    let text = "[node]\nname = \n[limits]\nflow = 3\nmembers = 70_000\n[listener.x]\npool = 'nowhere'\n";
    assert_eq!(
        findings(text),
        [
            "2:8: error: string values must be quoted, expected literal string",
            "4:1: error: unknown key `flow` in [limits] | did you mean `flows`?",
            "5:11: error: `limits.members` must be from 1 to 65000, not 70000",
        ]
    );
}

#[test]
fn a_key_or_section_that_is_given_twice_is_an_error() {
    let text = "[node]\ninterfaces = ['a']\ninterfaces = ['b']\n[node]\n";
    assert_eq!(findings(text), ["3:1: error: duplicate key", "4:2: error: duplicate key"]);
}

#[test]
fn values_of_a_wrong_type_are_named_with_what_they_should_be() {
    let text =
        web("slots = '256'\ntimeout = 5\nallow = 7", "forward = 1\nservers.a = 3\nservers.b = { address = '10.0.0.2', backup = 'yes' }");
    assert_eq!(
        findings(&text),
        [
            "8:9: error: `listener.web.slots` must be an integer, not a string",
            "9:11: error: `listener.web.timeout` must be a table, not an integer",
            "10:9: error: `listener.web.allow` must be a string or an array of strings, not an integer",
            "12:11: error: `pool.web.forward` must be a string, not an integer",
            "13:13: error: `pool.web.servers.a` must be a table, not an integer",
            "14:46: error: `pool.web.servers.b.backup` must be true or false, not a string",
        ]
    );
}

#[test]
fn durations_without_a_unit_are_told_how_to_write_them() {
    let text = format!(
        "{}[pool.web.check]\ninterval = 1\ntimeout = 0.5\n[dns]\nttl_min = 1_0\ntimeout = 0\n\
         [vrrp.www]\ninterface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\ninterval = 1\npreempt = 5\nstart_delay = 5\nyield_hold = -1\n\
         announce.every = 0x3c\nversion = 2\n\
         track = [{{ command = '/bin/true', timeout = 2 }}]\n",
        web("timeout.tcp = 300", &format!("{SERVER}\nslow_start = 30\n"))
    );
    let told =
        |place: &str, key: &str, found: &str, hint: &str| format!("{place}: error: `{key}` must be a string, not {found} | write {hint}");
    let unit = "a number and its unit, as in \"5s\"";
    assert_eq!(
        findings(&text),
        [
            told("8:15", "listener.web.timeout.tcp", "an integer", "\"300s\""),
            told("11:14", "pool.web.slow_start", "an integer", "\"30s\""),
            told("14:12", "pool.web.check.interval", "an integer", "\"1s\""),
            told("15:11", "pool.web.check.timeout", "a float", unit),
            told("17:11", "dns.ttl_min", "an integer", "\"10s\""),
            told("18:11", "dns.timeout", "an integer", unit),
            told("23:12", "vrrp.www.interval", "an integer", "\"1s\""),
            told("24:11", "vrrp.www.preempt", "an integer", "\"5s\""),
            told("25:15", "vrrp.www.start_delay", "an integer", "\"5s\""),
            told("26:14", "vrrp.www.yield_hold", "an integer", unit),
            told("27:18", "vrrp.www.announce.every", "an integer", unit),
            told("29:45", "vrrp.www.track.timeout", "an integer", "\"2s\""),
        ]
    );
}

#[test]
fn a_bind_is_taken_once_in_all_listeners() {
    let text = web("[listener.other]\nmode = 'l4'\npool = 'web'\nbind = ['192.0.2.11:80', '192.0.2.10:80/tcp', '192.0.2.11:80']", SERVER);
    assert_eq!(
        findings(&text),
        [
            "11:26: error: 192.0.2.10:80/tcp is bound by listener `web` already",
            "11:47: error: 192.0.2.11:80/tcp is bound by this listener already",
        ]
    );
}

#[test]
fn modes_of_weir_that_this_version_lacks_are_refused_by_name() {
    let text = format!("{NODE}[listener.web]\nmode = 'http'\nbind = '192.0.2.10:80'\npool = 'web'\nroutes = []\n[pool.web]\n{SERVER}\n");
    assert_eq!(findings(&text), ["5:8: error: mode `http` is not available in this version | the one mode that is available is \"l4\""]);
}

#[test]
fn dsr_and_nat_want_servers_of_the_vips_family_and_tunnels_do_not() {
    let servers = "servers.a = '2001:db8::1'";
    let hint = " | make a listener and a pool for each family, or forward by ipip or gue";
    for mode in ["nat", "dsr"] {
        assert_eq!(
            findings(&web("", &format!("forward = '{mode}'\n{servers}"))),
            [format!(
                "11:13: error: server 2001:db8::1 is IPv6, and listener `web` binds 192.0.2.10: {mode} keeps the address family{hint}"
            )]
        );
    }
    for mode in ["ipip", "gue"] {
        assert_eq!(findings(&web("", &format!("forward = '{mode}'\n{servers}"))), [""; 0]);
    }
}

#[test]
fn modes_that_do_not_rewrite_ports_refuse_another_port_wherever_it_comes_from() {
    let text = web("", "forward = 'dsr'\nserver.port = 81\nservers.a = '10.0.0.1'\nservers.b = '10.0.0.2:82'\nservers.c = '10.0.0.3:80'");
    let hint = " | leave the server's port out, or forward by nat";
    assert_eq!(
        findings(&text),
        [
            format!("11:15: error: port 81 differs from 192.0.2.10:80/tcp of listener `web`: dsr does not rewrite ports{hint}"),
            format!("13:13: error: port 82 differs from 192.0.2.10:80/tcp of listener `web`: dsr does not rewrite ports{hint}"),
        ]
    );
}

#[test]
fn snat_and_gue_port_belong_to_their_modes() {
    let text = web("", &format!("forward = 'dsr'\nsnat = '10.0.0.9'\ngue_port = 6080\n{SERVER}"));
    assert_eq!(
        findings(&text),
        [
            "11:8: error: `snat` is for forward = \"nat\" only | in the other modes servers see the client's address",
            "12:12: error: `gue_port` is for forward = \"gue\" only",
        ]
    );
}

#[test]
fn snat_has_an_address_of_the_servers_family_and_none_of_a_server() {
    let text = web("", &format!("snat = ['2001:db8::9', '2001:db8::9']\n{SERVER}"));
    assert_eq!(
        findings(&text),
        ["10:9: error: `snat` has no IPv4 address, and server `a` is reached by IPv4", "10:24: error: 2001:db8::9 is in the list twice",]
    );
    assert_eq!(findings(&web("", &format!("snat = '10.0.0.1'\n{SERVER}"))), ["10:8: error: 10.0.0.1 is a server of this pool"]);
}

#[test]
fn a_server_is_no_vip_and_no_other_server() {
    let text = web("", "servers.a = '192.0.2.10:8080'\nservers.b = '10.0.0.1:80'\nservers.c = { address = '10.0.0.1', port = 80 }");
    assert_eq!(
        findings(&text),
        [
            "10:13: error: 192.0.2.10 is a VIP: what is sent there comes back to this node | give the address that the server has for itself",
            "12:25: error: server `b` has this address and port already | a larger share is a larger `weight`",
        ]
    );
}

#[test]
fn addresses_that_no_packet_is_sent_to_are_refused() {
    let bad = |bind: &str| findings(&web("", SERVER).replace("192.0.2.10:80", bind)).join("\n");
    let prefix = "6:8: error: bad value for `listener.web.bind`: ";
    let hint = " | write the one address that packets are sent to";
    assert_eq!(bad("224.0.0.1:80"), format!("{prefix}224.0.0.1 is a multicast address{hint}"));
    assert_eq!(bad("127.0.0.1:80"), format!("{prefix}127.0.0.1 is a loopback address{hint}"));
    assert_eq!(bad("[::]:80"), format!("{prefix}:: is the unspecified address{hint}"));
    assert_eq!(bad("255.255.255.255:80"), format!("{prefix}255.255.255.255 is the broadcast address{hint}"));
    assert_eq!(
        bad("[::ffff:192.0.2.1]:80"),
        format!(
            "{prefix}\"[::ffff:192.0.2.1]:80\" is an IPv4 address written as IPv6 | write \"192.0.2.10\" instead of \"::ffff:192.0.2.10\""
        )
    );
}

#[test]
fn binds_that_are_none_say_what_is_wrong() {
    let bad = |bind: &str| findings(&web("", SERVER).replace("192.0.2.10:80", bind)).join("\n");
    let prefix = "6:8: error: bad value for `listener.web.bind`: ";
    assert_eq!(
        bad("192.0.2.10"),
        format!("{prefix}\"192.0.2.10\" has no port | append \":80\" for one port, \":*\" for every port that no other bind takes")
    );
    assert_eq!(bad("192.0.2.10:0"), format!("{prefix}\"0\" is not a port | ports are from 1 to 65535"));
    assert_eq!(bad("192.0.2.10:70000"), format!("{prefix}\"70000\" is not a port | ports are from 1 to 65535"));
    assert_eq!(
        bad("192.0.2.10:80/sctp"),
        format!("{prefix}\"sctp\" is not a protocol | write \"/tcp\", which is the default, or \"/udp\"")
    );
    assert_eq!(
        bad("www.example.org:80"),
        format!(
            "{prefix}\"www.example.org\" is not an IP address | host names are not looked up here: write \"192.0.2.10\" or \"2001:db8::10\""
        )
    );
}

#[test]
fn rates_and_durations_say_what_they_want() {
    let text = web("conn_rate = '100 per second'\ntimeout = { tcp = '90', udp = '1500ms' }", SERVER);
    assert_eq!(
        findings(&text),
        [
            "8:13: error: bad value for `listener.web.conn_rate`: \"100 per second\" is not a rate | write connections \"/\" duration, as \"100/10s\", or \"off\"",
            "9:19: error: bad value for `listener.web.timeout.tcp`: \"90\" is not a duration | write a number and its unit: \"500ms\", \"30s\", \"10m\", \"1h30m\"",
            "9:31: error: bad value for `listener.web.timeout.udp`: \"1500ms\" is not a whole number of seconds | the kernel side counts seconds",
        ]
    );
}

#[test]
fn an_error_in_defaults_is_told_once_and_not_blamed_on_those_who_inherit() {
    let text = web("", "servers.a = '2001:db8::1'") + "[defaults]\nforward = 'ipipp'\nslots = 'many'\n";
    assert_eq!(
        findings(&text),
        [
            "12:11: error: `defaults.forward` cannot be \"ipipp\" | did you mean `ipip`?",
            "13:9: error: `defaults.slots` must be an integer, not a string",
        ]
    );
}

#[test]
fn more_than_the_tables_hold_is_an_error_at_the_limit() {
    let text = web("", "servers.a = '10.0.0.1'\nservers.b = '10.0.0.2'");
    assert_eq!(
        findings(&(text.clone() + "[limits]\nmembers = 1\n")),
        ["13:11: error: 2 members are configured, and limits.members is 1 | raise it in [limits] to 2 or more"]
    );
    assert_eq!(
        findings(&(text + "[limits]\nnat_planes = 1\n")),
        [
            "13:14: error: limits.nat_planes is 1, and more pairs of SNAT address and server endpoint are configured | raise `nat_planes` in [limits]"
        ]
    );
}

#[test]
fn fewer_slots_than_servers_is_an_error() {
    let servers: String = (0..257).map(|n| format!("servers.s{n} = '10.0.{}.{}'\n", n / 200, n % 200 + 1)).collect();
    assert_eq!(
        findings(&web("slots = 256", &servers)),
        [
            "8:9: error: 256 slots are fewer than the 257 servers that share them | 100 slots a server keep shares within a percent of their weights"
        ]
    );
}

#[test]
fn one_prefix_is_not_both_let_in_and_refused() {
    let text = web("allow = ['10.0.0.0/8']\ndeny = ['10.0.0.0/8', '10.0.0.0/40']", SERVER);
    assert_eq!(
        findings(&text),
        [
            "9:23: error: bad value for `listener.web.deny`: \"10.0.0.0/40\" is not a network | write \"10.0.0.0/8\", \"2001:db8::/32\" or one address",
        ]
    );
    assert_eq!(findings(&text.replace(", '10.0.0.0/40'", "")), ["9:9: error: 10.0.0.0/8 is both in `allow` and in `deny`"]);
}

#[test]
fn names_fit_a_shell() {
    let text = web("", "servers.'a/b' = '10.0.0.1'");
    assert_eq!(
        findings(&text),
        ["10:9: error: bad name in [pool.web.servers]: \"a/b\" is not a name | names have 1 to 64 letters, digits, `-`, `_` and `.`"]
    );
}

#[test]
fn a_port_in_the_address_and_beside_it_is_an_error() {
    let text = web("", "servers.a = { address = '10.0.0.1:80', port = 81 }");
    assert_eq!(findings(&text), ["10:47: error: the port is given twice: `address` has one"]);
}

#[test]
fn findings_of_a_hopeless_file_are_bounded() {
    let keys: String = (0..3000).map(|n| format!("k{n} = 1\n")).collect();
    let found = findings(&keys);
    assert_eq!(found.len(), 1001);
    assert!(found.iter().any(|line| line.ends_with("there are more than 1000 findings like this; the rest is not shown")));
}
