use super::{
    super::{ConfigText, Severity},
    NODE, findings, parse, read,
};

fn web(listener: &str, pool: &str) -> String {
    format!("{NODE}[listener.web]\nmode = 'l4'\nbind = '192.0.2.10:80'\npool = 'web'\n{listener}\n[pool.web]\n{pool}\n")
}

#[test]
fn a_default_slot_seed_is_advised_against_and_accepted() {
    let text = web("", "servers.a = '10.0.0.1'").replace("slot_seed = \"s\"\n", "");
    let (config, found) = read(&text).unwrap();
    assert_eq!(config.node.slot_seed, "weir");
    assert_eq!(found.iter().map(|finding| finding.severity).collect::<Vec<_>>(), [Severity::Advice]);
    assert_eq!(
        findings(&text),
        [
            "1:1: advice: `slot_seed` is the default: clients can foretell which server they get | set `slot_seed` to a string of your own, the same on all nodes of one cluster"
        ]
    );
}

#[test]
fn a_balance_that_packets_cannot_have_is_replaced_with_a_warning() {
    let text = web("", "balance = 'least-conn'\nservers.a = '10.0.0.1'");
    assert_eq!(
        findings(&text),
        [
            "10:11: warning: `least-conn` is not for packets: l4 listener `web` balances by the hash of source address and port | write \"round-robin\", or \"source\" to keep a client on one server"
        ]
    );
}

#[test]
fn pools_that_nobody_can_reach_are_warned_of() {
    let text = web("", "servers.a = { address = '10.0.0.1', backup = true, weight = 0 }")
        + "[pool.idle]\nservers.a = { address = '10.0.0.2', state = 'down' }\n";
    assert_eq!(
        findings(&text),
        [
            "9:1: warning: every server of pool `web` has weight 0: new flows are refused",
            "9:1: warning: every server of pool `web` is a backup | leave `backup` out for some",
            "11:1: warning: no listener uses pool `idle`",
            "11:1: warning: no server of pool `idle` is ready: new flows are refused",
        ]
    );
}

#[test]
fn a_file_without_listeners_is_accepted_with_a_warning() {
    assert_eq!(findings(NODE), ["1:1: warning: there is no listener | [listener.NAME] takes packets to a [pool.NAME]"]);
}

#[test]
fn slots_too_few_for_the_weights_are_warned_of() {
    let text = web("slots = 256", "servers.a = '10.0.0.1'\nservers.b = '10.0.0.2'\nservers.c = '10.0.0.3'");
    assert_eq!(
        findings(&text),
        ["8:9: warning: 256 slots are fewer than 100 for each of 3 servers: shares differ from the weights | set `slots` to 512"]
    );
    let text = web("slots = 256", "servers.a = '10.0.0.1'\nservers.b = { address = '10.0.0.2', weight = 1000 }");
    assert_eq!(
        findings(&text),
        [
            "8:9: warning: weight 1 of 1001 is less than one of 256 slots | such a server gets more than its share, or nothing: raise `slots`, or bring the weights closer"
        ]
    );
}

#[test]
fn source_rules_without_effect_are_warned_of() {
    let text =
        web("allow = ['10.0.0.0/8', '2001:db8::/32']\ndeny = ['10.1.2.3/16', '172.16.0.0/12', '172.16.0.0/12']", "servers.a = '10.0.0.1'");
    assert_eq!(
        findings(&text),
        [
            "8:24: warning: 2001:db8::/32 has no effect: no bind of the listener is of its address family",
            "9:9: warning: 10.1.2.3/16 has bits beyond its prefix: taken as 10.1.0.0/16",
            "9:24: warning: denying 172.16.0.0/12 has no effect: `allow` does not let it in",
            "9:41: warning: 172.16.0.0/12 is in the list twice",
            "9:41: warning: denying 172.16.0.0/12 has no effect: `allow` does not let it in",
        ]
    );
}

#[test]
fn inherited_source_rules_are_not_held_against_a_listener() {
    let text = web("", "servers.a = '10.0.0.1'") + "[defaults]\ndeny = ['2001:db8::/32', '10.0.0.0/8']\n";
    assert_eq!(findings(&text), [""; 0]);
}

#[test]
fn stateless_udp_means_nothing_to_nat() {
    let text = web("udp = 'stateless'", "servers.a = '10.0.0.1'");
    assert_eq!(findings(&text), ["4:1: warning: udp = \"stateless\" has no effect: nat remembers every flow"]);
}

#[test]
fn tables_without_room_for_a_change_of_all_servers_are_advised_against() {
    let text = web("", "servers.a = '10.0.0.1'\nservers.b = '10.0.0.2'") + "[limits]\nmembers = 4\nnat_planes = 3\n";
    assert_eq!(
        findings(&text),
        [
            "14:14: advice: limits.nat_planes is 3, and 2 are in use: only 1 more can be while servers are replaced | raise it in [limits] to 4 to replace all servers at once; a replaced one keeps its place for an idle timeout"
        ]
    );
}

#[test]
fn a_link_local_vip_is_warned_of() {
    for (vip, address) in [("[fe80::1]:80", "fe80::1"), ("169.254.1.1:80", "169.254.1.1")] {
        let server = if vip.starts_with('[') { "fd00::1" } else { "10.0.0.1" };
        let text = web("", &format!("servers.a = '{server}'")).replace("192.0.2.10:80", vip);
        let [finding] = &findings(&text)[..] else { panic!("{:?}", findings(&text)) };
        assert!(finding.contains(&format!("warning: {address} is link-local")), "{finding}");
    }
}

#[test]
fn a_udp_check_without_an_expected_answer_is_advised_against() {
    let of = |check: &str| findings(&web("", &format!("check.udp = {{ {check} }}\nservers.a = '10.0.0.1'")).replace(":80'", ":53/udp'"));
    let found = of("send = 'x'");
    assert!(found.len() == 1 && found[0].contains("advice: the UDP check has no `expect`"), "{found:?}");
    assert_eq!(of("send = 'x', expect = ''"), Vec::<String>::new());
}

#[test]
fn a_check_of_the_root_path_and_a_password_in_the_file_are_advised_against() {
    let text = |check: &str| web("", &format!("check = {check}\nservers.a = '10.0.0.1'"));
    assert!(findings(&text("{ http = 'GET /' }"))[0].starts_with("9:1: advice: the check asks for `/`"));
    assert!(findings(&text("{ http = 'GET /healthz', headers = { Accept = 'x' } }")).is_empty());
    for (check, what) in [
        ("{ http = 'GET /healthz', headers = { Authorization = 'Basic eA==' } }", "header field `authorization`"),
        ("{ tcp = [{ send = \"PING\\r\\nAUTH s3cret\\r\\n\" }] }", "words that are sent"),
        ("{ command = ['/bin/probe', '--password=s3cret'] }", "command"),
    ] {
        let found = findings(&text(check));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("9:1: advice: a password stands in the file: the check's {what} |")),
            "{found:?}"
        );
    }
}

#[test]
fn an_admin_socket_that_others_may_replace_or_users_cannot_open_is_warned_of() {
    let text = |admin: &str| format!("[admin]\n{admin}\n") + &web("", "servers.a = '10.0.0.1'");
    let found = findings(&text("socket = '/tmp/weir.sock'"));
    assert!(
        found.len() == 1 && found[0].starts_with("2:10: warning: /tmp/weir.sock is in a folder that every user may write to"),
        "{found:?}"
    );
    let found = findings(&text("users = ['bob']"));
    assert!(
        found.len() == 1 && found[0].starts_with("2:9: warning: `users` has no effect for those who may not open the socket"),
        "{found:?}"
    );
    assert!(findings(&text("users = ['bob']\ngroup = 'ops'\nsocket = '/run/weir/admin.sock'")).is_empty());
}

#[test]
fn secrets_in_a_file_that_others_may_not_read_are_nobodys_business() {
    let text = web("", "check = { command = ['/bin/probe', '--password=s3cret'] }\nservers.a = '10.0.0.1'")
        + "[vrrp.www]\ninterface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\nversion = 2\npassword = 's3cret'\n";
    assert_eq!(findings(&text).iter().filter(|finding| finding.contains("stands in the file")).count(), 2);
    let (_, found) = parse(&ConfigText::new("weir.toml", &text), "host").unwrap();
    assert_eq!(found, []);
}
