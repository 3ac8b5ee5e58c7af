//! The `weir` binary: reads the command line and calls the command.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use lb_userspace::{
    cli::{
        self, Exit, Format, apply, check::check, doctor::doctor, events, explain, flows, operate, server_setup, status::status, stop::stop,
    },
    config::LoadError,
    runtime::{self, RunError},
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A load balancer: packets in the kernel, one file, one binary.
#[derive(Parser)]
#[command(name = "weir", version, about, disable_help_subcommand = true)]
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
    Run {
        #[command(flatten)]
        config: ConfigPath,
        /// Logs as JSON, a line each.
        #[arg(long)]
        log_json: bool,
    },
    /// Says whether a file is a configuration. Needs no privileges.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE", default_value = cli::CONFIG_FILE)]
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Shows services, members, slots, counters and what is wrong.
    Status {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        output: Output,
    },
    /// Says where a packet would go, and why, without disturbing anything.
    Explain {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        packet: explain::Packet,
        #[command(flatten)]
        output: Output,
    },
    /// Has a configuration in force: that of FILE, or the daemon's own file as it is.
    Apply {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: apply::ApplyArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Confirms the configuration that `weir apply --confirm` applied.
    Confirm {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Shows what a configuration would change, and what would become of live flows.
    Diff {
        #[command(flatten)]
        config: ConfigPath,
        /// The configuration; the daemon's own file if none is named.
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Has an earlier configuration in force.
    Rollback {
        #[command(flatten)]
        config: ConfigPath,
        /// Its number in the history; the one before if none is given.
        number: Option<u64>,
    },
    /// Lists the last ten configurations that were in force.
    History {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        output: Output,
    },
    /// Has servers take no new flows; those that they have go on.
    Drain {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: operate::DrainArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Takes servers out of use, whatever their checks say.
    Maint {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        servers: operate::ServersArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Has servers in use again.
    Ready {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        servers: operate::ServersArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Gives servers another weight.
    Weight {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: operate::WeightArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Adds, removes and lists servers.
    Server {
        #[command(flatten)]
        config: ConfigPath,
        #[command(subcommand)]
        command: operate::Server,
        #[command(flatten)]
        output: Output,
    },
    /// Has a listener use another pool: blue/green.
    Switch {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: operate::SwitchTo,
        #[command(flatten)]
        output: Output,
    },
    /// Shows who is connected where.
    Flows {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: flows::FlowsArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Shows what happened: changes of servers, configurations and overrides.
    Events {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        arguments: events::EventsArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Writes the manual pages into a folder.
    Man {
        /// The folder.
        folder: PathBuf,
    },
    /// Ends the daemon and detaches the data plane.
    Stop {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Prepares this machine to be a server of a pool that forwards by dsr, ipip or gue.
    ServerSetup(server_setup::Args),
    /// Examines this machine.
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
        Action::Status { config, output } => status(&config.config, output.format, now_ms(), &mut out, &mut err),
        Action::Explain { config, packet, output } => explain::explain(&config.config, &packet, output.format, &mut out, &mut err),
        Action::Apply { config, arguments, output } => apply::apply(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Confirm { config } => apply::confirm(&config.config, &mut out, &mut err),
        Action::Diff { config, file, output } => apply::diff(&config.config, file.as_deref(), output.format, &mut out, &mut err),
        Action::Rollback { config, number } => apply::rollback(&config.config, number, &mut out, &mut err),
        Action::History { config, output } => apply::history(&config.config, output.format, &mut out, &mut err),
        Action::Drain { config, arguments, output } => operate::drain(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Maint { config, servers, output } => operate::set_state(&config.config, servers, false, output.format, &mut out, &mut err),
        Action::Ready { config, servers, output } => operate::set_state(&config.config, servers, true, output.format, &mut out, &mut err),
        Action::Weight { config, arguments, output } => operate::set_weight(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Server { config, command, output } => operate::server(&config.config, command, output.format, &mut out, &mut err),
        Action::Switch { config, arguments, output } => operate::switch(&config.config, arguments, output.format, &mut out, &mut err),
        Action::Flows { config, arguments, output } => flows::flows(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Events { config, arguments, output } => events::events(&config.config, &arguments, output.format, &mut out, &mut err),
        Action::Man { folder } => clap_mangen::generate_to(Command::command(), folder).map(|()| Exit::Fine),
        Action::Stop { config } => stop(&config.config, &mut out, &mut err),
        Action::ServerSetup(arguments) => server_setup::run(&arguments, &mut out, &mut err),
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

fn now_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the command's one look at the clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
