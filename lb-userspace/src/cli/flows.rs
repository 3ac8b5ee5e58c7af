//! `weir flows`: who is connected where.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::Path,
};

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{
    Exit, Format, complete,
    look_io::{look, look_past_daemon},
    operate::{json, refuse_look},
    render::table,
};
use crate::admin::api::{FlowView, FlowsQuestion, FlowsView, Look, MOST_ENTRIES, Request};

/// `weir flows`.
#[derive(Args, Debug)]
pub struct FlowsArgs {
    /// Only those of servers that this fits: POOL/SERVER; `*` and `?` stand for any letters.
    #[arg(value_name = "POOL/SERVER", value_parser = pattern, add = ArgValueCompleter::new(complete::servers))]
    servers: Option<String>,
    /// Only those of this client.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// So many at most.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

fn pattern(text: &str) -> Result<String, glob::PatternError> {
    glob::Pattern::new(text).map(|_| text.to_owned())
}

/// Performs `weir flows`. Works without a daemon.
///
/// # Errors
/// Those of writing.
pub fn flows(config: &Path, arguments: FlowsArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let FlowsArgs { servers, client, limit } = arguments;
    let question = FlowsQuestion { servers, client, limit };
    let flows = if limit > MOST_ENTRIES {
        look_past_daemon(config, |inspector| inspector.flows(&question))
    } else {
        look(config, &Request::Look(Look::Flows(question.clone())), |inspector| inspector.flows(&question))
    };
    let flows = match flows {
        Ok(flows) => flows,
        Err(error) => return refuse_look(err, &error),
    };
    match format {
        Format::Json => json(&flows, out)?,
        Format::Text => show(&flows, out)?,
    }
    Ok(Exit::Fine)
}

fn show(flows: &FlowsView, out: &mut impl Write) -> io::Result<()> {
    let row = |flow: &FlowView| {
        vec![
            flow.protocol.to_string(),
            flow.client.to_string(),
            flow.vip.to_string(),
            flow.server.clone(),
            flow.to.to_string(),
            flow.from.to_string(),
            flow.state.to_string(),
            format!("{} s", flow.idle_s),
        ]
    };
    let rows: Vec<Vec<String>> = flows.translated.iter().map(row).collect();
    if !rows.is_empty() {
        table(&["PROTOCOL", "CLIENT", "VIP", "SERVER", "SENT TO", "SEEN AS", "STATE", "IDLE"], &rows, out)?;
    }
    if flows.translated_total > rows.len() {
        writeln!(out, "and {} more: --limit shows them", flows.translated_total - rows.len())?;
    }
    let remembered: Vec<Vec<String>> = flows.remembered.iter().map(|(server, count)| vec![server.clone(), count.to_string()]).collect();
    if !remembered.is_empty() {
        table(&["SERVER", "REMEMBERED FLOWS"], &remembered, out)?;
    }
    if rows.is_empty() && remembered.is_empty() {
        writeln!(out, "no flow is remembered: new ones and those of clean slots go where the table says")?;
    }
    Ok(())
}
