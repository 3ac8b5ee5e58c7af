//! The maps as they are, entry by entry, for `weir bpf`. Reads only.

use bytemuck::{Pod, bytes_of};
use lb_common::{
    address::Address,
    maps::{CHUNK_PENDING, Line, VirtualMacs, WORDS_PER_LINE},
    nat::PortWord as NatPortWord,
    reason::{Drop, Note},
    words::{FlowWord, MemberId, MemberWord, PortWord, ServiceId, SlotState, SlotWord, Tick, VipWord},
};
use serde_json::{Value, json};

use crate::config::model::Limits;

use super::{
    layout::{self, Features, MapKind},
    mapped::Mapped,
    read::ReadError,
    settings::SETTINGS,
    tables::{SlotsError, Tables},
};

/// Why a map cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The kernel refuses.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A slot page cannot be read.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// An index is out of range.
    #[error(transparent)]
    Access(#[from] super::mapped::AccessError),
    /// The kernel refuses.
    #[error("failed to read a map")]
    Map(#[from] aya::maps::MapError),
}

/// A map's entries.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Dump {
    /// What each column of a row is.
    pub columns: Vec<&'static str>,
    /// As many entries as were asked for.
    pub rows: Vec<Vec<Value>>,
    /// How many there are.
    pub used: u64,
}

/// How entries are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notation {
    /// By what they mean.
    Decoded,
    /// The bytes of their values, in hexadecimal.
    Raw,
}

/// Every map: its name, what it is to the kernel, and what it holds.
pub fn map_names(tables: &Tables) -> Vec<(&'static str, MapKind, &'static str)> {
    let sizes = layout::map_sizes(&tables.limits(), Features::default());
    sizes.iter().map(|size| (size.name, size.kind, holds(size.name))).collect()
}

/// The names of all maps, loaded or not, and of the settings.
pub fn all_map_names() -> Vec<&'static str> {
    layout::map_sizes(&Limits::default(), Features::default()).iter().map(|size| size.name).chain([SETTINGS]).collect()
}

fn holds(name: &str) -> &'static str {
    match name {
        "VIP_LINES" => "addresses that packets are taken for, by their hash",
        "MACS" => "link-layer addresses that frames are taken by",
        "VIPS" => "addresses that packets are taken for",
        "PORT_LINES" => "ports of VIPs, by their hash",
        "SERVICES" => "services: VIP, port and protocol",
        "SLOT_PAGES" => "slots of all services",
        "MEMBERS" => "servers of services, as the packet path reads them",
        "MEMBER_INFO" => "servers of services, as the daemon keeps them",
        "HEADERS" => "prebuilt headers",
        "INTERFACES" => "interfaces that packets leave by",
        "LINKS" => "addresses and MTUs of those interfaces",
        "FLOWS" => "remembered flows",
        "FRAGMENTS" => "fragmented packets in flight",
        "RATES" => "sources whose connection rate is watched",
        "SOURCES4" | "SOURCES6" => "rules for sources",
        "NAT_LINES" => "the directory of translated flows",
        "NAT_PORTS" => "ports of translated flows",
        "NAT_FLOWS" => "translated flows",
        "NAT_PLANES" => "pairs of SNAT address and server",
        "NAT_CHUNKS" => "chunks of ports that pairs were given",
        "NAT_USED" => "how many chunks each pair was given",
        "NAT_ENDPOINTS" => "those pairs, by their hash",
        "NAT_FREE" => "the ring of free chunks",
        "MEMBER_STATS" => "packets and bytes of each server",
        "DROPS" => "refused packets, by service and reason",
        "NOTES" => "other events, by service",
        "TOUCHES" => "when each service last found no room for a flow",
        "SAMPLES" => "samples of refused packets, for the daemon alone",
        _ => "",
    }
}

/// The entries of one map that are in use, at most `limit` of them; none if there is no such map. `now` is the kernel's tick.
///
/// # Errors
/// [`DumpError`] if the kernel refuses.
pub fn dump(tables: &Tables, name: &str, limit: usize, notation: Notation, now: Tick) -> Result<Option<Dump>, DumpError> {
    let shown = Shown { limit, notation };
    let number = |word: &u64| vec![json!(word)];
    let tagged = |word: u64| vec![hex_word(word >> 32), json!(word & 0xffff_ffff)];
    Ok(Some(match name {
        "VIP_LINES" => shown.lines(&tables.vip_lines, &["TAG", "VIP", "FLAGS"], |word| {
            let word = VipWord(word);
            vec![hex_word(word.tag().into()), json!(word.index()), json!(word.flags())]
        }),
        "PORT_LINES" => shown.lines(&tables.port_lines, &["VIP", "PORT", "PROTOCOL", "SERVICE"], |word| {
            vec![json!(word >> 48), json!(word >> 32 & 0xffff), json!(word >> 16 & 0xffff), json!(PortWord(word).service().0)]
        }),
        "FLOWS" => shown.lines(&tables.flows, &["TAG", "MEMBER", "STATE", "IDLE S"], |word| {
            let word = FlowWord(word);
            let state = format!("{:?}", word.state()).to_lowercase();
            vec![hex_word(word.tag().into()), json!(word.member().map(MemberId::number)), json!(state), json!(word.idle(now))]
        }),
        "FRAGMENTS" => shown.lines(&tables.fragments, &["WORD"], |word| vec![hex_word(word)]),
        "RATES" => shown.lines(&tables.rates, &["TAG", "NEXT AT US"], |word| vec![hex_word(word >> 40), json!(word & 0xff_ffff_ffff)]),
        "NAT_LINES" => shown.lines(&tables.nat_lines, &["TAG", "FLOW"], |word| vec![hex_word(word >> 24), json!(word & 0xff_ffff)]),
        "NAT_PORTS" => shown.lines(&tables.nat_ports, &["STATE", "IDLE S"], |word| {
            let word = NatPortWord(word);
            vec![json!(format!("{:?}", word.state()).to_lowercase()), json!(word.idle(now))]
        }),
        "NAT_ENDPOINTS" => shown.lines(&tables.nat_endpoints, &["TAG", "PLANE"], tagged),
        "MACS" => shown.array(&tables.macs, &["MACS"], |index, macs| {
            if index == VirtualMacs::INDEX {
                let macs: Vec<String> = bytemuck::cast_ref::<_, VirtualMacs>(macs).iter().map(|mac| mac_words(&mac)).collect();
                return vec![json!(format!("of virtual routers: {}", macs.join(" ")))];
            }
            if index == VirtualMacs::UNTIL {
                let left = VirtualMacs::left(bytemuck::cast_ref::<_, [u64; 8]>(macs)[0], now);
                return vec![json!(left.map_or_else(|| "these: no more".into(), |left| format!("these: for {left} s more")))];
            }
            let mut macs: Vec<String> = bytes_of(macs).chunks(8).map(|mac| mac_words(&mac[..6])).collect();
            macs.dedup();
            vec![json!(macs.join(" "))]
        }),
        "VIPS" => shown.array(&tables.vips, &["ADDRESS", "ANY TCP", "ANY UDP", "FLAGS"], |_, vip| {
            vec![address(vip.address), json!(vip.any_tcp), json!(vip.any_udp), json!(vip.flags)]
        }),
        "SERVICES" => {
            let columns = ["VIP", "PORT", "PROTOCOL", "FIRST PAGE", "SLOTS", "IDLE S", "FLAGS", "RATE US", "TOLERANCE US"];
            shown.array(&tables.services, &columns, |_, one| {
                vec![
                    address(one.vip),
                    json!(one.port),
                    json!(one.protocol),
                    json!(one.slot_page),
                    json!(u64::from(one.slot_mask) + 1),
                    json!(one.idle_s),
                    json!(one.flags),
                    json!(one.rate_interval_us),
                    json!(one.rate_tolerance_us),
                ]
            })
        }
        "SLOT_PAGES" => slots(tables, shown)?,
        "MEMBERS" => shown.array(&tables.members, &["SERVICE", "STATE", "HEADER"], |_, word| {
            let word = MemberWord(*word);
            vec![json!(word.service().0), json!(word.state()), json!(word.header())]
        }),
        "MEMBER_INFO" => {
            let columns = ["SERVICE", "ADDRESS", "PORT", "WEIGHT", "STATE", "FORWARD", "RETIRED AT"];
            shown.array(&tables.member_info, &columns, |_, info| {
                vec![
                    json!(info.service),
                    address(info.address),
                    json!(info.port),
                    json!(info.weight),
                    json!(info.state),
                    json!(info.forward),
                    json!(info.retired_at),
                ]
            })
        }
        "HEADERS" => shown.array(&tables.headers, &["INTERFACE", "KIND", "MTU", "FIRST PLANE", "PLANES", "LINK LAYER"], |_, header| {
            let link = hex(&bytes_of(&header.bytes)[..usize::from(header.link_bytes).min(18)]);
            vec![
                json!(header.ifindex),
                json!(header.kind),
                json!(header.mtu),
                json!(header.nat_plane),
                json!(header.nat_planes),
                json!(link),
            ]
        }),
        "NAT_FLOWS" => {
            let columns =
                ["CLIENT", "PORT", "VIP PORT", "SERVER", "SERVER PORT", "SNAT PORT", "SERVICE", "MEMBER", "PLANE", "VLAN", "INTERFACE"];
            shown.array(&tables.nat_flows, &columns, |_, flow| {
                vec![
                    address(flow.client),
                    json!(u16::from_be(flow.client_port)),
                    json!(u16::from_be(flow.vip_port)),
                    address(flow.server),
                    json!(u16::from_be(flow.server_port)),
                    json!(u16::from_be(flow.snat_port)),
                    json!(flow.service),
                    json!(flow.member),
                    json!(flow.plane),
                    json!(flow.vlan),
                    json!(flow.ifindex),
                ]
            })
        }
        "NAT_PLANES" => {
            let columns = ["SNAT", "SERVER", "PORT", "PROTOCOL", "LOW FIRST", "LOW CHUNKS", "HIGH FIRST", "HIGH CHUNKS"];
            shown.array(&tables.nat_planes, &columns, |_, plane| {
                vec![
                    address(plane.snat),
                    address(plane.server),
                    json!(u16::from_be(plane.server_port)),
                    json!(plane.protocol),
                    json!(plane.low_first),
                    json!(plane.low_chunks),
                    json!(plane.high_first),
                    json!(plane.high_chunks),
                ]
            })
        }
        "NAT_CHUNKS" => shown.array(&tables.nat_chunks, &["PLANE", "POSITION", "CHUNK"], |index, chunk| {
            let chunk = if *chunk == CHUNK_PENDING { json!("pending") } else { json!(chunk - 1) };
            vec![json!(index / 256), json!(index % 256), chunk]
        }),
        "NAT_USED" => shown.array(&tables.nat_used, &["CHUNKS"], |_, used| number(used)),
        "NAT_FREE" => shown.array(&tables.nat_free, &["WORD"], |_, word| number(word)),
        "TOUCHES" => shown.array(&tables.touches, &["TICK"], |_, tick| number(tick)),
        "INTERFACES" | "LINKS" => links(tables, shown)?,
        "SOURCES4" | "SOURCES6" => sources(tables, shown, name == "SOURCES4")?,
        "MEMBER_STATS" => {
            let members = tables.members()?;
            let rows = members.iter().map(|member| {
                let traffic = tables.traffic(member.id)?;
                Ok((json!(member.id.number()), vec![json!(traffic.packets), json!(traffic.bytes)], hex(bytes_of(&traffic))))
            });
            shown.keyed("MEMBER", &["PACKETS", "BYTES"], rows)?
        }
        "DROPS" => counted(tables, shown, |id| {
            let drops = tables.drops(id)?.into_iter();
            Ok(drops.map(|(reason, count): (Drop, u64)| (reason.word(), count)).collect())
        })?,
        "NOTES" => counted(tables, shown, |id| {
            let notes = tables.notes(id)?.into_iter();
            Ok(notes.map(|(note, count): (Note, u64)| (note.word(), count)).collect())
        })?,
        "SAMPLES" => Dump::default(),
        _ => return Ok(None),
    }))
}

/// What of a map is shown.
#[derive(Clone, Copy)]
struct Shown {
    limit: usize,
    notation: Notation,
}

impl Shown {
    fn columns(self, keys: &[&'static str], decoded: &[&'static str]) -> Vec<&'static str> {
        match self.notation {
            Notation::Decoded => [keys, decoded].concat(),
            Notation::Raw => [keys, &["HEX"]].concat(),
        }
    }

    fn has_room(self, dump: &Dump) -> bool {
        dump.rows.len() < self.limit
    }

    /// The records that are not all zero.
    fn array<T: Pod>(self, map: &Mapped<T>, columns: &[&'static str], decode: impl Fn(u32, &T) -> Vec<Value>) -> Dump {
        let mut dump = Dump { columns: self.columns(&["INDEX"], columns), ..Dump::default() };
        for index in 0..map.len() {
            let Ok(record) = map.record(index) else { break };
            if bytes_of(&record).iter().all(|byte| *byte == 0) {
                continue;
            }
            dump.used += 1;
            if self.has_room(&dump) {
                let values = if self.notation == Notation::Raw { vec![json!(hex(bytes_of(&record)))] } else { decode(index, &record) };
                dump.rows.push([vec![json!(index)], values].concat());
            }
        }
        dump
    }

    /// The words that are not zero.
    fn lines(self, map: &Mapped<Line>, columns: &[&'static str], decode: impl Fn(u64) -> Vec<Value>) -> Dump {
        let mut dump = Dump { columns: self.columns(&["LINE", "PLACE"], columns), ..Dump::default() };
        for line in 0..map.len() {
            let Ok(words) = map.record(line) else { break };
            for (place, word) in words.into_iter().enumerate().filter(|(_, word)| *word != 0) {
                dump.used += 1;
                if self.has_room(&dump) {
                    let values = if self.notation == Notation::Raw { vec![hex_word(word)] } else { decode(word) };
                    dump.rows.push([vec![json!(line), json!(place)], values].concat());
                }
            }
        }
        dump
    }

    /// Entries with a key, what they mean, and their bytes.
    fn keyed(
        self,
        key: &'static str,
        columns: &[&'static str],
        entries: impl Iterator<Item = Result<(Value, Vec<Value>, String), DumpError>>,
    ) -> Result<Dump, DumpError> {
        let mut dump = Dump { columns: self.columns(&[key], columns), ..Dump::default() };
        for entry in entries {
            let (key, values, bytes) = entry?;
            dump.used += 1;
            if self.has_room(&dump) {
                let values = if self.notation == Notation::Raw { vec![json!(bytes)] } else { values };
                dump.rows.push([vec![key], values].concat());
            }
        }
        Ok(dump)
    }
}

/// Slots one after the other that say the same are one row.
fn slots(tables: &Tables, shown: Shown) -> Result<Dump, DumpError> {
    let columns = shown.columns(&["SERVICE", "FROM", "TO"], &["MEMBER", "STATE", "DEFAULT", "STAMP"]);
    let mut dump = Dump { columns, used: tables.slot_pages()?.len() as u64, rows: Vec::new() };
    for (id, _) in tables.services()? {
        let words = tables.slots(id)?;
        let mut first = 0;
        for run in words.chunk_by(|a, b| a == b) {
            if shown.has_room(&dump) {
                let keys = vec![json!(id.0), json!(first), json!(first + run.len() - 1)];
                dump.rows.push([keys, slot(run[0], shown.notation)].concat());
            }
            first += run.len();
        }
    }
    Ok(dump)
}

fn slot(word: SlotWord, notation: Notation) -> Vec<Value> {
    if notation == Notation::Raw {
        return vec![hex_word(word.0)];
    }
    let state = match word.state() {
        SlotState::Clean => "clean",
        SlotState::Learning { .. } => "learning",
        SlotState::Settled => "settled",
    };
    let number = |member: Option<MemberId>| json!(member.map_or(0, MemberId::number));
    vec![number(word.current()), json!(state), number(word.default()), json!(word.stamp())]
}

fn links(tables: &Tables, shown: Shown) -> Result<Dump, DumpError> {
    let entries = tables.links.iter().map(|entry| {
        let (ifindex, link) = entry?;
        let mac = mac_words(bytes_of(&link.0.mac));
        Ok((json!(ifindex), vec![json!(mac), json!(link.0.mtu)], hex(bytes_of(&link.0))))
    });
    shown.keyed("INTERFACE", &["MAC", "MTU"], entries)
}

fn sources(tables: &Tables, shown: Shown, is_v4: bool) -> Result<Dump, DumpError> {
    let rules = tables.source_rules()?.into_iter().filter(|(_, source, _)| source.addr().is_ipv4() == is_v4);
    let entries = rules.map(|(service, source, rule)| {
        let word = if rule == lb_common::maps::SOURCE_DENY { "deny" } else { "allow" };
        Ok((json!(service.0), vec![json!(source.to_string()), json!(word)], format!("{source} {}", hex(&rule.to_ne_bytes()))))
    });
    shown.keyed("SERVICE", &["SOURCE", "RULE"], entries)
}

fn counted(
    tables: &Tables,
    shown: Shown,
    counts: impl Fn(ServiceId) -> Result<Vec<(&'static str, u64)>, DumpError>,
) -> Result<Dump, DumpError> {
    let ids = std::iter::once(ServiceId::NONE).chain(tables.services()?.into_iter().map(|(id, _)| id));
    let mut entries = Vec::new();
    for id in ids {
        entries.extend(
            counts(id)?
                .into_iter()
                .map(|(word, count)| Ok((json!(id.0), vec![json!(word), json!(count)], format!("{word} {}", hex(&count.to_ne_bytes()))))),
        );
    }
    shown.keyed("SERVICE", &["WHAT", "PACKETS"], entries.into_iter())
}

fn address(address: Address) -> Value {
    json!(address.ip().to_string())
}

fn mac_words(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_word(word: u64) -> Value {
    json!(format!("{word:#x}"))
}

const _: () = assert!(WORDS_PER_LINE == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_told_by_its_members_and_state() {
        let member = |number| MemberId::new(number);
        let told = |current, default| slot(SlotWord::new(current, default, 9), Notation::Decoded);
        assert_eq!(told(member(7), None), [json!(7), json!("clean"), json!(0), json!(9)]);
        assert_eq!(told(member(7), member(5)), [json!(7), json!("learning"), json!(5), json!(9)]);
        assert_eq!(told(None, None)[0], json!(0));
        assert_eq!(slot(SlotWord::new(member(7), None, 1), Notation::Raw), [json!("0x100000007")]);
    }

    #[test]
    fn every_map_has_words_for_what_it_holds() {
        let sizes = layout::map_sizes(&crate::config::model::Limits::default(), Features::default());
        assert!(sizes.iter().all(|size| !holds(size.name).is_empty()));
    }
}
