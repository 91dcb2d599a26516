//! What calls cost on a guest that stands ready, without the way to its thread. Prints, asserts
//! answers only: `cargo test -p switchyard --lib plugins::tests::costs -- --nocapture`.

use std::time::{Duration, Instant};

use super::*;
use crate::plugins::{instance::Instance, parser::Stream, router, template};

/// Times `call` on what `ready` makes anew each time; only `call` is timed.
fn measure<R, T>(what: &str, ready: impl Fn() -> R, call: impl Fn(R) -> T) {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..300 {
        let guest = ready();
        let start = Instant::now();
        let spent = call(guest);
        times.push(start.elapsed());
        drop(spent);
    }
    times.sort();
    println!("{what:32} p50 {:>10.1?}  p99 {:>10.1?}", times[150], times[297]);
}

fn guest(plugin: &Plugin) -> Instance {
    plugin.blueprint().configured().unwrap()
}

#[test]
fn of_a_router() {
    let rules = json!({ "rules": [{ "adapter": "math", "any": ["plus", "times"] }] });
    let plugin = load(plugin_path("router-rules"), rules);
    let ready = || (guest(&plugin), question("What is 2 plus 2?", Arc::default()));
    measure("route", ready, |(mut instance, request)| {
        assert_eq!(router::route(&mut instance, request), Ok(Decision::Pass));
        instance
    });
    measure("instantiate and configure", || (), |()| guest(&plugin));
    let ready = || question("What is 2 plus 2?", Arc::default());
    measure("route with the way there", ready, |request| block_on(plugin.route(request)).unwrap());
}

#[test]
fn of_a_template() {
    let plugin = load(plugin_path("template-chatml"), json!({}));
    let turn = user(&"The quick brown fox. ".repeat(39));
    let input = conversation(vec![turn; 20]);
    let ready = || (guest(&plugin), input.clone());
    measure("render, 20 messages, 16 KiB", ready, |(mut instance, input)| {
        let rendered = template::render(&mut instance, &input).unwrap();
        assert!(!rendered.segments.is_empty());
        instance
    });
}

#[test]
fn of_a_parser() {
    let plugin = load(plugin_path("parser-hermes"), json!({}));
    measure("open", || guest(&plugin), |instance| Stream::open(instance, &answer()).unwrap());
    let open = || Stream::open(guest(&plugin), &answer()).unwrap();
    let piece = || (vec![17], " hello".to_owned());
    let ready = || {
        let mut stream = open();
        stream.feed(vec![17], "Say".to_owned()).unwrap();
        (stream, piece())
    };
    measure("feed", ready, |(mut stream, (tokens, text))| {
        stream.feed(tokens, text).unwrap();
        stream
    });
    let mut stream = block_on(plugin.open(answer())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let start = Instant::now();
    for _ in 0..1000 {
        let (tokens, text) = piece();
        runtime.block_on(stream.feed(tokens, text)).unwrap();
    }
    println!("{:32} mean {:.1?}", "feed with the way there", start.elapsed() / 1000);
}
