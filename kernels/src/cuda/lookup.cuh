// What the rows of a step have at a site, found by a warp ahead of time.
#pragma once
#include "product.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Of each 32 pieces of the step one of a lane, and the tiles of its adapter; no rows or tiles where
// there is none. All are looked up side by side.
template <class T>
struct Lookup {
  static constexpr u32 GROUPS = (T::ROW_BLOCKS * T::TOKENS + WARP - 1) / WARP;
  Piece pieces[GROUPS];
  SiteTiles sites[GROUPS];

  // `bound`: pieces that may be read, which need not wait for the number of those that there are.
  __device__ Lookup(const Step& step, u32 bound, const Adapters& adapters, u32 layer, u32 site) {
    const u32 lane = threadIdx.x % WARP, count = step.counts->pieces;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      pieces[g] = {0, 0, NO_ADAPTER};
      if (g * WARP + lane < bound) pieces[g] = step.pieces[g * WARP + lane];
    }
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      if (g * WARP + lane >= count) pieces[g].slot = NO_ADAPTER;
      sites[g] = {};
      if (pieces[g].slot == NO_ADAPTER) pieces[g].rows = 0;
      else sites[g] = site_tiles(adapters, pieces[g].slot, layer, site);
    }
  }
  // Pieces of one adapter that follow each other become one, with which its tiles come once.
  __device__ void join() {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      Piece& piece = pieces[g];
      const u32 stop = piece.row + piece.rows, slot = __shfl_up_sync(~0u, piece.slot, 1);
      const bool follows = __shfl_up_sync(~0u, stop, 1) == piece.row && slot == piece.slot;
      const bool joins = lane > 0 && piece.rows > 0 && follows;
      const u32 later = __ballot_sync(~0u, !joins) & ~((2u << lane) - 1);  // that join none before
      const u32 end = __shfl_sync(~0u, stop, later ? __ffs(later) - 2 : WARP - 1);
      piece.rows = joins ? 0 : end - piece.row;
      if (joins) sites[g] = {};
    }
  }
};

// Goes over the tiles of B that rows of `share` have: the first of each 32 pieces, the second of
// each, and so on, of no length where a lane has none. The next of all are on their way meanwhile.
template <class T>
struct TilesOfB {
  static constexpr u32 GROUPS = Lookup<T>::GROUPS;
  const Lookup<T>& found;
  const Tile* tiles;
  u32 next[GROUPS], end[GROUPS];  // of the lane
  Tile ahead[GROUPS];
  u32 group = 0;
  Piece piece;  // of the tile taken last

  __device__ TilesOfB(const Lookup<T>& found, const Tile* tiles, const RowRange& share)
      : found(found), tiles(tiles) {
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      const Piece& own = found.pieces[g];
      const bool shared = own.row < share.end && share.first < own.row + own.rows;
      next[g] = found.sites[g].b;
      end[g] = next[g] + (shared ? found.sites[g].b_count : 0);
      ahead[g] = next[g] < end[g] ? tiles[next[g]] : Tile{};
    }
  }
  // Whether there was one for a lane. For all lanes alike.
  __device__ bool take(Tile& tile) {
    bool taken = false;
#pragma unroll 1
    for (u32 tried = 0; !taken && tried < GROUPS; tried++, group = (group + 1) % GROUPS)
    // Registers have no address, so their number is known when this is compiled.
#pragma unroll
      for (u32 g = 0; g < GROUPS; g++)
        if (g == group && __any_sync(~0u, next[g] < end[g])) {
          piece = found.pieces[g];
          tile = ahead[g];
          ahead[g] = ++next[g] < end[g] ? tiles[next[g]] : Tile{};
          taken = true;
        }
    return taken;
  }
};

// What the lanes before this one have is added to `before`; gives what all have. For whole warps.
__device__ inline u32 scan(u32 own, u32& before) {
  const u32 lane = threadIdx.x % WARP;
  u32 end = own;
#pragma unroll
  for (u32 offset = 1; offset < WARP; offset *= 2) {
    const u32 other = __shfl_up_sync(~0u, end, offset);
    if (lane >= offset) end += other;
  }
  before += end - own;
  return __shfl_sync(~0u, end, WARP - 1);
}

#endif
