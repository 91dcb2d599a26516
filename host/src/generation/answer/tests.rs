//! Events to parts, and answers through the parser that comes with the host.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::{
    chat::{Tool, ToolChoice},
    plugins::{PluginHost, PluginLimits, PluginSpec},
    tokenizer::Tokenizer,
};

fn tool(index: u32) -> Event {
    Event::ToolBegin { index, id: Some(format!("call_{index}")), name: "look".to_owned() }
}

fn begun(index: u32) -> Part {
    Part::ToolBegin { index, id: format!("call_{index}"), name: "look".to_owned() }
}

fn arguments(index: u32, fragment: &str) -> Part {
    Part::ToolArguments { index, fragment: fragment.to_owned() }
}

fn check(single: bool, events: Vec<Event>, parts: &[Part], stop: Option<Option<&str>>) {
    let mut calls = Calls { single, ..Calls::default() };
    let mut parsed = Parsed::default();
    for event in events {
        calls.take(event, &mut parsed);
        if parsed.stop.is_some() {
            break;
        }
    }
    assert_eq!(parsed.parts, parts);
    assert_eq!(parsed.stop.as_ref().map(Option::as_deref), stop);
}

#[test]
fn events_become_parts() {
    let content = |text: &str| Event::Content(text.to_owned());
    let delta = |index, fragment: &str| {
        let fragment = fragment.to_owned();
        Event::ToolDelta { index, fragment }
    };
    let joined = [Part::Content("ab".to_owned())];
    check(false, vec![content("a"), content(""), content("b")], &joined, None);
    check(
        false,
        vec![tool(0), delta(0, "{\"a\""), delta(0, ":1}"), Event::ToolEnd(0), tool(1)],
        &[begun(0), arguments(0, "{\"a\":1}"), begun(1)],
        None,
    );
    check(false, vec![tool(0), Event::ToolEnd(0)], &[begun(0), arguments(0, "{}")], None);
    check(
        true,
        vec![tool(0), delta(0, "1"), Event::ToolEnd(0), content("more")],
        &[begun(0), arguments(0, "1")],
        Some(None),
    );
    check(true, vec![tool(0), tool(1)], &[begun(0)], Some(None));
    check(
        false,
        vec![Event::Stop(Some("enough".to_owned())), content("more")],
        &[],
        Some(Some("enough")),
    );
}

#[test]
fn what_a_parser_gave_back_is_no_longer_owed() {
    let mut owed = "<think>so</think>yes <tool_call>{\"name\": \"look\"".to_owned();
    settle_debt(&mut owed, &Event::Reasoning("so".to_owned()));
    assert_eq!(owed, "</think>yes <tool_call>{\"name\": \"look\"");
    settle_debt(&mut owed, &Event::Content("yes ".to_owned()));
    assert_eq!(owed, "<tool_call>{\"name\": \"look\"");
    settle_debt(&mut owed, &tool(0));
    assert_eq!(owed, "\"");
    settle_debt(&mut owed, &Event::Content("not there".to_owned()));
    assert_eq!(owed, "\"");
}

#[test]
fn open_calls_are_closed_when_a_parser_is_lost() {
    let mut calls = Calls { open: vec![(0, true), (1, false)], ..Calls::default() };
    let mut parsed = Parsed::default();
    calls.close_all(&mut parsed);
    assert_eq!(parsed.parts, [arguments(1, "{}")]);
    assert!(calls.open.is_empty());
}

#[test]
fn call_ids_have_the_form_clients_know() {
    let id = call_id();
    let rest = id.strip_prefix("call_").expect("the prefix");
    assert!(rest.len() == CALL_ID_LENGTH && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    assert_ne!(id, call_id());
}

/// The first-party parser on a tokenizer that keeps its host busy with nothing else.
fn hermes() -> Arc<Plugin> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tokenizer = Tokenizer::load(&root.join("tests/golden/tokenizers/byte_level"));
    let host = PluginHost::new(tokenizer.expect("a tokenizer"), 1).expect("a plugin host");
    let spec = PluginSpec {
        name: "hermes".to_owned(),
        path: root.join("plugins/parser-hermes/parser-hermes.wasm"),
        config: json!({}),
        limits: PluginLimits::default(),
        grant_prompt: false,
    };
    host.load(&spec, None).expect("the committed component")
}

fn params() -> AnswerParams {
    let (name, schema) = ("look".to_owned(), "{}".to_owned());
    let tool = Tool { name, description: None, schema, strict: false };
    AnswerParams {
        model: "base".to_owned(),
        adapter: None,
        choice_index: 0,
        tools: [tool].into(),
        tool_choice: ToolChoice::Auto,
        init: None,
    }
}

/// What the parser makes of `text` in pieces of `size` characters.
async fn parse(parser: &Arc<Plugin>, text: &str, size: usize) -> (Parsed, bool) {
    let mut answer = Answer::open(Some(parser), params(), true).await;
    let mut parsed = Parsed::default();
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(size) {
        parsed.extend(answer.feed([1].into_iter(), piece.iter().collect()).await);
    }
    parsed.extend(answer.finish(ParseEnd::Stop).await);
    (parsed, answer.has_calls())
}

#[tokio::test]
async fn the_hermes_parser_gives_the_same_parts_for_any_pieces() {
    let parser = hermes();
    let call = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": [1, 2]}}\n</tool_call>";
    let text = format!("<think>hm</think>Let me see. {call}");
    for size in [1, 3, 7, text.len()] {
        let (parsed, has_calls) = parse(&parser, &text, size).await;
        assert!(has_calls, "pieces of {size}");
        let mut arguments = String::new();
        let (mut content, mut reasoning) = (String::new(), String::new());
        for part in parsed.parts {
            match part {
                Part::Content(text) => content.push_str(&text),
                Part::Reasoning(text) => reasoning.push_str(&text),
                Part::ToolBegin { name, .. } => assert_eq!(name, "look"),
                Part::ToolArguments { fragment, .. } => arguments.push_str(&fragment),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((content.trim(), reasoning.trim()), ("Let me see.", "hm"), "pieces of {size}");
        let arguments: Value = serde_json::from_str(&arguments).expect("JSON");
        assert_eq!(arguments, json!({"at": [1, 2]}), "pieces of {size}");
    }
}
