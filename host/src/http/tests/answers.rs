//! What good requests get.

use serde_json::{Value, json};

use super::{ADAPTER, BASE, Site, golden};

/// All values of one field of the chunks' first choices, where it is set.
fn fields<'a>(chunks: &'a [Value], pointer: &str) -> Vec<&'a Value> {
    let set = chunks.iter().filter_map(|chunk| chunk.pointer(pointer));
    set.filter(|value| !value.is_null()).collect()
}

fn joined(chunks: &[Value], pointer: &str) -> String {
    fields(chunks, pointer).iter().map(|text| text.as_str().expect("text")).collect()
}

#[test]
fn tokens_are_those_of_the_reference() {
    let site = Site::start();
    let text = std::fs::read_to_string(golden("expected.json")).expect("golden values");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let cases = cases.iter().filter(|case| case["model"] == "base-f32");
    let mut checked = 0;
    for case in cases {
        let model = case["adapter"].as_str().unwrap_or(BASE);
        let greedy = case["greedy"].as_array().expect("tokens");
        let margins = case["margins"].as_array().expect("margins");
        let sure = margins.iter().take_while(|margin| margin.as_f64() > Some(1e-3)).count();
        let reply = site.complete(json!({
            "model": model, "prompt": case["prompt"], "max_tokens": greedy.len(),
            "ignore_eos": true, "return_token_ids": true,
        }));
        let choice = &reply.ok()["choices"][0];
        let tokens = choice["token_ids"].as_array().expect("tokens");
        assert_eq!(tokens[..sure], greedy[..sure], "{model}");
        assert_eq!(choice["prompt_token_ids"], case["prompt"]);
        checked += 1;
    }
    assert!(checked > 1, "base and adapters");
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let site = Site::start();
    for model in [BASE, ADAPTER] {
        let ask = json!({"model": model, "return_token_ids": true, "logprobs": true});
        let whole = site.chat(ask.clone()).ok();
        let mut streamed = ask;
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({"include_usage": true});
        let reply = site.chat(streamed);
        assert_eq!(reply.header("x-accel-buffering"), Some("no"));
        let chunks = reply.chunks();
        let choice = &whole["choices"][0];
        assert_eq!(joined(&chunks, "/choices/0/delta/content"), choice["message"]["content"]);
        assert_eq!(fields(&chunks, "/choices/0/delta/role"), ["assistant"]);
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(fields(&chunks, "/choices/0/finish_reason"), [&choice["finish_reason"]]);
        let list = |pointer| -> Vec<Value> {
            let lists = fields(&chunks, pointer).into_iter();
            lists.flat_map(|list| list.as_array().expect("a list").clone()).collect()
        };
        assert_eq!(json!(list("/choices/0/token_ids")), choice["token_ids"]);
        let logprobs = list("/choices/0/logprobs/content");
        assert_eq!(json!(logprobs), choice["logprobs"]["content"]);
        assert_eq!(chunks[0]["prompt_token_ids"], whole["prompt_token_ids"]);
        let (last, before) = chunks.split_last().expect("chunks");
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
        let blank = |chunk: &Value| chunk.get("usage") == Some(&Value::Null);
        assert!(before.iter().all(|c| blank(c) && c["id"] == last["id"]));
        assert!(before.iter().all(|c| c["object"] == "chat.completion.chunk"));
    }
}

#[test]
fn a_chat_has_the_form_clients_know() {
    let site = Site::start();
    let reply = site.chat(json!({"model": "default", "max_tokens": 3, "ignore_eos": true}));
    assert_eq!(reply.header("x-switchyard-adapter"), Some("base"));
    assert_eq!(reply.header("x-switchyard-adapter-generation"), None);
    assert_eq!(reply.header("x-switchyard-config-generation"), Some("7"));
    let answer = reply.ok();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "default");
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    let usage = &answer["usage"];
    let count = |name: &str| usage[name].as_u64().expect("a count");
    assert_eq!(count("completion_tokens"), 3);
    assert_eq!(count("total_tokens"), count("prompt_tokens") + 3);

    let adapted = site.chat(json!({"model": ADAPTER}));
    assert_eq!(adapted.header("x-switchyard-adapter"), Some(ADAPTER));
    let generation = adapted.header("x-switchyard-adapter-generation").expect("set").to_owned();
    let adapted = adapted.ok();
    let fingerprint = adapted["system_fingerprint"].as_str().expect("text");
    assert!(fingerprint.ends_with(&generation), "{fingerprint}");
    assert_ne!(adapted["system_fingerprint"], answer["system_fingerprint"]);
}

#[test]
fn completions_take_every_form_of_prompt() {
    let site = Site::start();
    let ids = |answer: &Value| answer["choices"][0]["prompt_token_ids"].clone();
    let answer = site.complete(json!({"return_token_ids": true})).ok();
    let (one, text) = (ids(&answer), answer["choices"][0]["text"].clone());
    for prompt in [json!(["one two"]), one.clone(), json!([one])] {
        let answer = site.complete(json!({"prompt": prompt, "return_token_ids": true})).ok();
        assert_eq!((ids(&answer), &answer["choices"][0]["text"]), (one.clone(), &text));
    }
    let several = site.complete(json!({"prompt": ["one two", "three"], "n": 2})).ok();
    let choices = several["choices"].as_array().expect("choices");
    let indexes: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64()).collect();
    assert_eq!(indexes, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!((&choices[0]["text"], &choices[1]["text"]), (&text, &text));
    assert_eq!(several["object"], "text_completion");
    let short = site.complete(json!({"max_tokens": null, "ignore_eos": true})).ok();
    assert_eq!(short["usage"]["completion_tokens"], 16, "the API's default");
}

#[test]
fn seeds_repeat_and_choices_differ() {
    let site = Site::start();
    let draw = |stream: bool| {
        let fields = json!({
            "n": 3, "seed": 42, "temperature": 1.0, "ignore_eos": true,
            "return_token_ids": true, "stream": stream,
        });
        site.chat(fields)
    };
    let answer = draw(false).ok();
    let tokens: Vec<Value> = (0..3).map(|i| answer["choices"][i]["token_ids"].clone()).collect();
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
    let mut streamed = vec![Vec::new(); 3];
    for chunk in draw(true).chunks() {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().expect("an index") as usize;
        streamed[index].extend(choice["token_ids"].as_array().cloned().unwrap_or_default());
    }
    let streamed: Vec<Value> = streamed.into_iter().map(Value::from).collect();
    assert_eq!(streamed, tokens);
}

#[test]
fn stop_rules_cut_the_answer() {
    let site = Site::start();
    let whole = site.complete(json!({"ignore_eos": true, "return_token_ids": true})).ok();
    let text = whole["choices"][0]["text"].as_str().expect("text");
    let cut = |at: usize| text.char_indices().nth(at).expect("long enough").0;
    let stop = &text[cut(5)..cut(9)];
    let shown = &text[..text.find(stop).expect("it is there")];
    let ask = |fields: Value| site.complete(super::merged(json!({"ignore_eos": true}), fields));

    let choice = ask(json!({"stop": stop})).ok()["choices"][0].take();
    assert_eq!((&choice["text"], &choice["stop_reason"]), (&json!(shown), &json!(stop)));
    assert_eq!(choice["finish_reason"], "stop");
    let streamed = ask(json!({"stop": [stop, "never"], "stream": true})).chunks();
    assert_eq!(joined(&streamed, "/choices/0/text"), shown);
    assert_eq!(fields(&streamed, "/choices/0/finish_reason"), ["stop"]);
    let kept = ask(json!({"stop": stop, "include_stop_str_in_output": true})).ok();
    assert_eq!(kept["choices"][0]["text"], format!("{shown}{stop}"));

    let tokens = whole["choices"][0]["token_ids"].as_array().expect("tokens");
    let first = tokens.iter().position(|token| *token == tokens[6]).expect("it is there");
    let choice = ask(json!({"stop_token_ids": [tokens[6]], "return_token_ids": true}));
    let choice = choice.ok()["choices"][0].take();
    assert_eq!(choice["stop_reason"], tokens[6]);
    assert_eq!(choice["token_ids"].as_array().expect("tokens")[..], tokens[..=first]);
}

#[test]
fn logprobs_have_the_form_of_each_route() {
    let site = Site::start();
    let entries = |fields: Value| {
        let answer = site.chat(super::merged(json!({"logprobs": true}), fields)).ok();
        answer["choices"][0]["logprobs"]["content"].as_array().expect("entries").clone()
    };
    assert!(entries(json!({})).iter().all(|entry| entry["top_logprobs"] == json!([])));
    for entry in entries(json!({"top_logprobs": 5})) {
        let top = entry["top_logprobs"].as_array().expect("alternatives");
        let logprobs: Vec<_> = top.iter().map(|t| t["logprob"].as_f64().expect("finite")).collect();
        assert!(top.len() == 5 && logprobs.is_sorted_by(|a, b| a >= b), "{entry}");
        assert_eq!(entry["token"], top[0]["token"], "greedy takes the first");
        assert_eq!(entry["logprob"], top[0]["logprob"]);
        assert!(entry["bytes"].is_array());
    }
    for asked in [0, 5] {
        let answer = site.complete(json!({"logprobs": asked, "ignore_eos": true})).ok();
        let logprobs = &answer["choices"][0]["logprobs"];
        let list = |name: &str| logprobs[name].as_array().expect("a list").clone();
        assert_eq!(list("tokens").len(), 24);
        assert_eq!(list("token_logprobs").len(), 24);
        let sizes = list("top_logprobs");
        let mut sizes = sizes.iter().map(|top| top.as_object().expect("a map").len());
        // Alternatives with equal text share an entry: bytes that are no characters of their own.
        assert!(sizes.all(|size| (1..=asked + 1).contains(&size)), "{asked}");
        let offsets: Vec<_> = list("text_offset").iter().map(Value::as_u64).collect();
        assert!(offsets[0] == Some(0) && offsets.is_sorted());
    }
}

#[test]
fn usage_may_come_with_every_chunk() {
    let site = Site::start();
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let ask = json!({"stream": true, "stream_options": options, "ignore_eos": true});
    let chunks = site.complete(ask).chunks();
    let counts = fields(&chunks, "/usage/completion_tokens");
    let counts: Vec<_> = counts.iter().map(|count| count.as_u64().expect("a count")).collect();
    assert!(counts.len() == chunks.len() && counts.is_sorted() && counts.last() == Some(&24));
}
