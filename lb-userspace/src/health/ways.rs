//! The numbers of the ways through the data path, and their records. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{
    maps::ForwardKind,
    ways::{OUTER_BYTES, WAY_MARK, WAYS_MAX, Way},
};

use super::{
    book::Wanted,
    target::{Path, Route},
};
use crate::{
    balance::Endpoint,
    control::header::{self, HeaderError, NextHop},
};

const ETHERNET_BYTES: usize = 14;

/// Which ways there are, by number. A number is the same as long as somebody wants its way; 0 is none's.
#[derive(Debug, Default)]
pub struct Ways {
    marks: BTreeMap<(IpAddr, Path), u32>,
    last: u32,
}

/// What the kernel is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// A mark stands for this way.
    Set(u32, Way),
    /// A mark stands for no way.
    Gone(u32),
}

impl Ways {
    /// Gives every way that is wanted its mark. Gives what is new to the kernel, and what it can forget. A way without a mark has 0: there are more than
    /// [`WAYS_MAX`].
    ///
    /// # Errors
    /// [`HeaderError`] if a way's outer header has addresses of different families; a configuration that was accepted has none.
    pub fn number(&mut self, wanted: &mut Wanted) -> Result<Vec<Told>, HeaderError> {
        let mut earlier = std::mem::take(&mut self.marks);
        let mut fresh = Vec::new();
        for (target, ..) in wanted.values_mut() {
            let Route::Datapath(paths) = &mut target.route else { continue };
            for path in paths {
                let key = (target.address, Path { mark: 0, ..*path });
                if let Some(mark) = earlier.remove(&key) {
                    self.marks.insert(key, mark);
                } else if !self.marks.contains_key(&key) {
                    fresh.push(key);
                }
            }
        }
        let mut told: Vec<Told> = earlier.into_values().map(Told::Gone).collect();
        let mut used: std::collections::BTreeSet<u32> = self.marks.values().copied().collect();
        for key in fresh {
            if self.marks.contains_key(&key) || used.len() as u32 >= WAYS_MAX - 1 {
                continue;
            }
            let way = record(key.0, &key.1)?;
            let mark = self.unused(&used);
            used.insert(mark);
            self.marks.insert(key, mark);
            told.push(Told::Set(mark, way));
        }
        self.mark(wanted);
        Ok(told)
    }

    fn mark(&self, wanted: &mut Wanted) {
        for (target, ..) in wanted.values_mut() {
            let Route::Datapath(paths) = &mut target.route else { continue };
            for path in paths {
                path.mark = self.marks.get(&(target.address, Path { mark: 0, ..*path })).copied().unwrap_or(0);
            }
        }
    }

    /// The next number in turn, so that one that a probe under way has is not given away at once.
    fn unused(&mut self, used: &std::collections::BTreeSet<u32>) -> u32 {
        loop {
            self.last = if self.last + 1 >= WAYS_MAX { 1 } else { self.last + 1 };
            let mark = WAY_MARK | self.last;
            if !used.contains(&mark) {
                return mark;
            }
        }
    }
}

/// What the kernel does with the packets of a way: the outer header is the data path's own.
fn record(server: IpAddr, path: &Path) -> Result<Way, HeaderError> {
    let nobody: IpAddr = if server.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let target = header::Target {
        forward: path.forward,
        server: Endpoint { address: server, port: 0 },
        vip: path.vip,
        tunnel_source: path.tunnel_source,
        gue_port: path.gue_port,
        planes: None,
    };
    // The kernel finds the next hop, as for any packet: only what follows the link-layer header is taken.
    let hop = NextHop { ifindex: 0, vlan: None, source_mac: [0; 6], target_mac: [0; 6], mtu: u16::MAX, source: nobody };
    let header = header::build(&target, &hop)?;
    let bytes: &[u8] = bytemuck::bytes_of(&header.bytes);
    let mut outer = [0; OUTER_BYTES];
    let length = path.forward.overhead();
    outer[..length].copy_from_slice(&bytes[ETHERNET_BYTES..ETHERNET_BYTES + length]);
    let takes_source = u8::from(path.tunnel_source.is_none() && path.forward != ForwardKind::Dsr);
    Ok(Way {
        vip: path.vip.into(),
        outer: bytemuck::cast(outer),
        partial_sum: header.partial_sum,
        kind: path.forward as u8,
        takes_source,
        reserved: 0,
    })
}

#[cfg(test)]
mod tests;
