//! A start and reloads of a real configuration, on a tiny model and without a network.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{config::Override, generation::Snapshot};

/// Far beyond what a reload takes; reached only on failure.
const PATIENCE: Duration = Duration::from_secs(120);

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// A directory with a model, an adapter and a configuration.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a directory"));
        copy(&golden("models/base-f32"), &site.path("model"));
        copy(&golden("tokenizers/byte_level"), &site.path("model"));
        copy(&golden("adapters/r8"), &site.path("adapters/r8"));
        site.configure("");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts the base configuration in place, with more at its end.
    fn configure(&self, more: &str) {
        let text = "[model]\npath = \"model\"\naliases = [\"golden/base-f32\"]\n\
                    [engine]\nmemory = \"4MiB\"\nthreads = 1\n\
                    [adapters]\ndirs = [\"adapters\"]\n";
        let aside = self.path("config.toml.new");
        fs::write(&aside, format!("{text}{more}")).expect("written");
        fs::rename(aside, self.path("config.toml")).expect("renamed");
    }

    fn given(&self) -> Given {
        Given {
            file: Some(self.path("config.toml")),
            cache_home: Some(self.path("cache")),
            ..Given::default()
        }
    }
}

/// A host that is reloaded, and the log levels it was told.
struct Running {
    host: Arc<Host>,
    reload: Reload,
    levels: Receiver<String>,
}

impl Running {
    fn start(site: &Site) -> Self {
        let given = site.given();
        let config = given.load().expect("valid");
        let (host, stock) = assemble(&config, &Startup::begin()).expect("it starts");
        let (told, levels) = channel();
        let set_log_level = Box::new(move |level: &str| {
            told.send(level.to_owned()).unwrap_or_default();
        });
        let start = Start { given, config, stock, host: Arc::clone(&host), set_log_level };
        Self { host, reload: Reload::start(start).expect("a thread"), levels }
    }

    /// Waits for a generation.
    fn at(&self, generation: u64) -> Arc<Snapshot> {
        let start = Instant::now();
        loop {
            let snapshot = self.host.snapshot.load_full();
            assert!(snapshot.generation <= generation, "more was published than has changed");
            if snapshot.generation == generation {
                return snapshot;
            }
            assert!(start.elapsed() < PATIENCE, "generation {generation} does not come");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.catalogue.iter().map(|adapter| adapter.name.as_str()).collect()
}

#[test]
fn live_changes_are_published_and_no_others() {
    let site = Site::new();
    let running = Running::start(&site);
    assert_eq!(names(&running.at(1)), ["r8"]);

    // Nothing has changed, whoever asks.
    running.reload.ask();
    site.configure("# a remark\n");
    site.configure("[limits]\nstop = 3\n[log]\nlevel = \"warn\"\n");
    assert_eq!(running.at(2).limits.max_stop, 3);
    assert_eq!(running.levels.recv().expect("told"), "warn");

    // Neither a broken file nor one that needs a restart changes anything.
    site.configure("[limts]\n");
    running.reload.ask();
    site.configure("[server]\ndrain_timeout = \"1s\"\n[limits]\nstop = 4\n");
    running.reload.ask();
    site.configure("[[plugins]]\nname = \"none\"\npath = \"none.wasm\"\n");
    running.reload.ask();
    site.configure("[limits]\nstop = 5\n[log]\nlevel = \"warn\"\n");
    assert_eq!(running.at(3).limits.max_stop, 5);

    // Adapters come and go even while the file is broken.
    site.configure("[limts]\n");
    copy(&golden("adapters/r64"), &site.path("aside"));
    fs::rename(site.path("aside"), site.path("adapters/r64")).expect("renamed");
    let held = running.at(4);
    assert_eq!(names(&held), ["r64", "r8"]);
    assert_eq!(held.limits.max_stop, 5);
    fs::remove_dir_all(site.path("adapters/r8")).expect("removed");
    assert_eq!(names(&running.at(5)), ["r64"]);
    assert_eq!(names(&held), ["r64", "r8"], "a snapshot never changes");
    running.host.engine.shutdown();
}

#[test]
fn a_check_sums_up_or_says_all_that_is_wrong() {
    let site = Site::new();
    let summary = check(&site.given()).expect("all is well");
    for part in ["model (2 layers", "adapters  r8", "plugins   none"] {
        assert!(summary.contains(part), "{part} is not in {summary}");
    }
    let plugin = |name| format!("[[plugins]]\nname = \"{name}\"\npath = \"{name}.wasm\"\n");
    site.configure(&[plugin("a"), plugin("b")].concat());
    let error = check(&site.given()).expect_err("refused").to_string();
    assert!(error.contains("a.wasm") && error.contains("b.wasm"), "{error}");

    let nowhere = Override::Set("model.path=nowhere".to_owned());
    let given = Given { overrides: vec![nowhere], ..site.given() };
    let error = check(&given).expect_err("refused").to_string();
    assert!(error.contains("--set:1:7: model.path") && error.contains("nowhere"), "{error}");
}

#[test]
fn a_tokenizer_of_a_larger_model_is_refused() {
    let site = Site::new();
    let path = site.path("model/tokenizer.json");
    let text = fs::read_to_string(&path).expect("a tokenizer");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let added = tokenizer["added_tokens"].as_array_mut().expect("a list");
    for number in 0..40 {
        let mut token = added.last().expect("one").clone();
        token["id"] = (token["id"].as_u64().expect("a number") + 1).into();
        token["content"] = format!("<more {number}>").into();
        added.push(token);
    }
    fs::write(path, tokenizer.to_string()).expect("written");
    match check(&site.given()).expect_err("refused") {
        StartError::Vocabulary { tokens, rows, .. } => assert!(tokens > rows),
        other => panic!("{other}"),
    }
}
