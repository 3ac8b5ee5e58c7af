//! Which ports NAT planes have.
//!
//! A server that is reached with the packet's port and with its own sees flows of two planes: from one SNAT address these have no port in common, or
//! the server could not tell their flows apart. Of two that are new each gets half. One that is in use keeps the half that it fills first, or
//! more if it fills more, and the newcomer gets the rest: a port in use cannot be taken away. Alone again, a plane gets the rest after what it has.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::address::Address;

use super::{installed::Installed, op::PlaneSpec};

/// Chunks that a plane may be given between the look at it and the change of its ranges.
const MARGIN: usize = 8;

/// The planes, wanted ones and those of the maps, that the maps should hold: first those that give up ports.
pub(super) fn assigned(installed: &Installed, wanted: impl Iterator<Item = PlaneSpec>) -> Vec<PlaneSpec> {
    let mut groups: BTreeMap<(Address, Address, u8), Group> = BTreeMap::new();
    let mut one = |spec: PlaneSpec, change: &dyn Fn(&mut One)| {
        let group = groups.entry((spec.snat, spec.server, spec.protocol)).or_default();
        change(group.0.entry(spec.server_port).or_insert_with(|| One { spec, has: None, used: 0, wants: None }));
    };
    for (index, spec) in &installed.planes {
        let used = installed.chunks_given.get(index).copied().unwrap_or(0);
        one(*spec, &|one| (one.has, one.used) = (Some(positions(spec)), usize::from(used)));
    }
    wanted.for_each(|spec| one(spec, &|one| one.wants = Some(positions(&spec))));
    let assigned = groups.into_values().flat_map(|group| group.assigned());
    let (less, others): (Vec<_>, Vec<_>) = assigned.partition(|(_, gives_up)| *gives_up);
    less.into_iter().chain(others).map(|(spec, _)| spec).collect()
}

/// Ports / 256, in the order in which they are used.
type Positions = Vec<u8>;

/// A plane.
struct One {
    spec: PlaneSpec,
    /// What the maps give it.
    has: Option<Positions>,
    /// How much of that is in use, from its beginning.
    used: usize,
    /// What it would have alone.
    wants: Option<Positions>,
}

/// The planes of one SNAT address, server and protocol, by the server's port: 0 is the plane of all ports.
#[derive(Default)]
struct Group(BTreeMap<u16, One>);

impl Group {
    /// The planes with their ranges, and whether they give up some.
    fn assigned(mut self) -> Vec<(PlaneSpec, bool)> {
        let any = self.0.remove(&0);
        let exact: Vec<One> = self.0.into_values().collect();
        match any {
            Some(any) if !exact.is_empty() => shared(any, exact),
            any => any.into_iter().chain(exact).map(One::alone).collect(),
        }
    }
}

fn shared(any: One, exact: Vec<One>) -> Vec<(PlaneSpec, bool)> {
    let held: BTreeSet<u8> = exact.iter().filter_map(|one| one.has.as_ref()).flatten().copied().collect();
    let is_apart = any.has.as_ref().is_some_and(|any| !any.iter().any(|position| held.contains(position)));
    let all: Positions = any.wants.iter().chain(exact.iter().filter_map(|one| one.wants.as_ref())).next().cloned().unwrap_or_default();
    let for_any = match (&any.has, held.is_empty()) {
        (None, true) => all[all.len() / 2..].to_vec(),
        (Some(has), _) if is_apart && !held.is_empty() => has.clone(),
        (Some(_), true) => any.kept(),
        (has, false) => {
            let kept: BTreeSet<u8> = exact.iter().flat_map(One::kept).collect();
            without(has.as_ref().unwrap_or(&all), &kept)
        }
    };
    let for_any = two_ranges(any.allowed(for_any));
    let taken: BTreeSet<u8> = for_any.iter().copied().collect();
    let exact = exact.into_iter().map(|one| {
        let positions = without(one.has.as_ref().unwrap_or(&all), &taken);
        let positions = two_ranges(one.allowed(positions));
        one.with(positions)
    });
    let exact: Vec<_> = exact.collect();
    std::iter::once(any.with(for_any)).chain(exact).collect()
}

impl One {
    /// What it keeps when another one comes.
    fn kept(&self) -> Positions {
        let Some(has) = &self.has else { return Positions::new() };
        let half = self.wants.as_ref().unwrap_or(has).len() / 2;
        has[..half.max(self.used + MARGIN).min(has.len())].to_vec()
    }

    /// Those of the positions that it may have.
    fn allowed(&self, mut positions: Positions) -> Positions {
        positions.retain(|position| self.wants.as_ref().is_none_or(|wants| wants.contains(position)));
        positions
    }

    fn alone(self) -> (PlaneSpec, bool) {
        let positions = match (&self.has, &self.wants) {
            (Some(has), Some(wants)) => grown(has, wants, self.used),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => Positions::new(),
        };
        self.with(positions)
    }

    fn with(self, positions: Positions) -> (PlaneSpec, bool) {
        let gives_up = self.has.is_some_and(|has| has.iter().any(|position| !positions.contains(position)));
        let mut ranges = ranges(&positions).into_iter();
        let mut next = || ranges.next().unwrap_or((0, 0));
        (PlaneSpec { low: next(), high: next(), ..self.spec }, gives_up)
    }
}

/// What a plane that is alone has: all that it wants, in an order that begins with what is in use.
fn grown(has: &[u8], wants: &[u8], used: usize) -> Positions {
    let is_part = has.iter().all(|position| wants.contains(position));
    if !is_part || has.get(..used) == wants.get(..used) {
        return wants.to_vec();
    }
    let more: Positions = has.iter().copied().chain(without(wants, &has.iter().copied().collect())).collect();
    if ranges(&more).len() <= 2 { more } else { has.to_vec() }
}

fn without(positions: &[u8], taken: &BTreeSet<u8>) -> Positions {
    positions.iter().copied().filter(|position| !taken.contains(position)).collect()
}

/// Of positions that are more than two ranges, the two longest.
fn two_ranges(positions: Positions) -> Positions {
    let ranges = ranges(&positions);
    let mut longest = ranges.clone();
    longest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    longest.truncate(2);
    ranges.iter().filter(|range| longest.contains(range)).flat_map(|range| of_range(*range)).collect()
}

fn positions(spec: &PlaneSpec) -> Positions {
    of_range(spec.low).chain(of_range(spec.high)).collect()
}

fn of_range((first, count): (u8, u8)) -> impl Iterator<Item = u8> {
    (first..=u8::MAX).take(usize::from(count))
}

/// First and number of each run.
fn ranges(positions: &[u8]) -> Vec<(u8, u8)> {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for &position in positions {
        match ranges.last_mut() {
            Some((first, count)) if u16::from(*first) + u16::from(*count) == u16::from(position) && *count < u8::MAX => *count += 1,
            Some(_) | None => ranges.push((position, 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
