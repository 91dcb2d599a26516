// The first half of LoRA products of few rows, s = scale x A^T, by blocks of the product's own grid
// that come ahead of those with outputs.
//
// A unit is a tile of A, a chunk of ranks over some inputs, for the rows of a piece. A warp, a lane
// for each stage, asks for A and x of a block's units, A ahead of the kernel that writes x, and the
// others multiply, a warp a unit, and add what that gives to s. So a row's sums depend on the row
// and its adapter alone.
//
// Each block has an even share of all units, of two at least, or none, and makes room for others.
// Where these blocks would end after the weights of those with outputs, the latter take some units
// as well, so that all have as much to read, in the place of x before that comes.
#pragma once
#include "low_rank.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr u32 UNIT_INPUTS = 520;  // at the most (lora.rs: A_TILE_INPUTS)
constexpr u32 UNIT_PITCH = UNIT_INPUTS * 2;
constexpr u32 UNIT_A_BYTES = CHUNK_RANKS * UNIT_PITCH;
constexpr u32 UNIT_BEHIND = 128;   // bytes that are read behind x, for nothing
constexpr u32 UNITS_OF_BLOCK = 2;  // at least (tiling.rs)

struct ShrinkUnit {
  Tile tile;
  u32 row, rows;  // no rows: no unit
};

// What the block knows of its share; behind `Board`.
struct ShrinkBoard {
  static constexpr u32 STAGES_MAX = 12, ROOM = 4 * WARP;
  u64 full[STAGES_MAX], empty[STAGES_MAX];
  ShrinkUnit stages[STAGES_MAX];  // what they hold
  ShrinkUnit listed[ROOM];        // the next units
  const Tile* places[ROOM];       // of their tiles
};
constexpr u32 SHRINK_BOARD_BYTES = (sizeof(ShrinkBoard) + 127) / 128 * 128;
constexpr u32 UNIT_BYTES_MIN = UNIT_A_BYTES + UNIT_PITCH + UNIT_BEHIND;  // of one row

// What a block with outputs has to read of weights, in units (tiling.rs).
template <class T>
__device__ inline u32 weights_in_units(const LowRank& low_rank) {
  return low_rank.inputs / T::SPLITS * T::ROWS * 2 / UNIT_A_BYTES;
}

// Where a block shrinks: in the place of all stages, its board behind `Board`, or of x.
struct ShrinkRoom {
  ShrinkBoard& board;
  Units& units;
  u32 units_known;  // a barrier
  u32 base, bytes;  // of stages

  // `only`: of a block that does nothing else.
  template <class T>
  __device__ static ShrinkRoom of(const Ring<T>& ring, bool only) {
    constexpr u32 X_BYTES = T::STAGES * T::X_BYTES;
    static_assert(sizeof(ShrinkBoard) <= 2 * sizeof(LowRankItems<T>), "room for either");
    static_assert(!T::SHRINKS || X_BYTES >= SHRINK_BOARD_BYTES + UNIT_BYTES_MIN, "room for one");
    static_assert(Ring<T>::BYTES >= 2 * (2 * UNIT_A_BYTES + UNIT_BEHIND),
                  "two stages of sixteen rows");
    u8* board = reinterpret_cast<u8*>(ring.board);
    board = only ? board + sizeof(Board<T>) : board - X_BYTES;
    return {*reinterpret_cast<ShrinkBoard*>(board), ring.board->units,
            shared_address(&ring.board->units_known),
            only ? ring.base : ring.x(0) + SHRINK_BOARD_BYTES,
            only ? Ring<T>::BYTES : X_BYTES - SHRINK_BOARD_BYTES};
  }
  // For a whole warp.
  __device__ void init() const {
    const u32 lane = threadIdx.x % WARP;
    if (lane >= ShrinkBoard::STAGES_MAX) return;
    barrier_init(shared_address(&board.full[lane]), 2);  // A and x
    barrier_init(shared_address(&board.empty[lane]), 1);
    barrier_init_fence();
  }
  // Leaves it for copies of others.
  __device__ void end() const {
    const u32 lane = threadIdx.x % WARP;
    if (lane < ShrinkBoard::STAGES_MAX) {
      barrier_end(shared_address(&board.full[lane]));
      barrier_end(shared_address(&board.empty[lane]));
    }
    fence_before_copies();
    __syncwarp();
  }
};

// The copying warp of a block that shrinks.
template <class T>
struct ShrinkCopier {
  static constexpr u32 GROUPS = Lookup<T>::GROUPS;
  const ShrinkRoom& room;
  const LowRank& low_rank;
  ShrinkBoard& board;
  const Lookup<T> found;
  u32 begins[GROUPS];  // units ahead of the piece's
  u32 first, end;      // units of the block
  u32 from;            // units ahead of those listed

  // Looks the block's share up.
  __device__ ShrinkCopier(const ShrinkRoom& room, const Step& step, const LowRank& low_rank)
      : room(room),
        low_rank(low_rank),
        board(room.board),
        found(step, low_rank.pieces, low_rank.adapters, low_rank.layer, low_rank.site) {
    u32 units = 0, rows = 1;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      rows = max(rows, found.pieces[g].rows);
      begins[g] = units;
      units += scan(found.sites[g].a_count, begins[g]);
    }
    rows = __reduce_max_sync(~0u, rows);
    const u32 stage_bytes = UNIT_A_BYTES + rows * UNIT_PITCH + UNIT_BEHIND;
    deal(units, T::SHRINKS && low_rank.all_shrink &&
                    stage_bytes + SHRINK_BOARD_BYTES <= T::STAGES * T::X_BYTES);
    if (threadIdx.x % WARP == 0) {
      const u32 stages = least(room.bytes / stage_bytes, ShrinkBoard::STAGES_MAX);
      room.units = {end - first, stages, stage_bytes};
    }
    __syncwarp();
  }
  __device__ void deal(u32 units, bool all_take) {
    const u32 shrinkers = low_rank.shrinkers, outputs = gridDim.x - shrinkers;
    const u32 ahead = shrinkers * weights_in_units<T>(low_rank);
    const u32 part = all_take && units > ahead ? (units - ahead) / gridDim.x : 0;  // with outputs
    const u32 others = units - outputs * part;
    if (blockIdx.x >= shrinkers) {
      first = others + (blockIdx.x - shrinkers) * part;
      end = first + part;
    } else {
      const u32 blocks = least(shrinkers, (others + UNITS_OF_BLOCK - 1) / UNITS_OF_BLOCK);
      first = blockIdx.x < blocks ? others * blockIdx.x / blocks : others;
      end = blockIdx.x < blocks ? others * (blockIdx.x + 1) / blocks : others;
    }
  }

  // Lists the units from..stop.
  __device__ void list(u32 stop) const {
    __syncwarp();  // all lanes have read those before
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      const Piece& piece = found.pieces[g];
      const SiteTiles& site = found.sites[g];
      const u32 last = min(begins[g] + site.a_count, stop);
#pragma unroll 1
      for (u32 i = max(begins[g], from); i < last; i++) {
        board.listed[i - from].row = piece.row;
        board.listed[i - from].rows = piece.rows;
        board.places[i - from] = low_rank.adapters.tiles + site.a + i - begins[g];
      }
    }
    __syncwarp();
#pragma unroll 1
    for (u32 i = threadIdx.x % WARP; i < stop - from; i += WARP)
      board.listed[i].tile = *board.places[i];
    __syncwarp();
  }

  __device__ u32 full(u32 stage) const { return shared_address(&board.full[stage]); }
  __device__ u32 place(u32 stage) const { return room.base + stage * room.units.stage_bytes; }

  __device__ void load_a(u32 unit, u32 stage) const {
    const ShrinkUnit now = board.listed[unit - from];
    const u32 bytes = now.tile.ranks * now.tile.length * 2;
    board.stages[stage] = now;
    barrier_expect(full(stage), bytes);
    copy_bytes(place(stage), now.tile.data, bytes, full(stage), evict_first());
  }
  __device__ void load_x(u32 unit, u32 stage) const {
    const ShrinkUnit& now = board.listed[unit - from];
    const u32 bytes = now.tile.length * 2, rows = now.rows, to = place(stage) + UNIT_A_BYTES;
    const bf16* x = low_rank.x + u64(now.row) * low_rank.inputs + now.tile.start;
    barrier_expect(full(stage), rows * bytes);
#pragma unroll 1
    for (u32 row = 0; row < rows; row++, x += low_rank.inputs)
      copy_bytes(to + row * UNIT_PITCH, x, bytes, full(stage), evict_last());
  }

  // All units, by a lane for each stage: A of those that the stages take first, and all others once
  // the predecessor has ended. Returns when all have been read.
  __device__ void run() {
    const u32 stage = threadIdx.x % WARP, stages = room.units.stages;
    u32 unit = stage < stages ? first + stage : end, parity = 1;
    for (from = first; from < end; from += ShrinkBoard::ROOM) {
      const u32 stop = min(end, from + ShrinkBoard::ROOM);
      list(stop);
      while (__any_sync(~0u, unit < stop)) {
        const bool takes =
            unit < stop && (unit < first + stages ||
                            barrier_has_ended(shared_address(&board.empty[stage]), parity));
        if (takes) load_a(unit, stage);
        wait_for_predecessor();
        if (takes) load_x(unit, stage), unit += stages, parity ^= 1;
      }
    }
    if (stage < stages && first + stage < end)
      barrier_wait(shared_address(&board.empty[stage]), parity);
    __syncwarp();
  }
};

// What a lane has of four products of 16 inputs each.
struct UnitOperands {
  static constexpr u32 COUNT = 4, BYTES = COUNT * 32;  // of a row
  static_assert(BYTES <= UNIT_BEHIND, "asked for ahead");
  u32 a[COUNT][4], x[COUNT][2];

  __device__ void load(u32 from_a, u32 from_x) {
#pragma unroll
    for (u32 n = 0; n < COUNT; n++) load_matrix_4(a[n], from_a + n * 32);
#pragma unroll
    for (u32 n = 0; n < COUNT; n += 2) {
      u32 two[4];
      load_matrix_4(two, from_x + n * 32);
#pragma unroll
      for (u32 i = 0; i < 4; i++) x[n + i / 2][i % 2] = two[i];
    }
  }
  // Zeros for what is behind so many bytes.
  __device__ void mask(u32 bytes) {
#pragma unroll
    for (u32 i = 0; i < COUNT * 2; i++)
      if (i * 16 >= bytes) a[i / 2][i % 2 * 2] = a[i / 2][i % 2 * 2 + 1] = x[i / 2][i % 2] = 0;
  }
  __device__ void multiply(float (&sums)[COUNT][4]) const {
#pragma unroll
    for (u32 n = 0; n < COUNT; n++) mma_bf16(sums[n], a[n], x[n]);
  }
};

// A warp's product of a unit at `shared` for the eight rows from `first` on: a lane has ranks
// lane / 4 (+ 8), rows 2 (lane % 4) (+ 1).
__device__ inline void multiply_unit(const ShrinkUnit& unit, u32 shared, u32 first,
                                     float (&sums)[4]) {
  const u32 lane = threadIdx.x % WARP, matrix = lane / 8;
  // Of ranks and rows that the unit lacks come others, for sums that nobody has.
  const u32 rank = lane % 8 + (unit.tile.ranks > 8 ? matrix % 2 * 8 : 0);
  const u32 row = least(first + lane % 8, unit.rows - 1);
  const u32 a = shared + rank * unit.tile.length * 2 + matrix / 2 * 16;
  const u32 x = shared + UNIT_A_BYTES + row * UNIT_PITCH + matrix * 16;
  const u32 bytes = unit.tile.length * 2, whole = bytes / UnitOperands::BYTES * UnitOperands::BYTES;
  float parts[UnitOperands::COUNT][4] = {};
  UnitOperands now;
  now.load(a, x);
#pragma unroll 2
  for (u32 i = 0; i < whole; i += UnitOperands::BYTES) {
    UnitOperands next;
    next.load(a + i + UnitOperands::BYTES, x + i + UnitOperands::BYTES);
    now.multiply(parts);
    now = next;
  }
  if (whole < bytes) {
    now.mask(bytes - whole);
    now.multiply(parts);
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums[i] = (parts[0][i] + parts[1][i]) + (parts[2][i] + parts[3][i]);
}

// Adds what a stage holds, at `place`, to s.
__device__ inline void take_unit(ShrinkBoard& board, u32 stage, u32 place,
                                 const LowRank& low_rank) {
  const u32 group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
  const ShrinkUnit unit = board.stages[stage];
  i64* s = low_rank.s + u64(unit.row) * low_rank.ranks + unit.tile.column;
#pragma unroll 1
  for (u32 first = 0; first < unit.rows; first += 8) {
    float sums[4];
    multiply_unit(unit, place, first, sums);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 row = first + thread * 2 + i % 2, rank = group + i / 2 * 8;
      if (row < unit.rows && rank < unit.tile.ranks)
        add_part(s + row * low_rank.ranks + rank, sums[i] * unit.tile.scale, unit.tile.length);
    }
  }
  __syncwarp();  // all lanes have read
  if (threadIdx.x % WARP == 0) barrier_arrive(shared_address(&board.empty[stage]));
}

// The copying warp of a block that shrinks, only or too.
template <class T>
__device__ inline void copy_units(const ShrinkRoom& room, const Step& step,
                                  const LowRank& low_rank) {
  room.init();
  ShrinkCopier<T> copier(room, step, low_rank);
  barrier_arrive(room.units_known);  // each lane for what it has written
  copier.run();
  room.end();
}

// Its multipliers, once the units are known. A stage is always the same warp's, so that this sees
// all of its phases.
template <class T>
__device__ inline void take_units(const ShrinkRoom& room, const LowRank& low_rank) {
  constexpr u32 WARPS = T::MULTIPLIERS / WARP;
  // The board is not looked at after the last unit, nor where there is none.
  ShrinkBoard& board = room.board;
  const auto [units, stages, bytes] = room.units;
  if (units == 0) return;
  wait_for_predecessor();
  u32 parity = 0;
  for (u32 first = 0; first < units; first += stages, parity ^= 1)
    for (u32 stage = threadIdx.x / WARP; stage < stages; stage += WARPS) {
      if (first + stage >= units) return;
      barrier_wait(shared_address(&board.full[stage]), parity);
      take_unit(board, stage, room.base + stage * bytes, low_rank);
    }
}

// A block that does nothing else.
template <class T>
__device__ inline void shrink_only(const Ring<T>& ring, const Step& step, const LowRank& low_rank) {
  const ShrinkRoom room = ShrinkRoom::of<T>(ring, true);
  if (threadIdx.x >= T::MULTIPLIERS + WARP) return;
  if (threadIdx.x >= T::MULTIPLIERS) return copy_units<T>(room, step, low_rank);
  barrier_wait(room.units_known, 0);
  take_units<T>(room, low_rank);
}

#endif
