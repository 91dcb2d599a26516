//! How a product is computed by cuBLASLt.
//!
//! cuBLASLt thinks in columns: a row-major matrix `[a, b]` is to it a matrix of `b` rows and `a`
//! columns, its transpose. So `y[rows, outputs] = x[rows, inputs] w[outputs, inputs]^T` becomes
//!
//! | | to cuBLASLt | its shape |
//! |---|---|---|
//! | D | `y^T` | `outputs` by `rows` |
//! | A, transposed | `w^T` | `inputs` by `outputs` |
//! | B | `x^T` | `inputs` by `rows` |
//!
//! `y^T = (w^T)^T x^T = w x^T`: m is `outputs`, n is `rows`, k is `inputs`.

use std::{ffi::c_void, mem::zeroed, ptr};

use cudarc::cublaslt::{
    result::{self, CublasError},
    sys,
};

use super::{
    super::super::{Matrix, Tensor},
    Engine, WORKSPACE_BYTES,
    descriptors::{Layout, Operation, Preference},
};

/// Algorithms that the heuristic is asked for.
const CANDIDATES: usize = 16;

/// A product `[rows, inputs]` by `[outputs, inputs]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// How products of a shape are computed, and of the same weights with fewer rows.
pub(super) struct Plan {
    operation: Operation,
    w: Layout,
    x: Layout,
    y: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Plan {
    /// Asks the library's heuristic; `None` if nothing that it knows will do.
    pub(super) fn new(engine: &Engine, shape: Shape) -> Option<Self> {
        let Shape { rows, inputs, outputs } = shape;
        let describe = || -> Result<_, CublasError> {
            let (w, x) = (Layout::new(inputs, outputs)?, Layout::new(inputs, rows)?);
            Ok((Operation::new()?, w, x, Layout::new(outputs, rows)?))
        };
        let (operation, w, x, y) = describe().ok()?;
        let preference = Preference::new(WORKSPACE_BYTES).ok()?;
        // SAFETY: plain numbers, valid as zeros (a status of zero is success).
        let mut found: [sys::cublasLtMatmulHeuristicResult_t; CANDIDATES] = unsafe { zeroed() };
        let mut count = 0;
        // SAFETY: all descriptors are alive; there is room for as many results as are asked for.
        let asked = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                engine.handle,
                operation.handle(),
                w.handle(),
                x.handle(),
                y.handle(),
                y.handle(),
                preference.handle(),
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        asked.result().ok()?;
        let usable = |found: &&sys::cublasLtMatmulHeuristicResult_t| {
            found.state.result().is_ok()
                && found.workspaceSize <= WORKSPACE_BYTES
                && is_whole(&found.algo)
        };
        let algorithm = found[..count as usize].iter().find(usable)?.algo;
        Some(Self { operation, w, x, y, algorithm })
    }

    /// Queues `y = x w^T`, or does nothing where the algorithm does not take so many rows.
    pub(super) fn run(
        &mut self,
        engine: &Engine,
        [x, y]: [&Tensor; 2],
        w: &Matrix,
    ) -> Result<(), CublasError> {
        self.x.set_cols(x.rows.bound)?;
        self.y.set_cols(x.rows.bound)?;
        let (alpha, beta) = (1.0_f32, 0.0_f32);
        let place = |address: u64| address as *mut c_void;
        // SAFETY: the layouts are those of the three matrices, whose buffers hold so many elements;
        // `y` is C too, which is not read as beta is zero; alpha and beta are f32 as the operation
        // says and read before the call returns; the workspace is this stream's alone.
        unsafe {
            result::matmul(
                engine.handle,
                self.operation.handle(),
                ptr::from_ref(&alpha).cast(),
                ptr::from_ref(&beta).cast(),
                place(w.data.address()),
                self.w.handle(),
                place(x.data.address()),
                self.x.handle(),
                place(y.data.address()),
                self.y.handle(),
                place(y.data.address()),
                self.y.handle(),
                &self.algorithm,
                place(engine.workspace.address()),
                WORKSPACE_BYTES,
                engine.device.stream().cu_stream().cast(),
            )
        }
    }
}

/// Whether an algorithm adds each sum up in one place. One that doesn't tell has passed the
/// preference, which allows no other.
fn is_whole(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    let splits = setting(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    let scheme = setting(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    splits.is_none_or(|splits| splits <= 1) && scheme.is_none_or(|scheme| scheme == 0)
}

/// A setting of 32 bits.
fn setting(
    algorithm: &sys::cublasLtMatmulAlgo_t,
    attribute: sys::cublasLtMatmulAlgoConfigAttributes_t,
) -> Option<u32> {
    let (mut value, mut written) = (0_u32, 0);
    // SAFETY: a live algorithm, and room for the bytes that are named.
    let got = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(
            algorithm,
            attribute,
            ptr::from_mut(&mut value).cast(),
            size_of_val(&value),
            &mut written,
        )
    };
    (got.result().is_ok() && written == size_of_val(&value)).then_some(value)
}
