//! The least time a step can take: the bytes it must read, at the bandwidth of this machine.

use std::{hint::black_box, thread, time::Instant};

use switchyard_kernels::{Dtype, HostBuffer, Linear, PAGE_TOKENS};

use crate::model::ModelConfig;

/// Large against any last-level cache.
const PROBE_BYTES: usize = 1 << 30;
const PASSES: usize = 4;
/// One read in each brings all of it in.
const CACHE_LINE: usize = 64;

/// Bytes per second that `threads` threads read from memory, the best of a few passes.
pub(super) fn read_bandwidth(threads: usize) -> f64 {
    let buffer = HostBuffer::zeroed(PROBE_BYTES);
    let touch = |part: &[u8]| {
        let sum = part.chunks_exact(CACHE_LINE).fold(0u64, |sum, line| sum + u64::from(line[0]));
        black_box(sum);
    };
    let pass = || {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in buffer.bytes().chunks(PROBE_BYTES.div_ceil(threads)) {
                scope.spawn(move || touch(part));
            }
        });
        PROBE_BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

/// Bytes of base weights that every step reads: all products, the head among them.
pub(super) fn weight_bytes(config: &ModelConfig, dtype: Dtype) -> usize {
    let elements = |linear| {
        let (out, input) = config.linear_shape(linear);
        out * input
    };
    let layer: usize = Linear::ALL.into_iter().map(elements).sum();
    (config.layers * layer + config.vocabulary * config.hidden) * dtype.size()
}

/// Bytes of keys and values that one sequence of `tokens` tokens reads in a step.
pub(super) fn kv_bytes(config: &ModelConfig, dtype: Dtype, tokens: f64) -> f64 {
    config.attention_shape(dtype).slab_bytes() as f64 / PAGE_TOKENS as f64 * tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shape;

    #[test]
    fn the_bytes_of_llama_3_8b_are_known() {
        let config = shape::named("llama-3-8b").expect("named");
        assert_eq!(weight_bytes(&config, Dtype::Bf16), 15_009_316_864);
        assert_eq!(kv_bytes(&config, Dtype::Bf16, 16.0), 2_097_152.0);
    }
}
