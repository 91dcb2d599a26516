//! Start, overload, disconnect and shutdown of the real process.

use std::{io::Write, net::TcpStream};

use serde_json::json;

use crate::harness::{OpenReply, Server, Site, chat, run, wait_until};

fn long_stream() -> serde_json::Value {
    let mut body = chat("switchyard-demo", "Repeat after me: one two three");
    body["max_tokens"] = json!(700);
    body["ignore_eos"] = json!(true);
    body["stream"] = json!(true);
    body
}

/// Starts a stream and gives it back once the first chunk has come.
fn begun(server: &Server) -> OpenReply {
    let mut reply = server.open("/v1/chat/completions", &long_stream());
    assert_eq!(reply.status, 200);
    reply.next_event().expect("a chunk");
    reply
}

#[test]
fn termination_lets_running_streams_end() {
    let site = Site::demo();
    let mut server = site.serve(&[]);
    let mut stream = begun(&server);
    server.signal("TERM");
    wait_until("draining is announced", || server.log().contains("drain"));
    let mut last = String::new();
    while let Some(event) = stream.next_event() {
        last = event;
    }
    assert_eq!(last, "[DONE]", "the stream ended properly");
    assert!(server.wait().success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let site = Site::demo();
    let mut server = site.serve(&[]);
    let _held = begun(&server);
    server.signal("TERM");
    wait_until("draining is announced", || server.log().contains("drain"));
    server.signal("TERM");
    server.wait();
}

#[test]
fn a_full_queue_is_refused_with_a_hint() {
    let site = Site::demo();
    let server = site.serve(&["--set", "engine.max_running=1", "--set", "engine.max_waiting=1"]);
    let mut kept = vec![begun(&server)];
    let refused = loop {
        let reply = server.open("/v1/chat/completions", &long_stream());
        if reply.status != 200 {
            break reply;
        }
        kept.push(reply);
        assert!(kept.len() < 8, "the limits are 1 and 1");
    };
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let site = Site::demo();
    let server = site.serve(&["--set", "engine.max_running=1", "--set", "engine.max_waiting=1"]);
    for _ in 0..6 {
        wait_until("a place is free", || {
            let mut reply = server.open("/v1/chat/completions", &long_stream());
            reply.status == 200 && reply.next_event().is_some()
        });
    }
    wait_until("a place is free", || {
        server.post("/v1/chat/completions", &chat("switchyard-demo", "Hello")).status == 200
    });
}

#[test]
fn an_oversized_body_and_a_slow_client_cost_nothing() {
    let site = Site::demo();
    let server = site.serve(&["--set", "server.body_limit=\"64KiB\""]);
    let reply = server.post("/v1/chat/completions", &chat("sql", &"x".repeat(100_000)));
    assert_eq!(reply.status, 413);
    assert!(reply.json["error"]["message"].is_string());
    let address = server.url("").replace("http://", "");
    let mut idle = TcpStream::connect(address).expect("a connection");
    idle.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        .expect("half a request");
    assert_eq!(server.ask("sql", "How many orders are there?").status, 200);
}

#[test]
fn health_answers() {
    let site = Site::demo();
    let server = site.serve(&[]);
    assert_eq!(server.get("/health/live").status, 200);
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(server.get("/nowhere").status, 404);
    assert!(server.get("/nowhere").json["error"]["message"].is_string());
}

#[test]
fn a_wrong_start_says_what_is_wrong() {
    let site = Site::demo();
    let config = site.path("config.toml").display().to_string();
    let check = |flags: &[&str], expected: &[&str]| {
        let mut arguments = vec!["check", "--config", &config];
        arguments.extend(flags);
        let (status, _, stderr) = run(&arguments);
        assert_eq!(status.code(), Some(2), "{stderr}");
        for text in expected {
            assert!(stderr.contains(text), "{text} is named in {stderr}");
        }
    };
    check(&["--set", "engine.max_runing=4"], &["max_runing", "max_running"]);
    check(&["--set", "model.path=\"nowhere\""], &["nowhere"]);
    site.write("plugins/parser-hermes.wasm", b"not wasm");
    check(&[], &["parser-hermes"]);
}
