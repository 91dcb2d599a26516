//! What runs the kernels, and an engine started on it. The only place that tells backends apart.

use std::{fmt, num::NonZero, path::PathBuf, str::FromStr, thread::available_parallelism};

use switchyard_kernels::{
    Backend, DeviceError, DeviceReading, HostMemory,
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
    fn resolve(self) -> Self {
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

impl DeviceOptions {
    /// Opens the device.
    pub fn open(self) -> Result<OpenDevice, DeviceError> {
        match self.device.resolve() {
            Device::Cuda(number) => {
                let cuda = match self.kernel_cache.map(KernelCache::new) {
                    Some(cache) => Cuda::new(number, &cache),
                    None => Cuda::new(number, &NoCache),
                };
                Ok(OpenDevice::Cuda(Box::new(cuda?), number))
            }
            Device::Cpu | Device::Auto => {
                let cores = || available_parallelism().map_or(1, NonZero::get);
                let threads = self.threads.map_or_else(cores, NonZero::get);
                Ok(OpenDevice::Cpu(Box::new(Cpu::new(
                    self.isa.unwrap_or_else(Isa::best),
                    threads,
                )?)))
            }
        }
    }
}

/// A device that is ready to take a model.
pub enum OpenDevice {
    /// The processor.
    Cpu(Box<Cpu>),
    /// A GPU, and its number.
    Cuda(Box<Cuda>, usize),
}

impl OpenDevice {
    /// Memory of the host that it loads adapters from at full speed.
    pub fn host_memory(&self) -> HostMemory {
        match self {
            Self::Cpu(cpu) => cpu.host_memory(),
            Self::Cuda(cuda, _) => cuda.host_memory(),
        }
    }

    /// What its driver says about its memory.
    pub fn monitor(&self) -> Monitor {
        match self {
            Self::Cpu(_) => Monitor::default(),
            Self::Cuda(_, number) => Monitor(Cuda::monitor(*number)),
        }
    }

    /// Starts an engine with these weights.
    pub fn start(
        self,
        config: ModelConfig,
        weights: HostWeights,
        limits: EngineLimits,
    ) -> Result<EngineHandle, DeviceError> {
        match self {
            Self::Cpu(cpu) => spawn(*cpu, config, weights, limits),
            Self::Cuda(cuda, _) => spawn(*cuda, config, weights, limits),
        }
    }
}

/// A driver's view of a device's memory; the processor has no driver.
#[derive(Default)]
pub struct Monitor(Option<cuda::Monitor>);

impl Monitor {
    /// The memory now; `None` where nobody tells. May take milliseconds.
    pub fn read(&self) -> Option<DeviceReading> {
        self.0.as_ref()?.read()
    }
}

fn spawn<B: Backend>(
    backend: B,
    config: ModelConfig,
    weights: HostWeights,
    limits: EngineLimits,
) -> Result<EngineHandle, DeviceError> {
    let load = move || {
        let model = Model::new(backend, &config, weights, limits.model())?;
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
