use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use lb_userspace::{config::model::Probe, health::target::Target};

use crate::{
    ask::{ask, failure, target},
    real::Folder,
};

fn command(argv: &[&str]) -> Target {
    target("127.0.0.9:81".parse().unwrap(), Probe::Command { argv: argv.iter().map(|&word| word.to_owned()).collect() })
}

fn shell(script: &str) -> Target {
    command(&["/bin/sh", "-c", script])
}

#[test]
fn a_program_that_ends_with_zero_is_well() {
    assert_eq!(ask(&command(&["/bin/true"])), Ok(()));
    assert_eq!(ask(&shell("echo noise; echo noise >&2")), Ok(()));
}

#[test]
fn a_program_knows_the_server_and_nothing_else() {
    assert_eq!(ask(&shell("test \"$WEIR_SERVER_ADDRESS:$WEIR_SERVER_PORT\" = 127.0.0.9:81")), Ok(()));
    assert_eq!(ask(&shell("test -n \"$PATH\" && test -z \"$CARGO_MANIFEST_DIR$HOME$USER\"")), Ok(()));
    assert_eq!(ask(&shell("test \"$(cat)\" = ''")), Ok(()));
    assert_eq!(
        failure(&command(&["/bin/ls", "$HOME;exit 0"])),
        "L7 exit status 2: /bin/ls: cannot access '$HOME;exit 0': No such file or directory"
    );
}

#[test]
fn a_program_that_fails_is_told_with_its_first_words() {
    assert_eq!(failure(&shell("echo out; echo disk full >&2; exit 3")), "L7 exit status 3: disk full");
    assert_eq!(failure(&shell("echo out; exit 1")), "L7 exit status 1: out");
    assert_eq!(failure(&shell("exit 4")), "L7 exit status 4");
    assert_eq!(failure(&shell("kill -9 $$")), "L7 killed by signal 9");
}

#[test]
fn endless_words_are_cut_and_do_not_hold_the_program_up() {
    let text = failure(&shell("head -c 1000000 /dev/zero | tr '\\0' a; exit 5"));
    assert_eq!(text, format!("L7 exit status 5: {}", "a".repeat(100)));
}

#[test]
fn a_program_that_leaves_another_behind_has_ended() {
    let folder = Folder::new();
    let script = format!("sleep 600 & echo $! > {0}/new; mv {0}/new {0}/pid; echo gone; exit 6", folder.path("").display());
    assert_eq!(failure(&shell(&script)), "L7 exit status 6: gone");
    await_end(&fs::read_to_string(folder.path("pid")).unwrap());
}

#[test]
fn what_a_good_program_leaves_behind_ends_with_it() {
    let folder = Folder::new();
    let script = format!("sleep 600 & echo $! > {0}/new; mv {0}/new {0}/pid; exit 0", folder.path("").display());
    assert_eq!(ask(&shell(&script)), Ok(()));
    await_end(&fs::read_to_string(folder.path("pid")).unwrap());
}

fn await_end(pids: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.split_whitespace().any(is_running) {
        assert!(Instant::now() < deadline, "still running: {pids}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_does_not_end_is_killed_with_its_children() {
    let folder = Folder::new();
    let path = folder.path("");
    let script = format!("sleep 600 & echo $$ $! > {0}/new; mv {0}/new {0}/pids; wait", path.display());
    // Time enough to write the file.
    let patient = Target { timeout: Duration::from_secs(3), ..shell(&script) };
    assert_eq!(failure(&patient), "L7 timeout after 3s: the program does not end");
    await_end(&fs::read_to_string(folder.path("pids")).unwrap());
}

#[test]
fn a_program_that_cannot_be_started_says_nothing_of_the_server() {
    assert_eq!(failure(&command(&["/nowhere/check"])), "not checked: failed to start /nowhere/check: no such file or directory");
    assert_eq!(failure(&command(&["/etc/passwd"])), "not checked: failed to start /etc/passwd: permission denied");
}

/// Whether a process is there and is no zombie that waits for its parent.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
