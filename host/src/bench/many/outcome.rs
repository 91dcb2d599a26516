//! What a pass gave, and the JSON line that it is printed as.

use std::time::Duration;

use serde::Serialize;

use super::ManyArgs;
use crate::{
    bench::{Ranks, base::Started, floor, measurement::round},
    engine::{EngineStatus, SlabCounts},
};

/// Points of the series of slabs that are printed.
const SERIES_MAX: usize = 20;

/// What was counted in a pass.
pub(super) struct Outcome {
    pub(super) elapsed: Duration,
    pub(super) requests: usize,
    /// Different adapters that were asked for.
    pub(super) distinct: usize,
    /// Ascending; one for each request that was not refused.
    pub(super) first_tokens: Vec<Duration>,
    pub(super) refused: usize,
    /// Requests whose adapter was in host memory.
    pub(super) host_hits: usize,
    pub(super) host_loads: u64,
    /// Summed over adapters.
    pub(super) host_load_time: Duration,
    pub(super) before: EngineStatus,
    pub(super) after: EngineStatus,
    /// Who held the pool's slabs, by time.
    pub(super) slabs: Vec<(Duration, SlabCounts)>,
}

/// Which pass it was.
#[derive(Clone, Copy)]
pub(super) struct Title {
    pub(super) registered: u32,
    pub(super) pass: &'static str,
}

/// Times that a pass is judged by, seconds.
#[derive(Clone, Copy)]
pub(super) struct Verdict {
    pub(super) seconds: f64,
    /// What reading the weights, keys, values and adapters of its steps takes.
    pub(super) floor: f64,
    /// The adapters' part of that.
    pub(super) adapters: f64,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    registered: u32,
    pass: &'static str,
    requests: usize,
    distinct: usize,
    s: f64,
    req_s: f64,
    tok_s: f64,
    ttft_p50_ms: f64,
    ttft_p99_ms: f64,
    ttft_max_ms: f64,
    ttft_max_over_median: f64,
    failed: usize,
    steps: u64,
    adapter_loads: u64,
    pool_hit_rate: f64,
    host_hit_rate: f64,
    host_loads: u64,
    host_load_ms: f64,
    preemptions: u64,
    byte_floor_s: f64,
    efficiency: f64,
    adapter_bytes_s: f64,
    /// Time of the few adapters' pass and of the bytes that this one read beyond it, over its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    against_few: Option<f64>,
    /// `[ms, kv, adapter, free]`
    slabs: Vec<[u64; 4]>,
    rank: Ranks,
    fits_percent: u32,
    concurrent: u32,
    device: String,
    read_gb_s: f64,
}

impl Outcome {
    fn since(&self, counter: impl Fn(&EngineStatus) -> u64) -> u64 {
        counter(&self.after) - counter(&self.before)
    }

    pub(super) fn verdict(&self, on: &Started) -> Verdict {
        let steps = self.since(|status| status.steps) as f64;
        let tokens = self.since(|status| status.traffic.kv_tokens) as f64;
        let slabs = self.since(|status| status.traffic.adapter_slabs) as f64;
        let slab_bytes = on.config.attention_shape(on.dtype).slab_bytes() as f64;
        let adapter_bytes = slabs * slab_bytes;
        let bytes = steps * floor::weight_bytes(&on.config, on.dtype) as f64
            + floor::kv_bytes(&on.config, on.dtype, tokens)
            + adapter_bytes;
        Verdict {
            seconds: self.elapsed.as_secs_f64(),
            floor: bytes / on.read_bandwidth,
            adapters: adapter_bytes / on.read_bandwidth,
        }
    }

    /// The pass as JSON; `few` is the one it is set beside.
    pub(super) fn line(
        &self,
        title: Title,
        (args, on): (&ManyArgs, &Started),
        few: Option<Verdict>,
    ) -> String {
        let verdict = self.verdict(on);
        let Verdict { seconds, floor, adapters } = verdict;
        let ms = |time: Duration| round(time.as_secs_f64() * 1e3, 1);
        let ttft = |share| percentile(&self.first_tokens, share).unwrap_or_default();
        let rate = |hits: f64| round(hits / self.requests as f64, 3);
        let adapter_loads = self.since(|status| status.adapters.loads);
        let line = Line {
            model: &args.base.model,
            registered: title.registered,
            pass: title.pass,
            requests: self.requests,
            distinct: self.distinct,
            s: round(seconds, 3),
            req_s: round(self.requests as f64 / seconds, 2),
            tok_s: round(self.since(|status| status.tokens) as f64 / seconds, 0),
            ttft_p50_ms: ms(ttft(0.5)),
            ttft_p99_ms: ms(ttft(0.99)),
            ttft_max_ms: ms(ttft(1.0)),
            ttft_max_over_median: round(ttft(1.0).as_secs_f64() / ttft(0.5).as_secs_f64(), 2),
            failed: self.refused,
            steps: self.since(|status| status.steps),
            adapter_loads,
            pool_hit_rate: rate(self.requests as f64 - adapter_loads as f64),
            host_hit_rate: rate(self.host_hits as f64),
            host_loads: self.host_loads,
            host_load_ms: ms(self.host_load_time.div_f64(self.host_loads.max(1) as f64)),
            preemptions: self.since(|status| status.preemptions),
            byte_floor_s: round(floor, 3),
            efficiency: round(floor / seconds, 3),
            adapter_bytes_s: round(adapters, 3),
            against_few: few.map(|few| round(verdict.against(few), 3)),
            slabs: series(&self.slabs),
            rank: args.rank,
            fits_percent: args.fits,
            concurrent: args.concurrent,
            device: args.base.device.to_string(),
            read_gb_s: round(on.read_bandwidth / 1e9, 1),
        };
        serde_json::to_string(&line).expect("numbers and strings always serialise")
    }
}

impl Verdict {
    /// What the few adapters' pass and the bytes beyond it would take, over what this took.
    fn against(self, few: Self) -> f64 {
        (few.seconds + self.adapters - few.adapters) / self.seconds
    }
}

/// The nearest rank: the least time that at least this share, in 0..=1, does not exceed.
fn percentile(ascending: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.max(1) - 1).copied()
}

/// Evenly spread points of a series, the first and the last among them.
fn series(slabs: &[(Duration, SlabCounts)]) -> Vec<[u64; 4]> {
    let points = slabs.len().min(SERIES_MAX);
    let at = |point: usize| point * (slabs.len() - 1) / (points - 1).max(1);
    let row = |(time, counts): (Duration, SlabCounts)| {
        let SlabCounts { free, kv, adapter_in_use, adapter_idle, adapter_loading, .. } = counts;
        let adapter = adapter_in_use + adapter_idle + adapter_loading;
        [time.as_millis() as u64, kv as u64, adapter as u64, free as u64]
    };
    (0..points).map(|point| row(slabs[at(point)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=200).map(millis).collect();
        assert_eq!(percentile(&times, 0.5), Some(millis(100)));
        assert_eq!(percentile(&times, 0.99), Some(millis(198)));
        assert_eq!(percentile(&times, 1.0), Some(millis(200)));
        assert_eq!(percentile(&times[..1], 0.5), Some(millis(1)));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_series_keeps_its_ends() {
        let at = |n: u64| (millis(n), SlabCounts { kv: n as usize, ..SlabCounts::default() });
        let slabs: Vec<_> = (0..1001).map(at).collect();
        let points = series(&slabs);
        assert_eq!(points.len(), SERIES_MAX);
        assert_eq!((points[0], points[19]), ([0; 4], [1000, 1000, 0, 0]));
        assert_eq!(series(&slabs[..1]), [[0; 4]]);
        assert_eq!(series(&[]).len(), 0);
    }

    #[test]
    fn a_pass_that_costs_its_bytes_alone_loses_nothing() {
        let few = Verdict { seconds: 2.0, floor: 1.5, adapters: 0.1 };
        let many = Verdict { seconds: 2.4, floor: 1.9, adapters: 0.5 };
        assert!((many.against(few) - 1.0).abs() < 1e-9);
        assert!((Verdict { seconds: 4.8, ..many }.against(few) - 0.5).abs() < 1e-9);
    }
}
