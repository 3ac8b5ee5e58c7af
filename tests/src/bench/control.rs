//! `weir-bench control`: how soon a change is in force, and what checks cost, beside HAProxy where it has the same thing.
//!
//! One node and one host that has the address of every server; 1 000 services of 20 servers, and 16 of 20. A change is in force once the slots in the
//! kernel's tables are others, which this process watches.

use std::{
    fs,
    io::{Read as _, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use lb_common::words::{MemberId, ServiceId};
use lb_userspace::{
    admin::{
        api::{Apply, Request, WeightChange},
        client_io::ask,
    },
    dataplane::{Access, PinDir, Tables},
};
use rustix::process::Signal;

use super::l4::median;
use crate::lab::{BpfFolder, Folder, Host, Nginx, Process, Shape, Topology, unique_name, wait_until};

const ROUNDS: usize = 9;
const PORT: u16 = 8080;
/// A start of 1 000 services, or a change that does not come.
const AT_MOST: Duration = Duration::from_secs(60);
/// A change that is followed by none for so long is over.
const QUIET: Duration = Duration::from_millis(5);
/// How long checks are counted.
const CHECKED_FOR: Duration = Duration::from_secs(5);
const CHECKS: usize = 5000;
const CHECK_ROUNDS: usize = 5;
/// Clock ticks a second, of `/proc/PID/stat`.
const TICKS: f64 = 100.0;

/// A configuration's size.
#[derive(Clone, Copy)]
struct Size {
    pools: usize,
    servers: usize,
}

const SMALL: Size = Size { pools: 16, servers: 20 };
const LARGE: Size = Size { pools: 1000, servers: 20 };

impl Size {
    fn vip(pool: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 60, (pool / 250) as u8, (pool % 250) as u8 + 1)
    }

    fn server(self, pool: usize, server: usize) -> Ipv4Addr {
        let number = pool * self.servers + server;
        Ipv4Addr::new(10, 50, (number / 250) as u8, (number % 250) as u8 + 1)
    }

    /// What Weir and HAProxy call the same; `last` is the weight of the first pool's first server.
    fn weir(self, last: u16, check: &str) -> String {
        let mut text = String::from("[limits]\nservices = 1024\nmembers = 24000\n");
        for pool in 0..self.pools {
            let vip = Self::vip(pool);
            text += &format!(
                "[listener.l{pool}]\nmode = \"l4\"\nbind = \"{vip}:{PORT}\"\npool = \"p{pool}\"\nslots = 2048\n[pool.p{pool}]\nforward = \"ipip\"\n{check}\n"
            );
            for server in 0..self.servers {
                let weight = if (pool, server) == (0, 0) { last } else { 10 };
                text += &format!("servers.s{server} = {{ address = \"{}\", weight = {weight} }}\n", self.server(pool, server));
            }
        }
        text
    }

    fn haproxy(self, last: u16, folder: &Path, check: &str) -> String {
        let socket = folder.join("haproxy.sock");
        let mut text = format!(
            "global\n stats socket {} level admin\n maxconn 2000\n spread-checks 10\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n",
            socket.display()
        );
        for pool in 0..self.pools {
            text += &format!("listen p{pool}\n bind {}:{PORT}\n", Self::vip(pool));
            for server in 0..self.servers {
                let weight = if (pool, server) == (0, 0) { last } else { 10 };
                text += &format!(" server s{server} {}:{PORT} weight {weight} {check}\n", self.server(pool, server));
            }
        }
        text
    }
}

/// A row of the table, in milliseconds unless `unit` says otherwise.
struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    theirs: Option<f64>,
    target: Option<f64>,
}

impl Row {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Self { name, unit, ours, theirs, target } = self;
        let theirs_text = theirs.map_or_else(|| "-".to_owned(), |theirs| format!("{theirs:.1}"));
        let ratio = theirs.map_or_else(|| "-".to_owned(), |theirs| format!("{:.2}", ours / theirs));
        let target_text = target.map_or_else(|| "-".to_owned(), |target| format!("{target:.0}"));
        let mark = if target.is_some_and(|target| *ours > target) { " !" } else { "" };
        writeln!(out, "  {name:58} {ours:9.1} {theirs_text:>9} {ratio:>7} {target_text:>7} {unit}{mark}")
    }
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Part {
    /// Starts and changes of 16 pools.
    Small,
    /// Starts and changes of 1 000 pools.
    Large,
    /// What checks cost.
    Checks,
    /// A server that falls silent.
    Death,
    /// Servers that go down and up.
    Transitions,
    /// A slow start.
    Ramp,
}

/// Measures one part, or everything, and prints it.
///
/// # Errors
/// Where something cannot be made or started.
pub fn run(only: Option<Part>, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "  {:58} {:>9} {:>9} {:>7} {:>7}   medians of {ROUNDS}", "", "weir", "haproxy", "ratio", "target")?;
    let lab = Topology::builder(Shape::OneArmed).servers(1).build()?;
    for (host, network) in [(&lab.servers[0], "10.50.0.0/16"), (lab.node(), "10.60.0.0/16")] {
        host.namespace.ip(&format!("route add local {network} dev lo"))?;
    }
    lab.node().namespace.ip(&format!("route add 10.50.0.0/16 via {}", lab.servers[0].v4))?;
    for part in Part::value_variants().iter().filter(|part| only.is_none_or(|only| only == **part)) {
        let rows = match part {
            Part::Small => changes(&lab, SMALL)?,
            Part::Large => changes(&lab, LARGE)?,
            Part::Checks => checks(&lab)?,
            Part::Death => vec![death(&lab)?],
            Part::Transitions => transitions(&lab)?,
            Part::Ramp => vec![ramp(&lab)?],
        };
        rows.iter().try_for_each(|row| row.write(out))?;
    }
    Ok(())
}

/// A state directory below `/run`, in memory, as the default is. Removed on drop.
struct RunFolder(PathBuf);

impl RunFolder {
    fn new() -> anyhow::Result<Self> {
        let path = Path::new("/run").join(unique_name("state"));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // It misleads nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running Weir.
struct Weir {
    process: Process,
    folder: Folder,
    pins: BpfFolder,
    state: RunFolder,
    head: String,
}

impl Weir {
    /// Starts it and waits until every service forwards; in milliseconds how long that took.
    fn start(node: &Host, text: &str) -> anyhow::Result<(Self, f64)> {
        let (folder, pins, state) = (Folder::new("bench")?, BpfFolder::new("bench")?, RunFolder::new()?);
        let head =
            format!("[node]\ninterfaces = [\"eth0\"]\npin_dir = {:?}\nstate_dir = {:?}\naddresses = \"leave\"\n", pins.path(), state.0);
        let mut command = node.namespace.command(std::env::var_os("WEIR_BIN").context("WEIR_BIN does not name the weir binary")?);
        let file = folder.path().join("weir.toml");
        fs::write(&file, format!("{head}{text}"))?;
        command.args(["run", "--config"]).arg(&file);
        let began = Instant::now();
        let process = node.namespace.spawn("bench-weir", command)?;
        wait_until("weir to forward", AT_MOST, || process.stderr().contains("the data plane forwards"))
            .with_context(|| process.stderr())?;
        Ok((Self { process, folder, pins, state, head }, milliseconds(began)))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    fn socket(&self) -> PathBuf {
        self.state.0.join("admin.sock")
    }

    fn watch(&self) -> anyhow::Result<Watch> {
        let tables = Tables::open(&PinDir::at(self.pins.path()), Access::ReadOnly)?;
        let vip = Size::vip(0);
        let services = tables.services()?;
        let (id, _) = services.into_iter().find(|(_, record)| record.vip.ip() == std::net::IpAddr::V4(vip)).context("the first service")?;
        let mut watch = Watch { tables, id, slots: Vec::new() };
        watch.slots = watch.members()?;
        Ok(watch)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(AT_MOST)?;
        let mut command = std::process::Command::new(std::env::var_os("WEIR_BIN").context("WEIR_BIN")?);
        command.args(["stop", "--config"]).arg(self.file());
        command.output()?;
        Ok(())
    }
}

/// The slots of the first service.
struct Watch {
    tables: Tables,
    id: ServiceId,
    slots: Vec<Option<MemberId>>,
}

impl Watch {
    /// Waits until they are others and stay as they are; when the last of them changed.
    fn changed(&mut self) -> anyhow::Result<Instant> {
        let began = Instant::now();
        let mut changed_at = None;
        loop {
            let slots = self.members()?;
            let now = Instant::now();
            if slots != self.slots {
                self.slots = slots;
                changed_at = Some(now);
            }
            match changed_at {
                Some(at) if now - at >= QUIET => return Ok(at),
                Some(_) | None if began.elapsed() > AT_MOST => bail!("the slots do not change"),
                Some(_) | None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn members(&self) -> anyhow::Result<Vec<Option<MemberId>>> {
        Ok(self.tables.slots(self.id)?.iter().map(|slot| slot.current()).collect())
    }

    /// The share of slots that the rarest member has of the others'.
    fn lesser(&self) -> anyhow::Result<f64> {
        let slots = self.members()?;
        let first = slots[0];
        let count = slots.iter().filter(|slot| **slot == first).count();
        let lesser = count.min(slots.len() - count);
        Ok(lesser as f64 / (slots.len() - lesser) as f64)
    }
}

/// A running HAProxy.
struct Haproxy {
    folder: Folder,
}

impl Haproxy {
    /// Starts it in the background, which it goes into once it serves; in milliseconds how long that took.
    fn start(node: &Host, text: impl Fn(&Path) -> String) -> anyhow::Result<(Self, f64)> {
        let haproxy = Self { folder: Folder::new("haproxy")? };
        let took = haproxy.load(node, &text(haproxy.folder.path()))?;
        Ok((haproxy, took))
    }

    /// Starts it, or another in its place.
    fn load(&self, node: &Host, text: &str) -> anyhow::Result<f64> {
        let (file, pid_file) = (self.folder.path().join("haproxy.cfg"), self.folder.path().join("pid"));
        fs::write(&file, text)?;
        let mut command = node.namespace.command("haproxy");
        command.args(["-D", "-f"]).arg(&file).arg("-p").arg(&pid_file);
        if let Ok(pid) = self.pid() {
            command.args(["-sf", &pid.to_string()]);
        }
        let began = Instant::now();
        let output = command.output().context("failed to start haproxy\nhint: scripts/setup installs it")?;
        let took = milliseconds(began);
        if !output.status.success() {
            bail!("haproxy ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let text = fs::read_to_string(self.folder.path().join("pid"))?;
        text.lines().next().context("an empty pid file")?.parse().context("no pid")
    }

    /// Says something on its socket; in milliseconds until it answered.
    fn say(&self, words: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut socket = UnixStream::connect(self.folder.path().join("haproxy.sock"))?;
        writeln!(socket, "{words}")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let took = milliseconds(began);
        if !answer.trim().is_empty() {
            bail!("haproxy said: {answer}");
        }
        Ok(took)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().ok().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // It may have ended.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    ms(since.elapsed())
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// The median of what a few rounds took, each told its number.
fn rounds(mut round: impl FnMut(u16) -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let mut took = (0..ROUNDS as u16).map(&mut round).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(median(&mut took))
}

fn changes(lab: &Topology, size: Size) -> anyhow::Result<Vec<Row>> {
    let is_large = size.pools == LARGE.pools;
    let text = |weight: u16| size.weir(weight, "");
    let (weir, ours_started) = Weir::start(lab.node(), &text(10))?;
    let mut watch = weir.watch()?;
    let socket = weir.socket();
    let weigh = |weight: Option<u16>| Request::Weight(WeightChange { servers: "p0/s0".into(), weight, force: false, save: false });
    let ours_weighed = rounds(|round| {
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        let asked = std::thread::spawn({
            let (socket, request) = (socket.clone(), weigh(Some(20 + round)));
            move || ask(&socket, &request)
        });
        let took = ms(watch.changed()? - began);
        asked.join().map_err(|_| anyhow::anyhow!("the request panicked"))??;
        Ok(took)
    })?;
    ask(&socket, &weigh(None))?;
    watch.changed()?;
    let ours_edited = rounds(|round| {
        std::thread::sleep(Duration::from_millis(600));
        let edited = format!("{}{}", weir.head, text(40 + round));
        let began = Instant::now();
        fs::write(weir.file(), edited)?;
        Ok(ms(watch.changed()? - began))
    })?;
    let ours_applied = rounds(|round| {
        std::thread::sleep(Duration::from_millis(600));
        let text = Some(format!("{}{}", weir.head, text(60 + round)));
        let began = Instant::now();
        ask(&socket, &Request::Apply(Apply { text, ..Apply::default() }))?;
        Ok(milliseconds(began))
    })?;
    drop(watch);
    weir.stop()?;

    let (haproxy, theirs_started) = Haproxy::start(lab.node(), |folder| size.haproxy(10, folder, ""))?;
    let theirs_weighed = rounds(|round| haproxy.say(&format!("set server p0/s0 weight {}", 20 + round)))?;
    let theirs_reloaded = rounds(|round| {
        std::thread::sleep(Duration::from_millis(300));
        haproxy.load(lab.node(), &size.haproxy(40 + round, haproxy.folder.path(), ""))
    })?;
    drop(haproxy);

    let row = |name: &str, ours, theirs, target| Row {
        name: format!("{}x{}: {name}", size.pools, size.servers),
        unit: "ms",
        ours,
        theirs,
        target,
    };
    Ok(vec![
        row("first start (haproxy: until it serves)", ours_started, Some(theirs_started), is_large.then_some(2000.0)),
        row("a weight by command, in the maps", ours_weighed, Some(theirs_weighed), Some(50.0)),
        row(
            "a weight in the file, in the maps (haproxy: reload)",
            ours_edited,
            Some(theirs_reloaded),
            Some(if is_large { 100.0 } else { 50.0 }),
        ),
        row("a file applied, answered (haproxy: reload)", ours_applied, Some(theirs_reloaded), is_large.then_some(100.0)),
    ])
}

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS)
}

/// The share of a CPU that a process takes.
fn share(pid: u32) -> anyhow::Result<f64> {
    // The first checks of all are over.
    std::thread::sleep(Duration::from_secs(3));
    let (before, began) = (cpu(pid)?, Instant::now());
    std::thread::sleep(CHECKED_FOR);
    Ok((cpu(pid)? - before) / began.elapsed().as_secs_f64() * 100.0)
}

fn checks(lab: &Topology) -> anyhow::Result<Vec<Row>> {
    let size = Size { pools: CHECKS / 20, servers: 20 };
    let _nginx = Nginx::start(&lab.servers[0].namespace, "s1", PORT)?;
    let check = format!("check = {{ tcp = true, port = {PORT}, interval = \"1s\", timeout = \"1s\" }}");
    let mut shares: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..CHECK_ROUNDS {
        let (weir, _) = Weir::start(lab.node(), &size.weir(10, &check))?;
        shares[0].push(share(weir.process.id())?);
        weir.stop()?;
        let (haproxy, _) = Haproxy::start(lab.node(), |folder| size.haproxy(10, folder, "check inter 1s"))?;
        shares[1].push(share(haproxy.pid()?)?);
    }
    let [ours, theirs] = shares.map(|mut shares| median(&mut shares));
    Ok(vec![Row { name: format!("{CHECKS} TCP checks a second"), unit: "% of a CPU", ours, theirs: Some(theirs), target: Some(theirs) }])
}

/// From a server's death until no slot names it.
fn death(lab: &Topology) -> anyhow::Result<Row> {
    let size = Size { pools: 2, servers: 2 };
    let server = &lab.servers[0].namespace;
    let check = format!("check = {{ tcp = true, port = {PORT}, interval = \"100ms\", fall = 3 }}");
    let _nginx = Nginx::start(server, "s1", PORT)?;
    let (weir, _) = Weir::start(lab.node(), &size.weir(10, &check))?;
    let mut watch = weir.watch()?;
    let dead = size.server(0, 0);
    let took = rounds(|round| {
        // At any moment of the interval.
        std::thread::sleep(Duration::from_millis(1500 + u64::from(round) * 13));
        let began = Instant::now();
        server.ip(&format!("route add prohibit {dead}/32 table local"))?;
        let took = ms(watch.changed()? - began);
        server.ip(&format!("route del prohibit {dead}/32 table local"))?;
        watch.changed()?;
        Ok(took)
    })?;
    weir.stop()?;
    Ok(Row {
        name: "a silent server: out of the slots (3 checks of 100 ms)".into(),
        unit: "ms",
        ours: took,
        theirs: None,
        target: Some(350.0),
    })
}

/// Says to whoever connects what its server has to say; each address is a server of its own.
struct Spokesman {
    /// Whether the first server says that it is well.
    is_well: Arc<AtomicBool>,
    /// When it last said so, or the opposite, for the first time.
    said_at: mpsc::Receiver<Instant>,
    has_ended: Arc<AtomicBool>,
}

impl Drop for Spokesman {
    /// It ends with the next connection.
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

impl Spokesman {
    fn start(host: &Host, first: Ipv4Addr) -> anyhow::Result<Self> {
        let listener = host.namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
        let is_well = Arc::new(AtomicBool::new(true));
        let (said, said_at) = mpsc::channel();
        let has_ended = Arc::new(AtomicBool::new(false));
        let (well, ended) = (Arc::clone(&is_well), Arc::clone(&has_ended));
        std::thread::spawn(move || {
            let mut before = true;
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { continue };
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let is_first = connection.local_addr().is_ok_and(|own| own.ip() == std::net::IpAddr::V4(first));
                let now = well.load(Ordering::Relaxed);
                let word: &[u8] = if is_first && !now { b"sick" } else { b"well" };
                // Who asked may be gone.
                let _ = connection.write_all(word);
                if is_first && now != before {
                    before = now;
                    // Nobody listens in the end.
                    let _ = said.send(Instant::now());
                }
            }
        });
        Ok(Self { is_well, said_at, has_ended })
    }

    /// Has the first server say this; when it said it first.
    fn say(&self, is_well: bool) -> anyhow::Result<Instant> {
        self.is_well.store(is_well, Ordering::Relaxed);
        Ok(self.said_at.recv_timeout(AT_MOST)?)
    }
}

const SPOKEN: &str = "check = { tcp = [{ expect = \"well\" }], interval = \"100ms\", rise = 1, fall = 1 }";

/// From the answer that decides until the slots are others.
fn transitions(lab: &Topology) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for size in [Size { pools: 2, servers: 2 }, LARGE] {
        let spokesman = Spokesman::start(&lab.servers[0], size.server(0, 0))?;
        // Only the pool that is watched is checked.
        let text = size.weir(10, "").replacen("forward = \"ipip\"\n", &format!("forward = \"ipip\"\n{SPOKEN}\n"), 1);
        let (weir, _) = Weir::start(lab.node(), &text)?;
        std::thread::sleep(Duration::from_secs(2));
        let mut watch = weir.watch()?;
        let took = rounds(|round| {
            std::thread::sleep(Duration::from_millis(300));
            let said = spokesman.say(round % 2 == 1)?;
            Ok(ms(watch.changed()?.saturating_duration_since(said)))
        })?;
        weir.stop()?;
        rows.push(Row {
            name: format!("{}x{}: up or down, from the deciding answer to the maps", size.pools, size.servers),
            unit: "ms",
            ours: took,
            theirs: None,
            target: Some(20.0),
        });
        drop(spokesman);
        end_of_listener(&lab.servers[0])?;
    }
    Ok(rows)
}

/// A slow start: how far its weight is from the ramp at most.
fn ramp(lab: &Topology) -> anyhow::Result<Row> {
    const WHOLE: Duration = Duration::from_secs(4);
    let size = Size { pools: 1, servers: 2 };
    let spokesman = Spokesman::start(&lab.servers[0], size.server(0, 0))?;
    let text = size.weir(10, &format!("slow_start = \"4s\"\n{SPOKEN}"));
    let (weir, _) = Weir::start(lab.node(), &text)?;
    std::thread::sleep(Duration::from_secs(2));
    let mut watch = weir.watch()?;
    let mut worst: f64 = 0.0;
    for _ in 0..3 {
        spokesman.say(false)?;
        watch.changed()?;
        spokesman.say(true)?;
        let back = watch.changed()?;
        while back.elapsed() < WHOLE + Duration::from_millis(200) {
            let (before, share, after) = (back.elapsed(), watch.lesser()?, back.elapsed());
            let ideal = |at: Duration| (at.as_secs_f64() / WHOLE.as_secs_f64()).min(1.0);
            let off = (ideal(before) - share).max(share - ideal(after)).max(0.0);
            worst = worst.max(off * 100.0);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    weir.stop()?;
    Ok(Row {
        name: "slow start of 4 s: farthest from its ramp".into(),
        unit: "% of the weight",
        ours: worst,
        theirs: None,
        target: Some(5.0),
    })
}

/// Connects until the one that was dropped has ended.
fn end_of_listener(host: &Host) -> anyhow::Result<()> {
    wait_until("the port to be free", AT_MOST, || {
        host.namespace.enter(|| drop(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))));
        !host.namespace.is_listening(PORT)
    })?;
    Ok(())
}
