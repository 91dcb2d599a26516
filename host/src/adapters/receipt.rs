//! What is remembered of an adapter's directory between runs, so that a start need not read and
//! hash weights that have not changed.

use std::{io, path::Path};

use super::{
    scan::Stamp,
    sealed::{self, Sealed, damaged},
};
use crate::model::AdapterId;

/// `stamp 56 | id 32 | rank 4 | slabs 4`
const BYTES: usize = Stamp::BYTES + 32 + 4 + 4;

/// What an adapter's files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) id: AdapterId,
    pub(super) rank: u32,
    pub(super) slabs: u32,
}

impl Receipt {
    /// Writes it for files of this stamp.
    pub(super) fn write(&self, path: &Path, stamp: &Stamp) -> io::Result<()> {
        let Some(stamp) = stamp.to_bytes() else { return Ok(()) };
        let (rank, slabs) = (self.rank.to_le_bytes(), self.slabs.to_le_bytes());
        sealed::write(path, &[&stamp, &self.id.0, &rank, &slabs])
    }

    /// Reads one; `None` if the files have changed since it was written.
    pub(super) fn read(path: &Path, stamp: &Stamp) -> io::Result<Option<Self>> {
        let mut file = Sealed::open(path)?;
        if file.left() != BYTES as u64 {
            return Err(damaged("its length is wrong"));
        }
        let (mut written, mut id) = ([0; Stamp::BYTES], [0; 32]);
        let (mut rank, mut slabs) = ([0; 4], [0; 4]);
        for field in [&mut written[..], &mut id, &mut rank, &mut slabs] {
            file.read(field)?;
        }
        file.finish()?;
        let (rank, slabs) = (u32::from_le_bytes(rank), u32::from_le_bytes(slabs));
        let same = stamp.to_bytes() == Some(written);
        Ok(same.then_some(Self { id: AdapterId(id), rank, slabs }))
    }
}
