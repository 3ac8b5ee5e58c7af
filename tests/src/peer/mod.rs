//! Traffic that notices. The binary `weir-peer` runs these in namespaces; `lab` starts it and reads its reports.

pub mod bulk;
pub mod claim;
pub mod crowd;
pub mod dns;
pub mod flood;
pub mod message;
pub mod probe;
pub mod stopwatch;
pub mod tcp;
pub mod udp;

use std::time::Duration;

/// What a load writes to standard error once every connection has been opened or has failed to.
pub const OPENED: &str = "all connections have been tried";

/// What begins a TCP load's line on standard error for each connection that is opened; the server's name follows.
pub const GREETED: &str = "greeted by ";

/// What begins a TCP load's line on standard error for each connection that breaks; the server's name follows.
pub const BROKEN: &str = "broken at ";

/// Of a thread that holds one connection.
const STACK_BYTES: usize = 256 << 10;

/// How long an answer may take before the connection counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a thread with a small stack.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<std::thread::ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)
}
