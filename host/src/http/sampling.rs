//! The fields that both routes share: model, sampling, stop rules and the form of the reply.

use serde_json::Value;

use super::{
    ApiError,
    fields::{Fields, kind},
};
use crate::{
    engine::Sampling,
    generation::{RequestLimits, StopRules},
};

/// What both routes read alike.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) model: String,
    pub(super) choices: u32,
    /// Without log-probabilities, which the routes ask for differently.
    pub(super) sampling: Sampling,
    pub(super) stop: StopRules,
    pub(super) skip_specials: bool,
    pub(super) form: Form,
}

/// The form of the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) stream: bool,
    pub(super) usage: StreamUsage,
    /// Whether token ids are told beside the text.
    pub(super) token_ids: bool,
}

/// When a stream tells the tokens used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamUsage {
    /// Not at all.
    #[default]
    Never,
    /// In a chunk of its own after the last choice.
    Last,
    /// There, and the count so far in each chunk.
    Each,
}

impl Shared {
    /// Takes the shared fields out of a request.
    pub(super) fn read(fields: &mut Fields, limits: &RequestLimits) -> Result<Self, ApiError> {
        let most = u32::try_from(limits.max_choices).unwrap_or(u32::MAX);
        Ok(Self {
            model: fields.required("model")?,
            choices: fields.within("n", &(1..=most))?.unwrap_or(1),
            sampling: sampling(fields)?,
            stop: stop_rules(fields, limits.max_stop)?,
            skip_specials: fields.take("skip_special_tokens")?.unwrap_or(true),
            form: Form::read(fields)?,
        })
    }
}

impl Form {
    fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let stream = fields.flag("stream")?;
        let usage = match fields.value("stream_options") {
            None => StreamUsage::Never,
            Some(_) if !stream => {
                let problem = "is only allowed where `stream` is true";
                return Err(ApiError::invalid("stream_options", problem));
            }
            Some(options) => {
                let mut options = Fields::nested(options, "stream_options")?;
                let each = options.flag("continuous_usage_stats")?;
                match options.flag("include_usage")? {
                    true if each => StreamUsage::Each,
                    true => StreamUsage::Last,
                    false => StreamUsage::Never,
                }
            }
        };
        Ok(Self { stream, usage, token_ids: fields.flag("return_token_ids")? })
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let top_p = fields.within("top_p", &(0.0..=1.0f32))?.unwrap_or(1.0);
    if top_p == 0.0 {
        return Err(ApiError::invalid("top_p", "must be above 0"));
    }
    // -1 and 0 both mean all.
    let top_k = fields.within("top_k", &(-1..=i64::from(u32::MAX)))?.unwrap_or(0);
    let seed = fields.take::<i64>("seed")?.map(i64::cast_unsigned);
    Ok(Sampling {
        temperature: fields.within("temperature", &(0.0..=2.0f32))?.unwrap_or(1.0),
        top_k: u32::try_from(top_k).unwrap_or(0),
        top_p,
        seed: seed.unwrap_or_else(|| fastrand::u64(..)),
        logprobs: None,
    })
}

fn stop_rules(fields: &mut Fields, most: usize) -> Result<StopRules, ApiError> {
    let strings = match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => {
            stops.into_iter().map(stop_string).collect::<Result<_, _>>()?
        }
        Some(other) => {
            let problem =
                format!("must be a string or an array of strings, found {}", kind(&other));
            return Err(ApiError::invalid("stop", problem));
        }
    };
    if strings.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "a stop string is empty"));
    }
    let tokens = fields.take::<Vec<u32>>("stop_token_ids")?.unwrap_or_default();
    for (name, count) in [("stop", strings.len()), ("stop_token_ids", tokens.len())] {
        if count > most {
            let problem = format!("{count} items are more than the limit of {most}");
            return Err(ApiError::invalid(name, problem));
        }
    }
    let include = fields.flag("include_stop_str_in_output")?;
    let ignore_eos = fields.flag("ignore_eos")?;
    Ok(StopRules { strings, tokens, include, ignore_eos })
}

fn stop_string(value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(stop) => Ok(stop),
        other => Err(ApiError::invalid("stop", format!("holds {}, not a string", kind(&other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Shared, ApiError> {
        let body = body.replacen('{', "{\"model\": \"m\", ", 1).replace(", }", "}");
        Shared::read(&mut Fields::parse(body.as_bytes())?, &RequestLimits::default())
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let shared = read("{}").expect("a model is enough");
        assert_eq!((shared.model.as_str(), shared.choices), ("m", 1));
        let Sampling { temperature, top_k, top_p, logprobs, .. } = shared.sampling;
        assert_eq!((temperature, top_k, top_p, logprobs), (1.0, 0, 1.0, None));
        assert!(shared.stop.strings.is_empty() && shared.skip_specials);
        assert_eq!(shared.form, Form::default());
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (body, param) in [
            ("{\"temperature\": -0.1}", "temperature"),
            ("{\"temperature\": 2.1}", "temperature"),
            ("{\"top_p\": 0}", "top_p"),
            ("{\"top_p\": 1.1}", "top_p"),
            ("{\"top_k\": -2}", "top_k"),
            ("{\"top_k\": 1.5}", "top_k"),
            ("{\"seed\": \"x\"}", "seed"),
            ("{\"n\": 0}", "n"),
            ("{\"n\": 17}", "n"),
            ("{\"stop\": \"\"}", "stop"),
            ("{\"stop\": [1]}", "stop"),
            ("{\"stop\": {}}", "stop"),
            ("{\"stop_token_ids\": [1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8]}", "stop_token_ids"),
            ("{\"stop_token_ids\": [-1]}", "stop_token_ids"),
            ("{\"stream\": \"yes\"}", "stream"),
            ("{\"stream_options\": {\"include_usage\": true}}", "stream_options"),
            ("{\"stream\": true, \"stream_options\": 1}", "stream_options"),
            ("{\"ignore_eos\": 1}", "ignore_eos"),
        ] {
            let error = read(body).expect_err(body).into_body().error;
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {}", error.message);
        }
    }

    #[test]
    fn the_form_follows_the_stream_options() {
        let usage = |options: &str| {
            let body = format!("{{\"stream\": true, \"stream_options\": {options}}}");
            read(&body).expect("valid").form.usage
        };
        assert_eq!(usage("null"), StreamUsage::Never);
        assert_eq!(usage("{}"), StreamUsage::Never);
        assert_eq!(usage("{\"include_usage\": true}"), StreamUsage::Last);
        let each = "{\"include_usage\": true, \"continuous_usage_stats\": true}";
        assert_eq!(usage(each), StreamUsage::Each);
    }

    #[test]
    fn stop_takes_one_string_or_several() {
        assert_eq!(read("{\"stop\": \"a\"}").expect("valid").stop.strings, ["a"]);
        assert_eq!(read("{\"stop\": [\"a\", \"b\"]}").expect("valid").stop.strings, ["a", "b"]);
        assert_eq!(read("{\"top_k\": -1}").expect("valid").sampling.top_k, 0);
        assert_eq!(read("{\"seed\": -1}").expect("valid").sampling.seed, u64::MAX);
    }
}
