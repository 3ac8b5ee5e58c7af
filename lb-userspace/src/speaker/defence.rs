//! Who else claims a router's addresses: when these are announced against it, and what is told. Pure.
//!
//! A node that takes over announces the addresses before it says so in an advert: what is heard of it is no conflict. So a claim is answered, and told,
//! only if the router is still active a moment later; and those that come soon after a router became active are answered, and not told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::order::ClaimView;

/// Who takes over adverts within this time of its first announcement, or nearly always: an address takes some microseconds to announce.
const TAKES_OVER_WITHIN: Duration = Duration::from_millis(5);
/// Told only after this time, in which also an advert that was late or repeated has come.
const TOLD_AFTER: Duration = Duration::from_millis(200);
/// What is heard sooner after a router became active may be of the one before.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// So long after the last claim it is told that they come no longer.
const CLAIMED_FOR: Duration = Duration::from_secs(10);
/// Claimants that are remembered. Against others the addresses are announced as well.
const MOST_CLAIMANTS: usize = 8;
/// Addresses that are told of a claimant.
const MOST_NAMED: usize = 3;

/// What a router knows of those who claim its addresses.
#[derive(Debug, Default)]
pub(super) struct Defence {
    claimants: BTreeMap<[u8; 6], Claimant>,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Claimant {
    addresses: BTreeSet<IpAddr>,
    first_at: Instant,
    last_at: Instant,
    /// What the daemon was told.
    told: Option<String>,
}

impl Defence {
    /// Somebody claims an address of a router that has been active since then.
    pub(super) fn hear(&mut self, address: IpAddr, mac: [u8; 6], active_since: Instant, now: Instant) {
        self.due.get_or_insert(now + TAKES_OVER_WITHIN);
        let is_known = self.claimants.contains_key(&mac);
        if now < active_since + SETTLES_WITHIN || !is_known && self.claimants.len() >= MOST_CLAIMANTS {
            return;
        }
        let new = || Claimant { addresses: BTreeSet::new(), first_at: now, last_at: now, told: None };
        let claimant = self.claimants.entry(mac).or_insert_with(new);
        claimant.last_at = now;
        claimant.addresses.insert(address);
    }

    /// When the addresses are to be announced, if the router is still active then.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether that is now; once.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// What is to be told, and whether it is over. `active_since`: since when the router is active, if it is.
    pub(super) fn news(&mut self, active_since: Option<Instant>, now: Instant) -> Vec<(String, bool)> {
        let mut news = Vec::new();
        self.claimants.retain(|_, claimant| {
            let was_active = active_since.is_some_and(|since| since <= claimant.first_at);
            let goes_on = was_active && now.saturating_duration_since(claimant.last_at) <= CLAIMED_FOR;
            if !goes_on {
                news.extend(claimant.told.take().map(|words| (words, true)));
            }
            goes_on
        });
        for (mac, claimant) in &mut self.claimants {
            if claimant.told.is_none() && claimant.first_at + TOLD_AFTER <= now {
                let words = words(&mac_words(*mac), &claimant.addresses);
                claimant.told = Some(words.clone());
                news.push((words, false));
            }
        }
        news
    }

    /// Those that the daemon was told of.
    pub(super) fn views(&self, now: Instant) -> Vec<ClaimView> {
        let view = |(mac, claimant): (&[u8; 6], &Claimant)| {
            claimant.told.as_ref().map(|words| ClaimView {
                mac: mac_words(*mac),
                addresses: claimant.addresses.iter().copied().collect(),
                what: words.clone(),
                heard_ms_ago: now.saturating_duration_since(claimant.last_at).as_millis() as u64,
            })
        };
        self.claimants.iter().filter_map(view).collect()
    }
}

fn words(mac: &str, addresses: &BTreeSet<IpAddr>) -> String {
    let named: Vec<String> = addresses.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = match addresses.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{mac} claims {}{more} too", named.join(", "))
}

/// As `ip link` writes it.
pub(super) fn mac_words(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
