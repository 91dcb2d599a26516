//! Plugins that misbehave: each costs its own call a named fault, and the next call works.

use std::time::Duration;

use super::*;

const MEMORY: usize = 8 << 20;

fn fault(kind: &FaultKind) -> &'static str {
    match kind {
        FaultKind::Busy => "busy",
        FaultKind::Deadline(_) => "deadline",
        FaultKind::Stalled(_) => "stalled",
        FaultKind::Memory(MEMORY) => "memory",
        FaultKind::Memory(_) => "another memory limit",
        FaultKind::Output(_) => "output",
        FaultKind::HostCalls(_) => "host calls",
        FaultKind::Trap(_) => "trap",
        FaultKind::Protocol(_) => "protocol",
        FaultKind::Refused(_) => "refused",
    }
}

/// What `config` makes of a route call; empty if it goes well.
fn route(config: Value) -> String {
    let router = load(fixture_path("router"), config);
    let call = || block_on(router.route(question("hello", Arc::default())));
    let first = call();
    let kinds = [&first, &call()].map(|answer| answer.as_ref().err().map(|f| fault(&f.kind)));
    assert_eq!(kinds[0], kinds[1], "an instance is never used again, so both calls are alike");
    let Err(first) = first else { return String::new() };
    assert_eq!((first.plugin.as_str(), first.role), ("under test", PluginRole::Router));
    assert_eq!(first.hook, "route");
    fault(&first.kind).to_owned()
}

fn check_route(kind: &str, expect: &str) {
    assert_eq!(route(json!({ "fault": kind, "at": "route" })), expect, "{kind}");
}

#[test]
fn a_router_that_misbehaves_is_named() {
    assert_eq!(route(json!({})), "");
    check_route("loop", "deadline");
    check_route("trap", "trap");
    check_route("recurse", "trap");
    check_route("memory", "memory");
    check_route("flood", "host calls");
    check_route("refuse", "refused");
    check_route("bad-status", "protocol");
}

#[test]
fn too_much_output_is_refused_before_it_is_copied() {
    let mut spec =
        spec(fixture_path("router"), json!({ "fault": "huge", "at": "route", "amount": 1 << 20 }));
    spec.limits.output_bytes = 1 << 16;
    let router = HOST.load(&spec, None).unwrap();
    let answer = block_on(router.route(question("hello", Arc::default())));
    assert_eq!(answer.unwrap_err().kind, FaultKind::Output(1 << 16));
}

#[test]
fn a_deadline_is_the_plugins_own() {
    let config = json!({ "fault": "loop", "at": "route" });
    let mut spec = spec(fixture_path("router"), config);
    spec.limits.deadline = Duration::from_millis(7);
    let router = HOST.load(&spec, None).unwrap();
    let answer = block_on(router.route(question("hello", Arc::default())));
    assert_eq!(answer.unwrap_err().kind, FaultKind::Deadline(Duration::from_millis(7)));
}

fn check_render(kind: &str, expect: &str) {
    let template = load(fixture_path("template"), json!({ "fault": kind, "at": "render" }));
    let answer = block_on(template.render(conversation([user("hello")])));
    assert_eq!(answer.as_ref().err().map_or("", |f| fault(&f.kind)), expect, "{kind}");
}

#[test]
fn a_template_that_misbehaves_is_named() {
    check_render("none", "");
    check_render("loop", "deadline");
    check_render("unknown-special", "protocol");
    check_render("bad-token", "protocol");
    check_render("trap", "trap");
}

/// What the second of three pieces gives in a stream that misbehaves there.
fn check_feed(kind: &str, expect: &str) {
    let config = json!({ "fault": kind, "at": "feed", "after": 1, "amount": 4 << 20 });
    let parser = load(fixture_path("parser"), config);
    block_on(async {
        let mut stream = parser.open(answer()).await.unwrap();
        let mut other = parser.open(answer()).await.unwrap();
        let first = stream.feed(vec![1], "a".into()).await.unwrap();
        assert_eq!(first, [Event::Content("a".into())]);
        let second = stream.feed(vec![2], "b".into()).await;
        assert_eq!(second.as_ref().err().map_or("", |f| fault(&f.kind)), expect, "{kind}");
        if !expect.is_empty() {
            let third = stream.feed(vec![3], "c".into()).await.unwrap_err();
            assert!(third.to_string().contains("the stream is over"), "{third}");
        }
        let untouched = other.feed(vec![1], "a".into()).await.unwrap();
        assert_eq!(untouched, [Event::Content("a".into())], "a neighbour goes on");
    });
}

#[test]
fn a_parser_that_misbehaves_is_over_and_its_neighbours_go_on() {
    check_feed("loop", "deadline");
    check_feed("trap", "trap");
    check_feed("memory", "memory");
    check_feed("delta-first", "protocol");
    check_feed("begin-twice", "protocol");
    check_feed("end-twice", "protocol");
    check_feed("delta-after-end", "protocol");
    check_feed("wrong-index", "protocol");
    check_feed("index-gap", "protocol");
    check_feed("empty-name", "protocol");
    check_feed("after-stop", "protocol");
    check_feed("bad-json", "protocol");
    check_feed("huge", "output");
    check_feed("left-open", "");
}

#[test]
fn a_stop_ends_the_stream_quietly() {
    let parser = load(fixture_path("parser"), json!({ "fault": "stop", "at": "feed" }));
    block_on(async {
        let mut stream = parser.open(answer()).await.unwrap();
        let events = stream.feed(vec![1], "a".into()).await.unwrap();
        assert_eq!(events.last(), Some(&Event::Stop(None)));
        assert_eq!(stream.feed(vec![2], "b".into()).await, Ok(Vec::new()));
        assert_eq!(stream.finish(ParseEnd::Stop).await, Ok(Vec::new()));
    });
}

#[test]
fn calls_left_open_end_with_the_stream() {
    let parser = load(fixture_path("parser"), json!({ "fault": "left-open", "at": "feed" }));
    block_on(async {
        let mut stream = parser.open(answer()).await.unwrap();
        stream.feed(vec![1], "a".into()).await.unwrap();
        assert_eq!(stream.finish(ParseEnd::Length).await, Ok(vec![Event::ToolEnd(0)]));
    });
}

#[test]
fn a_call_whose_caller_went_away_harms_nobody() {
    let parser = load(fixture_path("parser"), json!({ "fault": "loop", "at": "feed" }));
    block_on(async {
        let mut stream = parser.open(answer()).await.unwrap();
        let feed = stream.feed(vec![1], "a".into());
        let now = std::future::ready(());
        tokio::select! { biased; _ = feed => panic!("it loops"), () = now => {} }
        assert!(stream.feed(vec![1], "b".into()).await.is_err(), "its guest is gone");
        let mut next = parser.open(answer()).await.unwrap();
        let again = next.feed(vec![1], "a".into()).await.unwrap_err();
        assert_eq!(fault(&again.kind), "deadline");
    });
}

#[test]
fn a_call_for_another_role_is_a_fault() {
    let template = load(fixture_path("template"), json!({}));
    let error = block_on(template.route(question("hello", Arc::default()))).unwrap_err();
    assert!(error.to_string().contains("it is not a router"), "{error}");
}
