//! The kernel side as the daemon sees it: the only user of aya.
//!
//! | file | what |
//! |---|---|
//! | `load` | starts or adopts the data plane, rebuilds its program, adds and removes interfaces |
//! | `attach`, `pins_io`, `naming`, `abi`, `stop` | links, the pin directory, the mark that maps are complete, removal of all |
//! | `missing` | what somebody removed of the pins |
//! | `object`, `layout`, `clock_io` | the embedded object, the maps' sizes (pure), the kernel's clock |
//! | `tables`, `mapped`, `cell`, `syscall` | the maps, open |
//! | `apply`, `slots`, `lines`, `planes`, `headers` | the operations of a plan |
//! | `read`, `sweep`, `samples`, `openings`, `dump` | what is in the maps |
//! | `observe` | the tables for the decision, read only |
//! | `kernel_io`, `privileges_io` | whether this machine can do it, and whether this process may |
//! | `decap` | the program that opens tunnels on a server |
//! | `ways` | the programs by which probes take the data path's way |

mod abi;
mod apply;
mod attach;
mod cell;
mod clock_io;
mod decap;
mod dump;
mod headers;
mod kernel_io;
mod layout;
mod lines;
mod load;
mod mapped;
mod missing;
mod naming;
mod object;
mod observe;
mod openings;
mod pins_io;
mod planes;
mod privileges_io;
mod read;
mod refusal;
mod samples;
mod settings;
mod slots;
mod stop;
mod sweep;
mod syscall;
mod tables;
mod ways;

pub use abi::AbiError;
pub use apply::{Applier, ApplyError};
pub use attach::AttachError;
pub use clock_io::{ClockError, KernelClock, Moment, moment};
pub use decap::{DecapCount, DecapError, Decapsulator, decap_counts, start_decap, stop_decap};
pub use dump::{Dump, DumpError, Notation, all_map_names, dump, map_names};
pub use kernel_io::{Finding, examine};
pub use layout::{Features, MAX_INTERFACES, MAX_SOURCE_RULES, Machine, MapKind, MapSize, map_sizes, memory_bytes};
pub use load::{Dataplane, LoadError, Origin, Request};
pub use mapped::{Access, AccessError, MapOpenError, Mapped};
pub use missing::{Missing, missing, remake_idle};
pub use observe::{Observer, Passed};
pub use openings::{Openings, Seen};
pub use pins_io::{PinDir, PinDirError, map_facts};
pub use planes::{NatUsage, PlaneUsage};
pub use read::{MemberRecord, ReadError};
pub use samples::{DroppedPacket, Samples};
pub use settings::{SETTINGS, SettingsError, settings};
pub use slots::{SetSlotsError, SlotRules, Unripe};
pub use stop::{LinkState, Stopped, attached, attached_elsewhere, stop};
pub use sweep::{SWEEP_INTERVAL, Swept, sweep};
pub use tables::{SlotsError, Tables, TablesError};
pub use ways::{Detour, Hook, WaysError, Witness};
