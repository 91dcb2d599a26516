//! By which a product runs beside the shrink of its activations: words in memory that the two
//! share (`signals.cuh`).

use std::sync::Arc;

use super::{device::Device, launch::Parameter, memory::DeviceBuffer};
use crate::{DeviceError, Site};

/// Of `Signals` in `signals.cuh`.
const BYTES: usize = 16;
/// Of a layer.
const SITES: usize = Site::Down as usize + 1;

/// Words for every site of every layer. Kernels of several sites are in flight at a time, of two
/// steps never.
pub(super) struct Signals {
    words: DeviceBuffer,
    places: Vec<Place>,
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// By a shrink of this step.
    is_used: bool,
    /// By a shrink of any step, whose words no product has taken.
    is_raised: bool,
}

/// The shrink that was launched last, if nothing has been since.
struct Latest {
    place: usize,
    blocks: u32,
}

/// `Beside` of `signals.cuh`: the shrink that a product does not wait for, or none.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Beside {
    signals: u64,
    blocks: u32,
    padding: u32,
}

// SAFETY: the layout of `Beside` in `signals.cuh`.
unsafe impl Parameter for Beside {}

/// A place for a shrink.
pub(super) struct Claim {
    place: usize,
    pub(super) address: u64,
    /// Whether its words have to be lowered first.
    pub(super) is_raised: bool,
}

impl Signals {
    pub(super) fn for_layers(device: &Arc<Device>, layers: usize) -> Result<Self, DeviceError> {
        let places = vec![Place::default(); layers * SITES];
        let mut words = DeviceBuffer::new(device, places.len() * BYTES, "signals of shrink")?;
        words.write(0, &vec![0; places.len() * BYTES]);
        Ok(Self { words, places, latest: None })
    }

    pub(super) fn begin_step(&mut self) {
        self.places.iter_mut().for_each(|place| place.is_used = false);
    }

    /// For a shrink about to be launched; `None` where the step has had one of that site.
    pub(super) fn claim(&mut self, layer: usize, site: Site) -> Option<Claim> {
        let place = layer * SITES + site as usize;
        let Place { is_used, is_raised } = self.places[place];
        self.places[place].is_used = true;
        let address = self.words.address() + (place * BYTES) as u64;
        (!is_used).then_some(Claim { place, address, is_raised })
    }

    /// That shrink has been launched.
    pub(super) fn raise(&mut self, claim: &Claim, blocks: u32) {
        self.places[claim.place].is_raised = true;
        self.latest = Some(Latest { place: claim.place, blocks });
    }

    /// Something has been launched.
    pub(super) fn pass(&mut self) {
        self.latest = None;
    }

    /// For the product launched next.
    pub(super) fn take(&mut self) -> Beside {
        let Some(Latest { place, blocks }) = self.latest.take() else { return Beside::default() };
        self.places[place].is_raised = false;
        Beside { signals: self.words.address() + (place * BYTES) as u64, blocks, padding: 0 }
    }
}
