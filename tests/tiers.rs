//! More adapters than memory has room for.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    thread,
};

use serde_json::{Value, json};

use crate::harness::{Server, Site, chat, root};

const DEMO: [(&str, &str); 4] = [
    ("sql", "How many orders are there?"),
    ("math", "What is 17 plus 25?"),
    ("tools", "What is the weather in Paris?"),
    ("extract", "Extract the details: Anna is 31 years old and lives in Oslo."),
];

/// The name and question of adapter `i`.
fn question(i: usize) -> (String, &'static str) {
    let (kind, question) = DEMO[i % DEMO.len()];
    (format!("{kind}-{i}"), question)
}

/// A hundred adapters, each of a strength of its own, so that no two have the same content.
fn hundred() -> Site {
    let site = Site::bare();
    for i in 0..100 {
        let (name, _) = question(i);
        let from = root().join("host/demo/adapters").join(DEMO[i % DEMO.len()].0);
        site.add_adapter(&from, &name);
        let path = format!("adapters/{name}/adapter_config.json");
        let mut config: Value = serde_json::from_str(&site.read(&path)).expect("JSON");
        let alpha = config["lora_alpha"].as_f64().expect("a number");
        config["lora_alpha"] = json!(alpha * (1.0 - 0.008 * i as f64));
        site.write(&path, config.to_string());
    }
    site
}

fn answer(server: &Server, i: usize) -> String {
    let (name, question) = question(i);
    let mut body = chat(&name, question);
    body["max_tokens"] = json!(12);
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 200, "{name}: {}", reply.body);
    reply.content().to_owned()
}

/// Files of packed images.
fn images(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.path("cache/switchyard")).expect("the cache");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "image")).collect()
}

#[test]
fn a_hundred_adapters_answer_from_room_for_three() {
    let site = hundred();
    let roomy = site.serve(&[]);
    let expected: Vec<String> = (0..100).map(|i| answer(&roomy, i)).collect();
    drop(roomy);
    let images = images(&site);
    assert_eq!(images.len(), 100);
    let size = |path: &PathBuf| fs::metadata(path).expect("a file").len();
    let largest = images.iter().map(size).max().expect("some");

    // Damage is mended on the way.
    fs::write(&images[0], b"damaged").expect("written");
    let memory = format!("adapters.host_memory={}B", 3 * largest);
    let server = site.serve(&["--set", &memory, "--set", "engine.memory=24MiB"]);
    thread::scope(|scope| {
        for worker in 0..5 {
            let (server, expected) = (&server, &expected);
            // A walk through all of them in an order of its own.
            let order =
                (0..100).map(move |step| (step * [7, 13, 21, 37, 91][worker] + worker) % 100);
            scope.spawn(move || {
                for i in order {
                    assert_eq!(answer(server, i), expected[i], "adapter {i}");
                }
            });
        }
    });
    assert!(server.log().contains(&images[0].display().to_string()), "it says which was damaged");
}

/// A pipe in the place of an image: reading it lasts until somebody opens its other end.
#[test]
fn nobody_waits_for_anothers_slow_read() {
    let site = Site::demo();
    let no_memory = ["--set", "adapters.host_memory=0B"];
    let first = site.serve(&no_memory);
    let card = first.get("/v1/models/sql").json;
    let id = card["switchyard"]["generation"].as_str().expect("an id").to_owned();
    drop(first);
    let is_sql =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&id));
    let pipe = images(&site).into_iter().find(is_sql).expect("its image");
    fs::remove_file(&pipe).expect("removed");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());

    let server = site.serve(&no_memory);
    let ask = |i: usize| server.ask(DEMO[i].0, DEMO[i].1).content().to_owned();
    thread::scope(|scope| {
        let slow = scope.spawn(|| ask(0));
        for other in [1, 2, 3] {
            assert!(!ask(other).is_empty(), "others are read meanwhile");
        }
        assert_eq!(server.ask("switchyard-demo", "Hello").status, 200);
        assert!(!slow.is_finished());
        // Open for both, which waits for nobody.
        let _other_end = File::options().read(true).write(true).open(&pipe).expect("a pipe");
        assert!(slow.join().expect("an answer").starts_with("SELECT"));
    });
    assert!(server.log().contains(&pipe.display().to_string()), "the damage is logged");
}
