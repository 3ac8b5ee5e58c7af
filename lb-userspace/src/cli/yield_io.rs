//! `weir vrrp yield`: looks who takes over, until it is known of each router.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "waits")]

use std::{
    fmt,
    net::IpAddr,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::operate::{OperateError, asked};
use crate::{
    admin::api::{Request, VrrpView},
    speaker::order::RouterView,
    vrrp::{terms::Version, timing::yields_for},
};

const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Two of equal priority may take over at once: one of them gives way to the other with the first adverts.
const SETTLES_IN: Duration = Duration::from_millis(60);
/// For the daemon and the speaker to hear of it.
const MARGIN: Duration = Duration::from_secs(2);

/// What became of a router that was told to yield.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Yielded {
    /// It was not active: it leaves others alone. Who is, if anybody is known.
    NotActive(Option<IpAddr>),
    /// It is active no more: who is, or else why it is not.
    Over(Result<IpAddr, String>),
    /// It is active: nobody took over in time, or somebody had it be ready again.
    Stays(String),
    /// The configuration has it no more.
    Forgotten,
    /// It is as it was, later than it should be.
    Late(String),
}

impl Yielded {
    /// Whether this node may be taken down without a gap.
    pub(super) fn is_well(&self) -> bool {
        match self {
            Self::NotActive(Some(_)) | Self::Over(Ok(_)) | Self::Forgotten => true,
            Self::NotActive(None) | Self::Over(Err(_)) | Self::Stays(_) | Self::Late(_) => false,
        }
    }
}

impl fmt::Display for Yielded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotActive(Some(active)) => write!(f, "was not active here, {active} is; it leaves others alone"),
            Self::NotActive(None) => f.write_str("was not active here, and nobody is known to be; it leaves others alone"),
            Self::Over(Ok(active)) => write!(f, "not active here any more: {active} is"),
            Self::Over(Err(why)) => write!(f, "not active here any more, and nobody is known to be: {why}"),
            Self::Stays(why) => write!(f, "active here: {why}"),
            Self::Forgotten => f.write_str("the configuration has it no more"),
            Self::Late(state) => write!(f, "still {state} here; weir vrrp shows what becomes of it"),
        }
    }
}

/// Waits until it is known what became of those that were told; `before` is how all routers were then. Also gives how all are now.
pub(super) fn until_over(
    config: &Path,
    router: Option<&str>,
    before: &VrrpView,
) -> Result<(VrrpView, Vec<(String, Yielded)>), OperateError> {
    let meant: Vec<&RouterView> = before.routers.iter().filter(|one| is_meant(one, router, &before.routers)).collect();
    let deadline = Instant::now() + meant.iter().map(|router| yields_within(router)).max().unwrap_or_default() + MARGIN;
    loop {
        let now: VrrpView = asked(config, &Request::Vrrp)?;
        let is_late = Instant::now() >= deadline;
        if let Some(all) = of_all(&meant, &now, is_late) {
            if is_late || all.iter().all(|(_, one)| !matches!(one, Yielded::Over(_))) {
                return Ok((now, all));
            }
            sleep(SETTLES_IN);
            let now: VrrpView = asked(config, &Request::Vrrp)?;
            let all = of_all(&meant, &now, true).unwrap_or(all);
            return Ok((now, all));
        }
        sleep(LOOK_INTERVAL);
    }
}

/// None while it is not known of each.
fn of_all(meant: &[&RouterView], now: &VrrpView, is_late: bool) -> Option<Vec<(String, Yielded)>> {
    meant.iter().map(|was| Some((was.router.clone(), became(was, now, is_late)?))).collect()
}

/// As the daemon understands it: all, if none is named, and with one its sync group.
fn is_meant(one: &RouterView, router: Option<&str>, all: &[RouterView]) -> bool {
    let Some(named) = router else { return true };
    let group = all.iter().find(|other| other.router == named).and_then(|named| named.group.as_ref());
    one.router == named || group.is_some() && one.group.as_ref() == group
}

fn yields_within(router: &RouterView) -> Duration {
    let version = if router.version == 2 { Version::V2 } else { Version::V3 };
    yields_for(version, Duration::from_millis(router.interval_ms))
}

/// None while it is not known yet.
fn became(was: &RouterView, now: &VrrpView, is_late: bool) -> Option<Yielded> {
    let Some(now) = now.routers.iter().find(|router| router.router == was.router) else { return Some(Yielded::Forgotten) };
    if !is_held(was) {
        Some(Yielded::NotActive(now.active))
    } else if !is_held(now) && now.state != "unknown" {
        Some(Yielded::Over(now.active.ok_or_else(|| now.why.clone())))
    } else if now.state == "active" && now.became_active > was.became_active {
        Some(Yielded::Stays(now.why.clone()))
    } else {
        is_late.then(|| Yielded::Late(now.state.clone()))
    }
}

fn is_held(router: &RouterView) -> bool {
    ["active", "yielding", "held-over"].contains(&router.state.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(name: &str, state: &str, became_active: u64) -> RouterView {
        RouterView { router: name.into(), state: state.into(), why: "so it is".into(), became_active, ..RouterView::default() }
    }

    #[test]
    fn one_that_yields_is_awaited_until_it_is_active_again_or_no_more() {
        let active: IpAddr = "192.0.2.9".parse().unwrap();
        let became = |was: &str, now: &str, times: u64, is_late: bool| {
            let other = RouterView { active: (now == "backup").then_some(active), ..router("www", now, times) };
            let now = VrrpView { routers: vec![other], ..VrrpView::default() };
            became(&router("www", was, 1), &now, is_late)
        };
        let why = || "so it is".to_owned();
        assert_eq!(became("backup", "backup", 1, false), Some(Yielded::NotActive(Some(active))));
        assert_eq!(became("fault", "fault", 1, false), Some(Yielded::NotActive(None)));
        assert_eq!(became("active", "active", 1, false), None);
        assert_eq!(became("active", "yielding", 1, false), None);
        assert_eq!(became("active", "unknown", 1, false), None);
        assert_eq!(became("active", "backup", 1, false), Some(Yielded::Over(Ok(active))));
        assert_eq!(became("active", "fault", 1, false), Some(Yielded::Over(Err(why()))));
        assert_eq!(became("active", "active", 2, false), Some(Yielded::Stays(why())));
        assert_eq!(became("active", "yielding", 1, true), Some(Yielded::Late("yielding".into())));
        assert_eq!(super::became(&router("www", "active", 1), &VrrpView::default(), false), Some(Yielded::Forgotten));
    }

    #[test]
    fn a_router_is_meant_with_its_group() {
        let grouped = |name: &str, group: Option<&str>| RouterView { group: group.map(Into::into), ..router(name, "active", 1) };
        let all = [grouped("a", Some("g")), grouped("b", Some("g")), grouped("c", None), grouped("d", None)];
        let meant = |named: Option<&str>| -> String {
            all.iter().filter(|one| is_meant(one, named, &all)).map(|one| one.router.as_str()).collect()
        };
        assert_eq!([None, Some("a"), Some("c"), Some("x")].map(meant), ["abcd", "ab", "c", ""]);
    }
}
