//! The committed components belong to their sources.

use std::path::Path;

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check_fresh(dir: &str) {
    let dir = repository().join(dir);
    let manifest = Manifest::read(&dir).expect("readable").expect("a components.toml");
    let stale = manifest.stale().expect("sources and components are readable");
    assert!(!manifest.packages().is_empty());
    assert!(stale.is_empty(), "run `switchyard plugin build {}`: {stale:#?}", dir.display());
}

#[test]
fn first_party_components_are_fresh() {
    check_fresh("plugins");
}

#[test]
fn fixture_components_are_fresh() {
    check_fresh("tests/fixtures/plugins");
}

/// A copy of a one-crate list with a change; what the list then says is stale.
fn check_change(change: impl FnOnce(&Path), stale: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let crate_dir = dir.path().join("p");
    fs::create_dir_all(crate_dir.join("src")).expect("created");
    for (file, text) in [("Cargo.toml", "[package]"), ("src/lib.rs", "//!"), ("p.wasm", "asm")] {
        fs::write(crate_dir.join(file), text).expect("written");
    }
    let list = "[[component]]\npackage = 'p'\nsources = ['p']\n\
                sources-blake3 = ''\ncomponent-blake3 = ''\n";
    fs::write(dir.path().join(MANIFEST), list).expect("written");
    let read = || Manifest::read(dir.path()).expect("readable").expect("there");
    read().renew().expect("renewed");
    assert_eq!(read().stale().expect("readable"), Vec::<String>::new());
    change(&crate_dir);
    let lines = read().stale().expect("readable");
    assert_eq!(lines.len(), stale.len(), "{lines:?}");
    assert!(lines.iter().zip(stale).all(|(line, part)| line.contains(part)), "{lines:?}");
}

#[test]
fn changed_files_make_a_component_stale() {
    let write = |file: &'static str| {
        move |dir: &Path| {
            fs::create_dir_all(dir.join(file).parent().expect("inside")).expect("created");
            fs::write(dir.join(file), "changed").expect("written");
        }
    };
    check_change(write("src/lib.rs"), &["sources changed"]);
    check_change(write("src/part/new.rs"), &["sources changed"]);
    check_change(write("Cargo.toml"), &["sources changed"]);
    check_change(write("p.wasm"), &["not the one"]);
    check_change(write("src/tests.rs"), &[]);
    check_change(write("README.md"), &[]);
}

#[test]
fn a_crate_without_a_library_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = build(dir.path(), None, None).expect_err("there is no Cargo.toml");
    let text = error.to_string();
    assert!(text.contains("Cargo.toml") || text.contains("install"), "{text}");
}

#[test]
fn a_module_without_exports_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let module = dir.path().join("empty.wasm");
    fs::write(&module, b"not wasm at all").expect("written");
    let error = encode(&module).expect_err("no module");
    assert!(error.to_string().contains("export!"), "{error}");
}
