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
    /// Of the first `rows` rows of a row-major bf16 matrix `[rows, cols]` that fills the head of
    /// `bytes` bytes, in boxes of `box_rows` rows. Needs sm_90.
    pub(super) fn new(
        address: u64,
        bytes: usize,
        [rows, cols]: [usize; 2],
        box_rows: usize,
    ) -> Self {
        assert!(rows > 0 && cols > 0 && rows * cols * 2 <= bytes, "a matrix in the buffer");
        assert!((1..=BOX_ROWS_MAX).contains(&box_rows), "a box that the hardware takes");
        // Innermost first; the innermost stride is that of an element.
        Self::encode(
            address,
            [cols as u64, rows as u64],
            [cols as u64 * 2],
            [BOX_COLUMNS as u32, box_rows as u32],
        )
    }

    /// Of a matrix of two halves, `[rows, cols]` with `rows` a multiple of 16. A box of `box_rows`
    /// has eight rows of the first half, then the eight of the same number of the second, and so
    /// on.
    pub(super) fn gated(buffer: &DeviceBuffer, [rows, cols]: [usize; 2], box_rows: usize) -> Self {
        assert!(rows > 0 && cols > 0 && rows * cols * 2 <= buffer.len(), "a matrix in the buffer");
        assert!(rows.is_multiple_of(16) && box_rows.is_multiple_of(16), "whole eights of halves");
        let row_bytes = cols as u64 * 2;
        Self::encode(
            buffer.address(),
            [cols as u64, 8, 2, rows as u64 / 16],
            [row_bytes, rows as u64 / 2 * row_bytes, 8 * row_bytes],
            [BOX_COLUMNS as u32, 8, 2, box_rows as u32 / 16],
        )
    }

    /// Innermost first; the innermost stride is that of an element.
    fn encode<const N: usize, const M: usize>(
        address: u64,
        size: [u64; N],
        strides: [u64; M],
        box_size: [u32; N],
    ) -> Self {
        assert_eq!(M + 1, N, "a stride for each but the innermost");
        assert!(strides.iter().all(|stride| stride % 16 == 0), "rows start at 16-byte boundaries");
        assert!(address.is_multiple_of(16), "the matrix starts at such a boundary");
        let element_strides = [1; N];
        let mut map = MaybeUninit::<sys::CUtensorMap>::uninit();
        // SAFETY: the arrays have as many entries as there are dimensions, one fewer for strides;
        // the address is only noted down, and lies on the device.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                N as u32,
                address as *mut _,
                size.as_ptr(),
                strides.as_ptr(),
                box_size.as_ptr(),
                element_strides.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        encoded.result().expect("a matrix that fits the accelerator");
        // SAFETY: encoded above.
        Self(unsafe { map.assume_init() }.opaque)
    }
}
