//! A machine beyond two routers with a narrow link between them.

use super::{Cable, End, Family, Host, Namespace, v4, v6};

const HOST: u8 = 2;
const ROUTER: u8 = 1;
const GATEWAY: u8 = 2;

/// ```text
/// host –1500– router –narrow– gateway – the rest
///  .2  10.N.0   .1 .1  10.N+1.0  .2
/// ```
/// Network numbers N are the caller's. Neither end knows how narrow the way is.
#[derive(Debug)]
pub struct Far {
    /// The machine.
    pub host: Host,
    network: u8,
    router: Namespace,
    _cables: [Cable; 2],
}

impl Far {
    /// Puts one on network `network` behind `gateway`, which becomes a router; `narrow` is the MTU of the link in the middle, in bytes.
    pub fn behind(gateway: &Host, network: u8, narrow: u32) -> anyhow::Result<Self> {
        let (namespace, router) = (Namespace::new("far")?, Namespace::new("narrow")?);
        let end = |namespace, interface| End { namespace, interface, carries_xdp: false };
        // It may be a server that opens tunnels.
        let cables = [
            Cable::new(End { carries_xdp: true, ..end(&namespace, "eth0") }, end(&router, "eth0"), 1500)?,
            Cable::new(end(&router, "eth1"), end(&gateway.namespace, "narrow"), narrow)?,
        ];
        for (namespace, interface, network, number) in [
            (&namespace, "eth0", network, HOST),
            (&router, "eth0", network, ROUTER),
            (&router, "eth1", network + 1, ROUTER),
            (&gateway.namespace, "narrow", network + 1, GATEWAY),
        ] {
            namespace.ip(&format!("addr add {}/24 dev {interface}", v4(network, number)))?;
            namespace.ip(&format!("addr add {}/64 dev {interface} nodad", v6(network, number)))?;
        }
        let far = Self { host: Host::new(namespace, &["eth0"], v4(network, HOST), v6(network, HOST)), network, router, _cables: cables };
        super::topology::forwards(&far.router)?;
        gateway.forwards()?;
        for family in Family::ALL {
            far.host.namespace.ip(&format!("{} route add default via {}", family.option(), family.address(network, ROUTER)))?;
            far.router.ip(&format!("{} route add default via {}", family.option(), family.address(network + 1, GATEWAY)))?;
            let to = family.address(network + 1, ROUTER);
            gateway.namespace.ip(&format!("{} route add {} via {to}", family.option(), family.network(network)))?;
        }
        Ok(far)
    }

    /// Tells `host`, which is on a network with `gateway`, the way.
    pub fn route_on(&self, host: &Host, gateway: &Host) -> anyhow::Result<()> {
        for family in Family::ALL {
            let to = gateway.address(family);
            host.namespace.ip(&format!("{} route add {} via {to}", family.option(), family.network(self.network)))?;
        }
        Ok(())
    }
}
