//! Random numbers and matrices from a seed.

use half::{bf16, f16};
use switchyard_kernels::{Dtype, HostMatrix};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Within -1..1.
    pub(crate) fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    pub(crate) fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    pub(crate) fn matrix(&mut self, dtype: Dtype, rows: usize, cols: usize) -> HostMatrix {
        let values = self.values(rows * cols);
        matrix(dtype, cols, &values)
    }
}

/// A matrix of given values.
pub(crate) fn matrix(dtype: Dtype, cols: usize, values: &[f32]) -> HostMatrix {
    let mut matrix = HostMatrix::zeroed(dtype, values.len() / cols, cols);
    write(dtype, values, matrix.data.bytes_mut());
    matrix
}

/// Stores values as elements.
pub(crate) fn write(dtype: Dtype, values: &[f32], bytes: &mut [u8]) {
    for (&value, bytes) in values.iter().zip(bytes.chunks_mut(dtype.size())) {
        match dtype {
            Dtype::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
            Dtype::F16 => bytes.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            Dtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}
