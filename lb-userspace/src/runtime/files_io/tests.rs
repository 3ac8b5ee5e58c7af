use std::{
    os::unix::fs::symlink,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{runtime::Runtime, time::timeout};

use super::*;

/// A change that is not told within this is not told.
const AT_ONCE: Duration = Duration::from_millis(100);
/// However busy the machine.
const SOON: Duration = Duration::from_secs(10);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!("weir-watch-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes the symlink, or leads it elsewhere in one step.
    fn link(&self, name: &str, target: &str) {
        let fresh = self.0.join("fresh");
        symlink(target, &fresh).unwrap();
        fs::rename(fresh, self.0.join(name)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.0.join(from), self.0.join(to)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Makes each change in turn, and expects each to be told at once. In between the watch is begun anew where the path leads elsewhere, as the
/// daemon does.
fn expect_each_told(folder: &Folder, file: &str, changes: &[&dyn Fn()]) {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let path = folder.0.join(file);
    let mut watch = FileWatch::new(&path).unwrap();
    for (number, change) in changes.iter().enumerate() {
        let before = Stamp::of(&path);
        change();
        let told = runtime.block_on(async { timeout(SOON, watch.changed()).await });
        assert!(told.is_ok(), "change {number} is not told");
        assert_ne!(Stamp::of(&path), before, "change {number} changes nothing");
        // What else the change told is of no interest.
        while runtime.block_on(async { timeout(Duration::from_millis(20), watch.changed()).await }).is_ok() {}
        if !watch.is_on_the_way() {
            watch = FileWatch::new(&path).unwrap();
        }
    }
}

#[test]
fn a_file_written_in_place_and_one_that_is_replaced_are_told() {
    let folder = Folder::new();
    folder.write("weir.toml", "one");
    let replace = || {
        folder.write("other", "replaced");
        folder.rename("other", "weir.toml");
    };
    expect_each_told(&folder, "weir.toml", &[&|| folder.write("weir.toml", "three"), &replace, &|| folder.write("weir.toml", "five5")]);
}

#[test]
fn a_symlinked_folder_that_leads_elsewhere_is_told_and_so_are_later_edits() {
    let folder = Folder::new();
    folder.write("v1/weir.toml", "1");
    folder.write("v2/weir.toml", "22");
    folder.link("cur", "v1");
    let back = || folder.link("cur", "v1");
    let there = || folder.link("cur", "v2");
    expect_each_told(
        &folder,
        "cur/weir.toml",
        &[&there, &|| folder.write("v2/weir.toml", "333"), &back, &|| folder.write("v1/weir.toml", "4444")],
    );
}

#[test]
fn what_kubernetes_swaps_is_told() {
    let folder = Folder::new();
    folder.write("..2026_1/weir.toml", "1");
    folder.write("..2026_2/weir.toml", "22");
    folder.link("..data", "..2026_1");
    folder.link("weir.toml", "..data/weir.toml");
    expect_each_told(&folder, "weir.toml", &[&|| folder.link("..data", "..2026_2"), &|| folder.write("..2026_2/weir.toml", "333")]);
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_told_and_so_are_later_edits() {
    let folder = Folder::new();
    folder.write("a/b/weir.toml", "1");
    let remove = || fs::remove_dir_all(folder.0.join("a")).unwrap();
    let changes: [&dyn Fn(); 3] = [&remove, &|| folder.write("a/b/weir.toml", "22"), &|| folder.write("a/b/weir.toml", "333")];
    expect_each_told(&folder, "a/b/weir.toml", &changes);
}

#[test]
fn a_folder_that_is_exchanged_is_told_and_so_are_later_edits() {
    let folder = Folder::new();
    folder.write("a/b/weir.toml", "1");
    folder.write("next/b/weir.toml", "22");
    let away = || folder.rename("a", "old");
    let changes: [&dyn Fn(); 3] = [&away, &|| folder.rename("next", "a"), &|| folder.write("a/b/weir.toml", "333")];
    expect_each_told(&folder, "a/b/weir.toml", &changes);
}

#[test]
fn what_happens_beside_the_path_is_not_told() {
    let folder = Folder::new();
    folder.write("a/weir.toml", "1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut watch = FileWatch::new(&folder.0.join("a/weir.toml")).unwrap();
    for name in ["beside", "a/beside"] {
        folder.write(name, "2");
    }
    fs::read(folder.0.join("a/weir.toml")).unwrap();
    assert!(runtime.block_on(async { timeout(AT_ONCE, watch.changed()).await }).is_err());
}

#[test]
fn a_circle_of_symlinks_ends() {
    let folder = Folder::new();
    folder.link("a", "b");
    folder.link("b", "a");
    assert!(FileWatch::new(&folder.0.join("a/weir.toml")).is_ok());
}

#[test]
fn fragments_that_are_written_replaced_added_and_removed_are_told() {
    let folder = Folder::new();
    folder.write("conf.d/a.toml", "1");
    let replace = || {
        folder.write("other", "replaced");
        folder.rename("other", "conf.d/a.toml");
    };
    let changes: [&dyn Fn(); 5] = [
        &|| folder.write("conf.d/a.toml", "22"),
        &|| folder.write("conf.d/b.toml", "1"),
        &replace,
        &|| folder.write("conf.d/b.toml", "22"),
        &|| fs::remove_file(folder.0.join("conf.d/a.toml")).unwrap(),
    ];
    expect_each_told(&folder, "conf.d", &changes);
}

#[test]
fn a_directory_of_fragments_as_kubernetes_swaps_it_is_told() {
    let folder = Folder::new();
    for (version, text) in [("..2026_1", "1"), ("..2026_2", "22")] {
        folder.write(&format!("conf.d/{version}/a.toml"), text);
        folder.write(&format!("conf.d/{version}/b.toml"), text);
    }
    folder.link("conf.d/..data", "..2026_1");
    folder.link("conf.d/a.toml", "..data/a.toml");
    folder.link("conf.d/b.toml", "..data/b.toml");
    expect_each_told(&folder, "conf.d", &[&|| folder.link("conf.d/..data", "..2026_2"), &|| folder.write("conf.d/..2026_2/b.toml", "333")]);
}

#[test]
fn a_directory_of_fragments_that_is_swapped_removed_and_made_again_is_told() {
    let folder = Folder::new();
    folder.write("v1/a.toml", "1");
    folder.write("v2/a.toml", "22");
    folder.link("cur", "v1");
    let changes: [&dyn Fn(); 4] =
        [&|| folder.link("cur", "v2"), &|| folder.write("v2/b.toml", "1"), &|| fs::remove_dir_all(folder.0.join("v2")).unwrap(), &|| {
            folder.write("v2/a.toml", "333")
        }];
    expect_each_told(&folder, "cur", &changes);
}

#[test]
fn what_is_no_fragment_is_not_told() {
    let folder = Folder::new();
    folder.write("conf.d/a.toml", "1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut watch = FileWatch::new(&folder.0.join("conf.d")).unwrap();
    for name in [".a.toml.swp", ".b.toml", "README", "4913"] {
        folder.write(&format!("conf.d/{name}"), "2");
    }
    assert!(runtime.block_on(async { timeout(AT_ONCE, watch.changed()).await }).is_err());
}

#[test]
fn a_file_is_being_written_until_it_is_closed() {
    let folder = Folder::new();
    folder.write("weir.toml", "1");
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut watch = FileWatch::new(&folder.0.join("weir.toml")).unwrap();
    let mut file_is = |is_written: bool| {
        // An event may be one of several.
        while runtime.block_on(async { timeout(SOON, watch.changed()).await }).is_ok() {
            if watch.is_being_written() == is_written {
                return true;
            }
        }
        watch.is_being_written() == is_written
    };
    let mut file = fs::File::create(folder.0.join("weir.toml")).unwrap();
    std::io::Write::write_all(&mut file, b"half").unwrap();
    assert!(file_is(true), "half of it");
    drop(file);
    assert!(file_is(false), "all of it");
    // Another file of the folder does not matter.
    let mut other = fs::File::create(folder.0.join("other.toml")).unwrap();
    std::io::Write::write_all(&mut other, b"half").unwrap();
    fs::write(folder.0.join("weir.toml"), "2").unwrap();
    assert!(file_is(false), "another text");
}
