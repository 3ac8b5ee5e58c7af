//! The questions: one kind a file. The sockets are in the `*_io` files; what is said over them is pure.
//!
//! | file | what |
//! |---|---|
//! | `run_io` | the entry: asks a target |
//! | `kit_io` | what all probes share: TLS configurations, patterns |
//! | `stream_io` | connections, with and without TLS |
//! | `dialogue`, `dialogue_io` | the scripted dialogue |
//! | `http`, `http1`, `http_io`, `h2_io` | HTTP requests, and which answers are good |
//! | `grpc` | messages of the gRPC health service |
//! | `mysql`, `pgsql` and their `_io` | the start of these databases' protocols |
//! | `udp_io`, `command_io` | a datagram, a program |
//! | `own_authority` | which certificates are good where a server shows an authority's |
//! | `way_io` | the way that a socket takes |
//! | `fault` | what an error of the system or of TLS says of the server |
//! | `quote` | what a server said, for people |

use std::cell::{Cell, RefCell};

use super::{
    outcome::{Failure, Layer},
    target::{Path, Route, Target},
};

mod command_io;
mod dialogue;
mod dialogue_io;
mod fault;
mod grpc;
mod h2_io;
mod http;
mod http1;
mod http_io;
mod kit_io;
mod mysql;
mod mysql_io;
mod own_authority;
mod pgsql;
mod pgsql_io;
mod quote;
mod run_io;
mod stream_io;
mod udp_io;
mod way_io;

pub use self::{
    kit_io::{Kit, authorities},
    run_io::run,
};

/// The most that is kept of what a server says.
const MOST_BYTES: usize = 64 * 1024;

/// How far a probe has come: what is told when its time is over.
#[derive(Debug)]
pub struct Progress {
    layer: Cell<Layer>,
    doing: Cell<&'static str>,
    /// Which of the target's ways is tried.
    path: Cell<usize>,
    /// What is wrong, unless something better comes in time.
    amiss: RefCell<Option<Failure>>,
}

impl Progress {
    /// Nothing is done yet.
    pub const fn new() -> Self {
        Self { layer: Cell::new(Layer::L4), doing: Cell::new("nothing is done"), path: Cell::new(0), amiss: RefCell::new(None) }
    }

    /// The probe has come to `layer`, and waits for what `doing` says: "no answer to the connection".
    pub fn at(&self, layer: Layer, doing: &'static str) {
        self.layer.set(layer);
        self.doing.set(doing);
    }

    /// The probe has met something wrong, and goes on: the first of it is told if nothing better comes in time.
    fn meets(&self, failure: Failure) {
        self.amiss.borrow_mut().get_or_insert(failure);
    }

    /// The probe tries this one of the target's ways.
    fn takes(&self, path: usize) {
        self.path.set(path);
        self.amiss.take();
    }

    /// What is told of a probe that took too long.
    pub fn timeout(&self, target: &Target) -> Failure {
        if let Some(Failure { layer, text }) = self.amiss.borrow().clone() {
            let Route::Datapath(paths) = &target.route else { return Failure { layer, text } };
            return Failure::new(layer, paths.get(self.path.get()).map_or(text.clone(), |path| by(path, &text)));
        }
        let mut text = format!("timeout after {}: {}", humantime::format_duration(target.timeout), self.doing.get());
        if let Route::Datapath(paths) = &target.route
            && let Some(path) = paths.get(self.path.get())
        {
            text = by(path, &text);
            // A server drops what it cannot take, and says nothing.
            if self.layer.get() == Layer::L4 {
                text += if path.forward.overhead() > 0 {
                    "; does it have that address, and open that tunnel?"
                } else {
                    "; does it have that address?"
                };
            }
        }
        Failure::new(self.layer.get(), text)
    }
}

/// What went wrong, with the way on which it did.
fn by(path: &Path, text: &str) -> String {
    format!("{text}, to VIP {} port {} by {}", path.vip, path.port, path.mode())
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
