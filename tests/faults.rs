//! Plugins that loop, trap, recurse, grow or talk nonsense cost their own request a defined error,
//! or the fallback, and nothing else.

use serde_json::{Value, json};

use crate::harness::{Server, Site, chat, root};

const QUESTION: &str = "How many orders are there?";
const ANSWER: &str = "SELECT COUNT(*) FROM orders;";

/// A host whose one plugin misbehaves as configured.
fn host_with(plugin: &str, config: &str) -> (Site, Server) {
    let site = Site::bare();
    site.add_adapter(&root().join("host/demo/adapters/sql"), "sql");
    let path = root().join(format!("tests/fixtures/plugins/{plugin}/{plugin}.wasm"));
    site.append_config(&format!(
        "[[plugins]]\nname = {plugin:?}\npath = {path:?}\nconfig = {{ {config} }}\n\
         memory = \"16MiB\"\ndeadline = \"50ms\"\ngrant = [\"prompt\"]"
    ));
    let server = site.serve(&[]);
    (site, server)
}

/// A request that no plugin of this test touches.
fn assert_well(server: &Server) {
    let body = json!({ "model": "sql", "prompt": "Ada", "max_tokens": 2 });
    assert_eq!(server.post("/v1/completions", &body).status, 200);
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn a_faulty_parser_falls_back_to_plain_content() {
    let faults = [
        "loop",
        "trap",
        "recurse",
        "memory",
        "flood",
        "refuse",
        "huge",
        "many",
        "delta-first",
        "begin-twice",
        "wrong-index",
        "index-gap",
        "after-stop",
        "bad-json",
        "empty-name",
    ];
    for fault in faults {
        let config = format!("fault = {fault:?}, at = \"feed\", after = 1, amount = 67108864");
        let (_site, server) = host_with("misbehave-parser", &config);
        let whole = server.ask("sql", QUESTION);
        assert_eq!(whole.content(), ANSWER, "{fault}");
        assert_eq!(whole.json["choices"][0]["finish_reason"], "stop", "{fault}");

        let mut body = chat("sql", QUESTION);
        body["stream"] = true.into();
        let stream = server.post("/v1/chat/completions", &body);
        let text: String = stream
            .chunks()
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, ANSWER, "{fault}");
        assert_eq!(stream.events().last(), Some(&"[DONE]"), "{fault}");
        assert_well(&server);
    }
}

#[test]
fn a_faulty_router_or_template_is_a_plugin_error() {
    for (plugin, at) in [("misbehave-router", "route"), ("misbehave-template", "render")] {
        for fault in ["loop", "trap", "recurse", "memory", "flood"] {
            let config = format!("fault = {fault:?}, at = {at:?}");
            let (_site, server) = host_with(plugin, &config);
            let reply = server.post("/v1/chat/completions", &chat("auto", QUESTION));
            assert_eq!(reply.status, 500, "{plugin} {fault}: {}", reply.body);
            assert_eq!(reply.json["error"]["code"], "plugin_error", "{plugin} {fault}");
            let message = reply.json["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(plugin), "it names the plugin: {message}");
            assert_well(&server);
        }
    }
}

#[test]
fn neighbours_of_a_looping_plugin_are_served() {
    let (_site, server) = host_with("misbehave-template", "fault = \"loop\", at = \"render\"");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reply = server.post("/v1/chat/completions", &chat("sql", QUESTION));
                assert_eq!(reply.json["error"]["code"], "plugin_error", "{}", reply.body);
            });
        }
        for _ in 0..4 {
            scope.spawn(|| assert_well(&server));
        }
    });
}

#[test]
fn a_plugin_that_fails_its_own_test_is_not_published() {
    for at in ["configure", "self-test"] {
        for fault in ["loop", "trap", "memory", "refuse"] {
            let config = format!("fault = {fault:?}, at = {at:?}");
            let site = Site::bare();
            let path = root().join("tests/fixtures/plugins/misbehave-parser/misbehave-parser.wasm");
            site.append_config(&format!(
                "[[plugins]]\nname = \"bad\"\npath = {path:?}\nconfig = {{ {config} }}"
            ));
            let config = site.path("config.toml").display().to_string();
            let (status, _, stderr) = crate::harness::run(&["check", "--config", &config]);
            assert_eq!(status.code(), Some(2), "{at} {fault}: {stderr}");
            assert!(stderr.contains("bad"), "{at} {fault}: {stderr}");
        }
    }
}

#[test]
fn a_parser_may_end_the_answer() {
    let config = "fault = \"stop\", at = \"feed\", after = 1";
    let (_site, server) = host_with("misbehave-parser", config);
    let mut body = chat("sql", QUESTION);
    body["ignore_eos"] = true.into();
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.json["choices"][0]["finish_reason"], Value::from("stop"));
    assert!(reply.content().ends_with("so far"), "{}", reply.body);
}
