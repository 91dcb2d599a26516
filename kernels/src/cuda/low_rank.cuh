// The second half of LoRA products of few rows, where the base product of the same outputs ends:
// delta[token][output] = sum over ranks of s[token][rank] B[output][rank].
//
// What the block's outputs need of each adapter comes through the stages that weights came by, item
// by item of the lists. The copying warp asks for their parts of B as soon as all weights are on
// their way, the helping one lays rows of s beside the stages as soon as these are complete, and
// multipliers add the two to sums that lie like those of the base product. A row's delta is added
// up over its own chunks in their order, whatever else is in the batch; other rows' items add exact
// zeros to it, or nothing.
#pragma once
#include "low_rank_list.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where stages of B are, one after the other: in the places of weights in the order in which these
// are read, then, if it is used, that of x, and so on.
template <class T>
struct PlacesOfB {
  static constexpr u32 OF_WEIGHTS = least(T::STAGES, T::B_STAGES);
  u32 steps;  // stages of weights ahead

  // Of the `at`-th stage of a round.
  __device__ u32 stage(u32 at) const {
    return at < OF_WEIGHTS ? (steps % T::STAGES + at) % OF_WEIGHTS : at;
  }
  // How often it has been filled before the rounds of B.
  __device__ u32 uses(u32 stage) const {
    return stage < T::STAGES ? (steps + T::STAGES - 1 - stage) / T::STAGES : 0;
  }
};

// Goes over these: a stage, and the parity of the phase in which B fills it.
template <class T>
struct CursorOfB {
  const PlacesOfB<T> places;
  u32 at = 0, turn = 0;
  u32 stage, parity;

  __device__ CursorOfB(u32 steps) : places{steps} { find(); }
  __device__ void find() {
    stage = places.stage(at);
    parity = (places.uses(stage) + turn) % 2;
  }
  __device__ void advance() {
    if (++at == T::B_STAGES) at = 0, turn ^= 1;
    find();
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
  const u32 team_mask = ((1u << T::ITEMS) - 1) << team * T::ITEMS;
  const u64 once = evict_first();
  const PlacesOfB<T> places{steps};
  bool more = true;
  for (u32 number = 0, filled = 0; more; number++) {
    const LowRankItems<T>& list = low_rank_items(ring, number);
    barrier_wait(shared_address(&ring.board->listed[number % 2]), parity_of_list(number));
    const u32 count = list.count, end = filled + stages_of(list);
    more = list.more;
    u32 next = team < TEAMS ? filled + (team + TEAMS - filled % TEAMS) % TEAMS : end;
    while (__any_sync(~0u, next < end)) {
      const u32 stage = places.stage(next % T::B_STAGES), full = ring.full(stage);
      const u32 uses = places.uses(stage) + next / T::B_STAGES;
      // A place of x is free once all weights and x have been read.
      const bool is_new = uses == 0 && stage < T::STAGES;
      const u32 before = uses == 0 ? shared_address(&ring.board->summed) : ring.empty(stage);
      const u32 parity = uses == 0 ? 0 : (uses - 1) % 2;
      const bool is_free = next < end && (is_new || barrier_has_ended(before, parity));
      // Once each lane of the team has seen so.
      const bool copies = (~__ballot_sync(~0u, is_free) & team_mask) == 0;
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
      if (bytes > 0) copy_bytes(to, from, bytes, full, once);
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

// The helping warp: s of all items. Eight lanes look after a row.
template <class T>
struct LowRankSeater {
  static constexpr u32 LANES = WARP / 8;
  static constexpr u32 BATCH = least((T::SHARE + LANES - 1) / LANES, 8);  // rows of a lane
  static constexpr u32 PASS = BATCH * LANES;
  // Whether a block has so many rows that it would read much in vain.
  static constexpr bool AWAITS_FEW = T::SHARE >= 64;
  static constexpr u32 NOWHERE = ~0u;
  const LowRank& low_rank;
  LowRankItems<T>& list;
  u32 places[BATCH];  // in s, of what the lane has of each row
  TwoWords words[BATCH];

  __device__ LowRankSeater(const LowRank& low_rank, LowRankItems<T>& list)
      : low_rank(low_rank), list(list) {}
  // Of the rows of a pass from `first` on.
  __device__ void find(u32 first) {
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) {
      const u32 seat = first + b * LANES + threadIdx.x % WARP / 8, rank = threadIdx.x % 8 * 2;
      const LowRankItem item = list.items[list.owners[least(seat, list.seats - 1)]];
      const u32 row = item.row + seat - item.seat;
      const bool has = seat < list.seats && rank < item.ranks;
      places[b] = has ? row * low_rank.ranks + item.column + rank : NOWHERE;
    }
  }
  // As it is at the time.
  __device__ void load(u32 b) {
    words[b].clear(low_rank.inputs);
    if (places[b] != NOWHERE) words[b].load(low_rank.s + places[b]);
  }
  __device__ bool is_complete(u32 b) const { return words[b].is_complete(low_rank.inputs); }
  // Until all who shrink have added their parts to a few rows of the list, in each block others.
  __device__ void await_few() {
    const u32 batches = least((list.seats + LANES - 1) / LANES, BATCH);
    if (batches == 0) return;
    find(blockIdx.x % batches * LANES);
    do load(0);
    while (!__all_sync(~0u, is_complete(0)));
  }
  // All rows of a pass, once all who shrink have added their parts.
  __device__ void await_pass(u32 first) {
    find(first);
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) words[b].clear(0);
    bool all;
    do {
      all = true;
#pragma unroll
      for (u32 b = 0; b < BATCH; b++)
        if (!is_complete(b)) load(b), all = false;
    } while (!__all_sync(~0u, all));
  }
  // In bf16.
  __device__ void store_pass(u32 first) {
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) {
      const u32 seat = first + b * LANES + threadIdx.x % WARP / 8;
      const u32 s = pack_bf16(from_fixed(words[b].at[0]), from_fixed(words[b].at[1]));
      if (seat < list.seats) store_shared(shared_address(list.s[seat]) + threadIdx.x % 8 * 4, s);
    }
  }
  // All rows of the listed items, in each block from others on: all read the same.
  __device__ void run() {
    const u32 passes = (list.seats + PASS - 1) / PASS;
    if (passes == 0) return;
    for (u32 i = 0, pass = blockIdx.x % passes; i < passes; i++) {
      await_pass(pass * PASS);
      store_pass(pass * PASS);
      if (++pass == passes) pass = 0;
    }
  }
};

#endif
