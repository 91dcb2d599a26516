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
  // Asks for the first tiles of B of all pieces side by side, for `for_each_b`, which goes from one
  // to the next.
  __device__ void ask_for_b(const Adapters& adapters) const {
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      u32 tile;
      if (sites[g].b_count > 0)
        asm volatile("ld.global.ca.u32 %0, [%1];" : "=r"(tile) : "l"(adapters.tiles + sites[g].b));
    }
  }
  // Calls `f(piece, tile)` for the k-th tiles of B of each 32 pieces, where there is none with a
  // tile of no length: for all lanes alike.
  template <class F>
  __device__ void for_each_b(const Adapters& adapters, const F& f) const {
#pragma unroll 1
    for (u32 group = 0; group < GROUPS; group++) {
      Piece piece;
      u32 left = 0;
      const Tile* next = adapters.tiles;
      // Registers have no address, so their number is known when this is compiled.
#pragma unroll
      for (u32 g = 0; g < GROUPS; g++)
        if (g == group) {
          piece = pieces[g];
          left = sites[g].b_count;
          next += sites[g].b;
        }
      Tile tile = left ? *next : Tile{};
      while (__any_sync(~0u, left > 0)) {
        const Tile now = tile;
        if (left > 0) left--, next++;
        tile = left ? *next : Tile{};
        f(piece, now);
      }
    }
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

// Where the items of a list go that lanes find one after the other.
struct Places {
  u32 from;       // items that come before the list
  u32 count = 0;  // of all so far

  // Of this lane's, if it `has` one. For whole warps.
  __device__ u32 take(bool has) {
    const u32 all = __ballot_sync(~0u, has);
    const u32 place = count + __popc(all & ((1u << threadIdx.x % WARP) - 1)) - from;
    count += __popc(all);
    return has ? place : ~0u;
  }
};

#endif
