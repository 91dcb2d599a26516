// Where low ranks become deltas: what the multipliers do with s and B of the listed items.
#pragma once
#include "low_rank_simple.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// ---- operands

// The `n`-th eight tokens of the block's share of an item's s at `shared`; zeros where other items'
// rows are. `first`: token 0 of the share.
__device__ inline uint2 load_s(const LowRankItem& item, u32 shared, u32 first, u32 n) {
  const u32 token = first + n * 8 + threadIdx.x % WARP / 4, row = token - item.row;
  if (row >= item.rows) return make_uint2(0, 0);  // wraps before the item's first
  return load_shared_2(shared + row * S_ROW_BYTES + threadIdx.x % 4 * 8);
}

// Of eight rows of B [.., ranks] from `row` on, what a lane has of an operand: four neighbouring
// ranks, as of s. Zeros where the item has no outputs or ranks.
__device__ inline void load_eight(u32 at, u32 row, u32 ranks, u32 begin, u32 end, u32& low,
                                  u32& high) {
  const u32 own = row + threadIdx.x % WARP / 4, rank = threadIdx.x % 4 * 4;
  uint2 v = make_uint2(0, 0);
  if (begin <= own && own < end && rank < ranks) v = load_shared_2(at + (own * ranks + rank) * 2);
  low = v.x, high = v.y;
}

// A warp's part of B of an item: 16 outputs of each of its boxes.
template <class T>
__device__ inline void load_b(u32 at, const LowRankItem& item, u32 (&a)[T::TILES][4]) {
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4;
  const u32 begin = item.begin, end = item.end, ranks = item.ranks;
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
    const u32 sixteen = (group * T::TILES + t) * 4 + warp;
    if constexpr (T::GATED) {
      u32 low, high;
      load_eight(at, sixteen * 8, ranks, begin, end, low, high);
      a[t][0] = item.run ? 0 : low, a[t][2] = item.run ? 0 : high;
      a[t][1] = item.run ? low : 0, a[t][3] = item.run ? high : 0;
    } else {
      load_eight(at, sixteen * 16, ranks, begin, end, a[t][0], a[t][2]);
      load_eight(at, sixteen * 16 + 8, ranks, begin, end, a[t][1], a[t][3]);
    }
  }
}

// ---- totals: the sums that deltas are added to

// Delta of eight tokens, made by itself. So a row is added to as often, and in the same order,
// whatever else is in its stages.
template <class T>
using EightDeltas = float[T::TILES][4];

template <class T>
__device__ inline void multiply_eight(EightDeltas<T>& delta, const u32 (&a)[T::TILES][4],
                                      const uint2& s) {
  const u32 b[2] = {s.x, s.y};
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) mma_bf16(delta[t], a[t], b);
}

// Where sums meet those of other blocks: deltas of the block's share alone, [tokens, PITCH]. A
// thread has four of each eight and tile, which lie like the base product's sums.
template <class T>
struct Deltas {
  u32 own;

  // Where the thread's outputs are among those of a row.
  __device__ static u32 outputs(const Ring<T>& ring) {
    const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
    return ring.totals() + (group * T::TILES * BOX_ROWS + warp * 16 + lane / 4) * 4;
  }
  // Once all have read x.
  __device__ Deltas(const Ring<T>& ring) {
    const u32 lane = threadIdx.x % WARP;
    own = outputs(ring) + lane % 4 * 2 * T::PITCH * 4;
#pragma unroll
    for (u32 n = 0; n < T::SHARE_EIGHTS; n++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) store_shared(place(n, t, i), 0.0f);
    __syncwarp();  // other lanes add to them
  }
  __device__ u32 place(u32 eight, u32 tile, u32 i) const {
    return own + (eight * 8 * T::PITCH + tile * BOX_ROWS + i % 2 * T::PITCH + i / 2 * 8) * 4;
  }
  __device__ void add(u32 eight, const EightDeltas<T>& delta) const {
#pragma unroll
    for (u32 t = 0; t < T::TILES; t++) {
      float now[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) now[i] = load_shared_float(place(eight, t, i));
#pragma unroll
      for (u32 i = 0; i < 4; i++) store_shared(place(eight, t, i), now[i] + delta[t][i]);
    }
  }
};

// Elsewhere the base product's sums of all tokens, by eights: registers have no address.
template <class T>
struct Totals {
  u32 own;

  // Where the thread's outputs are among those of a row.
  __device__ static u32 outputs(const Ring<T>& ring) {
    return ring.totals() + threadIdx.x / 4 * 4 * 16;
  }
  // Once all have read x.
  __device__ Totals(const Ring<T>& ring, const typename T::Sums& sums)
      : own(ring.totals() + threadIdx.x * 16) {
    barrier_wait(shared_address(&ring.board->summed), 0);
#pragma unroll
    for (u32 n = 0; n < T::TOKENS / 8; n++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const float* four = sums[t] + 4 * n;
        store_shared(place(n, t), make_float4(four[0], four[1], four[2], four[3]));
      }
    __syncwarp();  // other lanes add to them
  }
  __device__ u32 place(u32 eight, u32 tile) const {
    return own + (eight * T::TILES + tile) * T::MULTIPLIERS * 16;
  }
  __device__ void add(u32 eight, const EightDeltas<T>& delta) const {
#pragma unroll
    for (u32 t = 0; t < T::TILES; t++) {
      const float4 four = make_float4(delta[t][0], delta[t][1], delta[t][2], delta[t][3]);
      store_shared(place(eight, t), load_shared_floats(place(eight, t)) + four);
    }
  }
  // What they have become.
  __device__ void give(typename T::Sums& sums) const {
#pragma unroll
    for (u32 n = 0; n < T::TOKENS / 8; n++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const float4 v = load_shared_floats(place(n, t));
        float* four = sums[t] + 4 * n;
        four[0] = v.x, four[1] = v.y, four[2] = v.z, four[3] = v.w;
      }
  }
};

// ---- stages

// What is added at once: an item, or one of gate and one of up, for the same rows.
template <class T>
struct LowRankFactors {
  static constexpr u32 MOST = T::GATED ? 2 : 1;
  LowRankItem item;  // the first
  u32 count;
  u32 s[MOST];
  u32 a[MOST][T::TILES][4];

  // Of the items from `items` on, `left` of them, whose parts of B are at `b`.
  __device__ LowRankFactors(const LowRankItems<T>& list, const LowRankItem* items, u32 left, u32 b)
      : item(items[0]), count(1) {
    s[0] = shared_address(list.s[item.seat]);
    load_b<T>(b, item, a[0]);
    if constexpr (T::GATED) {
      if (left == 1) return;
      const LowRankItem next = items[1];
      if (next.row != item.row || next.rows != item.rows || next.run == item.run) return;
      count = 2;
      s[1] = shared_address(list.s[next.seat]);
      load_b<T>(b + T::B_BYTES, next, a[1]);
    }
  }
  // Adds COUNT eights of tokens from the `n`-th on, `last` at the most.
  template <u32 COUNT, class Into>
  __device__ void add_eights(u32 first, u32 n, u32 last, const Into& into) const {
    EightDeltas<T> deltas[COUNT] = {};
#pragma unroll
    for (u32 i = 0; i < MOST; i++) {
      if (i == count) break;
      uint2 v[COUNT];
#pragma unroll
      for (u32 k = 0; k < COUNT; k++) v[k] = load_s(item, s[i], first, n + k);
#pragma unroll
      for (u32 k = 0; k < COUNT; k++) multiply_eight<T>(deltas[k], a[i], v[k]);
    }
#pragma unroll
    for (u32 k = 0; k < COUNT; k++)
      if (n + k <= last) into.add(n + k, deltas[k]);
  }
  template <class Into>
  __device__ void add(u32 first, const Into& into) const {
    const u32 row = item.row - first, last = (row + item.rows - 1) / 8;
    if (row / 8 == last) return add_eights<1>(first, last, last, into);
    constexpr u32 AT_ONCE = 4 / T::TILES;
#pragma unroll 1
    for (u32 n = row / 8; n <= last; n += AT_ONCE) add_eights<AT_ONCE>(first, n, last, into);
  }
};

// Adds what the `number`-th listed stage holds.
template <class T, class Into>
__device__ inline void add_stage(const Ring<T>& ring, const LowRankItems<T>& list,
                                 const LowRankStage& what, const SimplePlaces<T>& places, u32 stage,
                                 u32 number, u32 first, const Into& into) {
  if (what.mark & SIMPLE)
    return add_simple<T>(ring, list, what, places, stage, Into::outputs(ring));
  const LowRankItem* items = list.items + number * T::ITEMS;
  const u32 count = what.mark & COUNT;
#pragma unroll 1
  for (u32 i = 0; i < count;) {
    const LowRankFactors<T> factors(list, items + i, count - i, ring.w(stage) + i * T::B_BYTES);
    factors.add(first, into);
    i += factors.count;
  }
}

// Adds all that comes behind `steps` stages of weights, for the block's share of tokens, whose
// first is the batch's `first`.
template <class T, class Into>
__device__ inline void add_lists(const Ring<T>& ring, u32 steps, u32 first, const Into& into) {
  bool more = true;
  CursorOfB<T> cursor(steps);
  for (u32 of = 0; more; of++) {
    const LowRankItems<T>& list = low_rank_items(ring, of);
    barrier_wait(shared_address(&ring.board->seated[of % 2]), parity_of_list(of));
    const u32 stages = stages_of(list);
    more = list.more;
    LowRankStage next = list.stages[0];
    SimplePlaces<T> next_places;
    next_places.load(list.items);
    for (u32 number = 0; number < stages; number++, cursor.advance()) {
      const LowRankStage what = next;
      const SimplePlaces<T> places = next_places;
      const u32 ahead = least(number + 1, list.ROOM / T::ITEMS - 1);
      next = list.stages[ahead];
      next_places.load(list.items + ahead * T::ITEMS);
      barrier_wait(ring.full(cursor.stage), cursor.parity);
      add_stage<T>(ring, list, what, places, cursor.stage, number, first, into);
      __syncwarp();  // all lanes have read
      ring.release(cursor.stage);
    }
    barrier_arrive(shared_address(&ring.board->read[of % 2]));  // each lane for what it has read
  }
}

// Adds all of that to the block's sums.
template <class T>
__device__ inline void add_low_rank(const Ring<T>& ring, const Work& work, typename T::Sums& sums) {
  const Totals<T> totals(ring, sums);
  add_lists<T>(ring, work.steps, work.row, totals);
  totals.give(sums);
}

#endif
