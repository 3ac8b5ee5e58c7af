//! Two network namespaces with a cable between them: `lb`, where Weir is, and `far`, which has the servers and the gateway.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "makes namespaces and runs ip(8) in them")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::{IpAddr, UdpSocket},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use lb_userspace::netlink::{Mac, Netlink, NextHop, NextHops, Unresolved, Watcher};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::time::Instant;

pub(crate) const LB_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const FAR_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// Nothing here takes longer than the kernel's own retries.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

static LABS: AtomicU32 = AtomicU32::new(0);

/// `lb` eth0 10.9.1.1/24, fd09:1::1/64 — `far` eth0 10.9.1.10, .254, fd09:1::10, ::fe. Removed when dropped.
pub(crate) struct Lab {
    number: u32,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self { number: LABS.fetch_add(1, Ordering::Relaxed) };
        let (lb, far) = (lab.name("lb"), lab.name("far"));
        run("ip", &["netns", "add", &lb]);
        run("ip", &["netns", "add", &far]);
        lab.lb("link set lo up");
        lab.lb(&format!("link add eth0 address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns {far}"));
        lab.lb("address add 10.9.1.1/24 dev eth0");
        lab.lb("address add fd09:1::1/64 dev eth0 nodad");
        for address in ["10.9.1.10/24", "10.9.1.254/24", "fd09:1::10/64 nodad", "fd09:1::fe/64 nodad"] {
            let (address, nodad) = address.split_once(' ').unwrap_or((address, ""));
            lab.far(&format!("address add {address} dev eth0 {nodad}"));
        }
        lab.lb("link set eth0 up");
        lab.far("link set eth0 up");
        lab
    }

    /// `ip` with these words in `lb`.
    pub(crate) fn lb(&self, words: &str) {
        self.ip("lb", words);
    }

    /// `ip` with these words in `far`.
    pub(crate) fn far(&self, words: &str) {
        self.ip("far", words);
    }

    /// A whole command line in one of the namespaces, started and waited for.
    pub(crate) fn exec(&self, side: &str, words: &str) {
        let name = self.name(side);
        let mut arguments = vec!["netns", "exec", &name];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments);
    }

    /// Writes a setting whose value has a space.
    pub(crate) fn write(&self, side: &str, path: &str, value: &str) {
        run("ip", &["netns", "exec", &self.name(side), "sh", "-c", &format!("echo {value} > {path}")]);
    }

    /// A file of `ip` commands for `ip -batch`; removed with the lab.
    pub(crate) fn batch(&self, commands: impl Iterator<Item = String>) -> PathBuf {
        let path = self.batch_path();
        fs::write(&path, commands.map(|command| command + "\n").collect::<String>()).unwrap();
        path
    }

    fn batch_path(&self) -> PathBuf {
        std::env::temp_dir().join(self.name("batch"))
    }

    /// Runs a future in `lb`, on a thread of its own.
    pub(crate) fn in_lb<F: Future<Output = ()>>(&self, future: impl FnOnce() -> F + Send) {
        self.inside("lb", future);
    }

    /// Sends one UDP datagram from an address of one of the namespaces.
    pub(crate) fn send(&self, side: &str, source: IpAddr, target: IpAddr, bytes: usize) {
        self.inside(side, async || {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket.send_to(&vec![0; bytes], (target, 9)).unwrap();
        });
    }

    fn inside<F: Future<Output = ()>>(&self, side: &str, future: impl FnOnce() -> F + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.name(side))).unwrap();
        let body = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future());
        };
        if let Err(panic) = thread::scope(|scope| scope.spawn(body).join()) {
            std::panic::resume_unwind(panic);
        }
    }

    fn name(&self, side: &str) -> String {
        format!("weir-nl-{}-{}-{side}", process::id(), self.number)
    }

    fn ip(&self, side: &str, words: &str) {
        let name = self.name(side);
        let mut arguments = vec!["-n", &name];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Most labs have none.
        fs::remove_file(self.batch_path()).ok();
        for side in ["lb", "far"] {
            let deleted = Command::new("ip").args(["netns", "delete", &self.name(side)]).output();
            if !deleted.is_ok_and(|output| output.status.success()) {
                eprintln!("failed to delete the namespace {}", self.name(side));
            }
        }
    }
}

/// What the daemon does with this module: watch, and keep the next hops of its servers.
pub(crate) struct Daemon {
    pub(crate) watcher: Watcher,
    pub(crate) next_hops: NextHops,
}

impl Daemon {
    pub(crate) async fn start(servers: &[&str]) -> Self {
        let watcher = Watcher::subscribe().unwrap();
        let mut next_hops = NextHops::new(Netlink::open().unwrap()).await.unwrap();
        next_hops.set_servers(&set(servers)).await.unwrap();
        Self { watcher, next_hops }
    }

    pub(crate) fn next_hop(&self, server: &str) -> Result<NextHop, Unresolved> {
        self.next_hops.next_hops()[&ip(server)].clone()
    }

    /// Follows the kernel until the next hops satisfy `wanted`.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&BTreeMap<IpAddr, Result<NextHop, Unresolved>>) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !wanted(&self.next_hops.next_hops()) {
            let change = tokio::time::timeout_at(deadline, self.watcher.changed()).await;
            let change = change.unwrap_or_else(|_| panic!("still {:?}", self.next_hops.next_hops()));
            self.next_hops.update(&change.unwrap()).await.unwrap();
        }
    }

    pub(crate) async fn until_resolved(&mut self) {
        self.until(|next_hops| next_hops.values().all(Result::is_ok)).await;
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
