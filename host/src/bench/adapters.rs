//! Adapters that exist only to be run: each has its own bytes, drawn when they are asked for.

use std::{
    collections::BTreeMap,
    num::NonZero,
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use serde::{Serialize, Serializer};
use switchyard_kernels::{Dtype, MAX_RANK};

use super::BenchError;
use crate::model::{AdapterId, AdapterImage, ImageMemory, LoraWeights, ModelConfig};

/// Ranks that mixed adapters take in turn.
const MIXED: [u32; 5] = [8, 16, 32, 64, 128];

/// Ranks of a set of adapters, on all seven linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranks {
    /// All the same.
    All(u32),
    /// 8 to 128, dealt out in turn.
    Mixed,
}

impl Ranks {
    fn of(self, index: usize) -> u32 {
        match self {
            Self::All(rank) => rank,
            Self::Mixed => MIXED[index % MIXED.len()],
        }
    }

    fn all(&self) -> &[u32] {
        match self {
            Self::All(rank) => std::slice::from_ref(rank),
            Self::Mixed => &MIXED,
        }
    }
}

impl FromStr for Ranks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mixed" {
            return Ok(Self::Mixed);
        }
        let rank = text.parse().ok().filter(|rank| (1..=MAX_RANK as u32).contains(rank));
        rank.map(Self::All).ok_or_else(|| format!("use mixed, or a rank of 1 to {MAX_RANK}"))
    }
}

impl Serialize for Ranks {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(rank) => to.serialize_u32(*rank),
            Self::Mixed => to.serialize_str("mixed"),
        }
    }
}

/// Makes adapters by number.
pub(super) struct AdapterSource {
    ranks: Ranks,
    /// One of each rank; the others are its twins.
    templates: BTreeMap<u32, AdapterImage>,
    memory: ImageMemory,
}

impl AdapterSource {
    pub(super) fn new(
        config: &ModelConfig,
        dtype: Dtype,
        ranks: Ranks,
        memory: ImageMemory,
    ) -> Result<Self, BenchError> {
        let template = |&rank: &u32| {
            let weights = LoraWeights::random(config, dtype, rank as usize, rank.into());
            let image = weights.pack(config, &memory, Self::id(usize::MAX));
            image.map(|image| (rank, image)).map_err(|error| BenchError::Pack { rank, error })
        };
        let templates = ranks.all().iter().map(template).collect::<Result<_, _>>()?;
        Ok(Self { ranks, templates, memory })
    }

    /// Identity of the adapter of that number.
    pub(super) fn id(index: usize) -> AdapterId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&index.to_le_bytes());
        AdapterId(id)
    }

    /// Slabs of that adapter.
    pub(super) fn slabs(&self, index: usize) -> usize {
        self.template(index).map.slabs as usize
    }

    /// That adapter's image, under the mark that tells whether the pool holds it.
    pub(super) fn image(&self, index: usize, resident: Arc<AtomicBool>) -> AdapterImage {
        self.template(index).twin(&self.memory, Self::id(index), resident)
    }

    /// The first `count` adapters, drawn on all processors.
    pub(super) fn images(&self, count: usize) -> Vec<Arc<AdapterImage>> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let share = count.div_ceil(processors).max(1);
        let draw = |start: usize| -> Vec<_> {
            let part = start..count.min(start + share);
            part.map(|index| Arc::new(self.image(index, Arc::default()))).collect()
        };
        thread::scope(|scope| {
            let parts = (0..count).step_by(share).map(|start| scope.spawn(move || draw(start)));
            let parts: Vec<_> = parts.collect();
            parts
                .into_iter()
                .flat_map(|part| part.join().expect("drawing does not panic"))
                .collect()
        })
    }

    fn template(&self, index: usize) -> &AdapterImage {
        &self.templates[&self.ranks.of(index)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shape;

    #[test]
    fn ranks_are_read_as_they_are_written() {
        assert_eq!("16".parse(), Ok(Ranks::All(16)));
        assert_eq!("mixed".parse(), Ok(Ranks::Mixed));
        for wrong in ["0", "257", "-1", "", "Mixed", "8-128"] {
            assert!(wrong.parse::<Ranks>().is_err(), "{wrong:?}");
        }
        assert_eq!(
            serde_json::to_string(&[Ranks::All(8), Ranks::Mixed]).unwrap(),
            r#"[8,"mixed"]"#
        );
    }

    #[test]
    fn every_adapter_has_its_rank_its_name_and_its_bytes() {
        let config = shape::named("tiny").expect("named");
        let memory = ImageMemory::pageable(config.attention_shape(Dtype::Bf16).slab_bytes());
        let source = AdapterSource::new(&config, Dtype::Bf16, Ranks::Mixed, memory).unwrap();
        let images = source.images(7);
        let ranks: Vec<u32> = images.iter().map(|image| image.rank).collect();
        assert_eq!(ranks, [8, 16, 32, 64, 128, 8, 16]);
        assert_ne!(images[0].id, images[5].id);
        assert_ne!(images[0].bytes.bytes(), images[5].bytes.bytes());
        assert_eq!(source.slabs(4), images[4].map.slabs as usize);
        assert_eq!(images[6].bytes.bytes(), source.image(6, Arc::default()).bytes.bytes());
    }
}
