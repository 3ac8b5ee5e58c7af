//! The process that goes on when the speaker is killed: it knows what the speaker was told, waits for its end, and takes its place.
//!
//! The speaker writes lines to its standard input, which ends with the speaker.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a process and a pipe")]

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    thread::set_name,
};
use serde::{Deserialize, Serialize};

use super::{
    HEIRS_NAME,
    clock_io::boot_time,
    order::{Order, Resume, RouterView},
};

/// Ten thousand addresses take 2 MiB.
const MOST_UNWRITTEN_BYTES: usize = 16 << 20;

/// What the speaker leaves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Left {
    /// What it was told.
    Order(Order),
    /// What the next speaker has to know of each router.
    Resumes(BTreeMap<String, Resume>),
    /// It lived at this time of `CLOCK_BOOTTIME`.
    AliveMs(u64),
}

/// What the heir has of it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Inheritance {
    /// What it was told last.
    pub(super) order: Order,
    /// When it lived last, on `CLOCK_BOOTTIME`.
    pub(super) alive_ms: u64,
}

/// The speaker's end.
#[derive(Debug)]
pub(super) struct Heir {
    process: Child,
    pipe: ChildStdin,
    unwritten: Vec<u8>,
    resumes: BTreeMap<String, Resume>,
}

impl Heir {
    /// Starts one.
    ///
    /// # Errors
    /// If there is no process, or no pipe, to be had.
    pub(super) fn start(socket: &Path) -> io::Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .arg("vrrp-speaker")
            .arg("--heir")
            .arg(socket)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let pipe = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // The speaker waits for nobody.
        fcntl_setfl(pipe.as_fd(), fcntl_getfl(pipe.as_fd())? | OFlags::NONBLOCK)?;
        Ok(Self { process, pipe, unwritten: Vec::new(), resumes: BTreeMap::new() })
    }

    /// Whether it is there still.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Tells it what the speaker was told.
    pub(super) fn tell_order(&mut self, order: &Order) {
        self.tell(&Left::Order(order.clone()));
        self.tell_alive();
    }

    /// Tells it how the routers are.
    pub(super) fn tell_views(&mut self, views: &[RouterView]) {
        let resume = |view: &RouterView| Resume {
            active_until_ms: None,
            is_on_hold: view.is_on_hold,
            memory: view.memory.clone().unwrap_or_default(),
            told: Some(view.told()),
        };
        let resumes: BTreeMap<String, Resume> = views.iter().map(|view| (view.router.clone(), resume(view))).collect();
        if resumes != self.resumes {
            self.tell(&Left::Resumes(resumes.clone()));
            self.resumes = resumes;
        }
        self.tell_alive();
        if self.unwritten.len() > MOST_UNWRITTEN_BYTES {
            // It does not read: the next one does.
            let _ended_already = self.process.kill();
        }
    }

    fn tell_alive(&mut self) {
        self.tell(&Left::AliveMs(boot_time().as_millis() as u64));
    }

    fn tell(&mut self, left: &Left) {
        if let Ok(line) = serde_json::to_vec(left) {
            self.unwritten.extend(line);
            self.unwritten.push(b'\n');
        }
        self.flush();
    }

    /// Writes what waits to be written; one that has ended is replaced.
    fn flush(&mut self) {
        while let Ok(written @ 1..) = self.pipe.write(&self.unwritten) {
            self.unwritten.drain(..written);
        }
    }

    /// Ends it: the speaker's end is as it should be.
    pub(super) fn dismiss(mut self) {
        let _ended_already = self.process.kill();
        let _ended_already = self.process.wait();
    }
}

/// In the heir: waits for the speaker's end, and gives what it left; none if it was told nothing.
///
/// # Errors
/// If the pipe cannot be read.
pub(super) fn await_inheritance() -> io::Result<Option<Inheritance>> {
    let _keeps_its_name = set_name(HEIRS_NAME);
    let (mut order, mut resumes, mut alive_ms) = (None, BTreeMap::new(), 0);
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?) {
            Ok(Left::Order(one)) => order = Some(one),
            Ok(Left::Resumes(those)) => resumes = those,
            Ok(Left::AliveMs(at)) => alive_ms = at,
            // Half a line: the one before counts.
            Err(_) => {}
        }
    }
    Ok(order.map(|mut order: Order| {
        for (name, router) in &mut order.routers {
            router.resume = resumes.remove(name);
        }
        Inheritance { order, alive_ms }
    }))
}
