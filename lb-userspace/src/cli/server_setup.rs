//! `weir server-setup add|remove|status`: prepares the host it runs on to be a server of a pool that forwards by dsr, ipip or gue.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
};

use serde::Serialize;

use super::{Exit, Format};
use crate::server_setup::{self, Places, Removed, Request, SetupError, Status, Tunnel, Way, advice::Outer};

/// `weir server-setup`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Where it is recorded what was changed.
    #[arg(long, global = true, hide = true, default_value = "/run/weir/server.json")]
    record: PathBuf,
    /// Where the program that opens tunnels is pinned.
    #[arg(long, global = true, hide = true, default_value = "/sys/fs/bpf/weir-server")]
    pin_dir: PathBuf,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Makes this host serve addresses for a load balancer. May be repeated, also for further addresses. A restart of the host undoes it.
    #[command(after_help = "Example: weir server-setup add --vip 198.51.100.1 --interface eth0 --mode dsr")]
    Add(Add),
    /// Takes back exactly what add has changed.
    #[command(after_help = "Example: weir server-setup remove")]
    Remove,
    /// Whether all is as it was set up, and what became of tunnelled packets.
    #[command(after_help = "Example: weir server-setup status")]
    Status {
        /// text or json.
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
        /// The family of this server's address in the pool [default: ipv4 if the interface has an IPv4 address].
        #[arg(long, value_enum)]
        outer: Option<Outer>,
    },
}

#[derive(clap::Args, Debug)]
struct Add {
    /// An address that clients use; may be given more than once.
    #[arg(long = "vip", required = true)]
    vips: Vec<IpAddr>,
    /// Where packets of the load balancer come in.
    #[arg(long)]
    interface: String,
    /// How they come: the pool's `forward`.
    #[arg(long, value_enum, default_value_t = Mode::Dsr)]
    mode: Mode,
    /// The UDP port of GUE: the pool's `gue_port`.
    #[arg(long, default_value_t = 6080, value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// What opens tunnels: Weir's program on the interface, or the kernel's devices, whose commands are printed.
    #[arg(long, value_enum, default_value_t = Way::Xdp)]
    decap: Way,
    /// The family of this server's address in the pool [default: ipv4 if the interface has an IPv4 address].
    #[arg(long, value_enum)]
    outer: Option<Outer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Mode {
    /// As the client sent them.
    Dsr,
    /// Inside IP, any family in any.
    Ipip,
    /// Inside UDP (GUE), any family in any.
    Gue,
}

/// Does what the arguments say: on `out` what was asked for, commands for the operator included; on `err` what went wrong.
///
/// Ends as [`Exit::Refused`] if it could not be done or, for `status`, if the host is not set up or not as it was set up; as [`Exit::Usage`] if
/// the request makes no sense on this host.
///
/// # Errors
/// Those of writing to `out` and `err`.
pub fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let places = Places { record: args.record.clone(), pins: args.pin_dir.clone() };
    let done = match &args.command {
        Command::Add(add) => add_vips(&places, add, out),
        Command::Remove => server_setup::remove(&places).map(|removed| write_removed(&removed, out, err)),
        Command::Status { output, outer } => server_setup::status(&places, *outer).map(|status| write_status(status, *output, out)),
    };
    match done {
        Ok(written) => written,
        Err(error) => {
            write_error(&error, err)?;
            Ok(if matches!(error, SetupError::Refused(_)) { Exit::Usage } else { Exit::Refused })
        }
    }
}

fn add_vips(places: &Places, add: &Add, out: &mut impl Write) -> Result<io::Result<Exit>, SetupError> {
    let tunnel = match add.mode {
        Mode::Dsr => Tunnel::Dsr,
        Mode::Ipip => Tunnel::Ipip,
        Mode::Gue => Tunnel::Gue(add.gue_port),
    };
    let request =
        Request { interface: add.interface.clone(), vips: add.vips.iter().map(IpAddr::to_canonical).collect(), tunnel, way: add.decap };
    let advice = server_setup::add(places, &request, add.outer)?;
    Ok(write_added(&request, &advice, out))
}

fn write_added(request: &Request, advice: &[String], out: &mut impl Write) -> io::Result<Exit> {
    writeln!(out, "{} takes {} for {}", request.interface, request.tunnel, words(&request.vips))?;
    advice.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(Exit::Fine)
}

fn write_removed(removed: &Removed, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    for name in &removed.left {
        writeln!(err, "warning: net/{name} was changed since and stays as it is")?;
    }
    writeln!(out, "{}", if removed.was_set_up { "all changes are taken back" } else { "nothing was set up" })?;
    Ok(Exit::Fine)
}

/// The document of `-o json`.
#[derive(Serialize)]
struct Shown<'a> {
    /// None if nothing is set up.
    setup: Option<&'a Status>,
    advice: &'a [String],
}

fn write_status(found: Option<(Status, Vec<String>)>, format: Format, out: &mut impl Write) -> io::Result<Exit> {
    let (status, advice) = found.map_or((None, vec![]), |(status, advice)| (Some(status), advice));
    match (format, &status) {
        (Format::Json, _) => {
            serde_json::to_writer_pretty(&mut *out, &Shown { setup: status.as_ref(), advice: &advice })?;
            writeln!(out)?;
        }
        (Format::Text, Some(status)) => write_text(status, &advice, out)?,
        (Format::Text, None) => writeln!(out, "this host is not set up")?,
    }
    Ok(if status.is_some_and(|status| status.faults.is_empty()) { Exit::Fine } else { Exit::Refused })
}

fn write_text(status: &Status, advice: &[String], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} takes {} for {}", status.interface, status.tunnel, words(&status.vips))?;
    status.faults.iter().try_for_each(|fault| writeln!(out, "fault: {fault}"))?;
    if !status.counts.is_empty() {
        writeln!(out, "{:<14} {:>14} {:>18}  MEANING", "OUTCOME", "PACKETS", "BYTES")?;
    }
    for count in &status.counts {
        writeln!(out, "{:<14} {:>14} {:>18}  {}", count.outcome, count.packets, count.bytes, count.meaning)?;
    }
    advice.iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn words<'a>(vips: impl IntoIterator<Item = &'a IpAddr>) -> String {
    vips.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn write_error(error: &SetupError, err: &mut impl Write) -> io::Result<()> {
    write!(err, "error: {error}")?;
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        write!(err, ": {source}")?;
        cause = source.source();
    }
    writeln!(err)
}
