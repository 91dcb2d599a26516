//! The repository's own file, the text of every kind of error, and the plan of a reload.

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf, time::Duration};

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &[])
}

fn load_with(text: &str, overrides: &[Override]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml");
    fs::write(&file, text).expect("a written file");
    Config::load(Some(&file), overrides)
}

fn set(text: &str) -> Override {
    Override::Set(text.to_owned())
}

/// The smallest configuration.
fn defaults() -> Config {
    Config::load(None, &[set("model.path=m")]).expect("valid")
}

#[test]
fn the_repositorys_file_states_the_defaults() {
    let file = repository().join("config.toml");
    let stated = Config::load(Some(&file), &[]).expect("valid");
    let defaults = defaults();
    let own = ["model.path", "model.id", "adapters.dirs", "plugins"];
    for (key, setting) in &stated.settings {
        if own.contains(&key.as_str()) || key.starts_with("plugins.") {
            continue;
        }
        assert_eq!(setting.value, defaults.settings[key].value, "{key}");
    }
    assert_eq!(stated.fixed.model.path, repository().join("host/demo/base"));

    let text = fs::read_to_string(file).expect("read above");
    let plugin = "[[plugins]]\nname = \"a\"\npath = \"a\"\n";
    let plain = load(&format!("[model]\npath = \"m\"\n{plugin}")).expect("valid");
    for (key, setting) in &stated.settings {
        let Some((_, last)) = key.strip_prefix("plugins.").and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        if matches!(last, "memory" | "deadline" | "output") {
            assert_eq!(setting.value, plain.settings[&format!("plugins.a.{last}")].value, "{key}");
        }
    }
    for (key, _) in schema::KEYS {
        let last = key.rsplit('.').next().unwrap_or(key);
        let documented = text.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.split_once('=').is_some_and(|(written, _)| written.trim() == last)
        });
        assert!(documented, "{key} is not in config.toml");
    }
    assert!(schema::KEYS.len() <= 40, "the budget is 40 keys");
}

#[test]
fn every_key_of_the_schema_is_read_and_no_other() {
    let text = "[model]\npath = \"m\"\n[adapters.options.x]\n[[plugins]]\nname='p'\npath='p'\n";
    let config = load(text).expect("valid");
    let read: BTreeSet<_> = config
        .settings
        .keys()
        .filter(|key| *key != "plugins")
        .map(|key| key.replace("options.x.", "options.*.").replace("plugins.p.", "plugins.*."))
        .collect();
    let known: BTreeSet<_> = schema::KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(read, known);
}

/// The fixture holds cases: a title, a file, and the text of its refusal.
#[test]
fn broken_files_are_refused_with_all_their_errors() {
    let file = repository().join("tests/fixtures/config/broken.txt");
    let fixture = fs::read_to_string(file).expect("the fixture");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    let mut actual = String::new();
    for case in fixture.split("==== ").skip(1) {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (text, _) = rest.split_once("----\n").expect("a rule");
        fs::write(&path, text).expect("a written file");
        let shown = match Config::load(Some(&path), &[]) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        let shown = shown.replace(&path.display().to_string(), "config.toml");
        actual += &format!("==== {title}\n{text}----\n{shown}\n\n");
    }
    let cases = fixture.matches("==== ").count();
    assert!(cases >= 25, "{cases} cases");
    assert!(fixture.ends_with(&actual), "the fixture should read\n{actual}");
}

#[test]
fn overrides_are_toml_or_bare_strings() {
    let file = "[model]\npath = \"m\"\n[server]\nlisten = \"127.0.0.1:1\"\n";
    let overrides = [
        set("server.listen=127.0.0.1:0"),
        set("engine.memory = 1GiB"),
        set("engine.threads=3"),
        set("model.aliases=[\"a\", 'b']"),
        set("adapters.options.sql.tags={ task = \"sql\" }"),
        set("log.level=info,switchyard::engine=debug"),
        Override::Flag { flag: "--model", key: "model.path", value: "other/base".to_owned() },
        Override::List { flag: "--adapters", key: "adapters.dirs", values: vec!["x".to_owned()] },
    ];
    let config = load_with(file, &overrides).expect("valid");
    assert_eq!(config.fixed.listen.port(), 0);
    assert_eq!(config.fixed.engine.limits.pool_bytes, Some(1 << 30));
    assert_eq!(config.fixed.engine.device.threads.map(std::num::NonZero::get), Some(3));
    assert_eq!(config.fixed.model.aliases, ["a", "b"]);
    assert_eq!(config.live.adapters.options["sql"].tags, [("task".to_owned(), "sql".to_owned())]);
    assert_eq!(config.live.log_level, "info,switchyard::engine=debug");
    // The command line's paths are relative to the current directory, not to the file.
    assert_eq!(config.fixed.model.path, Path::new("other/base"));
    assert_eq!(config.live.adapters.dirs, [Path::new("x")]);
}

fn refused(overrides: &[Override], expected: &[&str]) {
    let error = Config::load(None, overrides).expect_err("refused").to_string();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in\n{error}");
    }
}

#[test]
fn errors_in_overrides_name_the_flag() {
    let model = set("model.path=m");
    let listen =
        Override::Flag { flag: "--listen", key: "server.listen", value: "nowhere".to_owned() };
    refused(&[model.clone(), listen], &["--> --listen:1:1", "`server.listen` must be an address"]);
    refused(&[model.clone(), set("engine.memory=12")], &["--> --set:1:15", "not 12"]);
    refused(&[model.clone(), set("engine.memry=1GiB")], &["--> --set:1:8", "`memory`?"]);
    refused(&[model.clone(), set("engine.threads=[1")], &["--> --set:1"]);
    refused(&[model, set("nonsense")], &["--> --set:1"]);
    refused(&[], &["`model.path` is missing"]);
}

#[test]
fn a_missing_file_is_an_error() {
    let error = Config::load(Some(Path::new("/nowhere/config.toml")), &[]).expect_err("refused");
    assert!(error.to_string().contains("/nowhere/config.toml: No such file"), "{error}");
}

#[test]
fn errors_found_later_can_name_the_line() {
    let config = load("\n[model]\n  path = \"m\"\n").expect("valid");
    assert!(config.place("model.path").ends_with("config.toml:3:3: model.path"));
    assert_eq!(config.place("model.dtype"), "model.dtype");
}

#[test]
fn values_arrive() {
    let config = load(
        "server.drain_timeout = \"1.5s\"
         model = { path = \"./dir/tiny\", dtype = \"f32\" }
         [[plugins]]
         name = \"r\"
         path = \"r.wasm\"
         config = { rules = [{ when = 1.5, on = 2026-11-22 }] }
         grant = [\"prompt\"]
         deadline = \"5ms\"",
    )
    .expect("valid");
    assert_eq!(config.fixed.drain_timeout, Duration::from_millis(1500));
    assert_eq!(config.fixed.model.id, "tiny");
    assert_eq!(config.fixed.model.dtype, Some(Dtype::F32));
    let plugin = &config.live.plugins[0];
    assert!(plugin.path.is_absolute(), "relative to the file: {:?}", plugin.path);
    assert_eq!(plugin.config.to_string(), r#"{"rules":[{"on":"2026-11-22","when":1.5}]}"#);
    assert!(plugin.grant_prompt);
    assert_eq!(plugin.limits.deadline, Duration::from_millis(5));
}

#[test]
fn a_plan_names_what_changed_and_what_needs_a_restart() {
    let base = "[model]\npath = \"/m\"\n";
    let plugin = |name: &str| format!("[[plugins]]\nname='{name}'\npath='/p'\n");
    let cases = [
        (base.to_owned(), base.to_owned(), vec![], vec![]),
        (base.to_owned(), format!("# noted\n{base}"), vec![], vec![]),
        (base.to_owned(), format!("{base}dtype = \"auto\"\n"), vec![], vec![]),
        (
            base.to_owned(),
            "[model]\npath = \"/n\"\n[engine]\nmemory = \"1GiB\"\n[limits]\nstop = 3\n".to_owned(),
            vec!["limits.stop"],
            vec!["engine.memory", "model.path"],
        ),
        (
            format!("{base}{}{}", plugin("a"), plugin("b")),
            format!("{base}{}{}", plugin("b"), plugin("a")),
            vec!["plugins"],
            vec![],
        ),
        (
            format!("{base}{}", plugin("a")),
            format!("{base}{}deadline='9ms'\n", plugin("a")),
            vec!["plugins.a.deadline"],
            vec![],
        ),
    ];
    for (old, new, live, restart) in cases {
        let [running, wanted] = [&old, &new].map(|text| load(text).expect("valid"));
        let plan = Plan::between(&running, &wanted);
        assert_eq!((plan.live, plan.restart), own(live, restart), "{old}\n->\n{new}");
    }
}

fn own(live: Vec<&str>, restart: Vec<&str>) -> (Vec<String>, Vec<String>) {
    let text = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
    (text(live), text(restart))
}
