//! `weir bpf`: the maps as they are. Reads the pinned maps, so that it works without a daemon; changes nothing.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Exit, Format, complete, operate::json, place_io::Place, render::table, tell};
use crate::{
    config,
    dataplane::{self, Access, MapKind, Notation, PinDir, SETTINGS, Tables},
};

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

/// A map, as `-o json` prints it in the list.
#[derive(Serialize, Debug)]
struct Listed {
    name: &'static str,
    /// What it is to the kernel.
    kind: &'static str,
    /// Entries in use: words of lines, pages of slots.
    used: u64,
    /// Most entries, as the kernel counts them.
    max: u32,
    /// Kernel memory that it takes; none if the kernel does not tell.
    bytes: Option<u64>,
    holds: &'static str,
}

/// A map's entries, as `-o json` prints them.
#[derive(Serialize, Debug)]
struct Entries {
    map: String,
    /// How many are in use.
    used: u64,
    entries: Vec<Map<String, Value>>,
}

/// Performs `weir bpf`.
///
/// # Errors
/// Those of writing.
pub fn bpf(config: &Path, arguments: &BpfArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let place = match Place::of(config) {
        Ok(place) => place,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let tables = match Tables::open(&place.pins, Access::ReadOnly) {
        Ok(tables) => tables,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    let shown = match &arguments.map {
        None => list(&tables, &place.pins, format, out),
        Some(map) => entries(&tables, &place.pins, map, arguments, format, out, err),
    };
    match shown {
        Ok(exit) => Ok(exit),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => Err(error),
            Err(error) => {
                writeln!(err, "error: {error:#}")?;
                Ok(Exit::Refused)
            }
        },
    }
}

fn list(tables: &Tables, pins: &PinDir, format: Format, out: &mut impl Write) -> anyhow::Result<Exit> {
    let now = dataplane::moment(pins)?.tick;
    let mut maps = Vec::new();
    for (name, kind, holds) in dataplane::map_names(tables) {
        let used = dataplane::dump(tables, name, 0, Notation::Decoded, now)?.map_or(0, |dump| dump.used);
        let (max, bytes) = dataplane::map_facts(pins, name)?;
        maps.push(Listed { name, kind: kind_word(kind), used, max, bytes, holds });
    }
    let (settings, bytes) = dataplane::settings(pins, Notation::Decoded)?;
    maps.push(Listed {
        name: SETTINGS,
        kind: "read-only data",
        used: settings.used,
        max: 1,
        bytes: Some(bytes),
        holds: "what the packet program was loaded for",
    });
    match format {
        Format::Json => json(&maps, out)?,
        Format::Text => {
            let row = |map: &Listed| {
                let bytes = map.bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
                vec![map.name.into(), map.kind.into(), map.used.to_string(), map.max.to_string(), bytes, map.holds.into()]
            };
            table(&["MAP", "TYPE", "USED", "ENTRIES", "BYTES", "HOLDS"], &maps.iter().map(row).collect::<Vec<_>>(), out)?;
        }
    }
    Ok(Exit::Fine)
}

fn entries(
    tables: &Tables,
    pins: &PinDir,
    map: &str,
    arguments: &BpfArgs,
    format: Format,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<Exit> {
    let notation = if arguments.raw { Notation::Raw } else { Notation::Decoded };
    let name = map.to_uppercase();
    let dump = if name == SETTINGS {
        let (mut dump, _) = dataplane::settings(pins, notation)?;
        dump.rows.truncate(arguments.limit);
        Some(dump)
    } else {
        dataplane::dump(tables, &name, arguments.limit, notation, dataplane::moment(pins)?.tick)?
    };
    let Some(dump) = dump else {
        let names = dataplane::all_map_names();
        writeln!(err, "error: there is no map {map:?}\nhint: {}; weir bpf lists them", config::alike(&name, &names))?;
        return Ok(Exit::Refused);
    };
    if format == Format::Json {
        let entry = |row: Vec<Value>| {
            let keys = dump.columns.iter().map(|column| column.to_lowercase().replace(' ', "_"));
            keys.zip(row).collect()
        };
        json(&Entries { map: name, used: dump.used, entries: dump.rows.into_iter().map(entry).collect() }, out)?;
        return Ok(Exit::Fine);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows: Vec<Vec<String>> = dump.rows.iter().map(|row| row.iter().map(text).collect()).collect();
    table(&dump.columns, &rows, out)?;
    if rows.len() >= arguments.limit {
        writeln!(err, "{} entries are in use; --limit shows more than {}", dump.used, arguments.limit)?;
    }
    Ok(Exit::Fine)
}

const fn kind_word(kind: MapKind) -> &'static str {
    match kind {
        MapKind::Mapped => "array",
        MapKind::Pages => "array of arrays",
        MapKind::PerCpu => "per-CPU array",
        MapKind::Trie => "LPM trie",
        MapKind::Interfaces => "hash by interface",
        MapKind::Ring => "ring buffer",
    }
}
