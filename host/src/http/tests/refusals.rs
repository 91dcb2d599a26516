//! What bad requests get: one shape of body, the right status, the field at fault.

use serde_json::{Value, json};

use super::{BASE, Reply, Site, send};

fn check(reply: &Reply, status: u16, code: &str, param: Option<&str>) {
    assert_eq!(reply.status, status, "{}", reply.body);
    let error = &reply.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(param)), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
    assert!(error["type"].is_string());
}

#[test]
fn chats_are_checked_before_any_work() {
    let site = Site::start();
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let bad = "invalid_value";
    let not_done = "unsupported_parameter";
    for (fields, status, code, param) in [
        (json!({"model": "nobody"}), 404, "model_not_found", "model"),
        (json!({"model": 1}), 400, bad, "model"),
        (json!({"messages": []}), 400, bad, "messages"),
        (json!({"temperature": 3}), 400, bad, "temperature"),
        (json!({"max_tokens": 0}), 400, bad, "max_tokens"),
        (json!({"max_completion_tokens": -1}), 400, bad, "max_completion_tokens"),
        (json!({"logprobs": true, "top_logprobs": 21}), 400, bad, "top_logprobs"),
        (json!({"top_logprobs": 2}), 400, bad, "top_logprobs"),
        (json!({"logprobs": 2}), 400, bad, "logprobs"),
        (json!({"stream_options": {}}), 400, bad, "stream_options"),
        (json!({"chat_template_kwargs": 1}), 400, bad, "chat_template_kwargs"),
        (json!({"response_format": {"type": "json_object"}}), 400, not_done, "response_format"),
        (json!({"tools": [tool], "tool_choice": "required"}), 400, not_done, "tool_choice"),
        (json!({"presence_penalty": 1}), 400, not_done, "presence_penalty"),
    ] {
        check(&site.chat(fields), status, code, Some(param));
    }
    let long = json!([{"role": "user", "content": "word ".repeat(400)}]);
    check(&site.chat(json!({"messages": long})), 400, "context_length_exceeded", None);
}

#[test]
fn completions_are_checked_before_any_work() {
    let site = Site::start();
    let bad = "invalid_value";
    for (fields, code, param) in [
        (json!({"prompt": []}), bad, "prompt"),
        (json!({"prompt": [[]]}), bad, "prompt"),
        (json!({"prompt": ["a", 1]}), bad, "prompt"),
        (json!({"prompt": [1, "a"]}), bad, "prompt"),
        (json!({"prompt": {}}), bad, "prompt"),
        (json!({"prompt": [-1]}), bad, "prompt"),
        (json!({"prompt": [100_000]}), bad, "prompt"),
        (json!({"prompt": ["a", "b", "c"], "n": 6}), bad, "prompt"),
        (json!({"logprobs": 21}), bad, "logprobs"),
        (json!({"echo": true}), "unsupported_parameter", "echo"),
        (json!({"best_of": 2}), "unsupported_parameter", "best_of"),
        (json!({"suffix": "x"}), "unsupported_parameter", "suffix"),
    ] {
        check(&site.complete(fields), 400, code, Some(param));
    }
    let reply = site.post("/v1/completions", &json!({"model": BASE}));
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("prompt")));
}

#[test]
fn a_refused_stream_is_no_stream() {
    let site = Site::start();
    let reply = site.chat(json!({"model": "nobody", "stream": true}));
    check(&reply, 404, "model_not_found", Some("model"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[test]
fn bodies_that_cannot_be_read_are_refused() {
    let limits = super::RequestLimits { body_bytes: 1000, ..Default::default() };
    let site = Site::with(limits, std::time::Duration::from_secs(60));
    let post = |kind: &str, body: &[u8]| {
        let request = site.request("POST", "/v1/chat/completions").header("content-type", kind);
        send(request, body.to_vec())
    };
    let json_body = br#"{"model": "base-f32", "messages": [{"role": "user", "content": "a"}]}"#;
    assert_eq!(post("application/json; charset=utf-8", json_body).status, 200);
    check(&post("text/plain", json_body), 415, "unsupported_media_type", None);
    check(&post("application/json", &[b' '; 1001]), 413, "request_too_large", None);
    let nested = "[".repeat(900);
    let broken: [&[u8]; 6] =
        [b"", b"{", b"[]", b"\"x\"", b"{\"model\": \"\xff\"}", nested.as_bytes()];
    for body in broken {
        let reply = post("application/json", body);
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    let place = post("application/json", b"{\"model\":\n \"a\", }").json();
    let message = place["error"]["message"].as_str().expect("text").to_owned();
    assert!(message.contains("line 2 column 7"), "{message}");
}

#[test]
fn unknown_routes_and_methods_are_json_errors() {
    let site = Site::start();
    check(&site.get("/v1/nowhere"), 404, "unknown_url", None);
    let reply = site.get("/v1/chat/completions");
    check(&reply, 405, "method_not_allowed", None);
    assert_eq!(reply.header("allow"), Some("POST"));
    check(&site.get("/v1/models/nobody"), 404, "model_not_found", Some("model"));
}

#[test]
fn unknown_fields_are_passed_over() {
    let site = Site::start();
    let fields = json!({"user": "me", "metadata": {"a": "b"}, "service_tier": "auto", "x": 1});
    let answer: Value = site.chat(fields).ok();
    assert_eq!(answer["choices"][0]["index"], 0);
}
