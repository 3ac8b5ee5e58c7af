//! What the daemon logs never decides whether it runs.

use std::{fs::OpenOptions, os::fd::OwnedFd, process::Stdio};

use super::{Folder, weir};

/// A file of warnings (a default `slot_seed`, no listener), whose state directory cannot be made: the daemon logs, then refuses.
const NODE: &str = "state_dir = \"/proc/weir-state\"";

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn without_reader() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    OwnedFd::from(writer).into()
}

#[test]
fn a_log_line_that_cannot_be_written_ends_nothing() {
    let folder = Folder::new();
    let config = folder.config(NODE, "");
    for stderr in [full, without_reader] {
        for format in [None, Some("--log-json")] {
            let status = weir("run", &config).args(format).stderr(stderr()).status().unwrap();
            assert_eq!(status.code(), Some(1), "what it says of its refusal is lost, the refusal is not");
        }
    }
}
