#![allow(clippy::disallowed_methods, reason = "tests write the files that the command reads")]

use std::{env, fs, path::PathBuf, process};

use super::{super::Format, Exit, check};

/// A file of its own for each test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = env::temp_dir().join(format!("weir-check-{}-{name}.toml", process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn run(path: &std::path::Path, format: Format) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = check(path, format, &mut out, &mut err).unwrap();
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn a_good_file_is_counted() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/l4-nat.toml"));
    assert_eq!(run(&path, Format::Text), (Exit::Fine, "ok: 2 listeners, 3 services, 4 servers\n".to_owned(), String::new()));
}

#[test]
fn virtual_routers_are_counted_where_there_are_some() {
    let text = "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.w]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'p'\n\
                [pool.p]\nservers.a = '10.0.0.1'\n[vrrp.www]\ninterface = 'eth0'\nrouter_id = 1\naddresses = '192.0.2.1'\n";
    let file = Scratch::new("counted-router", text);
    assert_eq!(run(&file.0, Format::Text).1, "ok: 1 listener, 1 service, 1 server, 1 virtual router\n");
    let document: serde_json::Value = serde_json::from_str(&run(&file.0, Format::Json).1).unwrap();
    assert_eq!(document["virtual_routers"], 1);
}

#[test]
fn a_warning_does_not_refuse_the_file() {
    let file = Scratch::new("warning", "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n");
    let (exit, out, err) = run(&file.0, Format::Text);
    assert_eq!((exit.code(), out.as_str()), (0, "ok: 0 listeners, 0 services, 0 servers\n"));
    assert!(err.starts_with("warning: there is no listener\n"), "{err}");
}

#[test]
fn programs_of_checks_that_are_not_there_are_warned_of() {
    for (program, what) in [("/nowhere/check", "does not exist"), ("/etc/passwd", "is not executable"), ("/etc", "is no file")] {
        let text = format!(
            "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.w]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'p'\n[pool.p]\nservers.a = '10.0.0.1'\ncheck.command = ['{program}', 'x']\n"
        );
        let file = Scratch::new(&format!("program{}", program.len()), &text);
        let (exit, _, err) = run(&file.0, Format::Text);
        assert_eq!(exit.code(), 0);
        assert!(err.starts_with(&format!("warning: {program} {what}: the check cannot be made\n")) && err.contains(":10:"), "{err}");
        fs::write(&file.0, text.replace(program, "/bin/true")).unwrap();
        assert_eq!(run(&file.0, Format::Text).2, "");
    }
}

#[test]
fn programs_of_virtual_routers_that_are_not_there_are_warned_of() {
    let text = "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.w]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'p'\n\
                [pool.p]\nservers.a = '10.0.0.1'\n[vrrp.www]\ninterface = 'eth0'\nrouter_id = 1\naddresses = '192.0.2.1'\n\
                track = [{ command = ['/nowhere/track'] }]\nnotify = ['/etc/passwd', 'x']\n";
    let file = Scratch::new("router-programs", text);
    let (exit, _, err) = run(&file.0, Format::Text);
    assert_eq!(exit.code(), 0);
    for (warning, place) in [
        ("warning: /nowhere/track does not exist: what is tracked by it is down\n", ":14:24"),
        ("warning: /etc/passwd is not executable: nobody is told of changes\n", ":15:12"),
    ] {
        assert!(err.contains(warning) && err.contains(place), "{warning}: {err}");
    }
    fs::write(&file.0, text.replace("/nowhere/track", "/bin/true").replace("/etc/passwd", "/bin/true")).unwrap();
    assert_eq!(run(&file.0, Format::Text).2, "");
}

#[test]
fn errors_go_to_stderr_and_refuse_the_file() {
    let file = Scratch::new("errors", "[node]\nxpd = 1\n");
    let (exit, out, err) = run(&file.0, Format::Text);
    assert_eq!((exit.code(), out.as_str()), (1, ""));
    assert!(err.ends_with(&format!("\n{}: 2 errors\n", file.0.display())), "{err}");
}

#[test]
fn json_is_one_document_on_stdout() {
    let file = Scratch::new("json", "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n");
    let (exit, out, err) = run(&file.0, Format::Json);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, err.as_str()), (Exit::Fine, ""));
    let finding = serde_json::json!({
        "severity": "warning", "file": file.0.display().to_string(), "line": 1, "column": 1,
        "message": "there is no listener", "hint": "[listener.NAME] takes packets to a [pool.NAME]",
    });
    assert_eq!(document, serde_json::json!({ "ok": true, "listeners": 0, "services": 0, "servers": 0, "diagnostics": [finding] }));
}

#[test]
fn a_file_that_is_not_there_is_a_usage_error() {
    let (exit, out, err) = run(&PathBuf::from("/nowhere/weir.toml"), Format::Text);
    assert_eq!((exit.code(), out.as_str()), (2, ""));
    assert_eq!(err, "error: failed to read /nowhere/weir.toml: No such file or directory (os error 2)\n");
}
