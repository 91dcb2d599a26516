use std::{fs, path::PathBuf};

use proptest::prelude::*;
use switchyard_kernels::Dtype;

use super::*;
use crate::adapters::tests::{base, copy, read as pack};

/// A file of one adapter's image.
struct Written {
    dir: tempfile::TempDir,
    image: AdapterImage,
}

impl Written {
    fn new(adapter: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = pack(&copy(adapter, dir.path(), "a")).unwrap();
        write(&dir.path().join("image"), &image, &base()).unwrap();
        Self { dir, image }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn read(&self) -> io::Result<AdapterImage> {
        let memory = ImageMemory::pageable(base().slab_bytes());
        read(&self.path(), self.image.id, (&base(), &memory))
    }

    /// Bytes before the image's.
    fn head(&self) -> usize {
        PREFIX + header(&self.image, &base()).len()
    }
}

fn same(a: &AdapterImage, b: &AdapterImage) -> bool {
    (a.id, a.rank, &a.map) == (b.id, b.rank, &b.map) && a.bytes.bytes() == b.bytes.bytes()
}

#[test]
fn an_image_comes_back_as_it_was() {
    for adapter in ["r3", "r24", "r64", "patterns", "one-layer"] {
        let written = Written::new(adapter);
        assert!(same(&written.read().unwrap(), &written.image), "{adapter}");
        assert_eq!(fs::read_dir(written.dir.path()).unwrap().count(), 2, "nothing is left beside");
    }
}

#[test]
fn an_image_of_another_adapter_or_base_is_refused() {
    let written = Written::new("r3");
    let refused = |id, base: &BaseIdentity| {
        let memory = ImageMemory::pageable(base.slab_bytes());
        let error = read(&written.path(), id, (base, &memory)).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    };
    refused(AdapterId([1; 32]), &base());
    refused(written.image.id, &BaseIdentity { dtype: Dtype::Bf16, ..base() });
    let mut deeper = base();
    deeper.config.layers += 1;
    refused(written.image.id, &deeper);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_goes_unnoticed(
        at in any::<prop::sample::Index>(),
        in_head in any::<bool>(),
        damage in prop_oneof![
            (0u8..8).prop_map(|bit| (Some(bit), 0)),
            (1usize..100).prop_map(|grown| (None, grown)),
            Just((None, 0)),
        ],
    ) {
        let written = Written::new("r3");
        let mut bytes = written.bytes();
        let at = at.index(if in_head { written.head() } else { bytes.len() });
        match damage {
            (Some(bit), _) => bytes[at] ^= 1 << bit,
            (None, 0) => bytes.truncate(at),
            (None, grown) => bytes.resize(bytes.len() + grown, 0),
        }
        fs::write(written.path(), bytes).unwrap();
        prop_assert!(written.read().is_err());
    }

    /// A header that lies under a right hash: nobody writes one, yet no kernel may pay for it, or
    /// wait for what is not there.
    #[test]
    fn no_header_leads_outside_the_image(
        at in any::<prop::sample::Index>(),
        value in prop_oneof![any::<u32>(), 0u32..300, Just(u32::MAX)],
    ) {
        let written = Written::new("r3");
        let mut bytes = written.bytes();
        let at = at.index(written.head() / 4) * 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes.truncate(bytes.len() - 32);
        sealed::write(&written.path(), &[&bytes]).unwrap();
        if let Ok(image) = written.read() {
            prop_assert_eq!(image.bytes.len(), image.map.slabs as usize * base().slab_bytes());
            let tiles = image.map.linears.iter().flatten().flat_map(|l| l.a.iter().chain(&l.b));
            for tile in tiles {
                let end = tile.offset as usize + tile.ranks.len() * tile.long.len() * 4;
                prop_assert!(tile.slab < image.map.slabs && end <= base().slab_bytes());
            }
            for (index, tiles) in image.map.linears.iter().enumerate() {
                let Some(LinearTiles { padded_rank, a, b, .. }) = tiles else { continue };
                let linear = Linear::ALL[index % Linear::ALL.len()];
                let (out, input) = base().config.linear_shape(linear);
                let elements = |tiles: &[Tile]| -> usize {
                    tiles.iter().map(|tile| tile.ranks.len() * tile.long.len()).sum()
                };
                let rank = *padded_rank as usize;
                prop_assert_eq!((elements(a), elements(b)), (rank * input, rank * out));
            }
        }
    }
}
