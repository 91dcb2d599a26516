//! What runs the kernels, and an engine started on it. The only place that tells backends apart.

use std::{fmt, num::NonZero, path::PathBuf, str::FromStr, thread::available_parallelism};

use switchyard_kernels::{
    Backend, DeviceError, DeviceReading, HostMemory, MatrixSource, Timed,
    cpu::{Cpu, Isa},
    cuda::{self, Cuda},
};

use crate::{
    engine::{Engine, EngineHandle, EngineLimits},
    kernel_cache::{KernelCache, NoCache},
    model::{HostWeights, Model, ModelConfig},
    startup::Startup,
};

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The first GPU if it opens and CUDA's libraries are there, else the processor.
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

/// Something to be done on whichever backend a device turns out to be.
pub(crate) trait OnBackend {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<B: Timed>(self, backend: B) -> Result<Self::Output, DeviceError>;
}

impl DeviceOptions {
    /// Opens the device.
    pub fn open(self) -> Result<OpenDevice, DeviceError> {
        let found = match self.device {
            Device::Cpu => None,
            Device::Cuda(number) => Some((self.open_gpu(number)?, number)),
            Device::Auto => match self.open_gpu(0) {
                Ok(cuda) => Some((cuda, 0)),
                Err(DeviceError::Unavailable(why)) => {
                    tracing::info!("running on the processor: {why}");
                    None
                }
                Err(broken) => return Err(broken),
            },
        };
        let Some((cuda, number)) = found else {
            return Ok(OpenDevice::Cpu(Box::new(self.open_cpu()?)));
        };
        tracing::info!("running on {}: {}", cuda.name(), cuda::versions());
        Ok(OpenDevice::Cuda(Box::new(cuda), number))
    }

    fn open_gpu(&self, number: usize) -> Result<Cuda, DeviceError> {
        match self.kernel_cache.clone().map(KernelCache::new) {
            Some(cache) => Cuda::new(number, cache),
            None => Cuda::new(number, NoCache),
        }
    }

    fn open_cpu(&self) -> Result<Cpu, DeviceError> {
        let cores = || available_parallelism().map_or(1, NonZero::get);
        let threads = self.threads.map_or_else(cores, NonZero::get);
        Cpu::new(self.isa.unwrap_or_else(Isa::best), threads)
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
    /// Does something on it, without an engine.
    pub(crate) fn run<T: OnBackend>(self, task: T) -> Result<T::Output, DeviceError> {
        match self {
            Self::Cpu(cpu) => task.run(*cpu),
            Self::Cuda(cuda, _) => task.run(*cuda),
        }
    }

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

    /// Starts an engine with these weights; ends the stages "weights" and "kernels and pool".
    pub fn start<M: MatrixSource + 'static>(
        self,
        config: ModelConfig,
        weights: HostWeights<M>,
        limits: EngineLimits,
        startup: &Startup,
    ) -> Result<EngineHandle, DeviceError> {
        match self {
            Self::Cpu(cpu) => spawn(*cpu, (config, weights), limits, startup),
            Self::Cuda(cuda, _) => spawn(*cuda, (config, weights), limits, startup),
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

fn spawn<B: Backend, M: MatrixSource + 'static>(
    backend: B,
    (config, weights): (ModelConfig, HostWeights<M>),
    limits: EngineLimits,
    startup: &Startup,
) -> Result<EngineHandle, DeviceError> {
    let stages = startup.clone();
    let load = move || {
        let model = Model::new(backend, &config, weights, limits.model())?;
        stages.end("weights");
        tracing::info!(device = model.device(), "engine starts");
        Ok(model)
    };
    let engine = Engine::spawn(load, limits)?;
    startup.end("kernels and pool");
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use switchyard_kernels::Dtype;

    use super::*;
    use crate::model::tests::tiny;

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

    /// An engine of a tiny model on a device, at once stopped; what it runs on, or why it does not.
    fn start(device: Device) -> Result<Vec<&'static str>, String> {
        let config = tiny();
        let weights = HostWeights::random(&config, Dtype::Bf16, 1);
        let limits = EngineLimits {
            pool_bytes: Some(1 << 20),
            max_running: 1,
            max_step_tokens: 16,
            max_waiting: 1,
        };
        let options = DeviceOptions { device, isa: None, threads: None, kernel_cache: None };
        let startup = Startup::begin();
        let device = options.open().map_err(|error| error.to_string())?;
        startup.end("device");
        let engine = device.start(config, weights, limits, &startup);
        engine.map_err(|error| error.to_string())?.shutdown();
        Ok(startup.stages().into_iter().map(|(stage, _)| stage).collect())
    }

    #[test]
    fn auto_starts_whatever_is_there_and_a_named_gpu_says_what_is_missing() {
        let stages = ["device", "weights", "kernels and pool"];
        assert_eq!(start(Device::Auto).unwrap(), stages);
        assert_eq!(start(Device::Cpu).unwrap(), stages);
        let why = start(Device::Cuda(1_000)).unwrap_err();
        match cuda::devices() {
            Ok(_) => assert!(why.contains("cuda:1000 does not exist"), "{why}"),
            Err(missing) => assert_eq!(why, missing.to_string()),
        }
    }
}
