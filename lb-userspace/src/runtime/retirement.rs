//! When to look for retired members and unused planes that may go: the look reads every slot and every flow. Pure.

use std::collections::BTreeSet;

use crate::control::{
    desired::Desired,
    installed::{Installed, InstalledMember},
    op::PlaneSpec,
};
use lb_common::words::ServiceId;

/// Between two looks for planes, in seconds.
const PLANES_EVERY_S: u64 = 10;
/// The longest that a member which could go stays, in seconds.
const LONGEST_WAIT_S: u64 = 60;

/// The next time at which something may be found to go, in seconds of the Unix epoch; none if nothing waits.
///
/// A retired member is looked for once its service's idle timeout has passed, and if flows still hold it, each eighth of that timeout.
pub(super) fn next_look(installed: &Installed, desired: &Desired, now_unix_s: u64) -> Option<u64> {
    let retired = installed.members.values().filter(|member| member.info.retired_at != 0);
    let members = retired.map(|member| {
        let idle_s = idle_s(installed, member);
        let due = member.info.retired_at + idle_s + 1;
        if due > now_unix_s { due } else { now_unix_s + (idle_s / 8).clamp(1, LONGEST_WAIT_S) }
    });
    let planes = has_unused_plane(installed, desired).then_some(now_unix_s + PLANES_EVERY_S);
    members.chain(planes).min()
}

fn idle_s(installed: &Installed, member: &InstalledMember) -> u64 {
    installed.services.get(&ServiceId(member.info.service)).map_or(0, |service| u64::from(service.record.idle_s))
}

fn has_unused_plane(installed: &Installed, desired: &Desired) -> bool {
    let wanted: BTreeSet<_> = desired
        .services
        .values()
        .flat_map(|service| service.members.values())
        .flat_map(|member| &member.planes)
        .map(PlaneSpec::key)
        .collect();
    installed.planes.values().any(|plane| !wanted.contains(&plane.key()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use bytemuck::Zeroable as _;
    use lb_common::{
        maps::{MemberInfo, Service},
        words::{MemberId, ServiceId},
    };

    use super::next_look;
    use crate::{
        config::model::Limits,
        control::{
            desired::Desired,
            installed::{Capacity, Installed, InstalledMember, InstalledService},
            op::PlaneSpec,
        },
    };

    fn nothing() -> Desired {
        Desired { services: BTreeMap::new(), next_hops: Arc::default() }
    }

    fn with_member(idle_s: u32, retired_at: u64) -> Installed {
        let mut installed = Installed::new(Capacity::of(&Limits::default()));
        let record = Service { idle_s, ..Service::zeroed() };
        installed.services.insert(ServiceId(1), InstalledService { record, current: Arc::from([]), shares: None });
        let info = MemberInfo { service: 1, retired_at, ..MemberInfo::zeroed() };
        let member = InstalledMember { info, state: 0, service: ServiceId(1), header: None };
        installed.members.insert(MemberId::new(1).unwrap(), member);
        installed
    }

    #[test]
    fn nothing_waits_while_no_member_is_retired() {
        assert_eq!(next_look(&with_member(900, 0), &nothing(), 1000), None);
    }

    #[test]
    fn a_retired_member_is_looked_for_after_the_idle_timeout_and_then_now_and_then() {
        assert_eq!(next_look(&with_member(900, 1000), &nothing(), 1000), Some(1901));
        assert_eq!(next_look(&with_member(900, 1000), &nothing(), 1901), Some(1961), "60 s at most");
        assert_eq!(next_look(&with_member(80, 1000), &nothing(), 1901), Some(1911));
        assert_eq!(next_look(&with_member(5, 1000), &nothing(), 1901), Some(1902), "1 s at least");
    }

    #[test]
    fn planes_that_nobody_wants_are_looked_for() {
        let mut installed = with_member(900, 0);
        let address = std::net::IpAddr::from([10, 0, 0, 1]).into();
        let plane = PlaneSpec { snat: address, server: address, server_port: 80, protocol: 6, low: (4, 1), high: (0, 0) };
        installed.planes.insert(1, plane);
        assert_eq!(next_look(&installed, &nothing(), 1000), Some(1010));
    }
}
