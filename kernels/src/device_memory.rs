//! Whose a device's memory is, as counted here and as its driver sees it.

/// Bytes that a backend holds, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Matrices and vectors of the model.
    pub weights: usize,
    /// Tensors.
    pub activations: usize,
    /// KV pages and adapters.
    pub pool: usize,
    /// Where the tiles of adapters lie.
    pub adapter_tables: usize,
    /// Everything else that was asked for.
    pub workspace: usize,
    /// What the driver took for itself (context, kernels, libraries) by the time that the pool was
    /// reserved; `None` where nobody can tell.
    pub driver: Option<usize>,
}

impl DeviceMemory {
    /// All of them.
    pub fn total(&self) -> usize {
        let Self { weights, activations, pool, adapter_tables, workspace, driver } = self;
        weights + activations + pool + adapter_tables + workspace + driver.unwrap_or(0)
    }
}

/// A device's memory as its driver sees it, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceReading {
    /// Used by whomever.
    pub used: usize,
    /// All there is.
    pub total: usize,
    /// Used by this process, where the driver may tell.
    pub process: Option<usize>,
}
