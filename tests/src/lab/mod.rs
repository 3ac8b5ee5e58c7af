//! The lab: real kernels' network namespaces joined by cables, with real peers in them. Everything here is made under a name that carries
//! this process's id and is removed on drop, so tests run beside each other, and what a killed test left is removed by the next one.

mod cable;
mod far;
mod http;
mod iperf;
mod namespace;
mod nginx;
mod pauses;
mod process;
mod scratch;
mod server_setup;
mod topology;
mod traffic;
mod wait;
mod weir;
mod xdp_verdict;

pub use cable::{Cable, End};
pub use far::Far;
pub use http::{http_get, http_servers, http_tally};
pub use iperf::Iperf;
pub use namespace::Namespace;
pub use nginx::Nginx;
pub use pauses::{Stopwatch, without_pauses};
pub use process::{Process, copy_program, output_of};
pub use scratch::{BpfFolder, Folder, SmallDisk, unique_name};
pub use server_setup::ServerSetup;
pub use topology::{Family, Host, Shape, Topology, TopologyBuilder, v4, v6};
pub use traffic::{Crowd, CrowdServer, DnsServer, Flood, TcpLoad, TcpServer, UdpLoad, UdpServer, tcp_bulk};
pub use wait::{Timeout, wait_until};
pub use weir::Weir;
pub use xdp_verdict::{Verdict, XdpVerdict};
