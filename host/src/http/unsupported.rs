//! Known fields that would change the result and are not done: refused, unless they ask for what
//! happens anyway. Fields not known at all are ignored, as clients send plenty of them.

use serde_json::Value;

use super::{ApiError, fields::Fields};

/// The value that asks for nothing.
#[derive(Clone, Copy)]
enum Neutral {
    /// Only absence.
    Absent,
    /// `""`, `[]` or `{}`.
    Empty,
    /// This number.
    Number(f64),
    /// This boolean.
    Flag(bool),
    /// This string, alone or as the only item of an array or as an object's only field, `type`.
    Text(&'static str),
}

use Neutral::{Absent, Empty, Flag, Number, Text};

/// Of both routes.
const COMMON: &[(&str, Neutral)] = &[
    ("frequency_penalty", Number(0.0)),
    ("presence_penalty", Number(0.0)),
    ("repetition_penalty", Number(1.0)),
    ("logit_bias", Empty),
    ("min_p", Number(0.0)),
    ("typical_p", Number(1.0)),
    ("min_tokens", Number(0.0)),
    ("bad_words", Empty),
    ("allowed_token_ids", Empty),
    ("logits_processors", Empty),
    ("best_of", Number(1.0)),
    ("use_beam_search", Flag(false)),
    ("length_penalty", Number(1.0)),
    ("prompt_logprobs", Absent),
    ("truncate_prompt_tokens", Absent),
    ("echo", Flag(false)),
    ("response_format", Text("text")),
    ("structured_outputs", Empty),
    ("guided_json", Absent),
    ("guided_regex", Absent),
    ("guided_choice", Empty),
    ("guided_grammar", Absent),
    ("spaces_between_special_tokens", Flag(true)),
];

const CHAT: &[(&str, Neutral)] = &[
    ("modalities", Text("text")),
    ("audio", Absent),
    ("store", Flag(false)),
    ("functions", Empty),
    ("function_call", Text("none")),
    ("web_search_options", Absent),
    ("reasoning_effort", Absent),
    ("verbosity", Text("medium")),
    ("chat_template", Absent),
    ("documents", Empty),
    ("continue_final_message", Flag(false)),
    ("add_special_tokens", Flag(false)),
];

const COMPLETIONS: &[(&str, Neutral)] =
    &[("suffix", Empty), ("add_special_tokens", Flag(true)), ("prompt_embeds", Absent)];

impl Neutral {
    fn matches(self, value: &Value) -> bool {
        match (self, value) {
            (Empty, Value::String(text)) => text.is_empty(),
            (Empty, Value::Array(items)) => items.is_empty(),
            (Empty, Value::Object(fields)) => fields.is_empty(),
            (Number(neutral), value) => value.as_f64() == Some(neutral),
            (Flag(neutral), value) => value.as_bool() == Some(neutral),
            (Text(neutral), Value::String(text)) => text == neutral,
            (Text(_), Value::Array(items)) => items.len() == 1 && self.matches(&items[0]),
            (Text(neutral), Value::Object(fields)) => {
                fields.len() == 1 && fields.get("type").is_some_and(|kind| kind == neutral)
            }
            _ => false,
        }
    }
}

/// Refuses a chat request that asks for what is not done.
pub(super) fn refuse_in_chat(fields: &Fields) -> Result<(), ApiError> {
    refuse(fields, CHAT)
}

/// Refuses a completion request that asks for what is not done.
pub(super) fn refuse_in_completions(fields: &Fields) -> Result<(), ApiError> {
    refuse(fields, COMPLETIONS)
}

fn refuse(fields: &Fields, route: &[(&str, Neutral)]) -> Result<(), ApiError> {
    for (name, neutral) in COMMON.iter().chain(route) {
        if fields.peek(name).is_some_and(|value| !neutral.matches(value)) {
            return Err(ApiError::unsupported(name, " with this value; leave it out"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn check(name: &str, value: Value, allowed: bool) {
        let body = Value::Object(Map::from_iter([(name.to_owned(), value)])).to_string();
        let fields = Fields::parse(body.as_bytes()).expect("an object");
        let refused = refuse_in_chat(&fields).err();
        let param = refused.map(|error| error.into_body().error.param.expect("a param"));
        assert_eq!(param, (!allowed).then(|| name.to_owned()), "{body}");
    }

    #[test]
    fn only_neutral_values_pass() {
        check("frequency_penalty", json!(0), true);
        check("frequency_penalty", json!(0.5), false);
        check("frequency_penalty", json!("0"), false);
        check("repetition_penalty", json!(1), true);
        check("logit_bias", json!({}), true);
        check("logit_bias", json!({"5": 1}), false);
        check("logit_bias", json!(null), true);
        check("response_format", json!({"type": "text"}), true);
        check("response_format", json!({"type": "json_object"}), false);
        check("response_format", json!({"type": "json_schema", "json_schema": {}}), false);
        check("modalities", json!(["text"]), true);
        check("modalities", json!(["text", "audio"]), false);
        check("store", json!(false), true);
        check("store", json!(true), false);
        check("function_call", json!("none"), true);
        check("function_call", json!({"name": "f"}), false);
        check("audio", json!({"voice": "x"}), false);
        check("anything_else", json!(1), true);
    }
}
