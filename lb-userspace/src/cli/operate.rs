//! The commands that say something to the daemon: states, weights and servers, and the way there.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Exit, Format, complete,
    look_io::{LookError, again},
    place_io::{Place, PlaceError},
    render::table,
    tell,
    wait_io::{self, Waited},
};
use crate::{
    admin::{
        answer::IS_ENDING,
        api::{Addition, Removal, Request, Selection, ServerView, Switch, Switched, WeightChange},
        client_io::{AskError, ask, ask_within},
    },
    config::endpoint,
    control::{
        overrides::AddedServer,
        standing::{AdminState, ServerName},
    },
};

/// Servers, by a pattern.
#[derive(Args, Debug)]
pub struct ServersArgs {
    /// POOL/SERVER; `*` and `?` stand for any letters.
    #[arg(value_name = "POOL/SERVER", add = ArgValueCompleter::new(complete::servers))]
    servers: String,
    /// Even if nobody of a pool takes new flows then.
    #[arg(long)]
    force: bool,
}

/// `weir drain`.
#[derive(Args, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    servers: ServersArgs,
    /// Waits until their flows have ended, and has them in maintenance then.
    #[arg(long)]
    wait: bool,
    /// Waits so long at most; flows that are left then are the pool's `on_down`'s, and the command ends with 1.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "wait")]
    deadline: Option<Duration>,
}

/// `weir weight`.
#[derive(Args, Debug)]
pub struct WeightArgs {
    /// POOL/SERVER; `*` and `?` stand for any letters.
    #[arg(value_name = "POOL/SERVER", add = ArgValueCompleter::new(complete::servers))]
    servers: String,
    /// 0 to 1000, or `default`: that of the configuration.
    #[arg(value_parser = weight)]
    weight: WeightWord,
    /// Even if nobody of a pool takes new flows then.
    #[arg(long)]
    force: bool,
    /// Writes it into the configuration's file, which says it from then on.
    #[arg(long)]
    save: bool,
}

#[derive(Clone, Copy, Debug)]
struct WeightWord(Option<u16>);

fn weight(text: &str) -> Result<WeightWord, String> {
    match text.parse() {
        _ if text == "default" => Ok(WeightWord(None)),
        Ok(weight @ 0..=1000) => Ok(WeightWord(Some(weight))),
        Ok(_) | Err(_) => Err("a weight is from 0 to 1000, or `default`".into()),
    }
}

/// `weir server`.
#[derive(Subcommand, Debug)]
pub enum Server {
    /// Adds a server to a pool until it is removed; the file stays as it is without --save.
    #[command(after_help = "Example: weir server add web/c 192.0.2.12 --weight 2")]
    Add {
        /// POOL/SERVER.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// IP, IP:PORT or [IPv6]:PORT.
        #[arg(value_parser = endpoint)]
        address: (IpAddr, Option<u16>),
        /// Its share, 0 to 1000.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=1000))]
        weight: u16,
        /// Used only while no primary server is up.
        #[arg(long)]
        backup: bool,
        /// Writes it into the configuration's file, which says it from then on.
        #[arg(long)]
        save: bool,
    },
    /// Takes a server out of its pool, one of the file too; the file stays as it is without --save.
    #[command(after_help = "Example: weir server remove web/c")]
    Remove {
        /// POOL/SERVER.
        #[arg(value_name = "POOL/SERVER", add = ArgValueCompleter::new(complete::servers))]
        server: ServerName,
        /// Even if nobody of the pool takes new flows then.
        #[arg(long)]
        force: bool,
        /// Takes it out of the configuration's file.
        #[arg(long)]
        save: bool,
    },
    /// Lists servers: their state and why, weight, flows, overrides.
    #[command(after_help = "Example: weir server list -o json")]
    List,
}

/// `weir switch`.
#[derive(Args, Debug)]
pub struct SwitchTo {
    /// The listener.
    #[arg(add = ArgValueCompleter::new(complete::listeners))]
    listener: String,
    /// The pool that it uses from now on; if none is named, the one of the configuration.
    #[arg(add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Even if nobody of that pool takes new flows.
    #[arg(long)]
    force: bool,
}

/// Why the daemon's answer cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperateError {
    /// Where it is is not known.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It refuses, or is not there.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It runs, but its socket is not there.
    #[error("the daemon, process {pid}, does not listen on {path}\nhint: it has just begun, or its log tells why it cannot", path = .path.display())]
    Mute {
        /// Its process.
        pid: u32,
        /// The socket.
        path: PathBuf,
    },
    /// The answer is of another version.
    #[error("the daemon's answer is not understood\nhint: is it of another version than this command?")]
    Answer(#[source] serde_json::Error),
}

/// The socket of the daemon that `config` describes.
pub(super) fn socket_of(config: &Path) -> Result<PathBuf, OperateError> {
    Ok(socket_of_place(&Place::of(config)?))
}

/// The socket of the daemon of that node.
pub(super) fn socket_of_place(place: &Place) -> PathBuf {
    let told = place.report.as_ref().ok().and_then(|report| report.admin_socket.clone());
    told.unwrap_or_else(|| place.state_dir.join("admin.sock"))
}

/// Asks the daemon, and understands the answer.
pub(super) fn asked<T: DeserializeOwned>(config: &Path, request: &Request) -> Result<T, OperateError> {
    asked_by(config, |socket| ask(socket, request))
}

/// Asks the daemon, and waits so long for an answer.
pub(super) fn asked_within<T: DeserializeOwned>(config: &Path, request: &Request, patience: Duration) -> Result<T, OperateError> {
    asked_by(config, |socket| ask_within(socket, request, patience))
}

fn asked_by<T: DeserializeOwned>(config: &Path, ask: impl Fn(&Path) -> Result<Value, AskError>) -> Result<T, OperateError> {
    let place = Place::of(config)?;
    let answer = again(&place, is_unbegun, || ask(&socket_of_place(&place))).map_err(|error| match (error, place.daemon()) {
        (AskError::NoDaemon { path, .. }, Some(pid)) => OperateError::Mute { pid, path },
        (error, _) => error.into(),
    })?;
    serde_json::from_value(answer).map_err(OperateError::Answer)
}

/// Whether the daemon has done nothing of it: it makes its socket anew when `[admin]` changes, and ends what waits there.
fn is_unbegun(error: &AskError) -> bool {
    match error {
        AskError::NoDaemon { .. } => true,
        AskError::Refused(refusal) => refusal.error == IS_ENDING,
        AskError::Broken(_) | AskError::Denied { .. } | AskError::Silent(_) | AskError::Unknown(_) => false,
    }
}

/// Tells an error, its details included.
pub(super) fn refuse(err: &mut impl Write, error: &OperateError) -> io::Result<Exit> {
    if let OperateError::Ask(AskError::Refused(refusal)) = error {
        refusal.details.iter().try_for_each(|line| writeln!(err, "{line}"))?;
    }
    let exit = if matches!(error, OperateError::Place(_)) { Exit::Usage } else { Exit::Refused };
    tell(err, error, exit)
}

/// Tells why nothing is shown.
pub(super) fn refuse_look(err: &mut impl Write, error: &LookError) -> io::Result<Exit> {
    match error {
        LookError::Asked(error) => refuse(err, error),
        LookError::Place(error) => tell(err, error, Exit::Usage),
        LookError::Inspect(error) => tell(err, error, Exit::Refused),
    }
}

/// Performs `weir drain`.
///
/// # Errors
/// Those of writing.
pub fn drain(config: &Path, arguments: &DrainArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let ServersArgs { servers, force } = &arguments.servers;
    let selection = || Selection { servers: servers.clone(), force: *force };
    let drained: Vec<ServerView> = match asked(config, &Request::Drain(selection())) {
        Ok(drained) => drained,
        Err(error) => return refuse(err, &error),
    };
    if !arguments.wait {
        return show(&drained, format, out);
    }
    let names: Vec<ServerName> = drained.into_iter().map(|server| server.server).collect();
    let waited = match wait_io::until_empty(config, &names, arguments.deadline, err)? {
        Ok(waited) => waited,
        Err(error) => return refuse(err, &error),
    };
    // Somebody may have said something else of them meanwhile.
    let now: Vec<ServerView> = match asked(config, &Request::Servers) {
        Ok(now) => now,
        Err(error) => return refuse(err, &error),
    };
    let known: Vec<ServerName> = now.iter().map(|server| server.server.clone()).collect();
    let still = |server: &ServerView| server.said.is_some_and(|said| said.state == Some(AdminState::Drain));
    let (draining, others): (Vec<ServerView>, Vec<ServerView>) =
        now.into_iter().filter(|server| names.contains(&server.server)).partition(still);
    let mut exit = if waited == Waited::Over { Exit::Fine } else { Exit::Refused };
    for gone in names.iter().filter(|name| !known.contains(name)) {
        writeln!(err, "{gone} is not configured any more: the flows that it has left are told by weir status")?;
        exit = Exit::Refused;
    }
    for other in others {
        writeln!(err, "{} does not drain any more, and is left as it is", other.server)?;
        exit = Exit::Refused;
    }
    let mut maintained = Vec::new();
    for server in draining {
        match asked::<Vec<ServerView>>(config, &Request::Maint(Selection { servers: server.server.to_string(), force: *force })) {
            Ok(servers) => maintained.extend(servers),
            Err(error) => exit = refuse(err, &error)?,
        }
    }
    let shown = show(&maintained, format, out)?;
    Ok(if exit == Exit::Fine { shown } else { exit })
}

/// Performs `weir maint`, `weir ready` and `weir clear`, which are the request that `of` makes.
///
/// # Errors
/// Those of writing.
pub fn set_state(
    config: &Path,
    ServersArgs { servers, force }: ServersArgs,
    of: fn(Selection) -> Request,
    format: Format,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    told(config, &of(Selection { servers, force }), format, out, err)
}

/// Performs `weir weight`.
///
/// # Errors
/// Those of writing.
pub fn set_weight(
    config: &Path,
    WeightArgs { servers, weight, force, save }: WeightArgs,
    format: Format,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    told(config, &Request::Weight(WeightChange { servers, weight: weight.0, force, save }), format, out, err)
}

/// Performs `weir server`.
///
/// # Errors
/// Those of writing.
pub fn server(config: &Path, command: Server, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let request = match command {
        Server::Add { server, address: (address, port), weight, backup, save } => {
            Request::Add(Addition { server, added: AddedServer { address, port, weight, backup }, save })
        }
        Server::Remove { server, force, save } => Request::Remove(Removal { server, force, save }),
        Server::List => Request::Servers,
    };
    told(config, &request, format, out, err)
}

/// Performs `weir switch`.
///
/// # Errors
/// Those of writing.
pub fn switch(
    config: &Path,
    SwitchTo { listener, pool, force }: SwitchTo,
    format: Format,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    match asked::<Switched>(config, &Request::Switch(Switch { listener, pool, force })) {
        Err(error) => refuse(err, &error),
        Ok(switched) => {
            let Switched { listener, was, pool, servers, ends } = &switched;
            match format {
                Format::Json => json(&switched, out).map(|()| Exit::Fine),
                Format::Text => {
                    let before = if was == pool { "as before".to_owned() } else { format!("pool {was} before") };
                    if pool.is_empty() {
                        return writeln!(out, "nothing is said of listener {listener} any more, which there is not").map(|()| Exit::Fine);
                    }
                    writeln!(out, "listener {listener} uses pool {pool}, {before}")?;
                    ends.iter().try_for_each(|line| writeln!(out, "! {line}"))?;
                    show(servers, format, out)
                }
            }
        }
    }
}

fn told(config: &Path, request: &Request, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    match asked::<Vec<ServerView>>(config, request) {
        Ok(servers) => show(&servers, format, out),
        Err(error) => refuse(err, &error),
    }
}

fn show(servers: &[ServerView], format: Format, out: &mut impl Write) -> io::Result<Exit> {
    match format {
        Format::Json => json(&servers, out)?,
        Format::Text if servers.is_empty() => writeln!(out, "done")?,
        Format::Text => {
            let rows: Vec<Vec<String>> = servers.iter().map(row).collect();
            table(&["SERVER", "ADDRESS", "STATE", "WEIGHT", "FLOWS", "SAID BY THE OPERATOR", "CHECK"], &rows, out)?;
        }
    }
    Ok(Exit::Fine)
}

fn row(server: &ServerView) -> Vec<String> {
    let address = match server.port {
        None => server.address.to_string(),
        Some(port) => std::net::SocketAddr::new(server.address, port).to_string(),
    };
    let state = serde_json::to_value(server.why).ok().and_then(|why| why.as_str().map(str::to_owned)).unwrap_or_default();
    let mut said: Vec<String> = Vec::new();
    if server.added {
        said.push("added".into());
    }
    if let Some(words) = server.said {
        said.extend(words.state.map(|state| format!("{state:?}").to_lowercase()));
        said.extend(words.weight.map(|weight| format!("weight {weight}")));
    }
    let check = match &server.check {
        None => "-".to_owned(),
        Some(check) if check.is_up => "up".to_owned(),
        Some(check) => check.cause.clone().unwrap_or_else(|| "not yet checked".to_owned()),
    };
    let said = if said.is_empty() { "-".to_owned() } else { said.join(", ") };
    vec![server.server.to_string(), address, state, server.weight.to_string(), server.flows.to_string(), said, check]
}

/// Writes one JSON document.
pub(super) fn json(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}
