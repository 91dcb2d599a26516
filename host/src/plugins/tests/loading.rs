//! What is taken into service, what is refused and why, and that nothing stays behind.

use std::{env, fs, process::Command, sync::Weak, thread, time::Duration};

use super::*;

fn check_refused(spec: &PluginSpec, expect: &str) {
    let Err(error) = HOST.load(spec, None) else { panic!("loaded instead of: {expect}") };
    let text = error.to_string();
    assert!(text.contains(expect) && text.contains("`under test`"), "{text:?}, not {expect:?}");
}

#[test]
fn a_canary_that_fails_is_refused() {
    let check = |config: Value, expect: &str| {
        for role in PluginRole::ALL {
            check_refused(&spec(fixture_path(role.name()), config.clone()), expect);
        }
    };
    check(json!({ "fault": "refuse", "at": "configure" }), "`configure`: internal error: refused");
    check(json!({ "fault": "loop", "at": "configure" }), "`configure`: it used more than 500ms of");
    check(json!({ "fault": "trap", "at": "self-test" }), "`self-test`: it trapped");
    check(json!({ "fault": "refuse", "at": "self-test" }), "`self-test`: internal error: refused");
    check(json!({ "no such key": 1 }), "no such key");
}

#[test]
fn a_file_that_is_no_plugin_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.wasm");
    let check = |bytes: &[u8], expect: &str| {
        fs::write(&path, bytes).unwrap();
        check_refused(&spec(path.clone(), json!({})), expect);
    };
    check(b"", "is not a WebAssembly component");
    check(b"#!/bin/sh\necho hello", "is not a WebAssembly component");
    check(b"\0asm\x01\0\0\0", "is a core module");
    check(b"\0asm\x0d\0\x01\0", "does not export switchyard:plugin/lifecycle");
    let whole = fs::read(plugin_path("router-rules")).unwrap();
    check(&whole[..whole.len() / 2], "does not compile");
    fs::remove_file(&path).unwrap();
    check_refused(&spec(path, json!({})), "cannot read");
}

#[test]
fn prompts_need_a_grant() {
    let mut spec = spec(plugin_path("router-rules"), json!({ "rules": [] }));
    spec.grant_prompt = false;
    check_refused(&spec, "imports prompt, which was not granted");
}

#[test]
fn a_guest_that_starts_too_large_is_refused() {
    let mut spec = spec(fixture_path("router"), json!({}));
    spec.limits.memory_bytes = 64 << 10;
    check_refused(&spec, "its limit is 65536");
}

#[test]
fn the_same_bytes_and_spec_are_the_same_plugin() {
    let spec = spec(fixture_path("router"), json!({}));
    let first = HOST.load(&spec, None).unwrap();
    let same = HOST.load(&spec, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let changed = PluginSpec { config: json!({ "fault": "loop" }), ..spec };
    let other = HOST.load(&changed, Some(&first)).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(first.digest, other.digest);
}

#[test]
fn a_chain_has_one_template_and_one_parser() {
    let roles = ["router", "template", "parser", "router"];
    let plugins = roles.map(|role| load(fixture_path(role), json!({})));
    let chain = PluginChain::assemble(plugins.clone()).unwrap();
    assert!(Arc::ptr_eq(&chain.routers[1], &plugins[3]));
    assert!(chain.template.is_some() && chain.parser.is_some());
    let Err(error) = PluginChain::assemble([&plugins[2], &plugins[2]].map(Arc::clone)) else {
        panic!("two parsers went together")
    };
    assert!(error.to_string().contains("both a parser"), "{error}");
}

/// Memory of this process, bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap() * 4096
}

/// What a process has is counted in one that runs this test alone: others take memory too.
#[test]
fn reloads_leave_nothing_behind() {
    if env::args().any(|argument| argument == "--exact") {
        return reload_many_times();
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let name = format!("{module}::reloads_leave_nothing_behind");
    let alone =
        Command::new(env::current_exe().unwrap()).args(["--exact", &name]).output().unwrap();
    let printed = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && printed.contains("1 passed"), "{printed}");
}

fn reload_many_times() {
    let paths = [plugin_path("parser-hermes"), fixture_path("parser")];
    let mut generations: Vec<Weak<Plugin>> = Vec::new();
    let mut previous = None;
    let mut early = 0;
    for round in 0..200 {
        let spec = spec(paths[round % 2].clone(), json!({}));
        let plugin = HOST.load(&spec, previous.as_ref()).unwrap();
        let events = block_on(async {
            let mut stream = plugin.open(answer()).await.unwrap();
            stream.feed(vec![1], "hello".into()).await.unwrap()
        });
        assert_eq!(events, [Event::Content("hello".into())]);
        generations.push(Arc::downgrade(&plugin));
        previous = Some(plugin);
        if round == 20 {
            early = resident();
        }
    }
    // Jobs may still be on their threads, each with its plugin in its hands.
    let held = || generations.iter().map(Weak::strong_count).sum::<usize>();
    for _ in 0..10_000 {
        if held() == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let alive = generations.iter().map(Weak::strong_count).enumerate().filter(|held| held.1 != 0);
    assert_eq!(alive.collect::<Vec<_>>(), [(199, 1)], "generations and how many hold each");
    // Allocators keep a little; a leak of one generation's code and spare each time would be 50 MB.
    assert!(resident() < early + (16 << 20), "{early} bytes grew to {}", resident());
}
