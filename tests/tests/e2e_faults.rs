//! Deaths, disks and edits: whatever befalls the daemon in the middle of a change, the maps end as they should and no connection notices.

use std::{collections::BTreeMap, fs, io::Write as _, net::SocketAddr, time::Duration};

use serde_json::Value;
use weir_tests::{
    lab::{Shape, SmallDisk, TcpLoad, TcpServer, Topology, Weir, wait_until},
    operator::{done, said},
    random::Random,
};

const SOON: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(500);
const AT_MOST: Duration = Duration::from_secs(3600);
const PORT: u16 = 7000;

struct Fixture {
    lab: Topology,
    _servers: Vec<TcpServer>,
}

impl Fixture {
    fn new(servers: u8) -> Self {
        let lab = Topology::builder(Shape::TwoArmed).servers(servers).build().unwrap();
        let start =
            |(index, host): (usize, &weir_tests::lab::Host)| TcpServer::start(&host.namespace, &format!("s{}", index + 1), PORT).unwrap();
        let servers = lab.servers.iter().enumerate().map(start).collect();
        Self { lab, _servers: servers }
    }

    /// Servers by number, with what is said of each.
    fn config(&self, servers: &[(usize, &str)], more: &str) -> String {
        let mut text = format!(
            "\n[listener.echo]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"echo\"\nslots = 4096\ntimeout.tcp = \"10s\"\n[pool.echo]\n",
            self.lab.vip4()
        );
        for (number, keys) in servers {
            text += &format!("servers.s{number} = {{ address = \"{}\"{keys} }}\n", self.lab.servers[number - 1].v4);
        }
        text + more
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip4().into(), PORT)
    }

    fn load(&self, connections: usize) -> TcpLoad {
        let load = TcpLoad::start(&self.lab.client().namespace, self.vip(), connections, INTERVAL, AT_MOST).unwrap();
        load.wait_opened().unwrap();
        load
    }

    /// Whom new connections reach.
    fn greeters(&self) -> Vec<String> {
        let load = TcpLoad::start(&self.lab.client().namespace, self.vip(), 60, INTERVAL, Duration::from_millis(1)).unwrap();
        let report = load.report().unwrap();
        assert!(report.is_flawless(60), "{report:?}");
        report.by_server.into_keys().collect()
    }
}

/// What packets meet: every service with its members that take flows, their weights and slots.
fn met(weir: &Weir<'_>) -> BTreeMap<String, BTreeMap<String, (u64, u64)>> {
    let status = weir.status().unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let of_service = |service: &Value| {
        let ready = service["members"].as_array().unwrap().iter().filter(|member| member["state"] == "ready");
        let members = ready.map(|member| (member["address"].to_string(), (number(&member["weight"]), number(&member["slots"]))));
        (format!("{}:{}/{}", service["vip"], service["port"], service["protocol"]), members.collect())
    };
    // Dropped ones wait for their flows to end.
    let services = status["services"].as_array().unwrap().iter().map(of_service);
    services.filter(|(_, members): &(String, BTreeMap<_, _>)| !members.is_empty()).collect()
}

#[test]
fn a_daemon_that_dies_at_any_operation_of_a_change_is_followed_by_one_that_completes_it() {
    let fixture = Fixture::new(4);
    let vip6 = fixture.lab.vip6();
    let more = format!(
        "[listener.more]\nmode = \"l4\"\nbind = [\"[{vip6}]:{PORT}\", \"{}:9000/udp\"]\npool = \"more\"\nslots = 1024\ndeny = [\"198.51.100.0/24\"]\n[pool.more]\nforward = \"ipip\"\n",
        fixture.lab.vip4()
    ) + &format!("servers.a = \"{}\"\nservers.b = \"{}\"\n", fixture.lab.servers[0].v4, fixture.lab.servers[1].v4);
    let first = fixture.config(&[(1, ""), (2, ""), (3, "")], "");
    let second = fixture.config(&[(1, ", weight = 3"), (2, ", state = \"drain\""), (4, "")], &more);
    let mut weir = Weir::start(fixture.lab.node(), &first).unwrap();
    let mut expected = BTreeMap::from([(0, met(&weir))]);
    let load = fixture.load(200);
    let mut deaths = 0;
    // There and back, again and again, with one operation more performed each time; none once the whole change was performed.
    let mut next = [Some(0_usize), Some(0)];
    for from in (0..2).cycle().take(400) {
        let to = 1 - from;
        weir.kill_9().unwrap();
        weir.write_config([&first, &second][to]).unwrap();
        let performed = next[from];
        match performed {
            Some(operation) if weir.run_to_death(operation).unwrap() => {
                (next[from], deaths) = (Some(operation + 1), deaths + 1);
                weir.run().unwrap();
            }
            Some(_) => next[from] = None,
            None => weir.run().unwrap(),
        }
        let met = met(&weir);
        assert_eq!(*expected.entry(to).or_insert_with(|| met.clone()), met, "after {performed:?} operations toward {to}");
        assert_eq!(load.broken(), Vec::<String>::new(), "after {performed:?} operations toward {to}");
        if next == [None; 2] {
            break;
        }
    }
    println!("{deaths} deaths");
    assert!(deaths >= 20 && next == [None; 2], "{deaths} {next:?}");
    assert_eq!(expected[&1].len(), 3);
    let report = load.finish().unwrap();
    assert!(report.is_flawless(200), "{report:?}");
    weir.kill_9().unwrap();
    weir.write_config(&first).unwrap();
    weir.run().unwrap();
    assert_eq!(fixture.greeters(), ["s1", "s2", "s3"]);
}

#[test]
fn a_thousand_edits_break_no_connection() {
    let fixture = Fixture::new(5);
    let mut random = Random::new(7);
    let mut servers: BTreeMap<usize, String> = (1..=4).map(|number| (number, String::new())).collect();
    let text = |servers: &BTreeMap<usize, String>| {
        let listed: Vec<(usize, &str)> = servers.iter().map(|(number, keys)| (*number, keys.as_str())).collect();
        fixture.config(&listed, "")
    };
    let weir = Weir::start(fixture.lab.node(), &text(&servers)).unwrap();
    let load = fixture.load(300);
    let untouched = load.greeted_by("s1") + load.greeted_by("s2");
    assert!(untouched > 100, "{untouched}");
    let first = Value::from(fixture.lab.servers[0].v4.to_string()).to_string();
    let mut opened = 0;
    for edit in 0..1000 {
        // Servers 3 to 5 come, go and change; 1 and 2 stay.
        let number = 3 + random.below(3) as usize;
        let name = format!("echo/s{number}");
        let is_listed = servers.contains_key(&number);
        match random.below(8) {
            0..=3 => {
                match random.below(4) {
                    0 => drop(servers.remove(&number)),
                    1 => drop(servers.insert(number, ", state = \"drain\"".into())),
                    _ => drop(servers.insert(number, format!(", weight = {}", 1 + random.below(9)))),
                }
                weir.replace_config(&text(&servers)).unwrap();
                if random.happens(0.5) {
                    done(&weir, &["apply"]);
                }
            }
            4 => drop(said(&weir.operate(&["weight", &name, &random.below(20).to_string()]).unwrap())),
            5 => drop(said(&weir.operate(&["drain", &name]).unwrap())),
            6 => drop(said(&weir.operate(&["ready", &name]).unwrap())),
            _ if is_listed => drop(said(&weir.operate(&["weight", &name, "default"]).unwrap())),
            _ => drop(said(&weir.operate(&["maint", &name]).unwrap())),
        }
        if edit % 100 == 99 {
            opened += 60;
            assert!(!fixture.greeters().is_empty());
            // A server of weight 1 beside others of up to 19 has its slots, though not each sixty connections meet them.
            let slots: Vec<u64> = met(&weir).values().flat_map(|members| members.get(&first)).map(|(_, slots)| *slots).collect();
            assert!(slots.len() == 1 && slots[0] > 0, "{slots:?}");
            assert_eq!(load.broken(), Vec::<String>::new(), "after {edit} edits");
        }
    }
    let report = load.finish().unwrap();
    println!("{opened} connections opened meanwhile; longest answer {:?}", report.longest_answer);
    assert!(report.is_flawless(300), "{report:?}");
    // A daemon that starts afresh builds the same.
    servers.values_mut().for_each(String::clear);
    weir.replace_config(&text(&servers)).unwrap();
    done(&weir, &["apply"]);
    done(&weir, &["ready", "echo/*"]);
    done(&weir, &["weight", "echo/*", "default"]);
    let fresh = met(&weir);
    drop(weir);
    let again = Weir::start(fixture.lab.node(), &text(&servers)).unwrap();
    assert_eq!(met(&again), fresh);
}

fn problems(weir: &Weir<'_>) -> String {
    weir.status().unwrap()["problems"].to_string()
}

#[test]
fn a_full_disk_or_one_that_cannot_be_written_stops_nothing_but_what_has_to_be_kept() {
    let fixture = Fixture::new(2);
    let config = |weight: u8| fixture.config(&[(1, ""), (2, &format!(", weight = {weight}"))], "");
    let weir = Weir::prepare(fixture.lab.node(), &config(1)).unwrap();
    let state = weir.config().with_file_name("state");
    // The daemon ends before its disk goes.
    let disk = SmallDisk::at(&state).unwrap();
    let mut weir = weir;
    weir.run().unwrap();
    let load = fixture.load(50);

    let filler = state.join("filler");
    fs::write(&filler, vec![0; 1 << 20]).expect_err("it is full");
    let (code, text) = said(&weir.operate(&["drain", "echo/s1"]).unwrap());
    assert!(code == Some(1) && text.contains("No space left") && text.contains("nothing has been changed"), "{code:?} {text}");
    assert_eq!(fixture.greeters(), ["s1", "s2"]);
    weir.write_config(&config(3)).unwrap();
    let weight = |weir: &Weir<'_>| met(weir).into_values().next().unwrap().into_values().map(|(weight, _)| weight).max();
    wait_until("the weight to be in force", SOON, || weight(&weir) == Some(3)).unwrap();
    wait_until("the log to say so", SOON, || weir.stderr().contains("No space left")).unwrap();
    // The record is of the time before: the daemon tells what it cannot write.
    wait_until("the status to be the daemon's own", SOON, || problems(&weir).contains("what weir status reads is old")).unwrap();
    fs::remove_file(&filler).unwrap();
    wait_until("the history to be kept", SOON, || weir.is_ready() && !problems(&weir).contains("not kept")).unwrap();
    assert!(done(&weir, &["history"]).lines().count() >= 3);

    disk.remount("ro").unwrap();
    let (code, text) = said(&weir.operate(&["drain", "echo/s1"]).unwrap());
    assert!(code == Some(1) && text.contains("Read-only") && text.contains("nothing has been changed"), "{code:?} {text}");
    weir.write_config(&config(5)).unwrap();
    wait_until("the weight to be in force", SOON, || weight(&weir) == Some(5)).unwrap();
    // A daemon that is started there goes on with what the maps hold, and follows the file.
    weir.kill_9().unwrap();
    weir.write_config(&config(7)).unwrap();
    weir.spawn().unwrap();
    wait_until("the weight to be in force", SOON, || weight(&weir) == Some(7)).unwrap();
    assert!(weir.stderr().contains("the daemon keeps nothing of what it says"), "{}", weir.stderr());
    disk.remount("rw").unwrap();
    wait_until("the socket to be there", SOON, || weir.operate(&["history"]).unwrap().status.success()).unwrap();
    done(&weir, &["drain", "echo/s1"]);
    assert_eq!(fixture.greeters(), ["s2"]);
    done(&weir, &["ready", "echo/s1"]);
    assert!(load.finish().unwrap().is_flawless(50));
    weir.terminate().unwrap();
}

#[test]
fn what_somebody_removes_comes_back() {
    let fixture = Fixture::new(2);
    let text = fixture.config(&[(1, ""), (2, "")], "");
    let mut weir = Weir::start(fixture.lab.node(), &text).unwrap();
    let state = weir.config().with_file_name("state");
    done(&weir, &["drain", "echo/s1"]);
    fs::remove_dir_all(&state).unwrap();
    wait_until("the socket to be back", SOON, || weir.operate(&["server", "list"]).unwrap().status.success()).unwrap();
    let is_kept = || ["overrides.json", "history.json", "history/1.toml"].iter().all(|name| state.join(name).exists());
    wait_until("what is kept to be back", SOON, is_kept).unwrap();
    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.greeters(), ["s2"]);

    // Without its file the daemon goes on, says so, and follows the file once it is back.
    fs::remove_file(weir.config()).unwrap();
    wait_until("the log to say so", SOON, || weir.stderr().contains("failed to read")).unwrap();
    assert_eq!(fixture.greeters(), ["s2"]);
    weir.write_config(&fixture.config(&[(1, ", weight = 7"), (2, "")], "")).unwrap();
    done(&weir, &["ready", "echo/s1"]);
    wait_until("the file to be followed", SOON, || fixture.greeters() == ["s1", "s2"] && weir.is_ready()).unwrap();
}

#[test]
fn a_file_that_is_written_slowly_is_taken_whole_and_a_broken_one_hides_nothing() {
    let fixture = Fixture::new(2);
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config(&[(1, ""), (2, "")], "")).unwrap();
    let whole = fs::read_to_string(weir.config()).unwrap();
    let before = done(&weir, &["history"]);
    let (first, rest) = whole.split_at(whole.find("[pool").unwrap());
    let mut file = fs::File::create(weir.config()).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    // Longer than the daemon's own look at the file takes to come.
    std::thread::sleep(Duration::from_millis(2500));
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(done(&weir, &["history"]), before);
    assert!(!weir.stderr().contains("error"), "{}", weir.stderr());

    fs::write(weir.config(), whole.replace("interfaces", "interfces")).unwrap();
    let told = |weir: &Weir<'_>| said(&weir.operate(&["status"]).unwrap());
    let is_told = |(code, text): (Option<i32>, String)| code == Some(1) && text.contains("unknown key `interfces`");
    wait_until("the status to say what is wrong", SOON, || is_told(told(&weir)))
        .unwrap_or_else(|error| panic!("{error} {:?}", told(&weir)));
    done(&weir, &["drain", "echo/s1"]);
    assert_eq!(fixture.greeters(), ["s2"]);

    // Whatever the file has become, its daemon is found.
    let elsewhere = whole.replace("pin_dir = \"", "pin_dir = \"/sys/fs/bpf/else").replace("state_dir = \"", "state_dir = \"/run/else");
    assert!(elsewhere.contains("/run/else"), "{elsewhere}");
    let texts = [String::new(), format!("<<<<<<< HEAD\n{whole}"), whole.replacen('"', "", 1), elsewhere.clone()];
    for (text, command) in texts.iter().map(String::as_bytes).chain([&b"\xff\xfe"[..]]).zip(["ready", "drain", "ready", "drain", "ready"]) {
        fs::write(weir.config(), text).unwrap();
        done(&weir, &[command, "echo/s1"]);
        done(&weir, &["history"]);
        let (code, said) = told(&weir);
        assert!(code == Some(1) || text == elsewhere.as_bytes() && said.contains("the data plane that is loaded has"), "{said}");
    }
    fs::remove_file(weir.config()).unwrap();
    done(&weir, &["drain", "echo/s1"]);
    assert_eq!(fixture.greeters(), ["s2"]);

    // A start finds what was in force as well.
    fs::write(weir.config(), &whole).unwrap();
    wait_until("the file to be taken", SOON, || told(&weir).0 == Some(0)).unwrap_or_else(|error| panic!("{error} {:?}", told(&weir)));
    fs::remove_file(weir.config()).unwrap();
    for (text, others) in [(None, "failed to read"), (Some("[node]\n"), "error"), (Some("[node"), "error")] {
        weir.kill_9().unwrap();
        match text {
            None => assert!(!weir.config().exists()),
            Some(text) => fs::write(weir.config(), text).unwrap(),
        }
        weir.spawn().unwrap();
        wait_until("the daemon to be there again", SOON, || weir.operate(&["server", "list"]).unwrap().status.success())
            .unwrap_or_else(|error| panic!("{error}: {text:?}: {}", weir.stderr()));
        let (code, status) = told(&weir);
        assert!(code == Some(1) && status.contains("configuration not taken") && status.contains(others), "{text:?}: {status}");
        assert_eq!(fixture.greeters(), ["s2"]);
    }
    fs::write(weir.config(), whole).unwrap();
    wait_until("the file to be taken", SOON, || !told(&weir).1.contains("configuration not taken")).unwrap();
}
