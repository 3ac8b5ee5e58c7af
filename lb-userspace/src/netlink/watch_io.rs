//! Watches the kernel's notifications about links, addresses, routes, rules, next-hop objects and neighbours.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a netlink socket and the timer that gathers a burst")]

use std::{future::poll_fn, io, time::Duration};

use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use thiserror::Error;
use tokio::time::Instant;

use super::Change;

/// What follows the first notification within this time is reported with it.
const BURST: Duration = Duration::from_millis(20);
/// The kernel's datagrams have at most 32 KB (linux `netlink_dump`).
const DATAGRAM_BYTES: usize = 64 * 1024;
/// About 5000 notifications may wait while the daemon is busy; more are lost, and the change then says so.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// So many datagrams are thrown away at once after an overflow: several times what the queue holds, some 50 ms.
const DRAINED_MAX: usize = 65_536;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// A subscription to the kernel's notifications. The kernel's socket buffer is the only queue.
pub struct Watcher {
    socket: TokioSocket,
    datagram: Vec<u8>,
    gathered: Change,
    report_at: Option<Instant>,
    /// The queue overflowed, and the kernel drops silently until it has been empty once.
    is_congested: bool,
}

/// Why the notifications cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// Socket or subscription.
    #[error("failed to subscribe to route netlink notifications")]
    Subscribe(#[source] io::Error),
    /// Reading.
    #[error("failed to read route netlink notifications")]
    Receive(#[source] io::Error),
}

impl Watcher {
    /// Subscribes in the network namespace of the calling thread, within a tokio runtime with I/O and time. Subscribe first, read the state afterwards: then
    /// nothing is missed in between.
    ///
    /// # Errors
    /// [`WatchError::Subscribe`].
    pub fn subscribe() -> Result<Self, WatchError> {
        let socket = subscribed_socket().map_err(WatchError::Subscribe)?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM_BYTES), gathered: Change::default(), report_at: None, is_congested: false })
    }

    /// Waits for a notification, gathers what follows within 20 ms, and reports it all. Cancel safe: what was gathered stays for the next call.
    ///
    /// # Errors
    /// [`WatchError::Receive`]; a queue that overflowed is no error but a [`Change`] that is incomplete.
    pub async fn changed(&mut self) -> Result<Change, WatchError> {
        loop {
            if self.report_at.is_some_and(|at| at <= Instant::now()) {
                self.report_at = None;
                return Ok(std::mem::take(&mut self.gathered));
            }
            if self.is_congested {
                self.drain();
            }
            let report_at = self.report_at;
            let burst_ended = async {
                match report_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel safe: a datagram leaves the socket only in the poll that completes the arm, and is absorbed before the next await.
            tokio::select! {
                () = burst_ended => {}
                received = receive(&self.socket, &mut self.datagram) => self.absorb(received)?,
            }
        }
    }

    fn absorb(&mut self, received: io::Result<SocketAddr>) -> Result<(), WatchError> {
        match received {
            // Anybody may send to a netlink socket; only port 0 is the kernel.
            Ok(sender) if sender.port_number() != 0 => return Ok(()),
            Ok(_) => self.gathered.absorb(&self.datagram),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.is_congested = true,
            Err(error) => return Err(WatchError::Receive(error)),
        }
        self.schedule();
        Ok(())
    }

    /// Empties the queue, so that whoever reads everything after this report misses nothing: ENOBUFS is told once, at the first loss; what is
    /// lost from there until the queue is empty is not (linux net/netlink/af_netlink.c, `netlink_overrun`, `netlink_rcv_wake`).
    fn drain(&mut self) {
        for _ in 0..DRAINED_MAX {
            self.datagram.clear();
            match self.socket.socket_ref().recv(&mut self.datagram, libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_congested = false;
                    break;
                }
                // A second ENOBUFS says what is known; any other error comes back from the next receive.
                Ok(_) | Err(_) => {}
            }
        }
        self.gathered = Change { is_incomplete: true, ..Change::default() };
        self.schedule();
    }

    fn schedule(&mut self) {
        if !self.gathered.is_empty() && self.report_at.is_none() {
            self.report_at = Some(Instant::now() + BURST);
        }
    }
}

fn subscribed_socket() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the default size serves, and overflows are noticed.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&*inner, QUEUE_BYTES).is_err() {
        tracing::debug!("the notification queue keeps its default size");
    }
    for group in GROUPS {
        inner.add_membership(group as u32)?;
    }
    Ok(socket)
}

async fn receive(socket: &TokioSocket, datagram: &mut Vec<u8>) -> io::Result<SocketAddr> {
    poll_fn(|cx| {
        datagram.clear();
        socket.poll_recv_from(cx, datagram)
    })
    .await
}
