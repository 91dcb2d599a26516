//! Which parts of a table are free.

use std::{collections::BTreeMap, ops::Range};

/// Free ranges by their starts, none of which touch.
pub(super) struct Ranges {
    free: BTreeMap<usize, usize>,
}

impl Ranges {
    /// All of `0..len` is free.
    pub(super) fn new(len: usize) -> Self {
        Self { free: BTreeMap::from([(0, len)]) }
    }

    /// The start of `len` that are free side by side, the first there are.
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= len)?;
        if len > 0 {
            self.free.remove(&start);
            if start + len < end {
                self.free.insert(start + len, end);
            }
        }
        Some(start)
    }

    /// Frees what was taken.
    pub(super) fn give(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &its_end)) = self.free.range(..end).next_back() {
            assert!(its_end <= start, "a range is given once");
            if its_end == start {
                self.free.remove(&before);
                start = before;
            }
        }
        if let Some(its_end) = self.free.remove(&end) {
            end = its_end;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_taken_is_nobody_elses_and_comes_back(
            actions in prop::collection::vec((0usize..20, any::<prop::sample::Index>()), 0..200),
        ) {
            const LEN: usize = 100;
            let mut ranges = Ranges::new(LEN);
            let mut taken: Vec<Range<usize>> = Vec::new();
            for (len, index) in actions {
                match ranges.take(len) {
                    Some(start) => {
                        let new = start..start + len;
                        let apart = |old: &Range<usize>| old.end <= start || new.end <= old.start;
                        let mut others = taken.iter().filter(|old| !old.is_empty());
                        prop_assert!(new.end <= LEN && (len == 0 || others.all(apart)));
                        taken.push(new);
                    }
                    None => ranges.give(taken.swap_remove(index.index(taken.len()))),
                }
                let free: usize = ranges.free.iter().map(|(start, end)| end - start).sum();
                prop_assert_eq!(free + taken.iter().map(Range::len).sum::<usize>(), LEN);
            }
            taken.into_iter().for_each(|range| ranges.give(range));
            prop_assert_eq!(ranges.take(LEN), Some(0));
        }
    }
}
