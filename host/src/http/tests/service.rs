//! Models, health, limits on everybody together, and the end of service.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ADAPTER, BASE, RequestLimits, Site, send};

#[test]
fn models_are_listed_base_first() {
    let site = Site::start();
    let list = site.get("/v1/models").ok();
    let cards = list["data"].as_array().expect("cards");
    assert_eq!((&list["object"], &cards[0]["id"]), (&json!("list"), &json!(BASE)));
    assert_eq!((&cards[0]["parent"], &cards[0]["max_model_len"]), (&Value::Null, &json!(256)));
    assert!(cards.len() > 1, "adapters too");
    assert!(cards[1..].iter().all(|card| card["parent"] == BASE && card["object"] == "model"));
    let card = site.get(&format!("/v1/models/{ADAPTER}")).ok();
    assert!(cards.contains(&card));
    assert_eq!(card["switchyard"]["rank"], 8);
    assert_eq!(site.get("/v1/models/default").ok(), cards[0], "an alias");
}

#[test]
fn every_exchange_has_a_request_id() {
    let site = Site::start();
    let named = site.request("GET", "/v1/models").header("x-request-id", "abc-123");
    assert_eq!(send(named, Vec::new()).header("x-request-id"), Some("abc-123"));
    let made = site.get("/nowhere").header("x-request-id").expect("set").to_owned();
    assert!(made.starts_with("req-"));
    let long = site.request("GET", "/v1/models").header("x-request-id", "x".repeat(200));
    assert!(send(long, Vec::new()).header("x-request-id").expect("set").starts_with("req-"));
}

#[test]
fn requests_beyond_the_limit_are_refused_and_counted_out_again() {
    let limits = RequestLimits { max_requests: 1, ..RequestLimits::default() };
    let site = Site::with(limits, Duration::from_secs(60));
    let running = site.app.admission.enter(1).expect("the only place");
    let refused = site.chat(json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert_eq!(site.get("/v1/models").status, 200, "only inference is limited");
    drop(running);
    assert_eq!(site.chat(json!({})).status, 200);
    assert_eq!(site.chat(json!({"temperature": 9})).status, 400);
    assert_eq!(site.app.admission.running(), 0, "refusals give their place back");
}

#[test]
fn a_dropped_generation_frees_the_engine() {
    use crate::generation::{Generation, GenerationRequest, Input, Prompt, StopRules};
    let site = Site::start();
    let host = &site.app.host;
    let request = GenerationRequest {
        origin: Default::default(),
        model: BASE.to_owned(),
        input: Input::Prompts(vec![Prompt::Tokens(vec![5, 6, 7])]),
        choices: 8,
        max_tokens: None,
        sampling: crate::engine::Sampling::greedy(),
        stop: StopRules { ignore_eos: true, ..StopRules::default() },
        skip_specials: true,
    };
    let snapshot = host.snapshot.load_full();
    let started = site.runtime.block_on(Generation::start(host, snapshot, request));
    drop(started.expect("it starts"));
    // What runs after it shows that the engine has moved on.
    while site.complete(json!({"max_tokens": 1})).ok()["usage"].is_null()
        || host.engine.status().running > 0
    {}
    assert_eq!(host.engine.status().slabs.kv, 0);
}

#[test]
fn draining_refuses_new_requests_and_lets_running_ones_end() {
    let mut site = Site::start();
    assert_eq!(site.get("/health/ready").ok()["status"], "ready");
    let running = site.app.admission.enter(9).expect("room");
    site.stop();
    while site.get("/health/ready").status == 200 {}
    assert_eq!(site.get("/health").json()["status"], "draining");
    assert_eq!(site.get("/health/live").status, 200);
    let refused = site.chat(json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(refused.json()["error"]["code"], "draining");
    drop(running);
    site.ended().expect("a clean end");
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let mut site = Site::with(RequestLimits::default(), Duration::ZERO);
    let _running = site.app.admission.enter(9).expect("room");
    site.stop();
    site.ended().expect("a clean end");
}

#[test]
fn a_stopped_engine_is_said_so() {
    let site = Site::start();
    site.app.host.engine.shutdown();
    let refused = site.chat(json!({}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("engine_stopped")));
}
