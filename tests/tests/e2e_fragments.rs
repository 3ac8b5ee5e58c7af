//! A directory of fragments as the configuration: it is followed as a file is, and what is wrong is told where it stands.

use std::{fs, ops::Deref, os::unix::fs::symlink, path::Path, time::Duration};

use weir_tests::{
    lab::{Weir, wait_until},
    operator::{done, json, refused, said},
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

    /// A server of pool `web`, from 1.
    fn server(&self, number: usize) -> String {
        format!("[pool.web]\nservers.s{number} = \"{}\"\n", self.lab.servers[number - 1].v4)
    }

    fn check(&self, folder: &Path) -> (Option<i32>, String) {
        let mut command = self.lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
        said(&command.arg("check").arg(folder).output().unwrap())
    }
}

/// Waits until `weir status` shows the words.
fn await_told(weir: &Weir<'_>, words: &str) {
    let shown = || said(&weir.operate(&["status"]).unwrap()).1;
    wait_until("the error to be told", SOON, || shown().contains(words)).unwrap_or_else(|error| panic!("{error}: {words}\n{}", shown()));
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_directory_is_followed_as_a_file_is() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare_directory(fixture.lab.node(), "").unwrap();
    let folder = weir.config();
    write(&folder, "10-web.toml", &(fixture.listener("web") + &fixture.server(1)));
    write(&folder, ".20-hidden.toml", "not = TOML");
    write(&folder, "notes.txt", "not = TOML");
    let (code, text) = fixture.check(&folder);
    assert!(code == Some(0) && text.starts_with("ok: 1 listener, 1 service, 1 server\n") && text.contains("00-node.toml:1:1\n"), "{text}");
    weir.run().unwrap();
    assert_eq!(fixture.served(), ["s1"]);

    // Added, edited in place, replaced, removed.
    write(&folder, "20-more.toml", &fixture.server(2));
    fixture.await_served(&weir, &["s1", "s2"]);
    write(&folder, "20-more.toml", &fixture.server(3));
    fixture.await_served(&weir, &["s1", "s3"]);
    write(&folder, "fresh", &fixture.server(2));
    fs::rename(folder.join("fresh"), folder.join("20-more.toml")).unwrap();
    fixture.await_served(&weir, &["s1", "s2"]);

    // What is wrong leaves what is in force, and is told of the fragment.
    write(&folder, "30-again.toml", &format!("# again\n{}", fixture.server(1)));
    await_told(&weir, "30-again.toml:3:9: error: `pool.web.servers.s1` is given twice: ");
    let (code, text) = fixture.check(&folder);
    assert!(code == Some(1) && text.contains("30-again.toml:3:9") && text.contains("10-web.toml:7:9 has it already"), "{text}");
    assert_eq!(fixture.served(), ["s1", "s2"]);
    fs::remove_file(folder.join("30-again.toml")).unwrap();
    fs::remove_file(folder.join("20-more.toml")).unwrap();
    fixture.await_served(&weir, &["s1"]);

    // The directory vanishes, and comes back.
    let away = folder.with_file_name("away");
    fs::rename(&folder, &away).unwrap();
    wait_until("the loss to be told", SOON, || weir.stderr().contains("failed to read")).unwrap();
    assert_eq!(fixture.served(), ["s1"]);
    write(&away, "20-more.toml", &fixture.server(3));
    fs::rename(&away, &folder).unwrap();
    fixture.await_served(&weir, &["s1", "s3"]);
    for name in ["00-node.toml", "10-web.toml", "20-more.toml"] {
        fs::rename(folder.join(name), folder.join(name.replace("toml", "off"))).unwrap();
    }
    wait_until("the emptiness to be told", SOON, || weir.stderr().contains("there is no *.toml in")).unwrap();
    assert_eq!(fixture.served(), ["s1", "s3"]);
}

#[test]
fn a_mount_as_kubernetes_makes_it_is_followed_in_one_step() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare_directory(fixture.lab.node(), "").unwrap();
    let folder = weir.config();
    let node = fs::read_to_string(folder.join("00-node.toml")).unwrap();
    fs::remove_file(folder.join("00-node.toml")).unwrap();
    for (version, server) in [("..v1", 1), ("..v2", 2)] {
        fs::create_dir(folder.join(version)).unwrap();
        write(&folder.join(version), "node.toml", &node);
        write(&folder.join(version), "web.toml", &(fixture.listener("web") + &fixture.server(server)));
    }
    symlink("..v1", folder.join("..data")).unwrap();
    for name in ["node.toml", "web.toml"] {
        symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
    weir.run().unwrap();
    assert_eq!(fixture.served(), ["s1"]);
    symlink("..v2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    fixture.await_served(&weir, &["s2"]);
    assert!(!weir.stderr().contains("ERROR"), "{}", weir.stderr());
}

#[test]
fn a_directory_is_applied_compared_and_taken_back() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare_directory(fixture.lab.node(), "").unwrap();
    let folder = weir.config();
    write(&folder, "10-web.toml", &(fixture.listener("web") + &fixture.server(1)));
    weir.run().unwrap();
    let other = folder.with_file_name("other.d");
    fs::create_dir(&other).unwrap();
    fs::copy(folder.join("00-node.toml"), other.join("00-node.toml")).unwrap();
    write(&other, "10-web.toml", &(fixture.listener("web") + &fixture.server(2)));
    let other = other.to_str().unwrap();

    let diff = done(&weir, &["diff", other]);
    assert!(diff.contains("100.0% of its slots move"), "{diff}");
    assert!(done(&weir, &["apply", other]).contains("configuration 2 is in force"));
    assert_eq!(fixture.served(), ["s2"]);
    assert!(done(&weir, &["status"]).contains("configuration 2"));
    // Until the directory says something else.
    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.served(), ["s2"]);
    write(&folder, "10-web.toml", &(fixture.listener("web") + &fixture.server(3)));
    fixture.await_served(&weir, &["s3"]);
    done(&weir, &["rollback", "2"]);
    assert_eq!(fixture.served(), ["s2"]);
    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.served(), ["s2"]);
    done(&weir, &["apply"]);
    assert_eq!(fixture.served(), ["s3"]);
    // A new fragment is another text, even if it says nothing.
    done(&weir, &["rollback", "1"]);
    assert_eq!(fixture.served(), ["s1"]);
    write(&folder, "20-nothing.toml", "# nothing\n");
    fixture.await_served(&weir, &["s3"]);

    let broken = folder.with_file_name("broken.d");
    fs::create_dir(&broken).unwrap();
    write(&broken, "a.toml", "[node]\ninterfaces = \"x\"\n");
    write(&broken, "b.toml", "\n[pool.web]\nservers.a = 7\n");
    let (code, text) = said(&weir.operate(&["apply", broken.to_str().unwrap()]).unwrap());
    assert!(code == Some(1) && text.contains("broken.d/b.toml:3:13"), "{code:?} {text}");
    assert_eq!(fixture.served(), ["s3"]);
}

#[test]
fn one_file_takes_a_directorys_place_and_the_guard_leads_back() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare_directory(fixture.lab.node(), "").unwrap();
    let own = weir.config();
    write(&own, "10-web.toml", &fixture.listener("web"));
    write(&own, "20-s1.toml", &fixture.server(1));
    weir.run().unwrap();
    assert_eq!(fixture.served(), ["s1"]);
    let whole = fs::read_to_string(own.join("00-node.toml")).unwrap() + "\n" + &fixture.listener("web");
    let file = own.with_file_name("whole.toml");
    fs::write(&file, whole + &fixture.server(3)).unwrap();
    let file = file.to_str().unwrap();
    let diff = json(&weir, &["diff", file]);
    assert_eq!(diff["difference"]["services"][0]["change"], "changed", "{diff:#}");
    assert!(done(&weir, &["diff"]).contains("no service changes"));
    assert_eq!(fixture.served(), ["s1"], "a look changes nothing");
    done(&weir, &["apply", file, "--confirm", "10s"]);
    assert_eq!(fixture.served(), ["s3"]);
    fixture.await_served(&weir, &["s1"]);
    // Errors are told where they stand, and edits of the own directory are followed as before.
    fs::write(file, "\n[pool.web]\nservers.s2 = 7\n").unwrap();
    refused(&weir, &["diff", file], "whole.toml:3:");
    write(&own, "20-s1.toml", &fixture.server(2));
    fixture.await_served(&weir, &["s2"]);
}
