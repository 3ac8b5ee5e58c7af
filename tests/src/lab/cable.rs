//! A veth pair between two namespaces, prepared for XDP.

use std::process::Command;

use super::{
    Namespace, output_of,
    xdp_verdict::{Verdict, XdpVerdict},
};

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// What the interface is called there.
    pub interface: &'a str,
    /// Whether an XDP program will be attached here; the other end is prepared for that.
    pub carries_xdp: bool,
}

/// Both interfaces are up. They go away with their namespaces.
#[derive(Debug)]
pub struct Cable {
    _pass: Vec<XdpVerdict>,
}

impl Cable {
    /// Joins two ends; `mtu` in bytes for both.
    pub fn new(a: End<'_>, b: End<'_>, mtu: u32) -> anyhow::Result<Self> {
        let mtu = mtu.to_string();
        let mut add = Command::new("ip");
        add.args(["link", "add", a.interface, "mtu", &mtu, "netns", a.namespace.name(), "type", "veth"]);
        add.args(["peer", "name", b.interface, "mtu", &mtu, "netns", b.namespace.name()]);
        output_of(&mut add)?;
        let mut pass = Vec::new();
        for (end, other) in [(a, b), (b, a)] {
            if other.carries_xdp {
                pass.push(end.prepare_for_xdp_opposite()?);
            }
            end.namespace.ip(&format!("link set {} up", end.interface))?;
        }
        Ok(Self { _pass: pass })
    }
}

impl End<'_> {
    /// Has one processor take up all segments of a connection, as network cards do. A veth gives each to the processor that sent it: the first data
    /// may then be taken up beside the end of the handshake, and Linux (6.18) resets one connection in 20 000 to 50 000, since `inet_ehash_insert`
    /// takes the request away before it adds the connection.
    pub(super) fn steer_by_flow(&self) -> anyhow::Result<()> {
        let processors = std::thread::available_parallelism()?.get().min(32);
        let mask = format!("{:x}", (1_u64 << processors) - 1);
        // The folder shows the interfaces of the namespace in which it was mounted.
        let steer = "for cpus in /sys/class/net/$0/queues/rx-*/rps_cpus; do echo $1 > $cpus || exit 1; done";
        let inside = ["netns", "exec", self.namespace.name(), "sh", "-c", steer, self.interface, &mask];
        output_of(Command::new("ip").args(inside)).map(drop)
    }

    /// Checksums are otherwise left to a device that does not exist, and the receiver of a redirected frame drops it.
    fn prepare_for_xdp_opposite(&self) -> anyhow::Result<XdpVerdict> {
        self.namespace.run("ethtool", &["-K", self.interface, "tx", "off", "gro", "on"])?;
        XdpVerdict::attach(self.namespace, self.interface, Verdict::Pass)
    }
}
