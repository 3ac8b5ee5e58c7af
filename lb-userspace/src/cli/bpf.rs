//! `weir bpf`: the maps as they are. Changes nothing.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::Value;

use super::{
    Exit, Format, complete,
    look_io::{look, look_past_daemon},
    operate::{json, refuse_look},
    render::table,
};
use crate::admin::api::{EntriesQuestion, Look, MOST_ENTRIES, MapEntries, MapView, Request};

/// `weir bpf`.
#[derive(Args, Debug)]
pub struct BpfArgs {
    /// The map whose entries are shown; a list of all maps, if none is named.
    #[arg(add = ArgValueCompleter::new(complete::maps))]
    map: Option<String>,
    /// So many entries at most.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
    /// Shows the bytes of the values instead of what they mean.
    #[arg(long, requires = "map")]
    raw: bool,
}

/// Performs `weir bpf`. Works without a daemon.
///
/// # Errors
/// Those of writing.
pub fn bpf(config: &Path, arguments: BpfArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let BpfArgs { map, limit, raw } = arguments;
    let Some(map) = map else { return list(config, format, out, err) };
    let question = EntriesQuestion { map, limit, raw };
    let entries = if limit > MOST_ENTRIES {
        look_past_daemon(config, |inspector| inspector.entries(&question))
    } else {
        look(config, &Request::Look(Look::Entries(question.clone())), |inspector| inspector.entries(&question))
    };
    match entries {
        Err(error) => refuse_look(err, &error),
        Ok(entries) if format == Format::Json => json(&entries, out).map(|()| Exit::Fine),
        Ok(entries) => show(&entries, limit, out, err).map(|()| Exit::Fine),
    }
}

fn list(config: &Path, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let maps: Vec<MapView> = match look(config, &Request::Look(Look::Maps), |inspector| inspector.maps()) {
        Ok(maps) => maps,
        Err(error) => return refuse_look(err, &error),
    };
    match format {
        Format::Json => json(&maps, out)?,
        Format::Text => {
            let row = |map: &MapView| {
                let bytes = map.bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
                vec![map.name.to_string(), map.kind.to_string(), map.used.to_string(), map.max.to_string(), bytes, map.holds.to_string()]
            };
            table(&["MAP", "TYPE", "USED", "ENTRIES", "BYTES", "HOLDS"], &maps.iter().map(row).collect::<Vec<_>>(), out)?;
        }
    }
    Ok(Exit::Fine)
}

fn show(entries: &MapEntries, limit: usize, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |entry: &serde_json::Map<String, Value>| {
        entries.columns.iter().map(|column| entry.get(column).map(text).unwrap_or_default()).collect()
    };
    let rows: Vec<Vec<String>> = entries.entries.iter().map(row).collect();
    let heads: Vec<String> = entries.columns.iter().map(|column| column.to_uppercase().replace('_', " ")).collect();
    table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows, out)?;
    if rows.len() >= limit {
        writeln!(err, "{} entries are in use; --limit shows more than {limit}", entries.used)?;
    }
    Ok(())
}
