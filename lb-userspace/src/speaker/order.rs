//! What the daemon and the speaker say to each other: a JSON document on a line each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the daemon says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// Everything as it is to be.
    Order(Order),
    /// These routers hand over.
    Yield(Vec<String>),
    /// These routers may preempt again.
    Ready(Vec<String>),
    /// All routers hand over, and the process ends.
    Stop,
    /// All routers give up their addresses at once, and the process ends.
    Halt,
    /// The process ends at once and leaves the addresses to the one that follows.
    Release,
}

/// What the speaker says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// It is there.
    Hello(Hello),
    /// A router's state is another.
    Changed(Changed),
    /// Something is wrong with a peer, or no longer.
    Conflict(Conflicting),
    /// Everything as it is.
    View(Vec<RouterView>),
}

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Of which program.
    pub build: String,
    /// Its process.
    pub pid: u32,
    /// What it has to do without, in words.
    pub lacks: Vec<String>,
}

/// All routers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Order {
    /// By name.
    pub routers: BTreeMap<String, RouterOrder>,
    /// The interfaces that the data plane is attached to.
    pub data_plane: Vec<String>,
    /// Where its maps are pinned.
    pub pin_dir: PathBuf,
}

/// One router. Values are those of the configuration, which are right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouterOrder {
    /// Where it speaks.
    pub interface: String,
    /// 1 to 255.
    pub router_id: u8,
    /// 2 or 3.
    pub version: u8,
    /// 1 to 255.
    pub priority: u8,
    /// Between adverts.
    pub interval_ms: u64,
    /// The macvlan that has the addresses, with the virtual router's link-layer address.
    pub virtual_mac: Option<String>,
    /// Of one family.
    pub addresses: Vec<AddressOrder>,
    /// From which adverts come.
    pub source: Option<IpAddr>,
    /// Unicast peers; empty: multicast.
    pub peers: BTreeSet<IpAddr>,
    /// Adverts with a lower TTL or hop limit count for nothing.
    pub min_hop_limit: u8,
    /// When it preempts.
    pub preempt: PreemptOrder,
    /// Before it claims anything.
    pub start_delay_ms: u64,
    /// After it yielded.
    pub yield_hold_ms: Option<u64>,
    /// Once more after a take-over.
    pub announce_again_ms: Option<u64>,
    /// Now and then.
    pub announce_every_ms: Option<u64>,
    /// Because of others.
    pub announce_gap_ms: u64,
    /// Version 2.
    pub password: Option<[u8; 8]>,
    /// Version 3: the ring.
    pub keys: BTreeMap<u8, String>,
    /// The key to send with.
    pub key: u8,
    /// Whether the checksum has the pseudo-header; none: as that of who was heard last.
    pub has_pseudo_header: Option<bool>,
    /// Sync group.
    pub group: Option<String>,
    /// What is watched.
    pub tracks: Vec<TrackOrder>,
    /// What an earlier speaker was when it ended.
    pub resume: Option<Resume>,
}

/// An address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct AddressOrder {
    /// The address.
    pub address: IpAddr,
    /// In bits.
    pub prefix_len: u8,
    /// The interface that gets it.
    pub device: String,
    /// IPv4.
    pub label: Option<String>,
}

/// When a router preempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreemptOrder {
    /// When it has listened.
    AtOnce,
    /// Never.
    Never,
    /// After so long.
    AfterMs(u64),
}

/// Something that is watched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TrackOrder {
    /// As it is shown.
    pub name: String,
    /// Who knows its state.
    pub how: Watched,
    /// Moves the priority; none: it is a fault while it is down.
    pub weight: Option<i16>,
}

/// Who knows the state of what is watched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// The speaker: the carrier of this interface.
    Interface(String),
    /// The speaker: XDP programs on the interfaces of the data plane.
    DataPlane,
    /// The daemon: it is up.
    Up,
    /// The daemon: it is down, and why, in words.
    Down(String),
}

/// What keeps a recording of adverts with a MAC from being believed after a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Memory {
    /// The epoch of its own adverts.
    pub epoch: Option<u64>,
    /// The greatest numbers of the others.
    pub heard: Vec<HeardNumber>,
}

/// The greatest number that was heard from a source with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeardNumber {
    /// The source.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// The key's id.
    pub key: u8,
    /// The source's epoch.
    pub epoch: u64,
    /// The number in it.
    pub number: u64,
}

/// What an earlier speaker was when it ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Resume {
    /// It was active; until this time of `CLOCK_BOOTTIME` nobody can have taken over.
    pub active_until_ms: Option<u64>,
    /// It had yielded.
    pub is_on_hold: bool,
    /// What it had heard.
    #[serde(default)]
    pub memory: Memory,
    /// What it told of its state: where that goes on, nothing is told anew.
    #[serde(default)]
    pub told: Option<ToldState>,
}

/// A state as it was told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToldState {
    /// As views call it.
    pub state: String,
    /// Milliseconds of the Unix epoch.
    pub since_ms: u64,
    /// Why.
    pub why: String,
}

impl RouterView {
    /// What the next process has to know of it.
    pub fn told(&self) -> ToldState {
        ToldState { state: self.state.clone(), since_ms: self.since_ms, why: self.why.clone() }
    }
}

/// A change of state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// Which router.
    pub router: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
    /// Why.
    pub reason: String,
    /// With which priority.
    pub priority: u8,
}

/// Something is wrong with a peer, or no longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conflicting {
    /// Which router.
    pub router: String,
    /// Which peer, if it is known by an address of its own.
    pub peer: Option<IpAddr>,
    /// What is wrong.
    pub what: String,
    /// Whether it is over.
    pub is_over: bool,
}

/// A virtual router as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RouterView {
    /// Its name.
    pub router: String,
    /// `stopped`, `fault`, `backup`, `held-over`, `active` or `yielding`; `unknown` while nobody tells.
    pub state: String,
    /// Since when, in milliseconds of the Unix epoch.
    pub since_ms: u64,
    /// Why.
    pub why: String,
    /// What makes it unable to serve.
    pub faults: Vec<String>,
    /// Whether it leaves others alone because it yielded.
    pub is_on_hold: bool,
    /// Where it speaks.
    pub interface: String,
    /// Its number.
    pub router_id: u8,
    /// The link-layer address that goes with its addresses; none: the interface's.
    #[serde(default)]
    pub virtual_mac: Option<String>,
    /// 2 or 3.
    pub version: u8,
    /// Its sync group.
    pub group: Option<String>,
    /// As what is watched makes it.
    pub priority: u8,
    /// As the configuration has it.
    pub base_priority: u8,
    /// Between its adverts.
    pub interval_ms: u64,
    /// This node's address on the link.
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// Who is active, as far as is known.
    #[schema(value_type = Option<String>)]
    pub active: Option<IpAddr>,
    /// Its addresses.
    pub addresses: Vec<AddressView>,
    /// What is watched.
    pub tracks: Vec<TrackView>,
    /// Who was heard.
    pub peers: Vec<PeerView>,
    /// Adverts that went out.
    pub sent: u64,
    /// Adverts that were taken.
    pub heard: u64,
    /// How often it became active.
    pub became_active: u64,
    /// Adverts that counted for nothing, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Those that go on: another node may be active without this one.
    #[serde(default)]
    pub refusing: Vec<RefusedView>,
    /// Addresses that somebody else gave this host, in words.
    #[serde(default)]
    pub strays: Vec<String>,
    /// Who else claims its addresses on the link, while it is active.
    #[serde(default)]
    pub claims: Vec<ClaimView>,
    /// Numbers of adverts with a MAC; none without keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

impl RouterView {
    /// A router of which no more is known than its order: that makes a speaker's view of it, and is all while nobody tells.
    pub(crate) fn of(name: &str, order: &RouterOrder) -> Self {
        let address = |one: &AddressOrder| AddressView {
            address: one.address,
            prefix_len: one.prefix_len,
            device: one.device.clone(),
            is_held: false,
            holder: None,
        };
        Self {
            router: name.to_owned(),
            state: "unknown".to_owned(),
            interface: order.interface.clone(),
            router_id: order.router_id,
            version: order.version,
            group: order.group.clone(),
            priority: order.priority,
            base_priority: order.priority,
            interval_ms: order.interval_ms,
            source: order.source,
            addresses: order.addresses.iter().map(address).collect(),
            ..Self::default()
        }
    }

    /// Nobody tells how it is.
    pub fn forget(&mut self, why: &str) {
        (self.state, self.why, self.active) = ("unknown".into(), why.to_owned(), None);
        self.addresses.iter_mut().for_each(|one| (one.is_held, one.holder) = (false, None));
        // What was wrong may be so no more.
        (self.faults, self.refusing, self.strays, self.claims, self.peers) = Default::default();
    }
}

/// An address of a virtual router.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddressView {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// In bits.
    pub prefix_len: u8,
    /// The interface that gets it.
    pub device: String,
    /// Whether this node holds it.
    pub is_held: bool,
    /// Who holds it, as far as is known.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub holder: Option<IpAddr>,
}

/// Adverts that count for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusedView {
    /// Who sent the last one.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// Why.
    pub why: String,
    /// Milliseconds since the last one.
    pub heard_ms_ago: u64,
}

/// Somebody who says by ARP or neighbour advertisements that addresses are its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimView {
    /// Its link-layer address.
    pub mac: String,
    /// The addresses that it claimed.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// In words.
    pub what: String,
    /// Milliseconds since the last claim.
    pub heard_ms_ago: u64,
}

/// Something that is watched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrackView {
    /// What.
    pub name: String,
    /// Whether it is well.
    pub is_up: bool,
    /// Moves the priority; none: it is a fault while it is down.
    pub weight: Option<i16>,
    /// Why it is down.
    #[serde(default)]
    pub why: Option<String>,
}

/// A router that was heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerView {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// 0: it resigned.
    pub priority: u8,
    /// Between its adverts.
    pub interval_ms: u64,
    /// Milliseconds since its last advert.
    pub heard_ms_ago: u64,
    /// Adverts of it.
    pub adverts: u64,
    /// The addresses that it names.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// What is wrong with it.
    pub conflicts: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_line() {
        let router = RouterOrder {
            interface: "eth0".into(),
            router_id: 7,
            version: 3,
            priority: 150,
            interval_ms: 100,
            virtual_mac: Some("vrrp4-7".into()),
            addresses: vec![AddressOrder { address: "192.0.2.1".parse().unwrap(), prefix_len: 24, device: "eth0".into(), label: None }],
            source: None,
            peers: BTreeSet::new(),
            min_hop_limit: 255,
            preempt: PreemptOrder::AfterMs(5),
            start_delay_ms: 0,
            yield_hold_ms: None,
            announce_again_ms: Some(5000),
            announce_every_ms: None,
            announce_gap_ms: 1000,
            password: Some(*b"password"),
            keys: BTreeMap::from([(1, "secret".into())]),
            key: 1,
            has_pseudo_header: None,
            group: None,
            tracks: vec![TrackOrder { name: "pool web".into(), how: Watched::Down("none of 2 servers serves".into()), weight: Some(-5) }],
            resume: Some(Resume { active_until_ms: Some(4), is_on_hold: true, ..Resume::default() }),
        };
        let told =
            Told::Order(Order { routers: BTreeMap::from([("a".into(), router)]), data_plane: vec!["eth0".into()], pin_dir: "/x".into() });
        let line = serde_json::to_string(&told).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Told>(&line).unwrap(), told);
    }
}
