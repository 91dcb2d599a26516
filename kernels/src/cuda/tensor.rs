//! Weights and activations on the device.

use std::{cell::Cell, sync::Arc};

use super::{
    deferred::DeferredCell,
    device::Device,
    matmul::{self, FEW_ROWS, WeightsMap},
    memory::DeviceBuffer,
    step::class_rows,
    upload::Upload,
};
use crate::{DeviceError, Dtype, MatrixSource};

/// A weight matrix `[rows, cols]` = `[out, in]`, row-major, as the checkpoint stores it.
pub struct Matrix {
    pub(super) data: DeviceBuffer,
    pub(super) dtype: Dtype,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// For products that copy it in boxes.
    pub(super) map: Option<Arc<WeightsMap>>,
}

impl Matrix {
    /// Takes a copy.
    pub(super) fn new(
        device: &Arc<Device>,
        source: &impl MatrixSource,
        upload: &mut Upload,
    ) -> Result<Self, DeviceError> {
        let (dtype, [rows, cols]) = (source.dtype(), source.shape());
        let data = DeviceBuffer::new(device, source.bytes(), "weights")?;
        upload.send(source, &data)?;
        let map = matmul::weights_map(device, &data, dtype, [rows, cols]).map(Arc::new);
        Ok(Self { data, dtype, rows, cols, map })
    }
}

/// A weight vector in f32.
pub struct Vector {
    pub(super) data: DeviceBuffer,
    pub(super) len: usize,
}

/// How many rows an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// That kernels are launched for: the same for all steps of a class.
    pub(super) bound: usize,
    /// That the batch has; nobody reads those beyond.
    pub(super) live: usize,
}

/// What the rows of an activation are yet to be multiplied with: `1 / sqrt(mean + eps)` with the
/// mean of the squares of the residual that they come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RowScale {
    /// `[rows, parts_of(residuals)]` of f32: sums of squares of [`PART`] columns each.
    pub(super) squares: u64,
    /// Columns of the residual.
    pub(super) residuals: u32,
    pub(super) eps: f32,
}

/// `PART` of `prelude.cuh`.
const PART: usize = 64;

/// Words of a row of squares, whole 16 bytes.
pub(super) fn parts_of(cols: usize) -> usize {
    cols.div_ceil(4 * PART) * 4
}

/// Activations `[rows, cols]`, row-major. The operation that writes them chooses the element type:
/// what feeds a bf16 product is bf16, the residual stream and sums are f32.
pub struct Tensor {
    pub(super) data: DeviceBuffer,
    pub(super) dtype: Dtype,
    pub(super) rows: Rows,
    pub(super) cols: usize,
    /// What its contents wait for.
    pub(super) deferred: DeferredCell,
    /// What its rows are yet to be multiplied with, if that is not in them.
    pub(super) scale: Cell<Option<RowScale>>,
    /// Room for the squares of a scale of its own, of few rows.
    pub(super) squares: DeviceBuffer,
}

impl Tensor {
    /// Room for `rows_max` rows of either type.
    pub(super) fn new(
        device: &Arc<Device>,
        rows_max: usize,
        cols: usize,
    ) -> Result<Self, DeviceError> {
        let rows = class_rows(rows_max);
        let buffer = |words| DeviceBuffer::new(device, words * 4, "activations");
        let (data, squares) = (buffer(rows * cols)?, buffer(rows.min(FEW_ROWS) * parts_of(cols))?);
        Ok(Self {
            data,
            dtype: Dtype::F32,
            rows: Rows { bound: 0, live: 0 },
            cols,
            deferred: DeferredCell::default(),
            scale: Cell::new(None),
            squares,
        })
    }

    /// Says what an operation is about to write.
    pub(super) fn become_rows(&mut self, rows: Rows, dtype: Dtype) {
        let bytes = rows.bound * self.cols * dtype.size();
        assert!(bytes <= self.data.len(), "room for {} rows", rows.bound);
        (self.rows, self.dtype) = (rows, dtype);
        self.deferred.clear();
        self.scale.set(None);
    }

    /// The batch's rows as f32, waiting for what writes them. Neither deferred nor to be scaled.
    pub(super) fn values(&self) -> Vec<f32> {
        assert!(self.scale.get().is_none(), "rows that are complete");
        let bytes = self.data.read(self.rows.live * self.cols * self.dtype.size());
        match self.dtype {
            Dtype::F32 => {
                let word = |word: &[u8]| f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                bytes.chunks_exact(4).map(word).collect()
            }
            Dtype::Bf16 | Dtype::F16 => {
                let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
                let wide = |pair| half::bf16::from_bits(half(pair)).to_f32();
                bytes.chunks_exact(2).map(wide).collect()
            }
        }
    }
}
