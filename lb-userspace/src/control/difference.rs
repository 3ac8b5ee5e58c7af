//! What one state of the maps means beside another, for people: services that come and go, slots that move, and what becomes of the flows. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::words::{MemberId, MemberWord, ServiceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Endpoint, ServiceKey,
    installed::{Installed, InstalledMember},
};
use crate::config::model::Protocol;

/// How two states differ.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Services of which anything differs, in order.
    pub services: Vec<ServiceDifference>,
    /// Live flows whose server stays and takes new flows as before.
    pub flows_untouched: u64,
    /// Live flows that stay with their server, though it takes no new ones.
    pub flows_finishing: u64,
    /// Live flows that end.
    pub flows_ending: u64,
}

/// How a service differs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceDifference {
    /// Its VIP.
    #[schema(value_type = String, example = "192.0.2.10")]
    pub vip: IpAddr,
    /// Its port; none for every one.
    pub port: Option<u16>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether it comes, goes, or changes.
    pub change: Change,
    /// The share of its slots whose new flows go to another server, 0 to 1.
    pub slots_moved: f64,
    /// Servers of which anything differs.
    pub servers: Vec<ServerDifference>,
}

/// What becomes of a service or a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is not there yet.
    Added,
    /// It is there no longer.
    Removed,
    /// It is another one.
    Changed,
}

/// How a server of a service differs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerDifference {
    /// Its address.
    #[schema(value_type = String, example = "192.0.2.10")]
    pub address: IpAddr,
    /// Its own port; none keeps the packet's.
    pub port: Option<u16>,
    /// Whether it comes, goes or changes.
    pub change: Change,
    /// Its share of the slots before, 0 to 1.
    pub share_before: f64,
    /// The same afterwards.
    pub share_after: f64,
    /// Its live flows.
    pub flows: u64,
    /// What becomes of them.
    pub fate: Fate,
}

/// What becomes of flows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// They go on.
    Untouched,
    /// They go on with their server, which takes no new ones.
    Finishing,
    /// TCP is reset, UDP goes to another server.
    Closed,
    /// Their service is gone: their packets pass to this host.
    Lost,
}

/// How `after` differs from `before`, where members have so many live flows.
pub fn difference(before: &Installed, after: &Installed, flows: &BTreeMap<MemberId, u64>) -> Difference {
    let (old, new) = (published(before), published(after));
    let keys: BTreeSet<ServiceKey> = old.keys().chain(new.keys()).copied().collect();
    let mut difference = Difference::default();
    for key in keys {
        let (servers, moved) = service(before, after, old.get(&key).copied(), new.get(&key).copied(), flows);
        for server in &servers {
            let count = match server.fate {
                Fate::Untouched => &mut difference.flows_untouched,
                Fate::Finishing => &mut difference.flows_finishing,
                Fate::Closed | Fate::Lost => &mut difference.flows_ending,
            };
            *count += server.flows;
        }
        let servers: Vec<_> = servers.into_iter().filter(|server| server.differs()).collect();
        let change = match (old.get(&key), new.get(&key)) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (Some(old), Some(new)) => {
                let is_same = old == new
                    && before.services[old].record == after.services[new].record
                    && rules_of(before, *old) == rules_of(after, *new);
                if servers.is_empty() && moved == 0.0 && is_same {
                    continue;
                }
                Change::Changed
            }
        };
        difference.services.push(ServiceDifference {
            vip: key.vip,
            port: own_port(key.port),
            protocol: key.protocol,
            change,
            slots_moved: moved,
            servers,
        });
    }
    difference
}

/// The maps have 0 for none.
fn own_port(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

impl ServerDifference {
    fn differs(&self) -> bool {
        self.change != Change::Changed || self.fate != Fate::Untouched || self.share_before != self.share_after
    }
}

fn published(installed: &Installed) -> BTreeMap<ServiceKey, ServiceId> {
    let published = installed.published_services();
    let services = installed.services.iter().filter(|(id, _)| published.contains(id));
    services.filter_map(|(id, service)| Some((ServiceKey::of(&service.record)?, *id))).collect()
}

fn rules_of(installed: &Installed, id: ServiceId) -> Vec<String> {
    installed.rules.iter().filter(|((service, _), _)| *service == id).map(|((_, source), rule)| format!("{source} {rule:?}")).collect()
}

/// The servers of a service, whether they differ or not, and the share of its slots that moves.
fn service(
    before: &Installed,
    after: &Installed,
    old: Option<ServiceId>,
    new: Option<ServiceId>,
    flows: &BTreeMap<MemberId, u64>,
) -> (Vec<ServerDifference>, f64) {
    let slots =
        |installed: &Installed, id: Option<ServiceId>| id.and_then(|id| installed.services.get(&id)).map(|service| service.current.clone());
    let (slots_before, slots_after) = (slots(before, old), slots(after, new));
    let shares_before = slots_before.as_deref().map(shares).unwrap_or_default();
    let shares_after = slots_after.as_deref().map(shares).unwrap_or_default();
    let moved = match (&slots_before, &slots_after) {
        (Some(before), Some(after)) if before.len() == after.len() => {
            before.iter().zip(after.iter()).filter(|(before, after)| before != after).count() as f64 / before.len() as f64
        }
        (_, _) => 1.0,
    };
    let of = |installed: &Installed, id: Option<ServiceId>| -> BTreeMap<MemberId, InstalledMember> {
        let members = installed.members.iter().filter(|(_, member)| id.is_some_and(|id| member.info.service == id.0));
        members.map(|(id, member)| (*id, member.clone())).collect()
    };
    let (members_before, members_after) = (of(before, old), of(after, new));
    let ids: BTreeSet<MemberId> = members_before.keys().chain(members_after.keys()).copied().collect();
    let server = |id: MemberId| {
        let (old, new) = (members_before.get(&id), members_after.get(&id));
        let Endpoint { address, port } = old.or(new)?.endpoint();
        let share = |shares: &BTreeMap<MemberId, f64>| shares.get(&id).copied().unwrap_or(0.0);
        let (was_there, is_there) = (old.is_some_and(is_wanted), new.is_some_and(is_wanted));
        let flows = flows.get(&id).copied().unwrap_or(0);
        if !was_there && !is_there && flows == 0 {
            return None;
        }
        Some(ServerDifference {
            address,
            port: own_port(port),
            change: match (was_there, is_there) {
                (false, true) => Change::Added,
                (true, false) => Change::Removed,
                (true, true) | (false, false) => Change::Changed,
            },
            share_before: share(&shares_before),
            share_after: share(&shares_after),
            flows,
            fate: fate(old, new, after, share(&shares_after)),
        })
    };
    (ids.into_iter().filter_map(server).collect(), moved)
}

/// A member that retires is not.
fn is_wanted(member: &InstalledMember) -> bool {
    member.info.retired_at == 0
}

fn fate(old: Option<&InstalledMember>, new: Option<&InstalledMember>, after: &Installed, share_after: f64) -> Fate {
    let Some(new) = new else { return Fate::Lost };
    if !after.published_services().contains(&ServiceId(new.info.service)) {
        return Fate::Lost;
    }
    let had = |flag: u8| old.is_some_and(|old| old.state & flag != 0);
    if new.state & MemberWord::CLOSING != 0 && !had(MemberWord::CLOSING) {
        Fate::Closed
    } else if share_after == 0.0 && !had(MemberWord::NO_NEW) {
        Fate::Finishing
    } else {
        Fate::Untouched
    }
}

fn shares(slots: &[Option<MemberId>]) -> BTreeMap<MemberId, f64> {
    let mut counts: BTreeMap<MemberId, u32> = BTreeMap::new();
    slots.iter().flatten().for_each(|id| *counts.entry(*id).or_default() += 1);
    counts.into_iter().map(|(id, count)| (id, f64::from(count) / slots.len() as f64)).collect()
}
