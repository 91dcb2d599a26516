//! Whole models on a GPU: what a request gets does not depend on its neighbours, on the run, on
//! being preempted, or on its adapter being kept apart from the weights.
//!
//! `SWITCHYARD_TEST_DEVICE=cuda:N` says which GPU and makes its absence a failure.

mod crowd;
mod merged;

use std::sync::{Mutex, OnceLock};

use switchyard::{
    device::Device,
    kernel_cache::KernelCache,
    model::{ModelConfig, RopeScaling},
};
use switchyard_kernels::{DeviceError, cuda::Cuda};

use crate::harness;

/// What opens the GPU under test; without one, says why tests are skipped.
pub fn device() -> Option<impl Fn() -> Cuda> {
    // One backend lives as long as the process, so that the others need not set the device up.
    static FIRST: OnceLock<Option<Mutex<Cuda>>> = OnceLock::new();
    let named: Device = harness::device().parse().unwrap();
    let number = if let Device::Cuda(number) = named { number } else { 0 };
    let open = move || Cuda::new(number, KernelCache::new(harness::scratch().join("kernels")));
    let first = FIRST.get_or_init(|| match open() {
        Ok(cuda) => Some(Mutex::new(cuda)),
        Err(DeviceError::Unavailable(why)) if !matches!(named, Device::Cuda(_)) => {
            println!("skipped: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    });
    first.as_ref().map(|_| move || open().unwrap())
}

/// Large enough for every fast path, small enough for many runs.
fn middle() -> ModelConfig {
    ModelConfig {
        vocabulary: 4096,
        hidden: 1024,
        intermediate: 2816,
        layers: 4,
        heads: 8,
        kv_heads: 2,
        head_dim: 128,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_positions: 4096,
    }
}

/// Narrow, with widths that tensor cores do not take.
fn tiny() -> ModelConfig {
    ModelConfig {
        vocabulary: 97,
        hidden: 64,
        intermediate: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ..middle()
    }
}

/// Length of the difference over length of the reference.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}
