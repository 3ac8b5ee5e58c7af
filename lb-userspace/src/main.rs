//! The `weir` binary: reads the command line and calls the command.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use lb_userspace::{
    admin::api::Request,
    cli::{
        self, Exit, Format, api, apply, bpf, check::check, doctor::doctor, events, explain, flows, limit, man_io, operate, server_setup,
        status, stop::stop, vrrp,
    },
    config::LoadError,
    runtime::{self, RunError},
    speaker,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXITS: &str = "\
Exit status:
  0  done; what was looked at is well
  1  refused, failed or unhealthy: `weir status` without a daemon, with a
     configuration that is not taken, a service that nobody serves or a
     virtual router in fault, a configuration with errors, no daemon
  2  it cannot be carried out as it was given: unknown words, a file that cannot be read

weir COMMAND --help has an example of each.";

/// A load balancer: packets in the kernel, one file, one binary.
#[derive(Parser)]
#[command(name = "weir", version, about, disable_help_subcommand = true, after_help = EXITS)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Args)]
struct ConfigPath {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", global = true, env = cli::CONFIG_VARIABLE, default_value = cli::CONFIG_FILE)]
    config: PathBuf,
}

#[derive(Args)]
struct Output {
    /// How to show it.
    #[arg(short = 'o', long = "output", value_enum, global = true, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Subcommand)]
enum Action {
    /// Runs the daemon in the foreground. Ending it leaves the data plane forwarding.
    #[command(after_help = "Example: weir run --config /etc/weir/weir.toml")]
    Run {
        #[command(flatten)]
        config: ConfigPath,
        /// Logs as JSON, a line each.
        #[arg(long)]
        log_json: bool,
    },
    /// Says whether a file is a configuration. Needs no privileges.
    #[command(after_help = "Example: weir check weir.toml")]
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE", env = cli::CONFIG_VARIABLE, default_value = cli::CONFIG_FILE)]
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Shows services, members, slots, counters and what is wrong; of a pool, a server or a listener everything that is known.
    #[command(after_help = "Example: weir status web/a")]
    Status {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: status::StatusArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Says where a packet would go, and why, without disturbing anything.
    #[command(after_help = "Example: weir explain '192.0.2.77:40000 -> 198.51.100.1:443'")]
    Explain {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        packet: explain::Packet,
        #[command(flatten)]
        output: Output,
    },
    /// Has a configuration in force: that of FILE, or the daemon's own file as it is.
    #[command(after_help = "Example: weir apply next.toml --confirm 5m")]
    Apply {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: apply::ApplyArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Confirms the configuration that `weir apply --confirm` applied.
    #[command(after_help = "Example: weir confirm")]
    Confirm {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        output: Output,
    },
    /// Shows what a configuration would change, and what would become of live flows.
    #[command(after_help = "Example: weir diff next.toml")]
    Diff {
        #[command(flatten)]
        config: ConfigPath,
        /// The configuration; the daemon's own file if none is named.
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Has an earlier configuration in force.
    #[command(after_help = "Example: weir rollback 3")]
    Rollback {
        #[command(flatten)]
        config: ConfigPath,
        /// Its number in the history; the one before if none is given.
        #[arg(add = apply::generations())]
        number: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Lists the last ten configurations that were in force.
    #[command(after_help = "Example: weir history")]
    History {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        output: Output,
    },
    /// Has servers take no new flows; those that they have go on.
    #[command(after_help = "Example: weir drain 'web/a*' --wait --deadline 10m")]
    Drain {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: operate::DrainArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Takes servers out of use, whatever their checks say.
    #[command(after_help = "Example: weir maint web/a")]
    Maint {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        servers: operate::ServersArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Has servers in use again.
    #[command(after_help = "Example: weir ready 'web/*'")]
    Ready {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        servers: operate::ServersArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Forgets states and weights that commands gave servers, and that they were removed: the configuration decides again.
    #[command(after_help = "Example: weir clear 'web/*'")]
    Clear {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        servers: operate::ServersArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Gives servers another weight.
    #[command(after_help = "Example: weir weight web/a 30 --save")]
    Weight {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: operate::WeightArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Gives a listener another connection rate beside the file; lists them, and what they refused.
    #[command(after_help = "Example: weir limit web 100/10s")]
    Limit {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: limit::LimitArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Sources whose connection rate is watched: what one may still open; forgets earlier connections.
    #[command(after_help = "Example: weir table 192.0.2.7 --clear")]
    Table {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: limit::TableArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Adds, removes and lists servers.
    #[command(after_help = "Example: weir server add web/c 192.0.2.12 --weight 2")]
    Server {
        #[command(flatten)]
        config: ConfigPath,
        #[command(subcommand)]
        command: operate::Server,
        #[command(flatten)]
        output: Output,
    },
    /// Has a listener use another pool: blue/green.
    #[command(after_help = "Example: weir switch www green")]
    Switch {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: operate::SwitchTo,
        #[command(flatten)]
        output: Output,
    },
    /// Shows who is connected where.
    #[command(after_help = "Example: weir flows web/a")]
    Flows {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: flows::FlowsArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Shows the maps of the kernel as they are: a list, or the entries of one.
    #[command(after_help = "Example: weir bpf SERVICES")]
    Bpf {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: bpf::BpfArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Prints everything that is counted, as Prometheus reads it.
    #[command(after_help = "Example: weir metrics")]
    Metrics {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Prints the admin API's document (OpenAPI 3.1).
    #[command(after_help = "Example: weir api > openapi.json")]
    Api,
    /// Shows what happened: changes of servers, configurations and overrides.
    #[command(after_help = "Example: weir events --follow")]
    Events {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: events::EventsArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Writes the manual pages into a folder, which is made if it is not there.
    #[command(after_help = "Example: weir man /usr/local/share/man/man1")]
    Man {
        /// The folder.
        folder: PathBuf,
    },
    /// Ends the daemon and detaches the data plane.
    #[command(after_help = "Example: weir stop")]
    Stop {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Prepares this machine to be a server of a pool that forwards by dsr, ipip or gue.
    #[command(after_help = "Example: weir server-setup add --vip 198.51.100.1 --interface eth0 --mode dsr")]
    ServerSetup(server_setup::Args),
    /// Shows virtual routers: their state and why, who is active, and who holds which address; has them hand over.
    #[command(after_help = "Example: weir vrrp yield")]
    Vrrp {
        #[command(flatten)]
        config: ConfigPath,
        #[command(subcommand)]
        command: Option<vrrp::Vrrp>,
        #[command(flatten)]
        output: Output,
    },
    /// Speaks VRRP for the daemon, which starts it.
    #[command(hide = true)]
    VrrpSpeaker {
        /// Waits for the end of the speaker that started it, and goes on in its place.
        #[arg(long)]
        heir: bool,
        /// The socket that the daemon connects to.
        socket: PathBuf,
    },
    /// Examines this machine.
    #[command(after_help = "Example: weir doctor")]
    Doctor {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        output: Output,
    },
}

fn main() -> ExitCode {
    // As the shell's completion asks: `source <(COMPLETE=bash weir)`.
    clap_complete::CompleteEnv::with_factory(Command::command).complete();
    let command = Command::parse_from(std::env::args_os().map(explain::readable));
    match perform(command.action) {
        Ok(exit) => ExitCode::from(exit.code()),
        // Whoever reads our output has gone: nothing is left to be said.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(Exit::Fine.code()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: failed to write the output: {error}");
            ExitCode::from(Exit::Refused.code())
        }
    }
}

fn perform(action: Action) -> io::Result<Exit> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    match action {
        Action::Run { config, log_json } => {
            drop(out);
            Ok(run(config.config, log_json))
        }
        Action::Check { file, output } => check(&file, output.format, &mut out, &mut err),
        Action::Status { config, arguments, output } => {
            status::status(&config.config, &arguments, (output.format, screen()), now_ms(), &mut out, &mut err)
        }
        Action::Explain { config, packet, output } => explain::explain(&config.config, &packet, output.format, &mut out, &mut err),
        Action::Apply { config, arguments, output } => apply::apply(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Confirm { config, output } => apply::confirm(&config.config, output.format, &mut out, &mut err),
        Action::Diff { config, file, output } => apply::diff(&config.config, file.as_deref(), output.format, &mut out, &mut err),
        Action::Rollback { config, number, output } => apply::rollback(&config.config, number, output.format, &mut out, &mut err),
        Action::History { config, output } => apply::history(&config.config, output.format, &mut out, &mut err),
        Action::Drain { config, arguments, output } => operate::drain(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Maint { config, servers, output } => {
            operate::set_state(&config.config, servers, Request::Maint, output.format, &mut out, &mut err)
        }
        Action::Ready { config, servers, output } => {
            operate::set_state(&config.config, servers, Request::Ready, output.format, &mut out, &mut err)
        }
        Action::Clear { config, servers, output } => {
            operate::set_state(&config.config, servers, Request::Clear, output.format, &mut out, &mut err)
        }
        Action::Weight { config, arguments, output } => operate::set_weight(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Server { config, command, output } => operate::server(&config.config, command, output.format, &mut out, &mut err),
        Action::Limit { config, arguments, output } => limit::limit(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Table { config, arguments, output } => limit::sources(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Switch { config, arguments, output } => operate::switch(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Flows { config, arguments, output } => flows::flows(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Bpf { config, arguments, output } => bpf::bpf(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Metrics { config } => api::metrics(&config.config, &mut out, &mut err),
        Action::Api => api::api(&mut out),
        Action::Events { config, arguments, output } => events::events(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Man { folder } => man_io::man(Command::command(), &folder, &mut err),
        Action::Stop { config } => stop(&config.config, &mut out, &mut err),
        Action::ServerSetup(arguments) => server_setup::run(&arguments, &mut out, &mut err),
        Action::Vrrp { config, command, output } => vrrp::vrrp(&config.config, command, output.format, &mut out, &mut err),
        Action::VrrpSpeaker { heir, socket } => {
            match if heir { speaker::driver::inherit(&socket) } else { speaker::driver::run(&socket) } {
                Ok(()) => Ok(Exit::Fine),
                Err(error) => {
                    writeln!(err, "error: vrrp cannot be spoken: {error}")?;
                    Ok(Exit::Refused)
                }
            }
        }
        Action::Doctor { config, output } => doctor(&config.config, output.format, &mut out),
    }
}

fn run(config: PathBuf, log_json: bool) -> Exit {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A line that cannot be written is lost. It would be told by eprintln!, which panics on the same stderr.
    let logs = logs.log_internal_errors(false);
    if log_json {
        logs.json().init()
    } else {
        logs.with_ansi(false).init()
    }
    let Err(error) = runtime::run(config) else { return Exit::Fine };
    // What of the refusal cannot be told is in the exit status.
    let _ = tell_refusal(&error, &mut io::stderr());
    let is_unread = matches!(error, RunError::Config(LoadError::Read { .. } | LoadError::TooLarge { .. }));
    if is_unread { Exit::Usage } else { Exit::Refused }
}

fn tell_refusal(error: &RunError, err: &mut impl io::Write) -> io::Result<()> {
    if let RunError::Config(LoadError::Invalid { text, findings }) = error {
        return findings.iter().try_for_each(|finding| writeln!(err, "{}\n", finding.render(text)));
    }
    cli::write_error(err, error)
}

fn screen() -> status::Screen {
    if io::stdout().is_terminal() { status::Screen::Terminal } else { status::Screen::Stream }
}

fn now_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the command's one look at the clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Command;

    /// The commands below `path` whose help has no example.
    fn without_example(path: &str, command: &clap::Command) -> Vec<String> {
        if command.is_hide_set() {
            return Vec::new();
        }
        let path = format!("{path} {}", command.get_name());
        let is_without = command.get_after_help().is_none_or(|help| !help.to_string().contains(&format!("Example:{path}")));
        let below = command.get_subcommands().flat_map(|below| without_example(&path, below));
        is_without.then(|| path.clone()).into_iter().chain(below).collect()
    }

    #[test]
    fn the_help_of_every_command_has_an_example_and_that_of_all_the_exit_codes() {
        let mut all = Command::command();
        assert_eq!(all.get_subcommands().flat_map(|command| without_example(" weir", command)).collect::<Vec<_>>(), Vec::<String>::new());
        let help = all.render_help().to_string();
        for words in ["  0  done", "  1  refused", "  2  it cannot"] {
            assert!(help.contains(words), "{help}");
        }
    }
}
