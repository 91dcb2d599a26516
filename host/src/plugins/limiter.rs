//! How much memory one instance may hold, and the memory of having been refused more.

use wasmtime::{ResourceLimiter, Result};

use super::engine::TABLE_ELEMENTS;

/// Counts the linear memory of one store and refuses what exceeds the limit. A refusal is what
/// `memory.grow` returns to the guest; if the guest then aborts, `refused` says why.
pub(super) struct Limiter {
    /// Bytes, all memories of the store together.
    limit: usize,
    used: usize,
    /// Whether the guest ever asked for more.
    pub(super) refused: bool,
}

impl Limiter {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: false }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let fits = used <= self.limit;
        if fits {
            self.used = used;
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_budget() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.refused);
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.refused);
        assert!(limiter.memory_growing(60, 60, None).unwrap(), "a refusal is not for ever");
    }
}
