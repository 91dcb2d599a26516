use proptest::prelude::*;

use super::*;
use crate::model::tests::{elements, tiny};

const ID: AdapterId = AdapterId([7; 32]);

/// The bytes of a tile, as the kernels find it.
fn tile_bytes<'a>(image: &'a AdapterImage, tile: &Tile, slab_bytes: usize) -> &'a [u8] {
    let size = tile.ranks.len() * tile.long.len() * image.map.dtype.size();
    &image.bytes.bytes()[tile.slab as usize * slab_bytes + tile.offset as usize..][..size]
}

/// Puts the tiles of `A` or `B` back together, padded ranks and all: `[padded rank][long]`.
fn unpack(image: &AdapterImage, tiles: &[Tile], slab_bytes: usize, a: bool) -> Vec<Vec<f32>> {
    let ranks = tiles.iter().map(|tile| tile.ranks.end).max().expect("tiles") as usize;
    let long = tiles.iter().map(|tile| tile.long.end).max().expect("tiles") as usize;
    let mut whole = vec![vec![f32::NAN; long]; ranks];
    for tile in tiles {
        let mut matrix = HostMatrix::zeroed(image.map.dtype, tile.ranks.len(), tile.long.len());
        matrix.data.bytes_mut().copy_from_slice(tile_bytes(image, tile, slab_bytes));
        let mut values = elements(&matrix).into_iter();
        let cells: Vec<(u32, u32)> = if a {
            tile.ranks.clone().flat_map(|r| tile.long.clone().map(move |l| (r, l))).collect()
        } else {
            tile.long.clone().flat_map(|l| tile.ranks.clone().map(move |r| (r, l))).collect()
        };
        for (rank, long) in cells {
            let cell = &mut whole[rank as usize][long as usize];
            assert!(cell.is_nan(), "two tiles hold rank {rank}, {long}");
            *cell = values.next().expect("one value per cell");
        }
    }
    whole
}

/// Every tile where it may be, every weight where it must be, zeros in the padding.
fn check(config: &ModelConfig, weights: &LoraWeights, slab_bytes: usize) {
    let image = weights.pack(config, &ImageMemory::pageable(slab_bytes), ID).expect("packs");
    let map = &image.map;
    assert_eq!(image.bytes.len(), map.slabs as usize * slab_bytes);
    let mut taken: Vec<(u32, u32, usize)> = Vec::new();
    for tiles in map.linears.iter().flatten() {
        for tile in tiles.a.iter().chain(&tiles.b) {
            let bytes = tile_bytes(&image, tile, slab_bytes).len();
            assert_eq!(tile.offset as usize % TILE_ALIGN, 0, "aligned");
            assert!(tile.ranks.len() <= RANK_CHUNK && tile.ranks.len() % RANK_ALIGN == 0);
            assert!(bytes <= slab_bytes / 2 && tile.offset as usize + bytes <= slab_bytes);
            taken.push((tile.slab, tile.offset, bytes));
        }
    }
    taken.sort_unstable();
    for pair in taken.windows(2) {
        let ((slab, offset, bytes), next) = (pair[0], pair[1]);
        assert!(slab < next.0 || offset as usize + bytes <= next.1 as usize, "tiles overlap");
    }
    for lora in &weights.linears {
        let tiles = map.linear(lora.layer, lora.linear).expect("packed");
        assert!(tiles.a.iter().all(|tile| tile.long.len() <= A_TILE_INPUTS));
        assert_eq!(tiles.padded_rank as usize, lora.a.rows.next_multiple_of(8));
        let (a, b) = (elements(&lora.a), elements(&lora.b));
        let (rank, input) = (lora.a.rows, lora.a.cols);
        for (r, row) in unpack(&image, &tiles.a, slab_bytes, true).iter().enumerate() {
            for (i, &value) in row.iter().enumerate() {
                assert_eq!(value, if r < rank { a[r * input + i] } else { 0.0 });
            }
        }
        for (r, col) in unpack(&image, &tiles.b, slab_bytes, false).iter().enumerate() {
            for (out, &value) in col.iter().enumerate() {
                assert_eq!(value, if r < rank { b[out * rank + r] } else { 0.0 });
            }
        }
    }
    assert_eq!(map.linears.iter().flatten().count(), weights.linears.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_weight_lies_in_one_tile(
        ranks in prop::collection::vec(prop::option::of(1usize..90), 14),
        widths in (1usize..6, 1usize..150, 1usize..5),
        slab_bytes in 1024usize..20_000,
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]),
    ) {
        let (kv_heads, intermediate, group) = widths;
        let heads = kv_heads * group;
        let config =
            ModelConfig { kv_heads, heads, intermediate, hidden: 24 * group, ..tiny() };
        let mut linears = Vec::new();
        for (i, rank) in ranks.into_iter().enumerate() {
            let Some(rank) = rank else { continue };
            let all = LoraWeights::random(&config, dtype, rank, i as u64).linears;
            linears.extend(all.into_iter().nth(i));
        }
        check(&config, &LoraWeights { linears }, slab_bytes);
    }
}

#[test]
fn large_shapes_waste_little_and_start_with_the_first_layer() {
    let config = ModelConfig { hidden: 512, intermediate: 1792, layers: 8, heads: 32, ..tiny() };
    let slab_bytes =
        ModelConfig { kv_heads: 8, ..config.clone() }.attention_shape(Dtype::Bf16).slab_bytes();
    let weights = LoraWeights::random(&config, Dtype::Bf16, 16, 1);
    let image = weights.pack(&config, &ImageMemory::pageable(slab_bytes), ID).expect("packs");
    let used: usize =
        weights.linears.iter().map(|lora| lora.a.data.len() + lora.b.data.len()).sum();
    assert!(used * 100 >= image.bytes.len() * 95, "{used} of {}", image.bytes.len());
    let last_slab = |layer: usize| {
        let linears = Linear::ALL.iter().filter_map(|&linear| image.map.linear(layer, linear));
        linears.flat_map(|l| l.a.iter().chain(&l.b)).map(|tile| tile.slab).max()
    };
    assert!((1..8).all(|layer| last_slab(layer - 1) <= last_slab(layer)));
}

#[test]
fn refuses_what_no_kernel_takes() {
    let pack = |rank, slab_bytes| {
        let memory = ImageMemory::pageable(slab_bytes);
        LoraWeights::random(&tiny(), Dtype::F32, rank, 1).pack(&tiny(), &memory, ID).err()
    };
    let rank = PackError::Rank { layer: 0, linear: Linear::Query, rank: 257 };
    assert_eq!(pack(257, 8192), Some(rank));
    assert_eq!(pack(16, 255), Some(PackError::SlabTooSmall { slab_bytes: 255 }));
    assert_eq!(pack(256, 8192), None);
}

#[test]
fn refuses_what_would_spread_to_other_rows() {
    let values = [(Dtype::F32, vec![0, 0, 0x80, 0x7f]), (Dtype::Bf16, vec![0xc0, 0xff])];
    for (dtype, bits) in values {
        let mut weights = LoraWeights::random(&tiny(), dtype, 4, 1);
        let lora = &mut weights.linears[3];
        let (layer, linear) = (lora.layer, lora.linear);
        let mut b = HostMatrix::zeroed(dtype, lora.b.rows, lora.b.cols);
        b.data.bytes_mut()[5 * bits.len()..][..bits.len()].copy_from_slice(&bits);
        lora.b = b;
        let packed = weights.pack(&tiny(), &ImageMemory::pageable(8192), ID);
        let error = packed.err().expect("refused");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("layer {layer}, {linear:?}: a weight of B is ")),
            "{text}"
        );
        assert!(text.contains("inf") || text.contains("NaN"), "{text}");
    }
}
