//! The lab's own servers and clients. Loads print a report as JSON.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir_tests::peer::{bulk, crowd, dns, flood, probe, stopwatch, tcp, udp};

#[derive(Parser)]
#[command(about = "Traffic that notices lost and changed bytes")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Echo over TCP.
    TcpServe(Serve),
    /// Echo over UDP.
    UdpServe {
        /// What it calls itself.
        #[arg(long)]
        name: String,
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
    /// Answer for names as a file says.
    DnsServe {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        zone: PathBuf,
    },
    /// Echo over TCP without a greeting, for any number of connections.
    CrowdServe {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Send much over one connection and check all of it.
    TcpBulk {
        #[arg(long)]
        to: SocketAddr,
        /// In MiB.
        #[arg(long)]
        megabytes: u64,
    },
    /// Open very many connections and keep them.
    Crowd {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, required = true)]
        from: Vec<IpAddr>,
        #[arg(long)]
        connections: usize,
        /// Connections that are then begun and not waited for.
        #[arg(long, default_value_t = 0)]
        more: usize,
        /// The source port of the first; the others follow.
        #[arg(long, default_value_t = 1024)]
        first_port: u16,
        /// The file whose appearance has all asked once more.
        #[arg(long)]
        until: PathBuf,
        /// Ask them all the while too.
        #[arg(long)]
        keeps_asking: bool,
        /// How long a connection may take to open or to answer. One whose first SYN is lost opens within the default.
        #[arg(long, value_parser = humantime::parse_duration, default_value = "2500ms")]
        patience: Duration,
    },
    /// Hold TCP connections and check every answer.
    TcpLoad {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        connections: usize,
        #[command(flatten)]
        pace: Pace,
    },
    /// Hold UDP flows and check every answer.
    UdpLoad {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        flows: usize,
        #[command(flatten)]
        pace: Pace,
    },
    /// Echo over UDP with a name, at an address that the machine may not have yet.
    ProbeServe(Serve),
    /// Ask at a steady pace, and tell how long nobody answered.
    Probe {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, value_parser = humantime::parse_duration)]
        interval: Duration,
        /// The file whose appearance ends it.
        #[arg(long)]
        until: PathBuf,
    },
    /// Tell how long a processor stood still at most.
    Stopwatch {
        /// The file whose appearance ends it.
        #[arg(long)]
        until: PathBuf,
    },
    /// Send forged segments.
    SynFlood {
        #[arg(long)]
        to: SocketAddr,
        /// Link-layer address of the next hop.
        #[arg(long, value_parser = parse_mac)]
        mac: [u8; 6],
        #[arg(long)]
        interface: String,
        #[arg(long, value_enum, default_value_t = flood::Mode::Syn)]
        mode: flood::Mode,
        /// Segments per second.
        #[arg(long)]
        rate: u32,
        #[arg(long = "for", value_parser = humantime::parse_duration)]
        time: Duration,
    },
}

#[derive(clap::Args)]
struct Serve {
    /// What it calls itself.
    #[arg(long)]
    name: String,
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(clap::Args)]
struct Pace {
    /// Between two messages of a connection.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "250ms")]
    interval: Duration,
    /// Payload of a message, in bytes.
    #[arg(long, default_value_t = 64)]
    size: usize,
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Ends early once this file exists.
    #[arg(long)]
    until: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    raise_descriptor_limit().context("failed to raise the limit of open files")?;
    match Arguments::parse().role {
        Role::TcpServe(Serve { name, listen }) => tcp::serve(&name, listen).with_context(|| format!("failed to serve tcp at {listen}")),
        Role::UdpServe { name, listen } => udp::serve(&name, &listen).with_context(|| format!("failed to serve udp at {listen:?}")),
        Role::DnsServe { listen, zone } => dns::serve(listen, &zone).with_context(|| format!("failed to serve names at {listen}")),
        Role::CrowdServe { listen } => crowd::serve(listen).with_context(|| format!("failed to serve at {listen}")),
        Role::TcpBulk { to, megabytes } => print(&bulk::run(to, megabytes).with_context(|| format!("failed to exchange bytes with {to}"))?),
        Role::Crowd { to, from, connections, more, first_port, until, keeps_asking, patience } => {
            let plan = crowd::Plan { to, from, connections, more, first_port, until, keeps_asking, patience };
            print(&crowd::run(&plan).context("failed to begin the connections")?)
        }
        Role::TcpLoad { to, connections, pace } => {
            let plan = tcp::Plan { to, connections, interval: pace.interval, payload_bytes: pace.size, time: pace.time };
            print(&tcp::load(plan, pace.until.as_deref()).context("failed to start the connections")?)
        }
        Role::UdpLoad { to, flows, pace } => {
            let plan = udp::Plan { to, flows, interval: pace.interval, payload_bytes: pace.size, time: pace.time };
            print(&udp::load(plan, pace.until.as_deref()).context("failed to start the flows")?)
        }
        Role::ProbeServe(Serve { name, listen }) => probe::serve(&name, listen),
        Role::Probe { to, interval, until } => print(&probe::run(probe::Plan { to, interval, until: &until })?),
        Role::Stopwatch { until } => print(&stopwatch::run(&until)?),
        Role::SynFlood { to, mac, interface, mode, rate, time } => {
            let plan = flood::Plan { to, mac, interface, mode, rate, time };
            print(&flood::run(&plan).context("failed to send a frame")?)
        }
    }
}

/// The usual limits are less than the connections of one load; root may go up to `fs.nr_open`.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open")?.trim().parse().ok();
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    Ok(raised.or_else(|_not_root| setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }))?)
}

fn print(report: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text} is not of the form aa:bb:cc:dd:ee:ff"))
}
