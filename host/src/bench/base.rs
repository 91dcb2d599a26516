//! The model under test and what runs it.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    thread,
};

use clap::Args;
use switchyard_kernels::{Backend, DeviceError, Dtype, cpu::Isa, cuda};

use super::{BenchError, floor, shape};
use crate::{
    checkpoint::{Checkpoint, TensorStack},
    device::{Device, DeviceOptions, OnBackend, OpenDevice},
    engine::{EngineHandle, EngineLimits},
    model::{HostWeights, ImageMemory, Model, ModelConfig, ModelLimits, RandomMatrix},
    startup::Startup,
};

/// Rows of the largest step where none are given.
const STEP_TOKENS_CPU: usize = 2048;
const STEP_TOKENS_GPU: usize = 8192;

/// Which model, on which device.
#[derive(Args, Clone, Debug)]
pub(super) struct BaseArgs {
    /// A checkpoint's directory, or a shape with random weights: tiny, tinyllama-1.1b, llama-3-8b
    #[arg(long, value_name = "DIR|SHAPE", default_value = "tinyllama-1.1b")]
    pub(super) model: String,
    /// Element type of weights, adapters and KV [default: the checkpoint's; bf16 for a shape]
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// What runs the model: auto, cpu, or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(super) device: Device,
    /// Threads of the CPU backend [default: one per processor]
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    /// Instructions of the CPU backend [default: the fastest of this machine]
    #[arg(long)]
    isa: Option<Isa>,
    /// Where compiled GPU kernels are kept between runs [default: nowhere]
    #[arg(long, value_name = "DIR")]
    kernel_cache: Option<PathBuf>,
    /// Rows of the largest step; longer prompts are read in chunks [default: 2048, on a GPU 8192]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_step_tokens: Option<u32>,
}

/// A model that is ready to start, and what it can be measured against.
pub(super) struct Base {
    pub(super) config: ModelConfig,
    pub(super) dtype: Dtype,
    /// Bytes per second that the device reads from its memory.
    pub(super) read_bandwidth: f64,
    pub(super) max_step_tokens: usize,
    weights: Weights,
    device: OpenDevice,
    startup: Startup,
}

/// Where the weights come from; they are read or drawn on their way to the device.
pub(super) enum Weights {
    Drawn(HostWeights<RandomMatrix>),
    Stored(HostWeights<TensorStack>),
}

impl Weights {
    /// The model on a backend, without an engine.
    pub(super) fn model<B: Backend>(
        self,
        backend: B,
        config: &ModelConfig,
        limits: ModelLimits,
    ) -> Result<Model<B>, DeviceError> {
        match self {
            Self::Drawn(weights) => Model::new(backend, config, weights, limits),
            Self::Stored(weights) => Model::new(backend, config, weights, limits),
        }
    }
}

/// What stays known of a model that has been started.
pub(super) struct Started {
    pub(super) config: ModelConfig,
    pub(super) dtype: Dtype,
    pub(super) read_bandwidth: f64,
    pub(super) engine: EngineHandle,
}

impl BaseArgs {
    /// Finds the weights, and measures the device's memory before they fill it.
    pub(super) fn load(&self) -> Result<Base, BenchError> {
        let device = match self.device {
            Device::Auto if cuda::devices().is_ok() => Device::Cuda(0),
            named => named,
        };
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = self.threads.map_or(processors, NonZero::get);
        let (read_bandwidth, reader, step_tokens) = match device {
            Device::Cuda(number) => {
                (cuda::copy_bandwidth(number)?, device.to_string(), STEP_TOKENS_GPU)
            }
            Device::Auto | Device::Cpu => {
                let bandwidth = floor::read_bandwidth(threads);
                (bandwidth, format!("{threads} threads"), STEP_TOKENS_CPU)
            }
        };
        let (config, dtype, weights) = self.weights()?;
        eprintln!("{}: {reader} at {:.1} GB/s", self.model, read_bandwidth / 1e9);
        let options = DeviceOptions {
            device,
            isa: self.isa,
            threads: self.threads,
            kernel_cache: self.kernel_cache.clone(),
        };
        let max_step_tokens = self.max_step_tokens.map_or(step_tokens, |tokens| tokens as usize);
        let startup = Startup::begin();
        let device = options.open()?;
        startup.end("device");
        Ok(Base { config, dtype, read_bandwidth, max_step_tokens, weights, device, startup })
    }

    /// Random weights for a named shape, else those of the checkpoint.
    fn weights(&self) -> Result<(ModelConfig, Dtype, Weights), BenchError> {
        if let Some(config) = shape::named(&self.model) {
            let weights = HostWeights::random(&config, self.dtype.unwrap_or(Dtype::Bf16), 1);
            return Ok((config, weights.dtype(), Weights::Drawn(weights)));
        }
        let checkpoint = Checkpoint::open(Path::new(&self.model))?;
        let weights = checkpoint.weights(self.dtype, |_, _| ())?;
        Ok((checkpoint.config, weights.dtype(), Weights::Stored(weights)))
    }
}

impl Base {
    /// Bytes of one slab of the pool.
    pub(super) fn slab_bytes(&self) -> usize {
        self.config.attention_shape(self.dtype).slab_bytes()
    }

    /// Where images lie that the device loads.
    pub(super) fn image_memory(&self) -> ImageMemory {
        ImageMemory::new(self.device.host_memory(), self.slab_bytes())
    }

    /// Does something on the opened device, with the weights.
    pub(super) fn on_backend<T: OnBackend>(
        self,
        task: impl FnOnce(Weights) -> T,
    ) -> Result<T::Output, BenchError> {
        Ok(self.device.run(task(self.weights))?)
    }

    /// Starts an engine.
    pub(super) fn start(self, limits: EngineLimits) -> Result<Started, BenchError> {
        let Self { config, dtype, read_bandwidth, weights, device, startup, .. } = self;
        let of = config.clone();
        let engine = match weights {
            Weights::Drawn(weights) => device.start(of, weights, limits, &startup),
            Weights::Stored(weights) => device.start(of, weights, limits, &startup),
        }?;
        eprintln!("engine ready in {startup}");
        Ok(Started { config, dtype, read_bandwidth, engine })
    }
}

fn parse_dtype(name: &str) -> Result<Dtype, String> {
    let known = [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().find(|d| d.name() == name);
    known.ok_or_else(|| "use f32, f16 or bf16".to_owned())
}
