//! A web site in the lab: three nginx, and who of them serves a client.

use std::{cell::RefCell, time::Duration};

use crate::lab::{Nginx, Shape, Topology, Weir, http_servers, http_tally, wait_until};

/// The port of the listener, and of the servers.
pub const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(20);
const REQUESTS: usize = 40;

/// A two-armed lab with nginx on its servers, called `s1` to `s3`.
#[derive(Debug)]
pub struct Web {
    /// The lab.
    pub lab: Topology,
    servers: RefCell<Vec<Option<Nginx>>>,
}

impl Web {
    /// Builds it.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn new() -> Self {
        let lab = Topology::builder(Shape::TwoArmed).servers(3).build().expect("a lab is built");
        let web = Self { servers: RefCell::new(lab.servers.iter().map(|_| None).collect()), lab };
        (0..web.lab.servers.len()).for_each(|index| web.start_server(index));
        web
    }

    /// Starts the server of this index.
    ///
    /// # Panics
    /// If nginx does not start.
    pub fn start_server(&self, index: usize) {
        let host = &self.lab.servers[index];
        self.servers.borrow_mut()[index] = Some(Nginx::start(&host.namespace, &format!("s{}", index + 1), PORT).expect("nginx starts"));
    }

    /// Ends it.
    pub fn stop_server(&self, index: usize) {
        self.servers.borrow_mut()[index] = None;
    }

    /// A listener `web` on the VIP that uses this pool.
    pub fn listener(&self, pool: &str) -> String {
        format!("[listener.web]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"{pool}\"\nslots = 4096\n", self.lab.vip4())
    }

    /// The listener with pool `blue` of servers s1 and s2, and pool `green` of s3; `more` at the end.
    pub fn blue_and_green(&self, more: &str) -> String {
        let [s1, s2, s3] = [0, 1, 2].map(|index: usize| self.lab.servers[index].v4);
        let pools = format!("[pool.blue]\nservers.s1 = \"{s1}\"\nservers.s2 = \"{s2}\"\n[pool.green]\nservers.s3 = \"{s3}\"\n");
        format!("\n{}\n{pools}{more}", self.listener("blue"))
    }

    /// The servers that answer a client's requests.
    ///
    /// # Panics
    /// If a request fails otherwise than by having no answer.
    pub fn served(&self) -> Vec<String> {
        let address = format!("http://{}:{PORT}/", self.lab.vip4());
        http_tally(&self.lab.client().namespace, address, REQUESTS).expect("requests are made").into_keys().collect()
    }

    /// The same, of whom `servers` are expected, however little of the pool one may be: asked for until so many have answered.
    ///
    /// # Panics
    /// If a request fails.
    pub fn served_of(&self, servers: usize) -> Vec<String> {
        let address = format!("http://{}:{PORT}/", self.lab.vip4());
        http_servers(&self.lab.client().namespace, address, servers).expect("requests are made").into_keys().collect()
    }

    /// Waits until these are they.
    ///
    /// # Panics
    /// If they are not soon.
    pub fn await_served(&self, weir: &Weir<'_>, names: &[&str]) {
        wait_until("the configuration to be followed", SOON, || self.served() == names)
            .unwrap_or_else(|error| panic!("{error}: {:?} serve, not {names:?}\n{}", self.served(), weir.stderr()));
    }
}

impl Default for Web {
    fn default() -> Self {
        Self::new()
    }
}
