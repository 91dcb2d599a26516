//! A slice that several threads write, each its own part.

use std::{marker::PhantomData, ops::Range, slice};

/// Hands out parts of a slice that the caller promises to keep apart.
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out `&mut [T]` parts that do not overlap, which may cross threads when
// `T: Send`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// One part.
    ///
    /// # Safety
    /// No part that overlaps `range` may be alive at the same time.
    #[expect(clippy::mut_from_ref, reason = "that is what the caller's promise is for")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion, borrowed mutably for 'a, unshared by the contract.
        unsafe { slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
