//! What cuBLASLt is told about a product: descriptors that it makes and that go with their owner.

use std::{ffi::c_void, ptr};

use cudarc::cublaslt::{
    result::{self, CublasError},
    sys,
};

/// A column-major bf16 matrix without gaps.
pub(super) struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    pub(super) fn new(rows: usize, cols: usize) -> Result<Self, CublasError> {
        let bf16 = sys::cudaDataType_t::CUDA_R_16BF;
        result::create_matrix_layout(bf16, rows as u64, cols as u64, rows as i64).map(Self)
    }

    pub(super) fn set_cols(&mut self, cols: usize) -> Result<(), CublasError> {
        let attribute = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS;
        let cols = cols as u64;
        let (value, size) = (ptr::from_ref(&cols).cast(), size_of_val(&cols));
        // SAFETY: a live layout, and a value of the attribute's type, u64.
        unsafe { result::set_matrix_layout_attribute(self.0, attribute, value, size) }
    }

    pub(super) fn handle(&self) -> sys::cublasLtMatrixLayout_t {
        self.0
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed here alone.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// A product whose first factor is transposed, accumulated in f32.
pub(super) struct Operation(sys::cublasLtMatmulDesc_t);

impl Operation {
    pub(super) fn new() -> Result<Self, CublasError> {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let scale = sys::cudaDataType_t::CUDA_R_32F;
        let operation = Self(result::create_matmul_desc(compute, scale)?);
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        // CUBLAS_OP_T
        let transposed = 1_i32;
        let (value, size) = (ptr::from_ref(&transposed).cast(), size_of_val(&transposed));
        // SAFETY: a live descriptor, and a value of the attribute's type, i32.
        unsafe { result::set_matmul_desc_attribute(operation.0, attribute, value, size)? };
        Ok(operation)
    }

    pub(super) fn handle(&self) -> sys::cublasLtMatmulDesc_t {
        self.0
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed here alone.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// Which algorithms will do.
pub(super) struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    /// No more workspace than that, and no partial sums that are added up afterwards.
    pub(super) fn new(workspace_bytes: usize) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref()?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes)?;
        let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes)?;
        Ok(preference)
    }

    /// `value` has the attribute's type: usize for the workspace, u32 for masks.
    fn set<T: Copy>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<(), CublasError> {
        let (value, size) = (ptr::from_ref(&value).cast::<c_void>(), size_of::<T>());
        // SAFETY: a live preference; the library checks the size and reads that many bytes.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, value, size) }
    }

    pub(super) fn handle(&self) -> sys::cublasLtMatmulPreference_t {
        self.0
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed here alone.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
