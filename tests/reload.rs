//! Plugins and configuration change under streaming clients.
//!
//! Each generation has one stamp: a number patched into the parser's code and one in its
//! configuration. The parser says both at the start and at the end of every answer.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::harness::{Server, Site, chat, engine, root, wait_until};

const CLIENTS: usize = 8;
const PLUGIN_SWAPS: usize = 200;
const CONFIG_CHANGES: usize = 50;
const CODE_STAMP: &[u8] = b"STAMP-0000";

fn component(number: usize) -> Vec<u8> {
    let path = root().join("tests/fixtures/plugins/stamped/stamped.wasm");
    let mut bytes = fs::read(path).expect("the stamped parser");
    let at = bytes.windows(CODE_STAMP.len()).position(|window| window == CODE_STAMP);
    let at = at.expect("the stamp stands in its data");
    let stamp = format!("STAMP-{number:04}");
    bytes[at..at + stamp.len()].copy_from_slice(stamp.as_bytes());
    bytes
}

fn config(site: &Site, number: usize) -> String {
    let base = root().join("host/demo/base");
    let adapters = site.path("adapters");
    format!(
        "[model]\npath = {base:?}\nid = \"switchyard-demo\"\n{}\
         [adapters]\ndirs = [{adapters:?}]\n\
         [[plugins]]\nname = \"stamped\"\npath = \"stamped.wasm\"\n\
         config = {{ stamp = \"{number}\" }}\n",
        engine()
    )
}

/// What one client saw of one answer.
fn stream(server: &Server) -> Result<(u64, Vec<String>), String> {
    let mut body = chat("sql", "How many orders are there?");
    body["stream"] = true.into();
    let mut reply = server.open("/v1/chat/completions", &body);
    if reply.status != 200 {
        return Err(format!("status {}", reply.status));
    }
    let generation = reply.header("x-switchyard-config-generation").map(str::to_owned);
    let generation = generation.and_then(|text| text.parse().ok()).ok_or("no generation")?;
    let (mut stamps, mut text, mut done) = (Vec::new(), String::new(), false);
    while let Some(event) = reply.next_event() {
        if event == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(&event).map_err(|error| error.to_string())?;
        let choice = &chunk["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        stamps.extend(choice["switchyard"]["annotations"]["stamp"].as_str().map(str::to_owned));
    }
    if !done || !text.starts_with("SELECT COUNT(*)") {
        return Err(format!("an incomplete answer: {text:?}"));
    }
    Ok((generation, stamps))
}

#[test]
fn swaps_under_load_lose_nothing_and_mix_nothing() {
    let site = Site::bare();
    site.add_adapter(&root().join("host/demo/adapters/sql"), "sql");
    fs::write(site.path("stamped.wasm"), component(1)).expect("written");
    site.write("config.toml", config(&site, 1));
    let server = site.serve(&[]);

    let seen: Mutex<BTreeMap<u64, String>> = Mutex::default();
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let memory = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (generation, stamps) = stream(&server).expect("no request fails");
                    answers.fetch_add(1, Ordering::Relaxed);
                    let [first, last] = &stamps[..] else {
                        panic!("stamps {stamps:?}, not one at either end\n{}", server.log())
                    };
                    assert_eq!(first, last, "an answer ends as it began");
                    let mut seen = seen.lock().expect("not poisoned");
                    let known = seen.entry(generation).or_insert_with(|| first.clone());
                    assert_eq!(known, first, "generation {generation} has one stamp");
                }
            });
        }
        let memory = swap_all(&site, &server);
        stop.store(true, Ordering::Relaxed);
        memory
    });
    let (half_way, last) = memory;
    assert!(answers.load(Ordering::Relaxed) > CLIENTS, "clients were busy throughout");
    assert!(seen.lock().expect("not poisoned").len() > 20, "swaps were seen");
    println!(
        "{} answers over {} generations; {half_way} KiB half way, {last} at the end",
        answers.load(Ordering::Relaxed),
        seen.lock().expect("not poisoned").len(),
    );
    let bound = half_way + half_way / 20;
    assert!(last <= bound, "memory grew from {half_way} to {last} KiB");
}

/// Every third change is broken. Gives resident memory half way and at the end: with many
/// processors the allocator has as many places to fill first.
fn swap_all(site: &Site, server: &Server) -> (u64, u64) {
    let (mut half_way, mut config_number) = (0, 1);
    for swap in 0..PLUGIN_SWAPS {
        let broken = swap % 3 == 2;
        let code = if broken { b"\0asm broken".to_vec() } else { component(swap + 2) };
        let before = refusals(server);
        site.write("stamped.wasm", code);
        let stamp = format!("STAMP-{:04}/{config_number}", swap + 2);
        settle(server, broken.then_some(before), &stamp);
        if swap % (PLUGIN_SWAPS / CONFIG_CHANGES) == 0 {
            let number = swap / (PLUGIN_SWAPS / CONFIG_CHANGES);
            let broken = number % 3 == 2;
            let text = if broken { "[modle]\n".to_owned() } else { config(site, number + 2) };
            let before = refusals(server);
            site.write("config.toml", text);
            config_number = if broken { config_number } else { number + 2 };
            settle(server, broken.then_some(before), &format!("/{config_number}"));
        }
        if swap == PLUGIN_SWAPS / 2 {
            half_way = server.resident_kib();
        }
    }
    (half_way, server.resident_kib())
}

/// Waits until a change is refused, if there were so many refusals before it, or taken up.
fn settle(server: &Server, refused_before: Option<usize>, stamp: &str) {
    wait_until("the change is settled", || match refused_before {
        Some(before) => refusals(server) > before,
        None => {
            let stamps = stream(server).expect("no request fails").1;
            stamps.first().is_some_and(|seen| seen.contains(stamp))
        }
    });
}

/// Log lines that say that the last good state is kept.
fn refusals(server: &Server) -> usize {
    server.log().matches("kept").count()
}
