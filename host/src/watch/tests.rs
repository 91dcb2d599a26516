use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::*;

/// Far beyond what a report takes; reached only on failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn watch(paths: &[&Path]) -> (Watch, Receiver<()>) {
    let (report, reports) = channel();
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    let watch = Watch::start(paths, move || report.send(()).unwrap_or_default()).expect("a thread");
    reports.recv_timeout(PATIENCE).expect("the start is reported");
    (watch, reports)
}

/// Prepares a fresh directory, watches `path` in it, and expects the change to be reported.
fn check(before: impl FnOnce(&Path), path: &str, change: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    before(dir.path());
    let (_watch, reports) = watch(&[&dir.path().join(path)]);
    change(dir.path());
    reports.recv_timeout(PATIENCE).expect("the change is reported");
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a written file");
}

fn make(path: &Path) {
    fs::create_dir_all(path).expect("a directory");
}

#[test]
fn a_file_written_in_place() {
    check(|dir| write(&dir.join("a"), "1"), "a", |dir| write(&dir.join("a"), "2"));
}

#[test]
fn a_file_renamed_over() {
    let change = |dir: &Path| {
        write(&dir.join("b"), "2");
        fs::rename(dir.join("b"), dir.join("a")).expect("renamed");
    };
    check(|dir| write(&dir.join("a"), "1"), "a", change);
}

#[test]
fn a_file_deleted_and_created() {
    let change = |dir: &Path| {
        fs::remove_file(dir.join("a")).expect("removed");
        write(&dir.join("a"), "1");
    };
    check(|dir| write(&dir.join("a"), "1"), "a", change);
}

#[test]
fn a_file_that_appears_in_a_directory_that_appears() {
    let change = |dir: &Path| {
        make(&dir.join("new/deep"));
        write(&dir.join("new/deep/a"), "1");
    };
    check(|_| (), "new/deep/a", change);
}

#[test]
fn a_swapped_link_to_a_directory_above() {
    // As mounted configuration is updated: a -> ..data/a, ..data -> ..1, and ..data is replaced.
    let before = |dir: &Path| {
        for version in ["..1", "..2"] {
            make(&dir.join(version));
            write(&dir.join(version).join("a"), version);
        }
        symlink("..1", dir.join("..data")).expect("linked");
        symlink("..data/a", dir.join("a")).expect("linked");
    };
    let change = |dir: &Path| {
        symlink("..2", dir.join("..next")).expect("linked");
        fs::rename(dir.join("..next"), dir.join("..data")).expect("renamed");
    };
    check(before, "a", change);
}

#[test]
fn a_link_whose_target_elsewhere_changes() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let target = elsewhere.path().join("target");
    write(&target, "1");
    check(|dir| symlink(&target, dir.join("a")).expect("linked"), "a", |_| write(&target, "22"));
}

#[test]
fn a_new_directory_with_files() {
    let change = |dir: &Path| {
        make(&dir.join("adapters/sql"));
        write(&dir.join("adapters/sql/weights"), "1");
    };
    check(|dir| make(&dir.join("adapters")), "adapters", change);
}

#[test]
fn a_directory_renamed_into_place() {
    let before = |dir: &Path| {
        make(&dir.join("adapters"));
        make(&dir.join("staged"));
        write(&dir.join("staged/weights"), "1");
    };
    let change =
        |dir: &Path| fs::rename(dir.join("staged"), dir.join("adapters/sql")).expect("renamed");
    check(before, "adapters", change);
}

#[test]
fn a_file_in_a_directory_that_appeared_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_watch, reports) = watch(&[dir.path()]);
    make(&dir.path().join("sql"));
    reports.recv_timeout(PATIENCE).expect("the directory is reported");
    write(&dir.path().join("sql/weights"), "1");
    reports.recv_timeout(PATIENCE).expect("the file is reported");
}

#[test]
fn a_neighbour_is_no_change() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("a"), "1");
    let (_watch, reports) = watch(&[&dir.path().join("a")]);
    write(&dir.path().join("b"), "1");
    assert!(reports.recv_timeout(10 * SETTLE).is_err());
}

#[test]
fn other_paths_are_watched_after_set_paths() {
    let dir = tempfile::tempdir().expect("a directory");
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let (watch, reports) = watch(&[&a]);
    watch.set_paths(vec![b.clone()]);
    reports.recv_timeout(PATIENCE).expect("the new paths are reported");
    write(&b, "1");
    reports.recv_timeout(PATIENCE).expect("the change is reported");
}

#[test]
fn dropping_ends_the_thread() {
    let dir = tempfile::tempdir().expect("a directory");
    let (watch, reports) = watch(&[dir.path()]);
    drop(watch);
    // The callback, and with it the sender, is gone.
    assert!(reports.recv().is_err());
}
