//! What the loaded program was built for, as `weir bpf SETTINGS` shows it: the constants in its read-only data, a map that is frozen and not pinned.

use std::os::fd::AsFd as _;

use aya::{
    maps::{MapError, MapInfo},
    programs::{ProgramError, Xdp},
};
use aya_obj::programs::XdpAttachType;
use bytemuck::bytes_of;
use lb_common::maps::Settings;
use serde_json::{Value, json};

use super::{
    abi::{self, AbiError, Keys},
    dump::{Dump, Notation},
    naming,
    pins_io::PinDir,
    syscall::first_value,
};

/// The name that it has beside those of the maps.
pub const SETTINGS: &str = "SETTINGS";

/// Why they cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Nothing is loaded.
    #[error(transparent)]
    Abi(#[from] AbiError),
    /// The kernel does not tell of the program.
    #[error("failed to look at the packet program")]
    Program(#[from] ProgramError),
    /// Or of its maps.
    #[error("failed to look at the packet program's maps")]
    Map(#[from] MapError),
    /// They are not among its read-only data.
    #[error("the packet program has no settings of this version")]
    Absent,
}

/// The settings of the program that is loaded, a row each, and how many bytes of kernel memory they lie in. The keys of hashes stay secret.
///
/// # Errors
/// [`SettingsError`].
pub fn settings(pins: &PinDir, notation: Notation) -> Result<(Dump, u64), SettingsError> {
    let keys = abi::read(pins)?.keys;
    let program = Xdp::from_pin(pins.pin(naming::PROGRAM), XdpAttachType::Interface)?;
    for id in program.info()?.map_ids()?.unwrap_or_default() {
        let map = MapInfo::from_id(id)?;
        if map.name_as_str().is_none_or(|name| !name.contains("rodata")) {
            continue;
        }
        let Ok(bytes) = first_value(map.fd()?.as_fd(), map.value_size()) else { continue };
        if let Some(settings) = found(&bytes, &keys) {
            return Ok((shown(&settings, notation), bytes.len() as u64));
        }
    }
    Err(SettingsError::Absent)
}

/// Among other constants they are known by their keys, which are random.
fn found(bytes: &[u8], keys: &Keys) -> Option<Settings> {
    let candidates = (0..bytes.len()).step_by(align_of::<Settings>()).filter_map(|at| bytes.get(at..at + size_of::<Settings>()));
    let mut settings = candidates.map(bytemuck::pod_read_unaligned::<Settings>);
    settings.find(|settings| (settings.table_key, settings.slot_key) == (keys.table, keys.slot))
}

const FEATURES: [(u32, &str); 7] = [
    (Settings::IPV6, "ipv6"),
    (Settings::NAT, "nat"),
    (Settings::SOURCE_RULES, "source-rules"),
    (Settings::RATE, "rate"),
    (Settings::IPIP, "ipip"),
    (Settings::GUE, "gue"),
    (Settings::DSR, "dsr"),
];

fn shown(settings: &Settings, notation: Notation) -> Dump {
    let features: Vec<&str> = FEATURES.iter().filter(|(bit, _)| settings.has(*bit)).map(|(_, word)| *word).collect();
    let lines = |mask: u32| json!(u64::from(mask) + 1);
    let rows: [(&str, Value, u32); 11] = [
        ("features", json!(features.join(" ")), settings.features),
        ("tick factor", json!(settings.tick_factor), settings.tick_factor),
        ("us to a timer tick", json!(settings.jiffy_us), settings.jiffy_us),
        ("lines of VIP_LINES", lines(settings.vip_mask), settings.vip_mask),
        ("lines of PORT_LINES", lines(settings.port_mask), settings.port_mask),
        ("lines of FLOWS", lines(settings.flow_mask), settings.flow_mask),
        ("lines of FRAGMENTS", lines(settings.fragment_mask), settings.fragment_mask),
        ("lines of RATES", lines(settings.rate_mask), settings.rate_mask),
        ("lines of NAT_LINES", lines(settings.nat_mask), settings.nat_mask),
        ("lines of NAT_ENDPOINTS", lines(settings.endpoint_mask), settings.endpoint_mask),
        ("entries of NAT_FREE", lines(settings.free_mask), settings.free_mask),
    ];
    let used = rows.len() as u64;
    let (columns, rows) = match notation {
        Notation::Decoded => (vec!["SETTING", "VALUE"], rows.into_iter().map(|(name, value, _)| vec![json!(name), value]).collect()),
        Notation::Raw => (
            vec!["SETTING", "HEX"],
            rows.into_iter().map(|(name, _, bytes)| vec![json!(name), json!(super::dump::hex(bytes_of(&bytes)))]).collect(),
        ),
    };
    Dump { columns, rows, used }
}

#[cfg(test)]
mod tests {
    use bytemuck::{Zeroable as _, bytes_of};

    use super::*;

    #[test]
    fn settings_are_found_among_other_constants_and_their_keys_stay_secret() {
        let keys = Keys { table: 0x0123_4567_89ab_cdef, slot: 0xfedc_ba98_7654_3210 };
        let settings = Settings {
            features: Settings::NAT | Settings::DSR,
            flow_mask: 1023,
            table_key: keys.table,
            slot_key: keys.slot,
            ..Settings::zeroed()
        };
        let bytes = [&[7; 24], bytes_of(&settings), &[9; 16]].concat();
        assert_eq!(found(&bytes, &keys), Some(settings));
        assert_eq!(found(&bytes, &Keys { slot: 1, ..keys }), None);
        let decoded = shown(&settings, Notation::Decoded);
        assert_eq!(
            (&decoded.rows[0], &decoded.rows[5]),
            (&vec![json!("features"), json!("nat dsr")], &vec![json!("lines of FLOWS"), json!(1024)])
        );
        let raw = format!("{:?} {decoded:?}", shown(&settings, Notation::Raw));
        assert!(!raw.contains("efcdab89") && !raw.contains("10325476"), "{raw}");
    }
}
