//! `weir-bench live`: frames that really cross a machine, from one veth pair to another, by Weir's NAT, by nftables and by plain forwarding.
//!
//! ```text
//!  clients            balancer            servers
//!  c0 ─────────────── l0    l1 ─────────── s0
//!  BPF_PROG_TEST_RUN  weir | nftables      weir_sink counts
//!  with live frames   | forwarding
//! ```
//!
//! Everything runs on one CPU, so what is counted in a second is the inverse of what a packet costs, its generation and its reception included.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData, xdp::DevMapHash},
    programs::{TestRunAttrs, Xdp, XdpMode},
};
use lb_common::maps::{ForwardKind, LinkInfo, Settings};
use lb_userspace::{config::model::Limits, dataplane::Features};
use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    frame::{Frame, Segment},
    l4::stay_on_one_cpu,
    template::Template,
    world::{Link, SERVERS, Slots, Spec, World},
};

const FLOWS: u32 = 1 << 15;
/// Frames of a round.
const FRAMES: u32 = 1 << 20;
const ROUNDS: usize = 5;
/// A round counts if nearly all frames arrive: when the scheduler moves the receiving side, the queue between overflows and the time says nothing.
const ARRIVING_PERCENT: u64 = 95;
const TRIES: usize = 4 * ROUNDS;
const BATCH: u32 = 64;
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// NAT should carry this many times what nftables does.
const TARGET: f64 = 3.0;

/// Measures all three and prints them.
///
/// # Errors
/// If the namespaces cannot be made, or something cannot be loaded.
pub fn run(harness: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    stay_on_one_cpu()?;
    let lab = Lab::new()?;
    let mut traffic = Traffic::start(harness, &lab)?;
    let weir = lab.with_weir(&mut traffic).context("failed to measure weir")?;
    let forwarding = lab.with_forwarding(&mut traffic).context("failed to measure forwarding")?;
    let nftables = lab.with_nftables(&mut traffic).context("failed to measure nftables")?;
    writeln!(out, "  {:36} {:>6} {:>12}", "BY", "MPPS", "X NFTABLES")?;
    for (name, mpps) in [("weir, NAT, 32k flows", weir), ("kernel forwarding", forwarding), ("nftables DNAT and SNAT, 32k flows", nftables)]
    {
        let mark = if name.starts_with("weir") && mpps < TARGET * nftables { "  below target" } else { "" };
        writeln!(out, "  {name:36} {mpps:6.2} {:12.2}{mark}", mpps / nftables)?;
    }
    Ok(())
}

/// Three namespaces and two veth pairs.
struct Lab {
    prefix: String,
}

impl Lab {
    fn new() -> anyhow::Result<Self> {
        let lab = Self { prefix: format!("weir-live-{}", std::process::id()) };
        for part in ["clients", "balancer", "servers"] {
            run_ip(&["netns", "add", &lab.name(part)])?;
        }
        lab.add_pair(("clients", "c0", CLIENT_MAC), ("balancer", "l0", FRONT_MAC))?;
        lab.add_pair(("balancer", "l1", BACK_MAC), ("servers", "s0", SERVER_MAC))?;
        lab.in_balancer("ip addr add 10.9.255.254/16 dev l0; ip addr add 10.0.0.254/24 dev l1")?;
        lab.in_balancer("ip addr add 192.0.2.1/32 dev l0; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0")?;
        for number in 1..=SERVERS {
            run_ip(&["-n", &lab.name("balancer"), "neigh", "add", &server(number).to_string(), "lladdr", &mac(SERVER_MAC), "dev", "l1"])?;
        }
        Ok(lab)
    }

    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    fn add_pair(&self, (part, name, address): (&str, &str, [u8; 6]), peer: (&str, &str, [u8; 6])) -> anyhow::Result<()> {
        let (own, others) = (self.name(part), self.name(peer.0));
        run_ip(&["-n", &own, "link", "add", name, "address", &mac(address), "type", "veth", "peer", "name", peer.1, "netns", &others])?;
        run_ip(&["-n", &others, "link", "set", peer.1, "address", &mac(peer.2), "up"])?;
        run_ip(&["-n", &own, "link", "set", name, "up"])
    }

    fn enter(&self, part: &str) -> anyhow::Result<()> {
        let namespace = open(format!("/run/netns/{}", self.name(part)), OFlags::RDONLY, Mode::empty())?;
        Ok(move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))?)
    }

    fn in_balancer(&self, script: &str) -> anyhow::Result<()> {
        let namespace = format!("--net=/run/netns/{}", self.name("balancer"));
        run_command(Command::new("nsenter").args([&namespace, "sh", "-ec", script]))
    }

    fn with_weir(&self, traffic: &mut Traffic) -> anyhow::Result<f64> {
        self.enter("balancer")?;
        let link = Link { ifindex: ifindex("l1")?, mac: BACK_MAC, front_mac: FRONT_MAC, server_mac: SERVER_MAC };
        let mut world = World::load(&Limits::default(), Features(Settings::NAT), &["l0".to_owned()], link)?;
        world.dataplane().applier().allow_interface(link.ifindex, LinkInfo { mac: bytemuck::cast(BACK_MAC), mtu: 1500 })?;
        world.install(&Spec { vip: IpAddr::V4(VIP), port: 80, protocol: 6, forward: ForwardKind::Nat, flags: 0 }, Slots::Clean)?;
        traffic.measure(self, VIP, Segment::Syn)
    }

    fn with_forwarding(&self, traffic: &mut Traffic) -> anyhow::Result<f64> {
        let _accept = traffic.accept(self)?;
        traffic.measure(self, SERVER, Segment::Data)
    }

    fn with_nftables(&self, traffic: &mut Traffic) -> anyhow::Result<f64> {
        let servers: Vec<String> = (1..=SERVERS).map(|number| format!("{} : {}", number - 1, server(number))).collect();
        let rules = format!(
            "table ip bench {{
              chain pre {{ type nat hook prerouting priority dstnat;
                ip daddr {VIP} tcp dport 80 dnat to numgen random mod {SERVERS} map {{ {} }}
              }}
              chain post {{ type nat hook postrouting priority srcnat; oif l1 snat to 10.0.0.254
              }}
            }}",
            servers.join(", ")
        );
        self.in_balancer(&format!("nft -f - <<'EOF'\n{rules}\nEOF"))?;
        let _accept = traffic.accept(self)?;
        // Nobody answers a SYN, and connection tracking takes an ACK for a flow under way (nf_conntrack_tcp_loose) only without one.
        traffic.measure(self, VIP, Segment::Data)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for part in ["clients", "balancer", "servers"] {
            let _ = run_ip(&["netns", "del", &self.name(part)]);
        }
    }
}

/// The generator and the sink.
struct Traffic {
    object: Ebpf,
    template: Array<MapData, [u64; size_of::<Template>() / 8]>,
    received: Array<MapData, u64>,
    _interfaces: DevMapHash<MapData>,
    ifindex: u32,
}

impl Traffic {
    fn start(path: &Path, lab: &Lab) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read the bench object {}", path.display()))?;
        let mut object = EbpfLoader::new().load(&bytes).context("failed to load the bench object")?;
        for name in ["weir_generate", "weir_sink", "weir_accept"] {
            program(&mut object, name)?.load().with_context(|| format!("failed to load {name}"))?;
        }
        lab.enter("servers")?;
        program(&mut object, "weir_sink")?.attach("s0", XdpMode::Driver)?;
        lab.enter("clients")?;
        let ifindex = ifindex("c0")?;
        let mut interfaces = DevMapHash::try_from(object.take_map("BENCH_INTERFACES").context("no interface map")?)?;
        interfaces.insert(ifindex, ifindex, None, 0)?;
        let template = object.take_map("BENCH_TEMPLATE").context("the bench object has no template")?.try_into()?;
        let received = object.take_map("BENCH_SINK").context("the bench object has no sink")?.try_into()?;
        Ok(Self { object, template, received, _interfaces: interfaces, ifindex })
    }

    /// Lets frames into the balancer's stack, until this is dropped.
    fn accept(&mut self, lab: &Lab) -> anyhow::Result<aya::programs::xdp::XdpLink> {
        lab.enter("balancer")?;
        let accept = program(&mut self.object, "weir_accept")?;
        // The kernel lets go of the link before in its own time.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match accept.attach("l0", XdpMode::Driver) {
                Ok(id) => return Ok(accept.take_link(id)?),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Millions of frames a second that reach the servers: the median round. The flows are opened before.
    fn measure(&mut self, lab: &Lab, to: Ipv4Addr, opening: Segment) -> anyhow::Result<f64> {
        lab.enter("clients")?;
        self.send(to, opening, 2 * FLOWS)?;
        self.send(to, Segment::Data, 2 * FLOWS)?;
        let (mut rates, mut fewest) = (Vec::new(), u64::from(FRAMES));
        for _ in 0..TRIES {
            let before = self.received.get(&0, 0)?;
            let elapsed = self.send(to, Segment::Data, FRAMES)?;
            let received = self.received.get(&0, 0)? - before;
            if received * 100 < u64::from(FRAMES) * ARRIVING_PERCENT {
                fewest = fewest.min(received);
                continue;
            }
            rates.push(received as f64 / elapsed.as_secs_f64() / 1e6);
            if rates.len() == ROUNDS {
                rates.sort_by(f64::total_cmp);
                return Ok(rates[ROUNDS / 2]);
            }
        }
        bail!("in only {} of {TRIES} rounds nearly all frames reached the servers; once {fewest} of {FRAMES}", rates.len())
    }

    fn send(&mut self, to: Ipv4Addr, segment: Segment, frames: u32) -> anyhow::Result<Duration> {
        let frame = Frame { destination: to.into(), port: 80, segment };
        let template = Template { ifindex: self.ifindex, ..frame.template([FRONT_MAC, CLIENT_MAC], FLOWS, 0) };
        self.template.set(0, bytemuck::cast::<Template, [u64; size_of::<Template>() / 8]>(template), 0)?;
        let bytes = &bytemuck::bytes_of(&template)[2..2 + template.frame_bytes as usize];
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let options = TestRunOptions { data_in: Some(bytes), repeat: frames, attrs, ..TestRunOptions::new() };
        let began = Instant::now();
        program(&mut self.object, "weir_generate")?.test_run(options).context("failed to send live frames")?;
        Ok(began.elapsed())
    }
}

fn server(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8)
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("the bench object has no program {name}"))?.try_into()?)
}

fn ifindex(name: &str) -> anyhow::Result<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(&socket, name).with_context(|| format!("failed to find the interface {name}"))
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn run_ip(args: &[&str]) -> anyhow::Result<()> {
    run_command(Command::new("ip").args(args))
}

fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
