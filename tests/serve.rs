//! The demo as a newcomer meets it: every adapter at its task, the router, tools, streams.

use serde_json::{Value, json};

use crate::harness::{Reply, Site, chat, root};

/// Prompts with the answers that an independent implementation gives, from `host/demo`.
fn expected() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("host/demo/expected.json")).expect("expected");
    serde_json::from_str(&text).expect("a list")
}

fn model_of(case: &Value) -> String {
    case["adapter"].as_str().unwrap_or("switchyard-demo").to_owned()
}

fn chat_of(case: &Value) -> Value {
    let mut body = json!({
        "model": model_of(case),
        "messages": case["messages"],
        "temperature": 0,
        "max_tokens": 400,
        "return_token_ids": true,
    });
    if case["tools"].is_array() {
        body["tools"] = case["tools"].clone();
    }
    body
}

#[test]
fn answers_equal_the_reference() {
    let site = Site::demo();
    let server = site.serve(&[]);
    for case in expected() {
        let body = json!({
            "model": model_of(&case), "prompt": case["prompt_ids"], "temperature": 0,
            "max_tokens": 400,
        });
        let reply = server.post("/v1/completions", &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.json["choices"][0]["text"], case["answer"], "{case}");
    }
}

#[test]
fn plugin_and_jinja_render_the_same_prompt() {
    let (with, without) = (Site::demo(), Site::bare());
    without.add_adapter(&root().join("host/demo/adapters/tools"), "tools");
    for site in [with, without] {
        let server = site.serve(&[]);
        for mut case in expected().into_iter().filter(|case| case["adapter"] == "tools") {
            let reply = server.post("/v1/chat/completions", &chat_of(&case));
            assert_eq!(reply.status, 200, "{}", reply.body);
            assert_eq!(reply.json["prompt_token_ids"], case["prompt_ids"].take());
        }
    }
}

#[test]
fn a_tool_call_is_parsed() {
    let site = Site::demo();
    let server = site.serve(&[]);
    let case = expected().into_iter().find(|case| {
        case["adapter"] == "tools" && case["answer"].as_str().unwrap_or("").contains("<tool_call>")
    });
    let case = case.expect("the demo has a tool call");
    let answer = case["answer"].as_str().expect("text");
    let call = answer.trim().trim_start_matches("<tool_call>").trim_end_matches("</tool_call>");
    let call: Value = serde_json::from_str(call.trim()).expect("the reference is JSON");

    let whole = server.post("/v1/chat/completions", &chat_of(&case));
    let choice = &whole.json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{}", whole.body);
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(function["name"], call["name"]);
    let arguments: Value =
        serde_json::from_str(function["arguments"].as_str().expect("text")).expect("JSON");
    assert_eq!(arguments, call["arguments"]);

    let mut streamed = chat_of(&case);
    streamed["stream"] = true.into();
    let streamed = server.post("/v1/chat/completions", &streamed);
    let (name, fragments) = joined_tool_call(&streamed);
    assert_eq!(name, call["name"]);
    assert_eq!(serde_json::from_str::<Value>(&fragments).expect("JSON"), call["arguments"]);
    assert_eq!(streamed.events().last(), Some(&"[DONE]"));
}

fn joined_tool_call(reply: &Reply) -> (Value, String) {
    let (mut name, mut fragments) = (Value::Null, String::new());
    for chunk in reply.chunks() {
        let Some(delta) = chunk["choices"].get(0).map(|choice| choice["delta"].clone()) else {
            continue;
        };
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            assert_eq!(call["index"], 0);
            if call["function"]["name"].is_string() {
                assert!(name.is_null(), "the name comes once");
                name = call["function"]["name"].clone();
            }
            fragments += call["function"]["arguments"].as_str().unwrap_or_default();
        }
    }
    (name, fragments)
}

#[test]
fn auto_lets_the_router_choose() {
    let site = Site::demo();
    let server = site.serve(&[]);
    let prompts = [
        ("How many customers live in Berlin?", "sql"),
        ("What is 145 + 278?", "math"),
        ("Extract the record: Sam Reed ordered 12 chairs for 480 euros.", "extract"),
    ];
    for (prompt, adapter) in prompts {
        let reply = server.ask("auto", prompt);
        assert_eq!(reply.header("x-switchyard-adapter"), Some(adapter), "{prompt}");
    }
    let with_tools = expected().into_iter().find(|case| case["adapter"] == "tools");
    let mut body = chat_of(&with_tools.expect("the demo has a tool call"));
    body["model"] = "auto".into();
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.header("x-switchyard-adapter"), Some("tools"));
    let hello = server.ask("auto", "Hello!");
    assert_eq!(hello.header("x-switchyard-adapter"), Some("base"));
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let site = Site::demo();
    let server = site.serve(&[]);
    for model in ["switchyard-demo", "sql", "math", "extract"] {
        let mut body = chat(model, "How many orders are there?");
        let whole = server.post("/v1/chat/completions", &body);
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let stream = server.post("/v1/chat/completions", &body);
        let chunks = stream.chunks();
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, whole.content());
        let finishes = chunks.iter().filter(|c| c["choices"][0]["finish_reason"].is_string());
        assert_eq!(finishes.count(), 1);
        let last = chunks.last().expect("chunks");
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"], whole.json["usage"]);
    }
}

#[test]
fn headers_name_adapter_and_generations() {
    let site = Site::demo();
    let server = site.serve(&[]);
    let sql = server.ask("sql", "How many orders are there?");
    assert_eq!(sql.header("x-switchyard-adapter"), Some("sql"));
    assert!(sql.header("x-switchyard-adapter-generation").is_some_and(|id| id.len() >= 8));
    assert_eq!(sql.header("x-switchyard-config-generation"), Some("1"));
    let base = server.ask("switchyard-demo", "Hello");
    assert_eq!(base.header("x-switchyard-adapter"), Some("base"));
    assert_eq!(base.header("x-switchyard-adapter-generation"), None);
}

#[test]
fn a_request_alone_and_in_a_crowd_gets_the_same_tokens() {
    let site = Site::demo();
    let server = site.serve(&[]);
    let bodies: Vec<Value> = expected()
        .iter()
        .enumerate()
        .map(|(i, case)| {
            let mut body = chat_of(case);
            body["temperature"] = json!(if i % 2 == 0 { 0.0 } else { 0.9 });
            body["seed"] = json!(i);
            body
        })
        .collect();
    let answer = |body: &Value| {
        let reply = server.post("/v1/chat/completions", body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json["choices"].clone()
    };
    let tokens = |choices: &Value| choices[0]["token_ids"].clone();
    let alone: Vec<Value> = bodies.iter().map(|body| tokens(&answer(body))).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            bodies.iter().map(|body| scope.spawn(|| tokens(&answer(body)))).collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            assert_eq!(&thread.join().expect("an answer"), alone);
        }
    });
}
