//! A model in an engine with adapters at hand, and prompts to run through it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use switchyard_kernels::{Dtype, PAGE_TOKENS};

use super::{AdapterMode, BenchArgs, BenchError, measurement::Measurement, shape};
use crate::{
    checkpoint::Checkpoint,
    device::DeviceOptions,
    engine::{EngineHandle, EngineLimits, NewSequence, Sampling},
    model::{AdapterId, AdapterImage, HostWeights, ImageMemory, LoraWeights, ModelConfig},
};

/// Rows of the largest step: prompts beyond it are prefilled in chunks.
const MAX_STEP_TOKENS: usize = 2048;

/// Everything that stays the same between measurements.
pub(super) struct Workload {
    pub(super) config: ModelConfig,
    pub(super) dtype: Dtype,
    engine: EngineHandle,
    adapters: Vec<Arc<AdapterImage>>,
}

impl Workload {
    pub(super) fn start(args: &BenchArgs) -> Result<Self, BenchError> {
        let (config, weights) = weights(args)?;
        let dtype = weights.dtype();
        let largest = args.batch.iter().copied().max().unwrap_or(1) as usize;
        let adapters = args.adapters.iter().map(|mode| mode.distinct(largest)).max().unwrap_or(0);
        let options = DeviceOptions {
            device: args.device,
            isa: args.isa,
            threads: args.threads,
            kernel_cache: None,
        };
        let device = options.open()?;
        let slab_bytes = config.attention_shape(dtype).slab_bytes();
        let memory = ImageMemory::new(device.host_memory(), slab_bytes);
        let pack = |i| pack((&config, &memory), dtype, args.rank, i);
        let adapters = (0..adapters).map(pack).collect::<Result<Vec<_>, _>>()?;
        let limits = limits(args, &config, dtype, &adapters);
        let engine = device.start(config.clone(), weights, limits)?;
        Ok(Self { config, dtype, engine, adapters })
    }

    /// Times one batch size in one mode.
    pub(super) fn measure(
        &self,
        args: &BenchArgs,
        mode: AdapterMode,
        batch: usize,
    ) -> Result<Measurement, BenchError> {
        let adapters = &self.adapters[..mode.distinct(batch)];
        // Brings adapters into the pool and pages into memory.
        self.generate(args, batch, 2, adapters)?;
        let mut best = [Duration::MAX; 2];
        for _ in 0..args.repeat {
            for (best, output) in best.iter_mut().zip([1, args.output]) {
                *best = self.generate(args, batch, output, adapters)?.min(*best);
            }
        }
        let image_bytes = |image: &Arc<AdapterImage>| image.bytes.len();
        let adapter_bytes = adapters.iter().map(image_bytes).sum();
        let [prefill, total] = best;
        Ok(Measurement { mode, batch, prefill, total, adapter_bytes })
    }

    /// Runs `batch` prompts to their end; `adapters` are dealt out in turn.
    fn generate(
        &self,
        args: &BenchArgs,
        batch: usize,
        output: u32,
        adapters: &[Arc<AdapterImage>],
    ) -> Result<Duration, BenchError> {
        let mut rng = fastrand::Rng::with_seed(batch as u64);
        let start = Instant::now();
        let mut streams = Vec::new();
        for i in 0..batch {
            let request = NewSequence {
                prompt: (0..args.prompt)
                    .map(|_| rng.u32(..self.config.vocabulary as u32))
                    .collect(),
                adapter: (!adapters.is_empty()).then(|| adapters[i % adapters.len()].clone()),
                sampling: Sampling::greedy(),
                max_tokens: output,
                stop_tokens: Vec::new(),
            };
            let (prompt, output) = (args.prompt, args.output);
            let refused = |error| BenchError::Submit { prompt, output, error };
            streams.push(self.engine.submit(request).map_err(refused)?);
        }
        for mut stream in streams {
            let mut finished = false;
            while let Some(token) = stream.blocking_recv() {
                finished = token.finish.is_some();
            }
            if !finished {
                let why = self.engine.status().failed;
                return Err(BenchError::Stopped(why.unwrap_or_else(|| "shut down".to_owned())));
            }
        }
        Ok(start.elapsed())
    }

    pub(super) fn shut_down(&self) {
        self.engine.shutdown();
    }
}

/// Random weights for a named shape, else those of the checkpoint.
fn weights(args: &BenchArgs) -> Result<(ModelConfig, HostWeights), BenchError> {
    if let Some(config) = shape::named(&args.model) {
        let weights = HostWeights::random(&config, args.dtype.unwrap_or(Dtype::Bf16), 1);
        return Ok((config, weights));
    }
    let checkpoint = Checkpoint::open(Path::new(&args.model))?;
    let weights = checkpoint.load(args.dtype, &mut |_, _| ())?;
    Ok((checkpoint.config, weights))
}

fn pack(
    (config, memory): (&ModelConfig, &ImageMemory),
    dtype: Dtype,
    rank: u32,
    index: usize,
) -> Result<Arc<AdapterImage>, BenchError> {
    let weights = LoraWeights::random(config, dtype, rank as usize, index as u64 + 2);
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(index as u64).to_le_bytes());
    let image = weights.pack(config, memory, AdapterId(id));
    image.map(Arc::new).map_err(|error| BenchError::Pack { rank, error })
}

/// Room for the largest batch with all its adapters, so that nothing is evicted or preempted.
fn limits(
    args: &BenchArgs,
    config: &ModelConfig,
    dtype: Dtype,
    adapters: &[Arc<AdapterImage>],
) -> EngineLimits {
    let batch = args.batch.iter().copied().max().unwrap_or(1) as usize;
    let pages = (args.prompt as usize + args.output as usize).div_ceil(PAGE_TOKENS) + 1;
    let tiles: usize = adapters.iter().map(|image| image.map.slabs as usize).sum();
    let pool_bytes = (batch * pages + tiles) * config.attention_shape(dtype).slab_bytes();
    let max_step_tokens = (batch * args.prompt as usize).clamp(batch, MAX_STEP_TOKENS.max(batch));
    EngineLimits { pool_bytes, max_running: batch, max_step_tokens, max_waiting: batch }
}
