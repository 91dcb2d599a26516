//! Answers and their events, whole and cut into every kind of chunks.

use proptest::prelude::*;
use switchyard_plugin::{
    Chunk, Event, FinishReason, Kv, Stream, Tool, ToolArgs, ToolChoice, ToolStart,
};

use super::*;

fn params(init: Option<&str>, tools: bool) -> AnswerParams {
    let tool =
        Tool { name: "f".to_owned(), description: None, schema: "{}".to_owned(), strict: false };
    AnswerParams {
        model: "demo".to_owned(),
        adapter: None,
        choice_index: 0,
        tools: if tools { vec![tool] } else { Vec::new() },
        tool_choice: ToolChoice::Auto,
        response_format: None,
        init: init.map(str::to_owned),
        ext: Vec::new(),
    }
}

/// The events of an answer that comes in these chunks, neighbouring deltas joined.
fn events<'a>(params: &AnswerParams, chunks: impl IntoIterator<Item = &'a str>) -> Vec<Event> {
    let mut answer = Answer::new(None, params);
    let mut events = Vec::new();
    for text in chunks {
        let chunk = Chunk { tokens: Vec::new(), text: text.to_owned() };
        answer.feed(&chunk, &mut events).expect("never an error");
    }
    answer.finish(FinishReason::Stop, &mut events).expect("never an error");
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Content(last)), Event::Content(more))
            | (Some(Event::Reasoning(last)), Event::Reasoning(more)) => last.push_str(&more),
            (Some(Event::ToolDelta(last)), Event::ToolDelta(more)) if last.index == more.index => {
                last.fragment.push_str(&more.fragment);
            }
            (_, event) => joined.push(event),
        }
    }
    joined
}

fn content(text: &str) -> Event {
    Event::Content(text.to_owned())
}

fn reasoning(text: &str) -> Event {
    Event::Reasoning(text.to_owned())
}

fn call(index: u32, name: &str, arguments: &str) -> [Event; 3] {
    [
        Event::ToolBegin(ToolStart { index, id: None, name: name.to_owned() }),
        Event::ToolDelta(ToolArgs { index, fragment: arguments.to_owned() }),
        Event::ToolEnd(index),
    ]
}

/// Checks an answer whole, and cut at every one and every two places.
fn check_with(params: &AnswerParams, text: &str, expected: &[Event]) {
    assert_eq!(events(params, [text]), expected, "whole: {text:?}");
    let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    for (n, &a) in cuts.iter().enumerate() {
        for &b in &cuts[n..] {
            let chunks = [&text[..a], &text[a..b], &text[b..]];
            assert_eq!(events(params, chunks), expected, "{chunks:?}");
        }
    }
}

fn check(text: &str, expected: &[Event]) {
    check_with(&params(None, true), text, expected);
}

const CALL: &str =
    "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}é</tool_call>\"]}}\n</tool_call>";
const ARGUMENTS: &str = "{\"a\": [1, \"}é</tool_call>\"]}";

#[test]
fn plain_text_is_content() {
    check("", &[]);
    check(" Hello,\n world \n", &[content(" Hello,\n world \n")]);
    check("a < b <tool <think", &[content("a < b <tool <think")]);
    check("</think></tool_call>", &[content("</think></tool_call>")]);
}

#[test]
fn thoughts_are_reasoning() {
    check("<think>\nhm < 2\n</think>\n\nYes.\n", &[reasoning("hm < 2"), content("Yes.\n")]);
    check("<think>\n\n</think>\n\nYes.", &[content("Yes.")]);
    check("<think>cut sho", &[reasoning("cut sho")]);
    check("<think>a <tool_call> b</th", &[reasoning("a <tool_call> b</th")]);
    let inside = params(Some("think"), true);
    check_with(&inside, "so\n</think>\nYes", &[reasoning("so"), content("Yes")]);
    check_with(&inside, "never closed ", &[reasoning("never closed ")]);
}

#[test]
fn calls_are_streamed() {
    check(CALL, &call(0, "f", ARGUMENTS));
    let two = format!("Wait.\n{CALL}\n{CALL}\nDone.");
    let [a, b, c] = call(0, "f", ARGUMENTS);
    let [d, e, f] = call(1, "f", ARGUMENTS);
    let all = [content("Wait."), a, b, c, d, e, f, content("Done.")];
    check(&two, &all);
    check(&two.replacen("\n</tool_call>\n", "\n", 1), &all);
    let after_thought = format!("<think>x</think>{CALL}");
    let [a, b, c] = call(0, "f", ARGUMENTS);
    check(&after_thought, &[reasoning("x"), a, b, c]);
}

#[test]
fn a_call_may_be_written_otherwise() {
    let wrap = |json: &str| format!("<tool_call>{json}</tool_call>");
    check(&wrap(r#"{"arguments": {"x": 1}, "name": "g\u0068"}"#), &call(0, "gh", r#"{"x": 1}"#));
    check(&wrap(r#"{"id": 7, "name": "g", "parameters": {}, "z": []}"#), &call(0, "g", "{}"));
    check(&wrap(r#"{"name": "g", "arguments": null}"#), &call(0, "g", "null"));
}

#[test]
fn a_call_cut_short_ends() {
    let [begin, _, end] = call(0, "f", "");
    let delta = |text: &str| Event::ToolDelta(ToolArgs { index: 0, fragment: text.to_owned() });
    let cut = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b";
    check(cut, &[begin.clone(), delta("{\"a\": \"b"), end.clone()]);
    let no_brace = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>Done";
    check(no_brace, &[begin.clone(), delta("{\"a\": 1}"), end.clone(), content("Done")]);
    let unclosed = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1]}</tool_call>";
    check(unclosed, &[begin, delta("{\"a\": 1"), end, content("]}")]);
}

#[test]
fn what_is_no_call_comes_back() {
    for text in [
        "<tool_call>",
        "<tool_call>\n{\"name\": \"f\"",
        "<tool_call>get_weather(Rome)</tool_call> and on",
        "<tool_call>{\"name\": \"f\"}</tool_call>",
        "<tool_call>{\"name\": f, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
        "<tool_call>[]</tool_call>",
        "a <tool_call>{}</tool_call> b",
    ] {
        check(text, &[content(text)]);
    }
    check_with(&params(None, false), CALL, &[content(CALL)]);
}

#[test]
fn the_stamp_comes_first() {
    let mut answer = Answer::new(Some("v7".to_owned()), &params(None, true));
    let mut events = Vec::new();
    for text in ["", "Hello"] {
        let chunk = Chunk { tokens: Vec::new(), text: text.to_owned() };
        answer.feed(&chunk, &mut events).expect("never an error");
    }
    assert_eq!(events, [Event::Annotation(Kv::new("stamp", "v7")), content("Hello")]);
}

/// Texts made of what the parser cares about.
fn answers() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        CALL,
        "{\"name\": \"f\", ",
        "\"name\"",
        ": ",
        "\"arguments\": {",
        "}",
        "]",
        "\"",
        "\\",
        "<",
        "tool",
        " ",
        "\n",
        "é",
        "1",
        "word",
    ]);
    prop::collection::vec(parts, 0..24).prop_map(|parts| parts.concat())
}

/// Text without white space, which the parser may drop around markers.
fn solid(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

proptest! {
    #[test]
    fn any_chunks_give_the_same_events(
        text in answers(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        thinks: bool,
        tools: bool,
    ) {
        let params = params(thinks.then_some("think"), tools);
        let places: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&places)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
        prop_assert_eq!(events(&params, chunks), events(&params, [text.as_str()]));
    }

    /// Without tools nothing but markers and white space is ever dropped.
    #[test]
    fn nothing_is_lost(text in answers()) {
        let joined: String = events(&params(None, false), [text.as_str()])
            .into_iter()
            .map(|event| match event {
                Event::Content(text) => text.replace("</think>", ""),
                Event::Reasoning(text) => text.replace("<think>", ""),
                other => panic!("{other:?} without tools"),
            })
            .collect();
        let text = text.replace("<think>", "").replace("</think>", "");
        let joined = joined.replace("<think>", "").replace("</think>", "");
        prop_assert_eq!(solid(&joined), solid(&text));
    }

    /// Calls are opened, filled and closed in turn, whatever the model writes.
    #[test]
    fn calls_are_in_order(text in answers()) {
        let mut open = None;
        let mut count = 0;
        for event in events(&params(None, true), [text.as_str()]) {
            match event {
                Event::ToolBegin(start) => {
                    prop_assert_eq!((open, start.index), (None, count));
                    open = Some(count);
                    count += 1;
                }
                Event::ToolDelta(args) => prop_assert_eq!(open, Some(args.index)),
                Event::ToolEnd(index) => prop_assert_eq!(open.take(), Some(index)),
                _ => prop_assert_eq!(open, None),
            }
        }
        prop_assert_eq!(open, None);
    }
}
