//! Descriptors of matrices for the tensor memory accelerator, which copies boxes of them into
//! shared memory.

use std::mem::MaybeUninit;

use cudarc::driver::sys;

use super::{launch::Parameter, memory::DeviceBuffer};

/// Columns of a box: 128 bytes of bf16, the width of the widest swizzle.
pub(super) const BOX_COLUMNS: usize = 64;
/// Rows that a box may have.
const BOX_ROWS_MAX: usize = 256;

/// `TensorMap` of `hopper.cuh`: a bf16 matrix that is copied in boxes of [`BOX_COLUMNS`] columns,
/// with the 128-byte swizzle and zeros where a box leaves the matrix.
///
/// Names the buffer's address and must not be used beyond the buffer's life.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct TensorMap([u64; 16]);

// SAFETY: 128 bytes that only the device looks into.
unsafe impl Parameter for TensorMap {}

impl TensorMap {
    /// Of the first `rows` rows of a row-major bf16 matrix `[rows, cols]` that fills the buffer's
    /// head, in boxes of `box_rows` rows. Needs sm_90.
    pub(super) fn new(buffer: &DeviceBuffer, [rows, cols]: [usize; 2], box_rows: usize) -> Self {
        let row_bytes = cols * 2;
        assert!(rows > 0 && cols > 0 && rows * row_bytes <= buffer.len(), "a matrix in the buffer");
        assert!(row_bytes.is_multiple_of(16), "rows start at 16-byte boundaries");
        assert!(buffer.address().is_multiple_of(16), "the matrix starts at such a boundary");
        assert!((1..=BOX_ROWS_MAX).contains(&box_rows), "a box that the hardware takes");
        // Innermost first; the innermost stride is that of an element.
        let size = [cols as u64, rows as u64];
        let strides = [row_bytes as u64];
        let box_size = [BOX_COLUMNS as u32, box_rows as u32];
        let element_strides = [1, 1];
        let mut map = MaybeUninit::<sys::CUtensorMap>::uninit();
        // SAFETY: the arrays have two, one, two and two entries as a matrix needs; the address is
        // only noted down, and lies on the device.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                size.len() as u32,
                buffer.address() as *mut _,
                size.as_ptr(),
                strides.as_ptr(),
                box_size.as_ptr(),
                element_strides.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        encoded.result().expect("a matrix that fits the accelerator");
        // SAFETY: encoded above.
        Self(unsafe { map.assume_init() }.opaque)
    }
}
