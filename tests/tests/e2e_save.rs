//! `--save`: what the operator says is written into the configuration's file, and in force from there.

use std::{fs, ops::Deref, os::unix::fs::PermissionsExt as _, os::unix::fs::symlink, time::Duration};

use serde_json::Value;
use weir_tests::{
    lab::{Weir, wait_until},
    operator::{done, refused},
    web::Web,
};

const SOON: Duration = Duration::from_secs(20);

struct Fixture(Web);

impl Deref for Fixture {
    type Target = Web;

    fn deref(&self) -> &Web {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self(Web::new())
    }

    fn pool(&self) -> String {
        let [s1, s2] = [0, 1].map(|index: usize| self.lab.servers[index].v4);
        format!("\n# The pool.\n[pool.web] # web\nservers.s1 = \"{s1}\" # first\nservers.s2 = \"{s2}\" # second\n# end\n")
    }
}

/// Nothing is said beside the file, and the file is in force.
fn assert_only_file(weir: &Weir<'_>) {
    let status = done(weir, &["status"]);
    assert!(!status.contains("by the operator:") && !status.contains("not the file's"), "{status}");
}

#[test]
fn servers_and_weights_are_written_into_the_file_and_the_rest_of_it_stays() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare(fixture.lab.node(), &(fixture.listener("web") + &fixture.pool())).unwrap();
    // The file is a symlink, with a mode of its own.
    let (path, real) = (weir.config(), weir.config().with_file_name("real.toml"));
    fs::rename(&path, &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.toml", &path).unwrap();
    weir.run().unwrap();
    let before = fs::read_to_string(&path).unwrap();
    let s3 = fixture.lab.servers[2].v4.to_string();

    let shown = done(&weir, &["server", "add", "web/s3", &s3, "--weight", "2", "--save"]);
    assert!(shown.contains("web/s3"), "{shown}");
    assert_eq!(fixture.served_of(3), ["s1", "s2", "s3"]);
    let line = format!("servers.s3 = {{ address = \"{s3}\", weight = 2 }}\n");
    let added = before.replace("# second\n", &format!("# second\n{line}"));
    assert_eq!(fs::read_to_string(&path).unwrap(), added);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_only_file(&weir);
    refused(&weir, &["server", "add", "web/s3", &s3, "--save"], "is there already");

    done(&weir, &["weight", "web/s1", "7"]);
    done(&weir, &["weight", "web/s1", "5", "--save"]);
    let s1 = fixture.lab.servers[0].v4;
    let weighed = added.replace(&format!("\"{s1}\" # first"), &format!("{{ address = \"{s1}\", weight = 5 }} # first"));
    assert_eq!(fs::read_to_string(&path).unwrap(), weighed);
    assert_only_file(&weir);
    let servers: Value = serde_json::from_str(&done(&weir, &["server", "list", "-o", "json"])).unwrap();
    assert_eq!((&servers[0]["weight"], &servers[0]["configured_weight"]), (&5.into(), &5.into()));

    done(&weir, &["server", "remove", "web/s2", "--save"]);
    assert_eq!(fixture.served(), ["s1", "s3"]);
    assert!(!fs::read_to_string(&path).unwrap().contains("s2"));
    assert_only_file(&weir);
    // It is the file's for good.
    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.served(), ["s1", "s3"]);
    assert_only_file(&weir);

    // One that was added beside the file may be saved later.
    let s2 = fixture.lab.servers[1].v4.to_string();
    done(&weir, &["server", "add", "web/s2", &s2]);
    done(&weir, &["server", "add", "web/s2", &s2, "--save"]);
    assert_eq!(fixture.served_of(3), ["s1", "s2", "s3"]);
    assert_only_file(&weir);

    // Nothing is half done.
    let sound = fs::read_to_string(&path).unwrap();
    refused(&weir, &["weight", "web/*", "0", "--save"], "--force");
    refused(&weir, &["server", "remove", "web/s9", "--save"], "no server is");
    refused(&weir, &["server", "add", "web/v6", "2001:db8::7", "--save"], "family");
    assert_eq!(fs::read_to_string(&path).unwrap(), sound);
    fs::write(&path, format!("{sound}x = 1\n")).unwrap();
    refused(&weir, &["server", "remove", "web/s3", "--save"], "not what is in force");
    assert!(fs::read_to_string(&path).unwrap().ends_with("x = 1\n"));
    assert_eq!(fixture.served_of(3), ["s1", "s2", "s3"]);
}

#[test]
fn of_a_directory_the_fragment_of_the_pool_is_written() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare_directory(fixture.lab.node(), "").unwrap();
    let folder = weir.config();
    fs::write(folder.join("10-web.toml"), fixture.listener("web")).unwrap();
    fs::write(folder.join("20-pool.toml"), fixture.pool()).unwrap();
    weir.run().unwrap();
    let s3 = fixture.lab.servers[2].v4.to_string();
    done(&weir, &["server", "add", "web/s3", &s3, "--save"]);
    assert_eq!(fixture.served_of(3), ["s1", "s2", "s3"]);
    let written = fixture.pool().replace("# second\n", &format!("# second\nservers.s3 = \"{s3}\"\n"));
    assert_eq!(fs::read_to_string(folder.join("20-pool.toml")).unwrap(), written);
    assert_eq!(fs::read_to_string(folder.join("10-web.toml")).unwrap(), fixture.listener("web"));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
    assert_only_file(&weir);
    // Edits by hand go on.
    fs::write(folder.join("20-pool.toml"), fixture.pool()).unwrap();
    wait_until("the edit to be followed", SOON, || fixture.served() == ["s1", "s2"]).unwrap();
}
