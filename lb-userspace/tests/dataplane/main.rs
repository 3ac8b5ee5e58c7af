//! The data plane against the real kernel. Needs root: each test has a network namespace, interfaces and a BPF file system of its own.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test meets the real kernel")]
#![allow(missing_docs)]

mod interfaces;
mod life;
mod tables;
mod ways;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use bytemuck::Zeroable as _;
use lb_common::{
    address::Address,
    maps::{ForwardKind, Header, MemberInfo, OwnMacs, SOURCE_ALLOW, SOURCE_DENY, Service, Settings, Vip},
    words::{CleanWord, FlowState, FlowWord, MemberId, MemberWord, ServiceId, SlotState, SlotWord, Tick, VipWord},
};
use lb_userspace::{
    config::{
        ConfigText,
        model::{Limits, XdpMode},
        parse,
    },
    control::op::{Op, PlaneSpec},
    dataplane::{
        AbiError, Access, AccessError, ApplyError, AttachError, Dataplane, Features, LinkState, LoadError, Origin, PinDir, PinDirError,
        Request, Samples, SlotRules, Tables, TablesError, Unripe, attached, attached_elsewhere, examine, stop, sweep,
    },
};
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

static LABS: AtomicU32 = AtomicU32::new(0);

/// A namespace that the calling thread is in, with a veth pair `in0`, `peer0`, and a BPF file system.
struct Lab {
    namespace: String,
    root: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let name = format!("weir-dp-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { root: std::env::temp_dir().join(&name), namespace: name };
        fs::create_dir(&lab.root).expect("tests of the data plane need root");
        mount("bpf", &lab.root, "bpf", MountFlags::empty(), None).expect("tests of the data plane need root");
        ip(&["netns", "add", &lab.namespace]);
        let namespace = open(format!("/run/netns/{}", lab.namespace), OFlags::RDONLY, Mode::empty()).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
        lab.add_veth("in0", "peer0");
        lab
    }

    fn add_veth(&self, name: &str, peer: &str) {
        ip(&["link", "add", name, "type", "veth", "peer", "name", peer]);
        ip(&["link", "set", name, "up"]);
        ip(&["link", "set", peer, "up"]);
    }

    fn pin_dir(&self) -> PathBuf {
        self.root.join("weir")
    }

    fn pins(&self) -> PinDir {
        PinDir::at(&self.pin_dir())
    }

    fn start(&self, interfaces: &[&str]) -> Result<(Dataplane, Origin), LoadError> {
        self.start_with(&LIMITS, Features(0), interfaces)
    }

    fn start_with(&self, limits: &Limits, features: Features, interfaces: &[&str]) -> Result<(Dataplane, Origin), LoadError> {
        start_at(&self.pin_dir(), limits, features, interfaces)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

const SLOT_KEY: u64 = 0x5107;
const LIMITS: Limits =
    Limits { services: 16, members: 64, flows: 1024, nat_flows: 1024, nat_planes: 8, rate_sources: 1024, fragments: 256 };

const RULES: SlotRules = SlotRules { change: change_slot, ripen: ripen_slot };

fn change_slot(word: SlotWord, member: Option<MemberId>, now: Tick) -> SlotWord {
    match word.state() {
        _ if word.current() == member => word,
        SlotState::Learning { default } => SlotWord::new(member, Some(default), now),
        SlotState::Clean | SlotState::Settled => SlotWord::new(member, word.current(), now),
    }
}

fn ripen_slot(word: SlotWord, learning_since: Tick, last_no_room: Option<Tick>, idle_s: u32, now: Tick) -> Option<SlotWord> {
    let is_past = |tick: Tick| now.wrapping_sub(tick) > idle_s;
    match word.state() {
        SlotState::Learning { .. } if is_past(learning_since) && last_no_room.is_none_or(is_past) => {
            Some(SlotWord::new(word.current(), word.current(), now))
        }
        SlotState::Settled if is_past(word.stamp()) => Some(SlotWord::new(word.current(), None, now)),
        SlotState::Clean | SlotState::Learning { .. } | SlotState::Settled => None,
    }
}

fn start_at(pin_dir: &Path, limits: &Limits, features: Features, interfaces: &[&str]) -> Result<(Dataplane, Origin), LoadError> {
    let interfaces: Vec<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
    Dataplane::start(&Request {
        pin_dir,
        limits,
        slot_key: SLOT_KEY,
        features,
        macs: OwnMacs::ANY,
        interfaces: &interfaces,
        mode: XdpMode::Auto,
        rules: RULES,
    })
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The number of the XDP program on an interface, and whether it is attached in generic mode.
fn xdp_of(interface: &str) -> Option<(u64, bool)> {
    let shown: serde_json::Value = serde_json::from_str(&ip(&["-j", "-d", "link", "show", interface])).unwrap();
    let xdp = shown[0].get("xdp")?;
    let id = xdp["prog"]["id"].as_u64().or_else(|| xdp["attached"][0]["prog"]["id"].as_u64())?;
    Some((id, xdp["mode"] == 2))
}

fn member(id: u16) -> MemberId {
    MemberId::new(id).unwrap()
}

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn service(id: u16) -> Service {
    Service { vip: address("192.0.2.1"), slot_page: 2, slot_mask: 8191, idle_s: 60, port: 80, protocol: 6, id, ..Service::zeroed() }
}

fn apply_all(dataplane: &mut Dataplane, ops: &[Op], now: Tick) {
    for op in ops {
        dataplane.applier().apply(op, now).unwrap_or_else(|error| panic!("{op:?}: {error}"));
    }
}
