//! Weir's daemon and command line, as a library: everything but the process's entry.
//!
//! | folder | what | may use |
//! |---|---|---|
//! | `config` | TOML to a typed model | – |
//! | `balance` | shares of slots | – |
//! | `control` | desired state, plan, operations | `config`, `balance` |
//! | `dataplane` | the only user of aya | `control` |
//! | `health` | checks of servers | `config`, `control` |
//! | `netlink` | the kernel's links, routes, neighbours and addresses | – |
//! | `path_mtu` | what routers say of packets in tunnels that are too big | – |
//! | `vrrp` | who of several nodes holds VIPs: protocol and state machine | – |
//! | `speaker` | the process that speaks it | `vrrp`, `netlink` |
//! | `server_setup` | prepares a server for dsr, ipip and gue | `dataplane`, `netlink` |
//! | `admin` | the admin API, of both its ends | `control` |
//! | `runtime` | wiring of the daemon | all of these |
//! | `cli` | the operator's commands | all |

pub mod admin;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod health;
pub mod netlink;
pub mod path_mtu;
pub mod runtime;
pub mod server_setup;
pub mod speaker;
pub mod vrrp;
