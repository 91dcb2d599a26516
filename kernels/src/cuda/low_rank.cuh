// The second half of LoRA products of few rows, where the base product of the same outputs ends:
// delta[token][output] = sum over ranks of s[token][rank] B[output][rank].
//
// What the block's outputs need of each adapter comes through the stages that weights came by, item
// by item of the lists. The copying warp asks for their parts of B as soon as all weights are on
// their way, the helping one lays rows of s beside the stages as soon as these are complete, and
// multipliers add the two to sums that lie like those of the base product. A row's delta is added
// up over its own chunks in their order, whatever else is in the batch; other rows' items add exact
// zeros to it.
#pragma once
#include "low_rank_list.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The n-th stage of B: the places of weights in the order in which these are read, then, if it is
// used, that of x, and so on.
template <class T>
struct StageOfB {
  u32 stage, round;  // of the ring
  bool waits;        // for all weights and x to be read

  // Behind `steps` stages of weights.
  __device__ static StageOfB of(u32 n, u32 steps) {
    const u32 turn = n / T::B_STAGES, at = n % T::B_STAGES, behind = steps + at;
    if (T::REUSES_X && at >= T::STAGES) return {at, turn, turn == 0};
    return {behind % T::STAGES, behind / T::STAGES + turn, false};
  }
};

// Lanes that copy a stage together look after every TEAMS-th of them: those of the same places in
// the ring, so that the phases of a place are seen in turn.
template <class T>
__device__ constexpr u32 teams_of_copiers() {
  u32 teams = least(WARP / T::ITEMS, T::B_STAGES);
  while (T::B_STAGES % teams > 0) teams--;
  return teams;
}

// The copying warp: B of all items, behind `steps` stages of weights.
template <class T>
__device__ inline void copy_low_rank(const Ring<T>& ring, u32 steps) {
  constexpr u32 TEAMS = teams_of_copiers<T>();
  const u32 lane = threadIdx.x % WARP, team = lane / T::ITEMS, member = lane % T::ITEMS;
  bool more = true;
  for (u32 number = 0, filled = 0; more; number++) {
    const LowRankItems<T>& list = low_rank_items(ring, number);
    barrier_wait(shared_address(&ring.board->listed[number % 2]), parity_of_list(number));
    const u32 count = list.count, end = filled + stages_of(list);
    more = list.more;
    u32 next = team < TEAMS ? filled + (team + TEAMS - filled % TEAMS) % TEAMS : end;
    while (__any_sync(~0u, next < end)) {
      const auto [stage, round, waits] = StageOfB<T>::of(next, steps);
      const u32 full = ring.full(stage);
      const bool is_free =
          next < end &&
          (waits ? barrier_has_ended(shared_address(&ring.board->summed), 0)
                 : round == 0 || barrier_has_ended(ring.empty(stage), (round - 1) % 2));
      // One lane answers for its team.
      const bool copies = __shfl_sync(~0u, is_free, team * T::ITEMS);
      const u32 i = (next - filled) * T::ITEMS + member;
      u32 bytes = 0, to = ring.w(stage) + member * T::B_BYTES;
      const bf16* from = nullptr;
      if (copies && i < count) {
        const LowRankItem item = list.items[i];
        from = list.b[i];
        bytes = (item.end - item.begin) * item.ranks * 2;
        to += item.begin * item.ranks * 2;
      }
      u32 all = bytes;
#pragma unroll
      for (u32 n = 1; n < T::ITEMS; n *= 2) all += __shfl_xor_sync(~0u, all, n);
      if (copies && member == 0) barrier_expect(full, all);
      __syncwarp();
      if (bytes > 0) copy_bytes(to, from, bytes, full);
      if (copies) next += TEAMS;
    }
    filled = end;
  }
}

// Makes zeros of what the product before has added to, the block's share. For a warp of every block
// with outputs.
__device__ inline void clear_spent(const LowRank& low_rank) {
  const u32 block = blockIdx.x - low_rank.shrinkers, blocks = gridDim.x - low_rank.shrinkers;
#pragma unroll 1
  for (u32 i = block * WARP + threadIdx.x % WARP; i < low_rank.words; i += blocks * WARP)
    low_rank.spent[i] = 0;
}

// The helping warp: s of all items. Four lanes look after a row.
template <class T>
struct LowRankSeater {
  // Rows of a lane on their way: few where few can be.
  static constexpr u32 BATCH = T::TOKENS == 8 ? 2 : 8;
  static constexpr u32 LANES = WARP / 4, PASS = BATCH * LANES;
  const LowRank& low_rank;
  LowRankItems<T>& list;
  FourWords words[BATCH];

  // What the lane has of the b-th row of a pass from `first` on, as it is at the time.
  __device__ void load(FourWords& own, u32 b, u32 first) const {
    const u32 seat = first + b * LANES + threadIdx.x % WARP / 4, rank = threadIdx.x % 4 * 4;
    own.clear(low_rank.inputs);
    if (seat >= list.seats) return;
    const LowRankItem& item = list.items[list.owners[seat]];
    const u32 row = item.row + seat - item.seat;
    if (rank < item.ranks) own.load(low_rank.s + u64(row) * low_rank.ranks + item.column + rank);
  }
  // Until all who shrink have added their parts to a few rows, in each block others.
  __device__ void await_few() {
    const u32 batches = least((list.seats + LANES - 1) / LANES, BATCH);
    if (batches == 0) return;
    do load(words[0], blockIdx.x % batches, 0);
    while (!__all_sync(~0u, words[0].is_complete(low_rank.inputs)));
  }
  // All rows of a pass, once all who shrink have added their parts.
  __device__ void await_pass(u32 first) {
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) words[b].clear(0);
    for (bool all = false; !all;) {
      all = true;
#pragma unroll
      for (u32 b = 0; b < BATCH; b++) {
        if (__all_sync(~0u, words[b].is_complete(low_rank.inputs))) continue;
        all = false;
        load(words[b], b, first);
      }
    }
  }
  // In bf16.
  __device__ void store_pass(u32 first) {
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) {
      const u32 seat = first + b * LANES + threadIdx.x % WARP / 4;
      float s[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) s[i] = from_fixed(words[b].at[i]);
      if (seat < list.seats)
        store_shared(shared_address(list.s[seat]) + threadIdx.x % 4 * 8,
                     make_uint2(pack_bf16(s[0], s[1]), pack_bf16(s[2], s[3])));
    }
  }
  // All rows of the listed items.
  __device__ void run() {
    for (u32 first = 0; first < list.seats; first += PASS) {
      await_pass(first);
      store_pass(first);
    }
  }
};

// ---- the multipliers' side

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
      a[t][0] = a[t][1] = a[t][2] = a[t][3] = 0;
      if (item.run) load_eight(at, sixteen * 8, ranks, begin, end, a[t][1], a[t][3]);
      else load_eight(at, sixteen * 8, ranks, begin, end, a[t][0], a[t][2]);
    } else {
      load_eight(at, sixteen * 16, ranks, begin, end, a[t][0], a[t][2]);
      load_eight(at, sixteen * 16 + 8, ranks, begin, end, a[t][1], a[t][3]);
    }
  }
}

template <u32 I>
struct Index {
  static constexpr u32 value = I;
};
// Calls `f(Index<i>)`: registers have no address, so their number is known when this is compiled.
template <u32 LOW, u32 HIGH, class F>
__device__ inline void at_index(u32 i, const F& f) {
  constexpr u32 MIDDLE = (LOW + HIGH) / 2;
  if constexpr (HIGH - LOW == 1) f(Index<LOW>{});
  else if (i < MIDDLE) at_index<LOW, MIDDLE>(i, f);
  else at_index<MIDDLE, HIGH>(i, f);
}

// Delta of the I-th eight tokens, made apart from their sums. So a row is added to as often, and in
// the same order, whatever else is in its stages.
template <class T>
using EightDeltas = float[T::TILES][4];

template <class T>
__device__ inline void multiply_eight(EightDeltas<T>& delta, const u32 (&a)[T::TILES][4],
                                      const uint2& s) {
  const u32 b[2] = {s.x, s.y};
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) mma_bf16(delta[t], a[t], b);
}
template <class T, u32 TOKENS, u32 I>
__device__ inline void add_eight(float (&sums)[T::TILES][TOKENS / 2], const EightDeltas<T>& delta) {
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++)
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[t][4 * I + i] += delta[t][i];
}

// Adds a stage full of simple items, the `number`-th listed one. A lane has s of the row that it
// multiplies, which one of them is for. `mark`: of the stage.
template <class T, u32 TOKENS>
__device__ inline void add_simple(const Ring<T>& ring, const LowRankItems<T>& list, u32 stage,
                                  u32 number, u32 mark, u32 first,
                                  float (&sums)[T::TILES][TOKENS / 2]) {
  constexpr u32 HEIGHT = T::GATED ? 8 : 16, AT_ONCE = 4 / T::TILES;  // items
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
  const u32 rank_bytes = lane % 4 * 8, own = (group * T::TILES * 4 + warp) * HEIGHT + lane / 4;
  const u32 row_bytes = mark & EIGHT_RANKS ? 16 : 32;
  const bool there = rank_bytes < row_bytes;
  const u32 from =
      there ? ring.w(stage) + own * row_bytes + rank_bytes : shared_address(&ring.board->zero);
  const u32 item = there ? T::B_BYTES : 0, tile = there ? 4 * HEIGHT * row_bytes : 0;
  const u32 below = there ? 8 * row_bytes : 0;
  const uint4 simple = load_shared_4(shared_address(&list.simple[number]));
  // A row that no item has gets that of the first, and no use of it.
  const u32 seat = simple.z >> lane / 4 * 4 & 15;
  const uint2 s = load_shared_2(shared_address(list.s[simple.w + seat]) + rank_bytes);
  const u32 mine = simple.y ^ lane / 4 * 0x11111111;  // zero in the place of the lane's item
  EightDeltas<T> deltas[AT_ONCE] = {};
#pragma unroll
  for (u32 i = 0; i < T::ITEMS; i += AT_ONCE) {
    u32 a[AT_ONCE][T::TILES][4];
#pragma unroll
    for (u32 n = 0; n < AT_ONCE; n++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const u32 at = from + (i + n) * item + t * tile;
        const uint2 upper = load_shared_2(at);
        const uint2 lower = T::GATED ? make_uint2(0, 0) : load_shared_2(at + below);
        a[n][t][0] = upper.x, a[n][t][1] = lower.x, a[n][t][2] = upper.y, a[n][t][3] = lower.y;
      }
#pragma unroll
    for (u32 n = 0; n < AT_ONCE; n++) {
      const bool is_mine = (mine >> (i + n) * 4 & 15) == 0;
      multiply_eight<T>(deltas[n], a[n], make_uint2(is_mine ? s.x : 0, is_mine ? s.y : 0));
    }
  }
  // A row has one item, and zeros of the others.
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
#pragma unroll
    for (u32 n = 1; n < AT_ONCE; n++)
#pragma unroll
      for (u32 k = 0; k < 4; k++) deltas[0][t][k] += deltas[n][t][k];
    if (T::GATED && mark & SECOND)
#pragma unroll
      for (u32 k = 0; k < 2; k++) deltas[0][t][2 + k] = deltas[0][t][k], deltas[0][t][k] = 0;
  }
  at_index<0, TOKENS / 8>(simple.x - first / 8, [&](auto index) {
    add_eight<T, TOKENS, decltype(index)::value>(sums, deltas[0]);
  });
}

// Adds any item, whose part of B is at `b`.
template <class T, u32 TOKENS>
__device__ inline void add_item(const LowRankItems<T>& list, const LowRankItem& item, u32 b,
                                u32 first, float (&sums)[T::TILES][TOKENS / 2]) {
  const u32 row = item.row - first, last = row + item.rows - 1;
  const u32 shared = shared_address(list.s[item.seat]);
  u32 a[T::TILES][4];
  load_b<T>(b, item, a);
  constexpr u32 AT_ONCE = TOKENS % 16 == 0 ? 2 : 1;  // eights of tokens
#pragma unroll 1
  for (u32 n = row / 8 / AT_ONCE; n <= last / 8 / AT_ONCE; n++) {
    EightDeltas<T> deltas[AT_ONCE] = {};
#pragma unroll
    for (u32 k = 0; k < AT_ONCE; k++)
      multiply_eight<T>(deltas[k], a, load_s(item, shared, first, n * AT_ONCE + k));
    at_index<0, TOKENS / 8 / AT_ONCE>(n, [&](auto index) {
      constexpr u32 FIRST = decltype(index)::value * AT_ONCE;
      add_eight<T, TOKENS, FIRST>(sums, deltas[0]);
      if constexpr (AT_ONCE == 2) add_eight<T, TOKENS, FIRST + 1>(sums, deltas[1]);
    });
  }
}

// Adds what the `number`-th listed stage holds.
template <class T, u32 TOKENS>
__device__ inline void add_stage(const Ring<T>& ring, const LowRankItems<T>& list, u32 stage,
                                 u32 number, u32 first, float (&sums)[T::TILES][TOKENS / 2]) {
  const u32 mark = list.marks[number];
  if (mark & SIMPLE) return add_simple<T, TOKENS>(ring, list, stage, number, mark, first, sums);
#pragma unroll 1
  for (u32 i = 0; i < (mark & COUNT); i++) {
    const LowRankItem item = list.items[number * T::ITEMS + i];
    add_item<T, TOKENS>(list, item, ring.w(stage) + i * T::B_BYTES, first, sums);
  }
}

// Adds all that comes behind `steps` stages of weights to the sums of TOKENS rows of the batch,
// from `first` on. For whole warpgroups.
template <class T, u32 TOKENS>
__device__ inline void add_low_rank(const Ring<T>& ring, u32 steps, u32 first,
                                    float (&sums)[T::TILES][TOKENS / 2]) {
  if (T::REUSES_X && threadIdx.x % WARP == 0) barrier_arrive(shared_address(&ring.board->summed));
  bool more = true;
  for (u32 of = 0, n = 0; more; of++) {
    const LowRankItems<T>& list = low_rank_items(ring, of);
    barrier_wait(shared_address(&ring.board->seated[of % 2]), parity_of_list(of));
    const u32 stages = stages_of(list);
    more = list.more;
    for (u32 number = 0; number < stages; number++, n++) {
      const auto [stage, round, waits] = StageOfB<T>::of(n, steps);
      barrier_wait(ring.full(stage), round % 2);
      add_stage<T, TOKENS>(ring, list, stage, number, first, sums);
      __syncwarp();  // all lanes have read
      ring.release(stage);
    }
    if (threadIdx.x % WARP == 0) barrier_arrive(shared_address(&ring.board->read[of % 2]));
  }
}

#endif
