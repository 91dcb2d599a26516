//! Requests through real plugins, good ones and ones that misbehave.

use std::{path::Path, sync::LazyLock};

use serde_json::{Value, json};

use super::{ADAPTER, BASE, Site, golden};
use crate::{
    generation::Snapshot,
    plugins::{PluginChain, PluginHost, PluginLimits, PluginSpec},
    tokenizer::Tokenizer,
};

/// One for all tests, as in a server.
static PLUGINS: LazyLock<PluginHost> = LazyLock::new(|| {
    let tokenizer = Tokenizer::load(&golden("tokenizers/byte_level")).expect("a tokenizer");
    PluginHost::new(tokenizer, 2).expect("a plugin host")
});

/// A host with one plugin, by its path in the repository without the extension.
fn site_with(path: &str, config: Value) -> Site {
    let site = Site::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let name = "under-test".to_owned();
    let (path, limits) = (root.join(path).with_extension("wasm"), PluginLimits::default());
    let spec = PluginSpec { name, path, config, limits, grant_prompt: true };
    let plugin = PLUGINS.load(&spec, None).expect("the committed component");
    let before = site.app.host.snapshot.load_full();
    let plugins = PluginChain::assemble([plugin]).expect("one plugin");
    site.app.host.snapshot.store(std::sync::Arc::new(Snapshot {
        generation: before.generation + 1,
        limits: before.limits.clone(),
        plugins,
        catalogue: before.catalogue.clone(),
    }));
    site
}

fn misbehaving(role: &str, fault: &str, at: &str) -> Site {
    let path = format!("tests/fixtures/plugins/misbehave-{role}/misbehave-{role}");
    site_with(&path, json!({"fault": fault, "at": at}))
}

#[test]
fn auto_asks_the_router_and_a_name_does_not() {
    let rules = json!({"rules": [{"adapter": ADAPTER, "any": ["two"]}]});
    let site = site_with("plugins/router-rules/router-rules", rules);
    let adapter = |fields: Value| {
        let reply = site.chat(fields);
        assert_eq!(reply.header("x-switchyard-config-generation"), Some("8"), "{}", reply.body);
        reply.header("x-switchyard-adapter").expect("set").to_owned()
    };
    assert_eq!(adapter(json!({"model": "auto"})), ADAPTER);
    assert_eq!(adapter(json!({"model": BASE})), "base");
    let hello = json!([{"role": "user", "content": "hello"}]);
    assert_eq!(adapter(json!({"model": "auto", "messages": hello})), "base");
    let text = site.complete(json!({"model": "auto"}));
    assert_eq!(text.header("x-switchyard-adapter"), Some(ADAPTER));
}

#[test]
fn a_router_that_fails_costs_its_own_request() {
    for fault in ["trap", "unknown-adapter", "bad-status"] {
        let site = misbehaving("router", fault, "route");
        let reply = site.chat(json!({"model": "auto"}));
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["code"]), (500, &json!("plugin_error")), "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("under-test")));
        assert_eq!(site.chat(json!({"model": ADAPTER})).status, 200);
    }
}

#[test]
fn a_template_that_fails_costs_its_own_request() {
    let site = misbehaving("template", "trap", "render");
    let reply = site.chat(json!({"stream": true}));
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (500, &json!("plugin_error")), "{error}");
    assert_eq!(site.complete(json!({})).status, 200, "completions have no template");
}

#[test]
fn an_answer_goes_on_without_a_parser_that_fails() {
    let plain = Site::start().chat(json!({"ignore_eos": true})).ok();
    let message = &plain["choices"][0]["message"];
    for (fault, at) in [("trap", "open"), ("trap", "feed"), ("bad-json", "feed")] {
        let site = misbehaving("parser", fault, at);
        let whole = site.chat(json!({"ignore_eos": true})).ok();
        assert_eq!(&whole["choices"][0]["message"], message, "{fault} at {at}");
        let chunks = site.chat(json!({"ignore_eos": true, "stream": true})).chunks();
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, message["content"], "{fault} at {at}");
    }
}

#[test]
fn a_parser_may_end_the_answer() {
    let site = misbehaving("parser", "stop", "feed");
    let answer = site.chat(json!({"ignore_eos": true})).ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "so far");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}
