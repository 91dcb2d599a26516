//! Activations in host memory.

/// Activations `[rows, cols]`, row-major, of up to as many rows as it was made for.
#[derive(Default)]
pub struct Tensor {
    /// `[rows_max, cols]`
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Tensor {
    /// Room for `rows_max` rows; none of them written yet.
    pub(super) fn new(rows_max: usize, cols: usize) -> Self {
        Self { data: vec![0.0; rows_max * cols], rows: 0, cols }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Sets the row count; what is beyond the old count is unspecified.
    pub(super) fn set_rows(&mut self, rows: usize) {
        assert!(rows * self.cols <= self.data.len(), "the tensor was made for {rows} rows");
        self.rows = rows;
    }

    /// Sets both counts and grows the memory to fit. For scratch that no one sized ahead.
    pub(super) fn reshape(&mut self, rows: usize, cols: usize) {
        if self.data.len() < rows * cols {
            self.data.resize(rows * cols, 0.0);
        }
        (self.rows, self.cols) = (rows, cols);
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.cols..][..self.cols]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let cols = self.cols;
        &mut self.values_mut()[row * cols..][..cols]
    }

    /// `[rows, cols]`
    pub(super) fn values(&self) -> &[f32] {
        &self.data[..self.rows * self.cols]
    }

    /// `[rows, cols]`
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.rows * self.cols]
    }
}
