// Lists of what a block's outputs need of the adapters of its rows: items of a chunk of ranks, by
// stages, each with seats for its rows of s.
//
// The helping warp makes them, two ahead of time: the copying warp asks for B of a list's items,
// the helping one seats s, and the multipliers add both.
#pragma once
#include "fixed.cuh"
#include "lookup.cuh"

// `LowRankView` of cuda/low_rank.rs.
struct LowRank {
  i64* s;         // [rows, ranks], zeros that blocks add to; or null where no row has an adapter
  i64* spent;     // [words] of the product before, which becomes zeros
  const bf16* x;  // [rows, inputs]
  Adapters adapters;
  u32 words, ranks, layer, site;
  u32 inputs;
  u32 shrinkers;   // blocks that only shrink, ahead of those with outputs
  u32 all_shrink;  // whether the latter shrink too
  u32 pieces;      // of the step, at the most
  u32 units;       // tiles of A of all these, at the most: by which the host decides that
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A stage's mark: of simple items, which have a row each, no two the same, and all outputs of the
// run.
constexpr u32 SIMPLE = 1u << 15, COUNT = SIMPLE - 1;
constexpr u32 S_ROW_BYTES = 32;  // of an item: a chunk of ranks in bf16

// Outputs of one item: first..first + height of the site.
struct Outputs {
  u32 first, height;
};

// A block's `i`-th run of outputs: of two where gate and up alternate.
template <class T>
__device__ inline Outputs outputs_of(u32 tile, u32 outputs, u32 i) {
  if constexpr (T::GATED) return {i * (outputs / 2) + tile * (T::ROWS / 2), T::ROWS / 2};
  else return {tile * T::ROWS, T::ROWS};
}

// The rows whose deltas a block adds.
template <class T>
__device__ inline RowRange share_of(const Work& work) {
  const u32 first = least(work.split * T::SHARE, T::TOKENS);
  return {work.row + first, work.row + least(first + T::SHARE, T::TOKENS)};
}

// A chunk of ranks of B for the rows of a piece that the block has: item of a stage.
struct alignas(16) LowRankItem {
  u16 begin, end;  // outputs of the run that the tile has
  u16 row, rows;   // of s
  u16 column;      // of s
  u8 ranks;        // of s
  u8 run;          // of the block's outputs
  u16 seat;        // of its first row of s
  u16 place;       // of that row's first output of the run among totals (low_rank_add.cuh)
};

// What a stage holds.
struct alignas(8) LowRankStage {
  u16 mark;
  // Of a simple one: a bit for each item that has eight ranks, and the first seat.
  u16 eights, seat, none;
};

// How totals of a row of the block's share lie, in floats: like the sums of two neighbouring
// threads, or as parts do. `BELOW`: from an output to the eighth behind it.
template <class T>
struct TotalsLayout {
  static constexpr u32 BELOW = T::SPLITS > 1 ? 8 : 2;
  static constexpr u32 TILE = T::SPLITS > 1 ? BOX_ROWS : T::MULTIPLIERS * 4;

  // Of the row's first output of a run, from the thread's own first.
  __device__ static u32 place(u32 row, u32 run) {
    if constexpr (T::SPLITS > 1) return row * T::PITCH;
    else return row / 8 * T::TILES * TILE + row % 8 / 2 * 4 + row % 2 + run * BELOW;
  }
};

// Some of a block's items. There are two such lists behind `Board`, which take turns.
template <class T>
struct LowRankItems {
  static constexpr u32 STAGES = 24;  // a lane marks one
  // For rows of s: of gate and of up, of up to 64 rows.
  static constexpr u32 SEATS = T::TOKENS > 64 ? T::TOKENS : T::TOKENS > 32 ? 128 : 64;
  static constexpr u32 ROOM = least(SEATS, STAGES* T::ITEMS);
  static_assert(T::SHARE <= SEATS, "room for any item");
  LowRankItem items[ROOM];
  const bf16* b[ROOM];  // [end - begin, ranks]
  alignas(16) u8 s[SEATS][S_ROW_BYTES];
  LowRankStage stages[STAGES];
  u8 owners[SEATS];  // their items
  u32 count;         // of items
  u32 seats;         // that these take
  u32 more;          // whether another list follows
};
template <class T>
__device__ inline LowRankItems<T>& low_rank_items(const Ring<T>& ring, u32 number) {
  // `low_rank_lists` of tiling.rs.
  using List = LowRankItems<T>;
  static_assert(sizeof(List) <= List::SEATS * (16 + 8 + 32 + 1) + List::STAGES * 8 + 16, "room");
  return reinterpret_cast<LowRankItems<T>*>(ring.board + 1)[number % 2];
}
// Parity of the phase of a list's barriers.
__device__ inline u32 parity_of_list(u32 number) { return number / 2 % 2; }

// Stages that the listed items take.
template <class T>
__device__ inline u32 stages_of(const LowRankItems<T>& list) {
  return (list.count + T::ITEMS - 1) / T::ITEMS;
}

// Says what the stages of the listed items are. A lane looks after a stage.
template <class T>
__device__ inline void mark_stages(LowRankItems<T>& list) {
  const u32 stage = threadIdx.x % WARP;
  if (stage >= stages_of(list)) return;
  const LowRankItem* items = list.items + stage * T::ITEMS;
  const u32 count = least(list.count - stage * T::ITEMS, T::ITEMS), first = items[0].row;
  bool simple = true;
  u32 before = 0, turns = 0, turn = 0, eights = 0, seconds = 0;
#pragma unroll 4
  for (u32 i = 0; i < T::ITEMS; i++) {
    const LowRankItem item = items[i];
    if (i >= count) continue;  // of no use
    simple = simple && item.rows == 1 && item.begin == 0 && item.end == T::HEIGHT;
    if (i > 0 && item.row <= before) turns++, turn = i;
    before = item.row;
    eights |= (item.ranks == 8) << i, seconds |= item.run << i;
  }
  // Rows ascend, so that none is there twice if they begin again at most once, and stay below, or
  // are of the other run.
  const u32 all = (1u << count) - 1, later = all & ~0u << turn;
  const bool differ = before < first || T::GATED && (seconds == later || seconds == (all ^ later));
  simple = simple && (turns == 0 || turns == 1 && differ);
  const u32 mark = count | (simple ? SIMPLE : 0);
  list.stages[stage] = {u16(mark), u16(eights), items[0].seat, 0};
}

// Lists what the outputs of a tile need, for the rows of `share`. For a whole warp.
template <class T>
struct LowRankLister {
  const u32 tile, outputs;
  const RowRange share;
  TilesOfB<T> tiles;
  bool waits = false;  // an item of the lane, for a list with room
  LowRankItem item;
  const bf16* b;

  __device__ LowRankLister(const Ring<T>& ring, const Lookup<T>& found, const LowRank& low_rank,
                           u32 tile, u32 outputs, const RowRange& share)
      : tile(tile),
        outputs(outputs),
        share(share),
        tiles(ring, found, low_rank.adapters.tiles, share, T::GATED ? 0 : tile * T::ROWS,
              T::GATED ? outputs : least(tile * T::ROWS + T::ROWS, outputs)) {}

  // Makes an item of the lane's next tile, if the block has some of its outputs.
  __device__ void find(const Tile& next, const RowRange& piece) {
    const u32 row = max(piece.first, share.first), stop = least(piece.end, share.end);
    const u32 run = T::GATED && next.start >= outputs / 2;
    const Outputs wanted = outputs_of<T>(tile, outputs, run);
    const u32 first = max(next.start, wanted.first);
    const u32 end = min(next.start + next.length, wanted.first + wanted.height);
    waits = row < stop && first < end;
    b = static_cast<const bf16*>(next.data) + u64(first - next.start) * next.ranks;
    item = {u16(first - wanted.first),
            u16(end - wanted.first),
            u16(row),
            u16(stop - row),
            next.column,
            u8(next.ranks),
            u8(run),
            0,
            u16(TotalsLayout<T>::place(row - share.first, run))};
  }
  // Says that the seats first..end are the item's at `place`, for each lane that has one. All lanes
  // write them.
  __device__ void own_seats(LowRankItems<T>& list, bool has, u32 place, u32 first, u32 end) const {
    for (u32 lanes = __ballot_sync(~0u, has); lanes; lanes &= lanes - 1) {
      const u32 lane = __ffs(lanes) - 1, owner = __shfl_sync(~0u, place, lane);
      const u32 stop = __shfl_sync(~0u, end, lane);
      u32 seat = __shfl_sync(~0u, first, lane) + threadIdx.x % WARP;
#pragma unroll 1
      for (; seat < stop; seat += WARP) list.owners[seat] = owner;
    }
  }
  // Lists as many as there is room for. Gives whether another list has to follow.
  __device__ bool fill(LowRankItems<T>& list) {
    const u32 below = (1u << threadIdx.x % WARP) - 1;
    u32 count = 0, seats = 0;
    bool more = true;
    do {
      if (!__any_sync(~0u, waits)) {
        Tile next;
        RowRange piece;
        more = tiles.take(next, piece);
        if (!more) break;
        find(next, piece);
      }
      const u32 ahead = __popc(__ballot_sync(~0u, waits) & below), place = count + ahead;
      u32 seat = seats + ahead;
      if (__any_sync(~0u, waits && item.rows > 1)) scan(waits ? item.rows : 0, seat = seats);
      const u32 stop = seat + item.rows;
      const bool fits = waits && place < list.ROOM && stop <= list.SEATS;
      count += __popc(__ballot_sync(~0u, fits));
      seats = __reduce_max_sync(~0u, fits ? stop : seats);
      if (fits) {
        if (item.rows == 1) list.owners[seat] = place;
        item.seat = seat;
        list.items[place] = item;
        list.b[place] = b;
        waits = false;
      }
      own_seats(list, fits && item.rows > 1, place, seat, stop);
    } while (!__any_sync(~0u, waits));
    if (threadIdx.x % WARP == 0) list.count = count, list.seats = seats, list.more = more;
    __syncwarp();
    mark_stages(list);
    return more;
  }
};

#endif
