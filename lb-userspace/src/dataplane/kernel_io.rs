//! Whether this machine can run the data plane, found out by trying: for `weir doctor`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "looks at the machine")]

use std::{error::Error, fs, path::Path};

use aya::{Ebpf, maps::Map};
use rustix::system::uname;

use super::{
    abi::{self, AbiError},
    attach::interface_index,
    clock_io::load_smallest,
    layout::{Features, Machine, memory_bytes},
    load::{LoadError, causes, load_program},
    mapped::{Access, Mapped},
    naming,
    pins_io::PinDir,
    privileges_io::{self, Missing},
    refusal,
};
use crate::{
    config::model::Config,
    control::{desired::node_slot_key, installed::pages_of},
    netlink::driver_name_io::driver_name,
};

/// The oldest kernel that has all that the program uses.
const MIN_KERNEL: (u32, u32) = (6, 1);

/// Drivers with native XDP, as their modules are called; linux drivers/net, those that set NETDEV_XDP_ACT_BASIC.
const NATIVE_DRIVERS: &[&str] = &[
    "bnxt_en",
    "bonding",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fec",
    "fsl_dpaa2_eth",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ionic",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_core",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "nfp",
    "qede",
    "rvu_nicpf",
    "rvu_nicvf",
    "sfc",
    "stmmac",
    "tsnep",
    "tun",
    "veth",
    "vif",
    "virtio_net",
    "vmxnet3",
    "xen_netfront",
];

/// One answer about this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

impl Finding {
    fn new(what: impl Into<String>, ok: bool, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { what: what.into(), ok, detail: detail.into(), hint: (!ok).then_some(hint) }
    }
}

/// Looks at the kernel, and at the interfaces and the memory that a configuration asks for. Loads the object with the smallest maps and lets it go;
/// attaches nothing.
pub fn examine(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![kernel_version(), btf(), jit(), privileges(&privileges_io::missing())];
    findings.extend(object());
    findings.extend(config.map(|config| pin_directory(&PinDir::at(&config.node.pin_dir))));
    findings.extend(config.and_then(loaded));
    findings.extend(config.and_then(memory));
    findings.extend(config.iter().flat_map(|config| &config.node.interfaces).map(|name| interface(name)));
    findings
}

/// Whether pins can be kept where the configuration wants them.
fn pin_directory(pins: &PinDir) -> Finding {
    let what = "pin directory";
    let path = pins.path().display();
    match pins.is_in_bpf_fs() {
        Ok(true) => Finding::new(what, true, format!("{path}, in a BPF file system"), ""),
        Ok(false) if pins.mounts() => {
            Finding::new(what, true, format!("{path}: no BPF file system is mounted; weir run mounts one, in its own mount namespace"), "")
        }
        Ok(false) => Finding::new(what, false, format!("{path} is not in a BPF file system"), "mount -t bpf bpf /sys/fs/bpf"),
        Err(error) => Finding::new(what, false, reason(&error), "node.pin_dir has to be in a BPF file system"),
    }
}

/// Whether a start would adopt what is loaded; none where nothing is.
fn loaded(config: &Config) -> Option<Finding> {
    let what = "loaded data plane";
    let adoptable = abi::read(&PinDir::at(&config.node.pin_dir)).and_then(|record| {
        record.check_limits(&config.limits)?;
        record.check_slot_key(node_slot_key(&config.node.slot_seed))
    });
    match adoptable {
        Ok(()) => Some(Finding::new(what, true, "a start goes on with it", "")),
        Err(AbiError::NotLoaded { .. }) => None,
        Err(error @ (AbiError::Pin(_) | AbiError::Map(_))) => Some(Finding::new(what, false, reason(&error), "run as root")),
        Err(error @ (AbiError::Version { .. } | AbiError::Limits { .. } | AbiError::SlotSeed)) => {
            Some(Finding::new(what, false, reason(&error), "a start is refused: weir stop, then start again; connections are lost"))
        }
    }
}

/// None where the memory is taken already: by the data plane that runs.
fn memory(config: &Config) -> Option<Finding> {
    if PinDir::at(&config.node.pin_dir).is_loaded() {
        return None;
    }
    let pages = config.listeners.values().map(|listener| pages_of(listener.slots) * listener.binds.len() as u32).sum();
    let machine = Machine { cpus: aya::util::nr_cpus().map_or(1, |cpus| cpus as u32), slot_pages: pages };
    let needed = memory_bytes(&config.limits, Features::of(config), machine) >> 20;
    let available = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available_mib)?;
    let detail = format!("{needed} MiB for the tables, {available} MiB available");
    Some(Finding::new("memory", needed < available, detail, "less in [limits], fewer slots"))
}

/// From the text of `/proc/meminfo` (linux Documentation/filesystems/proc.rst).
fn available_mib(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? >> 10)
}

fn privileges(missing: &Missing) -> Finding {
    let detail = match (missing.needed.as_slice(), missing.wanted.as_slice()) {
        ([], []) => "sufficient".to_owned(),
        ([], wanted) => format!("{} missing: path MTUs of tunnels are not learned", wanted.join(", ")),
        (needed, wanted) => format!("{} missing", [needed, wanted].concat().join(", ")),
    };
    Finding::new("privileges", *missing == Missing::default(), detail, privileges_io::HINT)
}

fn kernel_version() -> Finding {
    let name = uname();
    let release = name.release().to_string_lossy();
    Finding::new("kernel", version(&release).is_some_and(|version| version >= MIN_KERNEL), release.as_ref(), "Linux 6.1 or later is needed")
}

/// Major and minor number of a release such as `6.18.44-fc`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    let exists = Path::new(path).exists();
    Finding::new("kernel types", exists, if exists { path } else { "absent" }, "a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn jit() -> Finding {
    let setting = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    // Namespaces other than the first do not show it.
    let ok = !setting.is_ok_and(|setting| setting.trim() == "0");
    Finding::new("bpf compiler", ok, if ok { "on" } else { "off" }, "sysctl net.core.bpf_jit_enable=1")
}

/// Since Linux 5.11 maps count against the memory cgroup: there is no locked-memory limit to look at.
fn object() -> Vec<Finding> {
    let what = "maps";
    let mut object = match load_smallest() {
        Ok(object) => object,
        Err(error @ LoadError::Permission { .. }) => {
            return vec![Finding::new(what, false, reason(&error), "run as root")];
        }
        Err(error) => return vec![Finding::new(what, false, reason(&error), "a kernel with CONFIG_BPF_SYSCALL and CONFIG_BPF_JIT")],
    };
    vec![Finding::new(what, true, "arrays, arrays of maps, tries, devmap and ring buffer", ""), mapping(&object), verifier(&mut object)]
}

fn mapping(object: &Ebpf) -> Finding {
    let what = "mapped arrays";
    let hint = "a kernel with BPF_F_MMAPABLE arrays";
    match object.map("MEMBERS") {
        Some(Map::Array(map)) => match Mapped::<u64>::open("MEMBERS", map, Access::ReadWrite) {
            Ok(_) => Finding::new(what, true, "work", hint),
            Err(error) => Finding::new(what, false, reason(&error), hint),
        },
        _ => Finding::new(what, false, "the object has no such map", hint),
    }
}

fn verifier(object: &mut Ebpf) -> Finding {
    let what = "packet program";
    let hint = "please report this, with the kernel's version";
    match load_program(object, naming::PACKET_PROGRAM) {
        Ok(_) => Finding::new(what, true, "accepted by the verifier", hint),
        Err(LoadError::Verifier { refusal, log, .. }) => {
            Finding::new(what, false, refusal::in_words(&refusal, &log), refusal::hint(&refusal, &log))
        }
        Err(error) => Finding::new(what, false, reason(&error), hint),
    }
}

fn interface(name: &str) -> Finding {
    let what = format!("interface {name}");
    if let Err(error) = interface_index(name) {
        return Finding::new(what, false, reason(&error), "node.interfaces names those that packets come in by");
    }
    let detail = match driver_name(name) {
        // linux drivers/net/veth.c, veth_xdp_flush: nobody is woken who has no program.
        Ok(driver) if driver == "veth" => "driver veth: native xdp; its other end needs an xdp program, too (one that passes all), and `tx off` (ethtool -K), or frames are late or lost"
            .to_owned(),
        Ok(driver) if NATIVE_DRIVERS.contains(&driver.as_str()) => format!("driver {driver}: native xdp"),
        Ok(driver) => format!("driver {driver}: not known for native xdp; generic mode works, slower"),
        Err(_) => "of no known driver: native mode is tried at start; generic mode works, slower".to_owned(),
    };
    Finding::new(what, true, detail, "")
}

/// An error with its causes, in one line.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        let first_line = cause.lines().next().unwrap_or_default();
        // A transparent error says the same as its cause.
        if !text.ends_with(first_line) {
            text = if text.is_empty() { first_line.to_owned() } else { format!("{text}: {first_line}") };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_in_kilobytes() {
        assert_eq!(available_mib("MemTotal:  8000000 kB\nMemAvailable:    6144 kB\n"), Some(6));
        assert_eq!(available_mib("MemTotal:  8000000 kB\n"), None);
    }

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("linux"), None);
    }
}
