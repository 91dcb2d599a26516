//! The registry against directories that come, change and go.

use std::os::unix::fs::symlink;

use super::*;

struct Watched {
    parent: tempfile::TempDir,
    registry: Registry,
    options: BTreeMap<String, AdapterOptions>,
}

impl Watched {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let store = AdapterStore::new(base(), None, (HostMemory::pageable(), usize::MAX));
        Self { parent, registry: Registry::new(store), options: BTreeMap::new() }
    }

    fn path(&self) -> &Path {
        self.parent.path()
    }

    fn refresh(&mut self) -> Refresh {
        let dirs = [self.parent.path().to_owned()];
        self.registry.refresh(&dirs, &self.options)
    }

    /// Refreshes; expects no problem and the given change.
    #[track_caller]
    fn clean(&mut self, changed: bool) -> Catalogue {
        let refresh = self.refresh();
        let problems: Vec<_> = refresh.problems.iter().map(ToString::to_string).collect();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(refresh.changed, changed, "changed");
        Catalogue::clone(&refresh.catalogue)
    }
}

fn names(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.iter().map(|lease| lease.name.as_str()).collect()
}

#[test]
fn adapters_appear_and_disappear() {
    let mut watched = Watched::new();
    assert_eq!(watched.clean(false).generation, 0);
    copy("r3", watched.path(), "sql");
    copy("r8", watched.path(), "math");
    let both = watched.clean(true);
    assert_eq!((names(&both), both.generation), (vec!["math", "sql"], 1));
    assert_eq!(watched.clean(false).generation, 1);
    fs::remove_dir_all(watched.path().join("sql")).unwrap();
    assert_eq!(names(&watched.clean(true)), ["math"]);
    assert_eq!(both.get("sql").unwrap().content.rank, 3, "a lease outlives the directory");
    copy("r3", watched.path(), "sql");
    assert_eq!(watched.clean(true).get("sql").unwrap().number, 2, "numbers are not given twice");
}

#[test]
fn a_directory_counts_once_it_is_complete() {
    let mut watched = Watched::new();
    let dir = copy("r3", watched.path(), "sql");
    let weights = fs::read(dir.join(directory::WEIGHTS)).unwrap();
    fs::remove_file(dir.join(directory::WEIGHTS)).unwrap();
    assert!(names(&watched.clean(false)).is_empty());
    fs::write(dir.join(directory::WEIGHTS), &weights[..900]).unwrap();
    let refresh = watched.refresh();
    assert_eq!((refresh.problems.len(), refresh.changed), (1, false));
    assert!(watched.refresh().problems.is_empty(), "reported once");
    fs::write(dir.join(directory::WEIGHTS), weights).unwrap();
    assert_eq!(names(&watched.clean(true)), ["sql"]);
    copy("r8", watched.path(), ".upload");
    fs::create_dir(watched.path().join("notes")).unwrap();
    watched.clean(false);
    fs::rename(watched.path().join(".upload"), watched.path().join("math")).unwrap();
    assert_eq!(names(&watched.clean(true)), ["math", "sql"]);
}

#[test]
fn a_replacement_is_a_new_generation_and_a_broken_one_is_none() {
    let mut watched = Watched::new();
    let dir = copy("r3", watched.path(), "sql");
    let first = watched.clean(true).get("sql").unwrap();
    copy("r8", watched.path(), "sql");
    let second = watched.clean(true).get("sql").unwrap();
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!((first.content.rank, second.content.rank), (3, 8));
    fs::write(dir.join(directory::CONFIG), "{").unwrap();
    let refresh = watched.refresh();
    assert!(!refresh.changed && refresh.problems[0].to_string().contains("adapter_config.json"));
    assert_eq!(refresh.catalogue.get("sql").unwrap().number, 2);
    fs::remove_file(dir.join(directory::CONFIG)).unwrap();
    assert_eq!(watched.clean(false).get("sql").unwrap().number, 2, "half a directory");
    copy("r8", watched.path(), "sql");
    assert_eq!(watched.clean(false).get("sql").unwrap().number, 2, "the same content again");
}

#[test]
fn links_and_single_directories_work() {
    let mut watched = Watched::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = copy("r3", elsewhere.path(), "target");
    symlink(&target, watched.path().join("linked")).unwrap();
    assert_eq!(names(&watched.clean(true)), ["linked"]);
    let other = copy("r8", elsewhere.path(), "other");
    fs::remove_file(watched.path().join("linked")).unwrap();
    symlink(&other, watched.path().join("linked")).unwrap();
    assert_eq!(watched.clean(true).get("linked").unwrap().number, 2, "pointed elsewhere");
    let refresh = watched.registry.refresh(&[target], &BTreeMap::new());
    assert_eq!(names(&refresh.catalogue), ["target"], "an adapter itself");
}

#[test]
fn unusable_names_and_places_are_reported_once() {
    let mut watched = Watched::new();
    for name in ["a,b", " x", "base-f32", "auto", "a..b"] {
        copy("r3", watched.path(), name);
    }
    let refresh = watched.refresh();
    assert_eq!((refresh.problems.len(), refresh.changed), (5, false));
    assert!(refresh.problems.iter().all(|p| p.to_string().contains("rename the directory")));
    watched.clean(false);
    let missing = watched.path().join("missing");
    let dirs = [missing.clone(), watched.path().to_owned()];
    let refresh = watched.registry.refresh(&dirs, &BTreeMap::new());
    assert_eq!(refresh.problems.len(), 1);
    assert!(refresh.problems[0].to_string().contains(&missing.display().to_string()));
}

#[test]
fn options_take_effect_without_a_new_generation() {
    let mut watched = Watched::new();
    let dir = copy("r3", watched.path(), "sql");
    configure(&dir, "base_model_name_or_path", json!("meta/other"));
    assert_eq!(watched.refresh().problems.len(), 1);
    let mut options = AdapterOptions { allow_base_mismatch: true, tags: Vec::new() };
    watched.options.insert("sql".to_owned(), options.clone());
    assert_eq!(watched.clean(true).get("sql").unwrap().number, 1);
    options.tags.push(("task".to_owned(), "sql".to_owned()));
    watched.options.insert("sql".to_owned(), options.clone());
    let lease = watched.clean(true).get("sql").unwrap();
    assert_eq!((lease.number, &lease.tags), (1, &options.tags));
    watched.clean(false);
}
