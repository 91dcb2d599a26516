// Simple stages of low ranks, whose items have a row each: all of them side by side, on tensor
// cores and then to the totals of their rows.
#pragma once
#include "low_rank.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What a lane reads of the items of a simple stage: four neighbouring ranks of an output. Where
// there are eight the upper lanes read the lower ones' once more, to no effect: their s is zero.
template <class T>
struct SimpleStage {
  static constexpr u32 HEIGHT = T::GATED ? 8 : 16;  // outputs of a warp
  u32 sixteen, eight;                               // of items with so many ranks
  u32 eights;

  __device__ SimpleStage(const Ring<T>& ring, u32 stage, const LowRankStage& what)
      : eights(what.eights) {
    const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
    const u32 own = (group * T::TILES * 4 + warp) * HEIGHT + lane / 4;
    sixteen = ring.w(stage) + own * 32 + lane % 4 * 8;
    eight = ring.w(stage) + own * 16 + lane % 2 * 8;
  }
  // Of the output `below` the first of a tile.
  __device__ uint2 load(u32 i, u32 tile, u32 below) const {
    const u32 outputs = tile * 4 * HEIGHT + below;
    const u32 at = eights >> i & 1 ? eight + outputs * 16 : sixteen + outputs * 32;
    return load_shared_2(at + i * T::B_BYTES);
  }
};

// The lane's part of a simple stage: two items of each eight of gate or up, for one output of a
// tile, or of each four elsewhere, where half of the lanes have the lower outputs.
template <class T>
struct SimplePair {
  static constexpr u32 PASSES = T::GATED ? 1 : T::ITEMS / 4;
  static_assert(T::ITEMS == 8 || !T::GATED && T::ITEMS == 4, "whole eights, and fours");

  __device__ static u32 first(u32 pass) {
    return T::GATED ? threadIdx.x % 4 * 2 : pass * 4 + threadIdx.x % 2 * 2;
  }
  __device__ static bool is_lower() { return !T::GATED && threadIdx.x & 2; }
};

// Where totals of their rows begin, one in the lower half of a word.
template <class T>
struct SimplePlaces {
  u32 pairs[SimplePair<T>::PASSES];

  __device__ void load(const LowRankItem* items) {
#pragma unroll
    for (u32 pass = 0; pass < SimplePair<T>::PASSES; pass++) {
      const u32 first = SimplePair<T>::first(pass);
      pairs[pass] = items[first].place | u32(items[first + 1].place) << 16;
    }
  }
};

// Their deltas. A product takes s of eight items, or twice of four, as its columns; of what that
// gives a lane keeps its own. What the stage has no items for becomes sums that nobody adds.
template <class T>
struct SimpleDeltas {
  static constexpr u32 PASSES = SimplePair<T>::PASSES;
  float low[PASSES][T::TILES], high[PASSES][T::TILES];

  __device__ SimpleDeltas(const SimpleStage<T>& stage, const LowRankItems<T>& list, u32 seat) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 pass = 0; pass < PASSES; pass++) {
      const u32 column = T::GATED ? lane / 4 : pass * 4 + lane / 4 % 4;
      const uint2 two = load_shared_2(shared_address(list.s[seat + column]) + lane % 4 * 8);
      const u32 s[2] = {two.x, two.y};
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        float sums[4][4] = {};
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
          // Sixteen outputs: eight of two items, or of one.
          const u32 upper = T::GATED ? 2 * n : pass * 4 + n, lower = T::GATED ? upper + 1 : upper;
          const uint2 first = stage.load(upper, t, 0);
          const uint2 second = stage.load(lower, t, T::GATED ? 0 : 8);
          const u32 a[4] = {first.x, second.x, first.y, second.y};
          mma_bf16(sums[n], a, s);
        }
        keep(sums, low[pass][t], high[pass][t]);
      }
    }
  }
  __device__ static void keep(const float (&sums)[4][4], float& low, float& high) {
    const bool odd = threadIdx.x & 1, second = threadIdx.x & 2;
    if constexpr (T::GATED) {
      low = second ? (odd ? sums[3][0] : sums[2][0]) : (odd ? sums[1][0] : sums[0][0]);
      high = second ? (odd ? sums[3][3] : sums[2][3]) : (odd ? sums[1][3] : sums[0][3]);
    } else {
      low = second ? (odd ? sums[2][2] : sums[0][2]) : (odd ? sums[2][0] : sums[0][0]);
      high = second ? (odd ? sums[3][3] : sums[1][3]) : (odd ? sums[3][1] : sums[1][1]);
    }
  }
};

// The totals in shared memory that these are added to.
template <class T>
struct SimpleTotals {
  using Layout = TotalsLayout<T>;
  static constexpr u32 PASSES = SimplePair<T>::PASSES;
  const u32 count;
  u32 low[PASSES], high[PASSES];  // where they begin
  float lows[PASSES][T::TILES], highs[PASSES][T::TILES];

  // Of `count` items. `outputs`: where the lane's own are among those of a row.
  __device__ SimpleTotals(u32 count, u32 outputs, const SimplePlaces<T>& places) : count(count) {
    if (SimplePair<T>::is_lower()) outputs += Layout::BELOW * 4;
#pragma unroll
    for (u32 pass = 0; pass < PASSES; pass++) {
      const u32 first = SimplePair<T>::first(pass);
      low[pass] = outputs + (places.pairs[pass] & 0xffff) * 4;
      high[pass] = outputs + (places.pairs[pass] >> 16) * 4;
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const u32 at = t * Layout::TILE * 4;
        lows[pass][t] = load_shared_if(first < count, low[pass] + at);
        highs[pass][t] = load_shared_if(first + 1 < count, high[pass] + at);
      }
    }
  }
  __device__ void add(const SimpleDeltas<T>& deltas) const {
#pragma unroll
    for (u32 pass = 0; pass < PASSES; pass++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const u32 first = SimplePair<T>::first(pass), at = t * Layout::TILE * 4;
        store_shared_if(first < count, low[pass] + at, lows[pass][t] + deltas.low[pass][t]);
        store_shared_if(first + 1 < count, high[pass] + at, highs[pass][t] + deltas.high[pass][t]);
      }
  }
};

// Adds a simple stage. `outputs`: where the lane's own are among those of a row.
template <class T>
__device__ inline void add_simple(const Ring<T>& ring, const LowRankItems<T>& list,
                                  const LowRankStage& what, const SimplePlaces<T>& places,
                                  u32 stage, u32 outputs) {
  const SimpleStage<T> items(ring, stage, what);
  const SimpleTotals<T> totals(what.mark & COUNT, outputs, places);  // asked for ahead of products
  totals.add(SimpleDeltas<T>(items, list, what.seat));
}

#endif
