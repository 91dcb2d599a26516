use std::{fs, path::PathBuf};

use serde_json::{Value as Json, json};

use super::*;
use crate::chat::{Role, ToolCall};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&golden().join("tokenizers/byte_level")).unwrap()
}

/// A template as a model's directory would hold it.
fn template(text: &str, bos: &str, eos: &str) -> Result<ChatTemplate, TemplateError> {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"bos_token": bos, "eos_token": {"content": eos}}).to_string();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), text).unwrap();
    Ok(ChatTemplate::load(dir.path(), &tokenizer())?.expect("there is one"))
}

fn role(name: &str) -> Role {
    let all = [Role::System, Role::Developer, Role::User, Role::Assistant, Role::Tool];
    all.into_iter().find(|role| role.name() == name).unwrap()
}

fn text(value: &Json) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn message(json: &Json) -> Message {
    let calls = json["tool_calls"].as_array().cloned().unwrap_or_default();
    let call = |call: &Json| ToolCall {
        id: text(&call["id"]).unwrap(),
        name: text(&call["name"]).unwrap(),
        arguments: text(&call["arguments"]).unwrap(),
    };
    Message {
        role: role(json["role"].as_str().unwrap()),
        content: text(&json["content"]).unwrap_or_default(),
        name: text(&json["name"]),
        reasoning: text(&json["reasoning"]),
        tool_calls: calls.iter().map(call).collect(),
        tool_call_id: text(&json["tool_call_id"]),
    }
}

fn tool(json: &Json) -> Tool {
    Tool {
        name: text(&json["name"]).unwrap(),
        description: text(&json["description"]),
        schema: json["schema"].to_string(),
        strict: false,
    }
}

fn user(content: &str) -> Message {
    message(&json!({"role": "user", "content": content}))
}

fn render(
    template: &ChatTemplate,
    messages: &[Message],
    tools: &[Tool],
) -> Result<Vec<Segment>, TemplateError> {
    let kwargs = Map::new();
    let today = "2026-11-22";
    let add_generation_prompt = true;
    template.render(&TemplateInput {
        messages,
        tools,
        add_generation_prompt,
        today,
        kwargs: &kwargs,
    })
}

fn joined(segments: &[Segment]) -> String {
    let literal = |segment: &Segment| match segment {
        Segment::Text(text) | Segment::Special(text) => text.clone(),
        Segment::Tokens(_) => unreachable!("templates give text"),
    };
    segments.iter().map(literal).collect()
}

fn read_json(path: &str) -> Vec<Json> {
    serde_json::from_str(&fs::read_to_string(golden().join(path)).unwrap()).unwrap()
}

#[test]
fn renderings_equal_those_of_transformers() {
    let conversations = read_json("conversations.json");
    let mut faults = Vec::new();
    for case in read_json("templates/expected.json") {
        let name = case["template"].as_str().unwrap();
        let source = golden().join(format!("templates/{name}.jinja"));
        let (bos, eos) = (text(&case["bos"]).unwrap(), text(&case["eos"]).unwrap());
        let template = template(&fs::read_to_string(source).unwrap(), &bos, &eos).unwrap();
        let conversation =
            conversations.iter().find(|c| c["name"] == case["conversation"]).unwrap();
        let list = |key: &str| conversation[key].as_array().cloned().unwrap_or_default();
        let messages: Vec<_> = list("messages").iter().map(message).collect();
        let tools: Vec<_> = list("tools").iter().map(tool).collect();
        let kwargs = conversation["kwargs"].as_object().cloned().unwrap_or_default();
        let rendered = template.render(&TemplateInput {
            messages: &messages,
            tools: &tools,
            add_generation_prompt: conversation["add_generation_prompt"] == true,
            today: "2026-11-22",
            kwargs: &kwargs,
        });
        let place = format!("{name}, {}", case["conversation"]);
        match (rendered, text(&case["text"])) {
            (Ok(segments), Some(expected)) if joined(&segments) == expected => {
                let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
                if tokenizer().encode_segments(&segments).unwrap() != ids {
                    faults.push(format!("{place}: ids"));
                }
            }
            (Err(TemplateError::Refused(why)), None) if case["error"] == why.as_str() => {}
            (Ok(segments), expected) => {
                faults.push(format!("{place}:\n{:?}\n{expected:?}", joined(&segments)));
            }
            (Err(error), expected) => faults.push(format!("{place}: {error}\n{expected:?}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A conversation with `value` wherever something comes from outside.
fn everywhere(value: &str) -> (Vec<Message>, Vec<Tool>) {
    let arguments = json!({value: value, "list": [value]}).to_string();
    let messages = vec![
        message(&json!({"role": "system", "content": value, "name": value})),
        message(&json!({"role": "user", "content": value, "name": value})),
        message(&json!({"role": "assistant", "content": "", "reasoning": value, "tool_calls": [
            {"id": value, "name": value, "arguments": arguments}]})),
        message(&json!({"role": "tool", "content": value, "tool_call_id": value})),
        message(&json!({"role": "assistant", "content": value})),
        user(value),
    ];
    let tools = vec![Tool {
        name: value.to_owned(),
        description: Some(value.to_owned()),
        schema: json!({"type": "object", "properties": {value: {"description": value}}})
            .to_string(),
        strict: false,
    }];
    (messages, tools)
}

#[test]
fn no_value_forges_a_special_token() {
    let everything = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {{ m.name }}{{ m.content }}|{{ (m.content or '') | trim }}|\
        {{ (m.content or '').lower() }}\n\
        {{ m.reasoning_content }}{{ m.tool_calls | tojson }}{{ m.tool_call_id }}\
        {% for c in m.tool_calls or [] %}<{{ c.function.name }}>{{ c.id }}{{ c.function }}\
        {{ c.function | tojson(ensure_ascii=true) }}{% endfor %}<|im_end|>{% endfor %}\
        {{ tools }}{{ tools | tojson(indent=2) }}{% for t in tools %}[{{ t.function.name }}]\
        {{ t.function.description }}{{ t.function.parameters.properties.items() | list }}\
        {% endfor %}";
    let template = template(everything, "<s>", "</s>").unwrap();
    let specials = |value: &str| {
        let (messages, tools) = everywhere(value);
        let segments = render(&template, &messages, &tools).unwrap();
        let special = |s: &&Segment| matches!(s, Segment::Special(_));
        let found: Vec<_> = segments.iter().filter(special).cloned().collect();
        (found, joined(&segments))
    };
    let (honest, _) = specials("hello");
    assert_eq!(honest.len(), 1 + 2 * 6);
    for (literal, _) in tokenizer().specials() {
        let (head, tail) = literal.split_at(literal.len() / 2);
        let inner = &literal[1..literal.len() - 1];
        let shouted = literal.to_uppercase();
        let doubled = format!("{literal}{literal}");
        let overlapping = format!("{head}{literal}{tail}");
        let padded = format!("a {literal}\n {head}");
        let values: [&str; 8] =
            [&literal, head, tail, inner, &shouted, &doubled, &overlapping, &padded];
        for value in values {
            let (found, text) = specials(value);
            assert_eq!(found, honest, "{value:?} forged");
            let value = value.trim();
            assert!(text.contains(value), "{value:?} comes back as it was: {text:?}");
        }
    }
}

#[test]
fn private_characters_come_back() {
    let template = template("{{ messages[0].content }}", "<s>", "</s>").unwrap();
    let content = "\u{f0041}<|im_end|>\u{100041} \u{10fffd}";
    let segments = render(&template, &[user(content)], &[]).unwrap();
    assert_eq!(segments, [Segment::Text(content.to_owned())]);
}

#[test]
fn bombs_run_out() {
    let bombs = [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(64) %}\
         {% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{{ 'x' * 1000000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ];
    for bomb in bombs {
        let template = template(bomb, "<s>", "</s>").unwrap();
        let error = render(&template, &[user("hi")], &[]).expect_err(bomb);
        assert!(!matches!(error, TemplateError::Refused(_)), "{error}");
    }
}

#[test]
fn errors_name_file_and_line() {
    let error = template("a\nb\n{% nope %}", "<s>", "</s>").err().unwrap().to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("line 3"), "{error}");
    let refusing = template("{{ raise_exception('only cats') }}", "<s>", "</s>").unwrap();
    let error = render(&refusing, &[user("hi")], &[]).unwrap_err().to_string();
    assert!(error.contains("only cats"), "{error}");
    let failing = template("x\n{{ messages.nope.nope }}", "<s>", "</s>").unwrap();
    let error = render(&failing, &[user("hi")], &[]).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    assert!(ChatTemplate::load(dir.path(), &tokenizer()).unwrap().is_none());
    fs::write(dir.path().join("tokenizer_config.json"), "{\"chat_template\": 3}").unwrap();
    let error = ChatTemplate::load(dir.path(), &tokenizer()).err().unwrap().to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("chat_template"), "{error}");
}

#[test]
fn a_template_for_tools_is_used_with_tools() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"chat_template": [
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]});
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::load(dir.path(), &tokenizer()).unwrap().unwrap();
    let (messages, tools) = everywhere("x");
    assert_eq!(joined(&render(&template, &messages, &[]).unwrap()), "plain");
    assert_eq!(joined(&render(&template, &messages, &tools).unwrap()), "tools");
}

#[test]
fn dates_are_written_as_python_does() {
    let cases = [
        ("2026-11-22", "Sun Sunday 22 Nov 2026 326 26"),
        ("2024-02-29", "Thu Thursday 29 Feb 2024 060 24"),
        ("2000-01-01", "Sat Saturday 01 Jan 2000 001 00"),
    ];
    for (date, expected) in cases {
        let date = date::Date::parse(date).unwrap();
        assert_eq!(date.format("%a %A %d %b %Y %j %y"), expected);
    }
    assert_eq!(date::Date::parse("2024-13-01"), None);
    assert_eq!(date::Date::parse("today"), None);
}
