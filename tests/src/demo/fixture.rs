//! The demo's lab with its servers running, for tests of the daemon's life.

use std::collections::BTreeMap;

use super::{configuration, serve};
use crate::lab::{Nginx, Shape, TcpServer, Topology, Weir, http_servers};

/// A two-armed lab whose servers serve HTTP and echo TCP.
#[derive(Debug)]
pub struct Fixture {
    /// The lab.
    pub lab: Topology,
    _servers: Vec<(Nginx, TcpServer)>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// Builds it.
    ///
    /// # Panics
    /// Without root, or when a server does not start.
    pub fn new() -> Self {
        let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
        let servers = lab.servers.iter().enumerate().map(|server| serve(server).unwrap()).collect();
        Self { lab, _servers: servers }
    }

    /// A configuration that has all its servers.
    pub fn good(&self) -> String {
        configuration(&self.lab)
    }

    /// A daemon on that.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(&self) -> Weir<'_> {
        Weir::start(self.lab.node(), &self.good()).unwrap()
    }

    /// How many requests each server answers, of as many as it takes to meet both ([`http_servers`]).
    ///
    /// # Panics
    /// When one is not answered.
    pub fn tally(&self) -> BTreeMap<String, usize> {
        http_servers(&self.lab.client().namespace, format!("http://{}/", self.lab.vip4()), self.lab.servers.len()).unwrap()
    }

    /// What `ip` says in the node.
    ///
    /// # Panics
    /// When it refuses.
    pub fn node(&self, command: &str) -> String {
        self.lab.node().namespace.ip(command).unwrap()
    }
}
