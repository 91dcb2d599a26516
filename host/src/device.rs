//! What runs the kernels, and an engine started on it. The only place that tells backends apart.

use std::{fmt, num::NonZero, path::PathBuf, str::FromStr, thread::available_parallelism};

use switchyard_kernels::{
    Backend, DeviceError, Timed,
    cpu::{Cpu, Isa},
    cuda::{self, Cuda},
};

use crate::{
    engine::{Engine, EngineHandle, EngineLimits},
    kernel_cache::{KernelCache, NoCache},
    model::{HostWeights, Model, ModelConfig},
};

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor, until the CUDA backend has been proved on hardware.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of that number.
    Cuda(usize),
}

/// How a device is used.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Which.
    pub device: Device,
    /// Path through the CPU kernels; `None` is the best one there is.
    pub isa: Option<Isa>,
    /// Threads of the CPU backend; `None` is one per core.
    pub threads: Option<NonZero<usize>>,
    /// Where compiled GPU kernels are kept; without a place every start compiles them.
    pub kernel_cache: Option<PathBuf>,
}

/// Text that names no device.
#[derive(Debug, thiserror::Error)]
#[error("use \"auto\", \"cpu\" or \"cuda:N\" with the number of a GPU, from 0")]
pub struct UnknownDevice;

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or(UnknownDevice)?;
                let plain = number.bytes().all(|byte| byte.is_ascii_digit());
                let number = number.parse().ok().filter(|_| plain).ok_or(UnknownDevice)?;
                Ok(Self::Cuda(number))
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    /// The device that `Auto` stands for here.
    pub(crate) fn resolve(self) -> Self {
        if self != Self::Auto {
            return self;
        }
        match cuda::devices() {
            Ok(count) => tracing::info!("{count} GPUs left alone: `engine.device` is \"auto\""),
            Err(why) => tracing::info!("running on the processor: {why}"),
        }
        Self::Cpu
    }
}

/// Something to be done on whichever backend a device turns out to be.
pub(crate) trait OnBackend {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<B: Timed>(self, backend: B) -> Result<Self::Output, DeviceError>;
}

impl DeviceOptions {
    /// Opens the device and does something on it, without an engine.
    pub(crate) fn run<T: OnBackend>(self, task: T) -> Result<T::Output, DeviceError> {
        match self.device.resolve() {
            Device::Cuda(number) => task.run(match self.kernel_cache.map(KernelCache::new) {
                Some(cache) => Cuda::new(number, &cache)?,
                None => Cuda::new(number, &NoCache)?,
            }),
            Device::Cpu | Device::Auto => {
                let cores = || available_parallelism().map_or(1, NonZero::get);
                let threads = self.threads.map_or_else(cores, NonZero::get);
                task.run(Cpu::new(self.isa.unwrap_or_else(Isa::best), threads)?)
            }
        }
    }

    /// Starts an engine with these weights.
    pub fn start(
        self,
        config: ModelConfig,
        weights: HostWeights,
        limits: EngineLimits,
    ) -> Result<EngineHandle, DeviceError> {
        match self.device.resolve() {
            Device::Cuda(number) => {
                let cache = self.kernel_cache.map(KernelCache::new);
                let open = move || match &cache {
                    Some(cache) => Cuda::new(number, cache),
                    None => Cuda::new(number, &NoCache),
                };
                spawn(open, config, weights, limits)
            }
            Device::Cpu | Device::Auto => {
                let cores = || available_parallelism().map_or(1, NonZero::get);
                let threads = self.threads.map_or_else(cores, NonZero::get);
                let isa = self.isa.unwrap_or_else(Isa::best);
                spawn(move || Cpu::new(isa, threads), config, weights, limits)
            }
        }
    }
}

fn spawn<B: Backend>(
    open: impl FnOnce() -> Result<B, DeviceError> + Send + 'static,
    config: ModelConfig,
    weights: HostWeights,
    limits: EngineLimits,
) -> Result<EngineHandle, DeviceError> {
    let load = move || {
        let model = Model::new(open()?, &config, weights, limits.model())?;
        tracing::info!(device = model.device(), "engine starts");
        Ok(model)
    };
    Engine::spawn(load, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(17)] {
            assert_eq!(device.to_string().parse::<Device>().ok(), Some(device));
        }
        for wrong in ["", "gpu", "CPU", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:0 "]
        {
            assert!(wrong.parse::<Device>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn auto_is_the_processor_whatever_is_there() {
        match cuda::devices() {
            Ok(count) => assert!(count > 0),
            Err(why) => assert!(why.to_string().contains("NVIDIA driver"), "{why}"),
        }
        assert_eq!(Device::Auto.resolve(), Device::Cpu);
        assert_eq!(Device::Cuda(3).resolve(), Device::Cuda(3));
    }
}
