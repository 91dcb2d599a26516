// What the rows of a step have at a site, found by a warp ahead of time.
#pragma once
#include "product.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Of each 32 pieces of the step one of a lane, and the tiles of its adapter; no rows or tiles where
// there is none. All are looked up side by side.
template <class T>
struct Lookup {
  static constexpr u32 GROUPS = (T::TOKENS + WARP - 1) / WARP;
  Piece pieces[GROUPS];
  SiteTiles sites[GROUPS];

  __device__ Lookup(const Step& step, const Adapters& adapters, u32 layer, u32 site) {
    const u32 lane = threadIdx.x % WARP, count = step.counts->pieces;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      pieces[g] = {0, 0, NO_ADAPTER};
      if (g * WARP + lane < count) pieces[g] = step.pieces[g * WARP + lane];
    }
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
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

// Goes over the tiles of B of all pieces: the k-th of each 32 pieces, of no length where there is
// none, for all lanes alike.
template <class T>
struct TilesOfB {
  const Lookup<T>& found;
  const Adapters& adapters;
  Piece piece;    // of the lane
  u32 group = 0;  // the next
  u32 left = 0;   // tiles of the lane
  const Tile* next;
  Tile ahead;

  __device__ TilesOfB(const Lookup<T>& found, const Adapters& adapters)
      : found(found), adapters(adapters) {}
  // Whether there was one for a lane.
  __device__ bool take(Tile& tile) {
    while (!__any_sync(~0u, left > 0)) {
      if (group == Lookup<T>::GROUPS) return false;
      enter();
    }
    tile = ahead;
    if (left > 0) left--, next++;
    ahead = left > 0 ? *next : Tile{};
    return true;
  }
  // The next 32 pieces. Registers have no address, so their number is known when this is compiled.
  __device__ void enter() {
#pragma unroll
    for (u32 g = 0; g < Lookup<T>::GROUPS; g++)
      if (g == group) {
        piece = found.pieces[g];
        left = found.sites[g].b_count;
        next = adapters.tiles + found.sites[g].b;
      }
    ahead = left > 0 ? *next : Tile{};
    group++;
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
