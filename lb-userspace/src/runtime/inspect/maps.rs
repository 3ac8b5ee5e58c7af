//! The maps as they are.

use super::InspectError;
use crate::{
    admin::{
        answer::{MapEntries, MapView},
        api::EntriesQuestion,
    },
    config,
    dataplane::{self, MapKind, Notation, PinDir, SETTINGS, Tables},
};

pub(super) fn list(tables: &Tables, pins: &PinDir) -> Result<Vec<MapView>, InspectError> {
    let now = dataplane::moment(pins)?.tick;
    let mut maps = Vec::new();
    for (name, kind, holds) in dataplane::map_names(tables) {
        let used = dataplane::dump(tables, name, 0, Notation::Decoded, now).map_err(InspectError::read)?.map_or(0, |dump| dump.used);
        let (max, bytes) = dataplane::map_facts(pins, name).map_err(InspectError::read)?;
        maps.push(MapView { name: name.into(), kind: kind_word(kind).into(), used, max, bytes, holds: holds.into() });
    }
    let (settings, bytes) = dataplane::settings(pins, Notation::Decoded).map_err(InspectError::read)?;
    maps.push(MapView {
        name: SETTINGS.into(),
        kind: "read-only data".into(),
        used: settings.used,
        max: 1,
        bytes: Some(bytes),
        holds: "what the packet program was loaded for".into(),
    });
    Ok(maps)
}

pub(super) fn entries(tables: &Tables, pins: &PinDir, question: &EntriesQuestion) -> Result<MapEntries, InspectError> {
    let notation = if question.raw { Notation::Raw } else { Notation::Decoded };
    let map = question.map.to_uppercase();
    let dump = if map == SETTINGS {
        let (mut dump, _) = dataplane::settings(pins, notation).map_err(InspectError::read)?;
        dump.rows.truncate(question.limit);
        Some(dump)
    } else {
        let now = dataplane::moment(pins)?.tick;
        dataplane::dump(tables, &map, question.limit, notation, now).map_err(InspectError::read)?
    };
    let no_map = || InspectError::NoSuch {
        kind: "map",
        name: question.map.clone(),
        hint: format!("{}; weir bpf lists them", config::alike(&map, &dataplane::all_map_names())),
    };
    let dump = dump.ok_or_else(no_map)?;
    let columns: Vec<String> = dump.columns.iter().map(|column| column.to_lowercase().replace(' ', "_")).collect();
    let entry = |row: Vec<serde_json::Value>| columns.iter().cloned().zip(row).collect();
    Ok(MapEntries { map, used: dump.used, entries: dump.rows.into_iter().map(entry).collect(), columns })
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
