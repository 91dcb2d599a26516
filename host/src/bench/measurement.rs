//! One measurement, and the JSON line that it is printed as.

use std::time::Duration;

use serde::Serialize;

use super::{
    Ranks,
    base::Started,
    decode::{AdapterMode, DecodeArgs},
    floor,
};

/// Times of one batch size in one adapter mode.
pub(super) struct Measurement {
    pub(super) mode: AdapterMode,
    pub(super) batch: usize,
    /// A run that draws one token.
    pub(super) prefill: Duration,
    /// A run that draws all tokens.
    pub(super) total: Duration,
    /// Bytes of all adapters in the batch.
    pub(super) adapter_bytes: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    engine: &'static str,
    mode: &'static str,
    #[serde(rename = "B")]
    batch: usize,
    prefill_ms: f64,
    total_s: f64,
    step_ms: f64,
    decode_tps: f64,
    byte_floor_ms: f64,
    efficiency: f64,
    distinct_adapter_bytes: usize,
    #[serde(flatten)]
    increment: Option<Increment>,
    rank: Ranks,
    prompt: u32,
    output: u32,
    dtype: &'static str,
    device: String,
    read_gb_s: f64,
}

/// What adapters cost over the same batch without any, measured earlier in the run.
#[derive(Serialize)]
struct Increment {
    prefill_ratio: f64,
    step_ratio: f64,
    increment_ms: f64,
    /// What reading the adapters' bytes takes.
    adapter_bytes_ms: f64,
    /// `increment_ms / adapter_bytes_ms`, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    increment_ratio: Option<f64>,
}

impl Measurement {
    pub(super) fn line(&self, on: &Started, args: &DecodeArgs, bare: Option<&Self>) -> String {
        let (config, dtype) = (&on.config, on.dtype);
        let step_ms = self.step_ms(args);
        let tokens = f64::from(args.prompt) + f64::from(args.output) / 2.0;
        let bytes = (floor::weight_bytes(config, dtype) + self.adapter_bytes) as f64
            + self.batch as f64 * floor::kv_bytes(config, dtype, tokens);
        let byte_floor_ms = bytes / on.read_bandwidth * 1e3;
        let line = Line {
            model: &args.base.model,
            engine: "switchyard",
            mode: self.mode.name(),
            batch: self.batch,
            prefill_ms: round(self.prefill.as_secs_f64() * 1e3, 1),
            total_s: round(self.total.as_secs_f64(), 3),
            step_ms: round(step_ms, 3),
            decode_tps: round(self.batch as f64 / step_ms * 1e3, 1),
            byte_floor_ms: round(byte_floor_ms, 3),
            efficiency: round(byte_floor_ms / step_ms, 3),
            distinct_adapter_bytes: self.adapter_bytes,
            increment: bare.map(|bare| self.increment(bare, on, args)),
            rank: args.rank,
            prompt: args.prompt,
            output: args.output,
            dtype: dtype.name(),
            device: args.base.device.to_string(),
            read_gb_s: round(on.read_bandwidth / 1e9, 1),
        };
        serde_json::to_string(&line).expect("numbers and strings always serialise")
    }

    fn step_ms(&self, args: &DecodeArgs) -> f64 {
        let steps = f64::from(args.output - 1);
        (self.total.as_secs_f64() - self.prefill.as_secs_f64()) / steps * 1e3
    }

    fn increment(&self, bare: &Self, on: &Started, args: &DecodeArgs) -> Increment {
        let (step_ms, bare_ms) = (self.step_ms(args), bare.step_ms(args));
        let increment_ms = step_ms - bare_ms;
        let adapter_bytes_ms = self.adapter_bytes as f64 / on.read_bandwidth * 1e3;
        let any = self.adapter_bytes > 0;
        Increment {
            prefill_ratio: round(self.prefill.as_secs_f64() / bare.prefill.as_secs_f64(), 3),
            step_ratio: round(step_ms / bare_ms, 3),
            increment_ms: round(increment_ms, 3),
            adapter_bytes_ms: round(adapter_bytes_ms, 3),
            increment_ratio: any.then(|| round(increment_ms / adapter_bytes_ms, 3)),
        }
    }
}

/// For reading: so many digits after the point.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
