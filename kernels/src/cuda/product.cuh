// Products of few rows on Hopper, y = x w^T: the shape of a block and its base sums.
//
// A block owns ROWS outputs; a warp keeps a ring of shared-memory stages filled by TMA, each some
// chunks of 64 inputs of its weights and of all rows of x, and one or two warpgroups multiply them,
// w as the tall operand and x, padded to TOKENS rows, as the wide one. SPLITS blocks of a cluster
// share the inputs of a tile.
#pragma once
#include "hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr u32 CHUNK = 64;     // inputs, 128 bytes of a row
constexpr u32 BOX_ROWS = 64;  // weights per copy (decode.rs: WEIGHT_BOX), the height of a product
constexpr u32 BOX_BYTES = BOX_ROWS * CHUNK * 2;
constexpr u32 GROUP = 4 * WARP;  // threads of a warpgroup

// What becomes of the sums.
enum class Epilogue {
  PLAIN,     // y
  GATED,     // silu(gate) * up; of 16 rows of a tile the first 8 are of gate, the others of up
  RESIDUAL,  // added to the residual, which becomes the next x
};

// Shape of a block; the host computes STAGES, THREADS and SHARED too (decode.rs: Tiling). LORA:
// whether rows have adapters.
template <u32 ROWS_, u32 TOKENS_, u32 SPLITS_, u32 PER_PROCESSOR_, u32 CHUNKS_, u32 ROW_BLOCKS_,
          bool LORA_, bool GATED_>
struct Tiling {
  static constexpr bool LORA = LORA_, GATED = GATED_;
  static constexpr u32 ROWS = ROWS_, TOKENS = TOKENS_, SPLITS = SPLITS_;
  static constexpr u32 ROW_BLOCKS = ROW_BLOCKS_;          // blocks that share the rows of x
  static constexpr u32 PER_PROCESSOR = PER_PROCESSOR_;    // blocks
  static constexpr u32 CHUNKS = CHUNKS_;                  // of a stage
  static constexpr u32 GROUPS = ROWS >= 128 ? 2 : 1;      // warpgroups that multiply
  static constexpr u32 TILES = ROWS / BOX_ROWS / GROUPS;  // boxes of a warpgroup
  static constexpr u32 MULTIPLIERS = GROUPS * GROUP;      // their threads
  static constexpr u32 THREADS = MULTIPLIERS + 2 * WARP;  // one warp copies, one helps
  static constexpr u32 W_CHUNK = ROWS * CHUNK * 2, X_CHUNK = TOKENS * CHUNK * 2;  // bytes
  static constexpr u32 W_BYTES = CHUNKS * W_CHUNK, X_BYTES = CHUNKS * X_CHUNK;
  static constexpr u32 FIT = (PER_PROCESSOR == 1 ? 208 : 102) * 1024 / (W_BYTES + X_BYTES);
  static constexpr u32 STAGES = FIT < 8 ? FIT : 8;
  // Whether the place of x is used before x comes, to shrink: with many rows it is large.
  static constexpr bool SHRINKS =
      LORA && (TOKENS == 128 || TOKENS >= 32 && ROW_BLOCKS == 1 && SPLITS > 1);
  // Tokens whose sums a block of the cluster adds up, and their place by eights.
  static constexpr u32 SHARE = (TOKENS + SPLITS - 1) / SPLITS, SHARE_EIGHTS = (SHARE + 7) / 8;
  // Tiles of sums, [tokens, PITCH]: floats, no bank twice.
  static constexpr u32 PITCH = ROWS + 4;
  // Blocks of a cluster push sums to those that add them up, [SPLITS, SHARE, PITCH], where there is
  // room for that behind the stages; else these fetch them.
  static constexpr bool PUSHES = SPLITS > 1 && (TOKENS == 8 || TOKENS == 32 && !LORA);
  static constexpr bool FETCHES = SPLITS > 1 && !PUSHES;
  static constexpr u32 PUSHED_BYTES = PUSHES ? SPLITS * SHARE * PITCH * 4 : 0;
  // What takes the place of x behind it, and of the last weights: sums of the block and, of its
  // share, deltas, or what these are added to (low_rank_add.cuh).
  static constexpr u32 PARTS_BYTES = LORA && FETCHES ? TOKENS * PITCH * 4 : 0;
  static constexpr u32 TOTALS_BYTES = SHARE_EIGHTS * 8 * (SPLITS > 1 ? PITCH : ROWS) * 4;
  static constexpr u32 BEHIND_X = LORA ? PARTS_BYTES + TOTALS_BYTES : 0;
  // Stages of B behind the weights, in their place, as far as these leave it, or with most rows in
  // what is left of that of x too.
  static constexpr u32 LEFT = (STAGES * (W_BYTES + X_BYTES) - BEHIND_X) / W_BYTES;
  static constexpr u32 B_STAGES = LORA && TOKENS == 128 ? LEFT : least(LEFT, STAGES);
  static constexpr u32 PLACES = B_STAGES > STAGES ? B_STAGES : STAGES;
  static_assert(B_STAGES >= 2, "room for parts and deltas, and for B");
  // Items of a stage of low ranks (low_rank.cuh).
  static constexpr u32 HEIGHT = GATED ? ROWS / 2 : ROWS;  // outputs of each
  static constexpr u32 ITEMS = least(W_BYTES / (HEIGHT * 32), 8);
  static constexpr u32 B_BYTES = W_BYTES / ITEMS;
  using Sums = float[TILES][TOKENS / 2];
  static_assert(STAGES >= 2 && ITEMS >= 1 && HEIGHT * 32 <= B_BYTES,
                "stages, and room for a chunk of ranks");
};

// What a block has of the units of low ranks (low_rank_shrink.cuh), and how their stages lie.
struct Units {
  u32 count, stages, stage_bytes;
};

// What stands behind the stages.
template <class T>
struct alignas(16) Board {
  u64 full[T::PLACES], empty[T::PLACES];
  u64 scaled;  // once `scales` are there
  // By lane of those that multiply: once weights and x have been read; LORA: then, once B has been.
  u64 summed;
  // LORA, by lists: once it is made, once its s is there, once all of it has been read.
  u64 listed[2], seated[2], read[2];
  u64 units_known;      // LORA: once the copying warp has found the block's units
  u64 placed;           // once the block's tile of sums is there; where it PUSHES, all blocks' sums
  u32 turns[2 * WARP];  // LORA: whose tile of B is next (lookup.cuh)
  Units units;          // LORA
  float scales[T::TOKENS];
};

// A stage, and the parity of the phase in which it is filled. Threads go round on their own.
template <class T>
struct Cursor {
  u32 stage = 0, parity = 0;

  __device__ void advance() {
    if (++stage == T::STAGES) stage = 0, parity ^= 1;
  }
};

// The stages of a block.
template <class T>
struct Ring {
  static constexpr u32 BYTES = T::STAGES * (T::W_BYTES + T::X_BYTES);
  u32 base;
  Board<T>* board;
  // As tiling.rs reckons.
  static_assert(sizeof(Board<T>) == 16 * T::PLACES + 352 + 4 * T::TOKENS, "room for it");

  // `shared`: 1024-byte aligned, as boxes are.
  __device__ static Ring in(u8* shared) {
    return {shared_address(shared), reinterpret_cast<Board<T>*>(shared + BYTES + T::PUSHED_BYTES)};
  }
  __device__ u32 w(u32 stage) const { return base + stage * T::W_BYTES; }
  __device__ u32 x(u32 stage) const { return base + T::STAGES * T::W_BYTES + stage * T::X_BYTES; }
  // Of tiles that several blocks have parts of: in the place of the stages, or behind B; then what
  // low ranks are added to.
  __device__ u32 parts() const {
    return base + (T::LORA && T::SPLITS > 1 ? BYTES - T::BEHIND_X : 0);
  }
  __device__ u32 totals() const { return base + BYTES - T::TOTALS_BYTES; }
  // What the `split`-th block has pushed.
  __device__ u32 pushed(u32 split) const {
    return base + BYTES + split * (T::PUSHED_BYTES / T::SPLITS);
  }
  __device__ u32 full(u32 stage) const { return base + BYTES + T::PUSHED_BYTES + stage * 8; }
  __device__ u32 empty(u32 stage) const { return full(stage) + T::PLACES * 8; }

  // For the first threads of the block.
  __device__ void init() const {
    if (threadIdx.x < T::PLACES) {
      barrier_init(full(threadIdx.x), 1);
      barrier_init(empty(threadIdx.x), T::MULTIPLIERS / WARP);
      barrier_init_fence();
    }
    if (threadIdx.x > 0) return;
    barrier_init(shared_address(&board->scaled), T::LORA ? T::MULTIPLIERS : WARP);
    barrier_init(shared_address(&board->summed), T::MULTIPLIERS);
    barrier_init(shared_address(&board->units_known), WARP);
    barrier_init(shared_address(&board->placed), T::PUSHES ? 1 : T::MULTIPLIERS);
    for (u32 i = 0; T::LORA && i < 2; i++) {
      barrier_init(shared_address(&board->listed[i]), WARP);
      barrier_init(shared_address(&board->seated[i]), WARP);
      barrier_init(shared_address(&board->read[i]), T::MULTIPLIERS);
    }
    barrier_init_fence();
  }
  // Hands a stage back. For whole warps, each of those that multiply.
  __device__ void release(u32 stage) const {
    if (threadIdx.x % WARP == 0) barrier_arrive(empty(stage));
  }
};

// The rows of the batch first..end.
struct RowRange {
  u32 first, end;
};

// Tiles first, first + stride, .. of a block, the rows of x from `row` on, and its part of the
// inputs: `steps` stages from `step`.
struct Work {
  u32 first, stride, tiles, row, step, steps, split;

  // Of a block behind `others`, whole clusters of them.
  template <class T>
  __device__ static Work of_block(u32 inputs, u32 outputs, u32 others) {
    // Cut at whole pairs of chunks, so that the cuts don't hang on how many a stage has.
    constexpr u32 OF_PAIR = 2 / T::CHUNKS;
    const u32 split = blockIdx.x % T::SPLITS, pairs = (inputs + 2 * CHUNK - 1) / (2 * CHUNK);
    const u32 all = (inputs + T::CHUNKS * CHUNK - 1) / (T::CHUNKS * CHUNK);
    const u32 step = pairs * split / T::SPLITS * OF_PAIR;
    const u32 end = least(pairs * (split + 1) / T::SPLITS * OF_PAIR, all);
    constexpr u32 OF_TILE = T::SPLITS * T::ROW_BLOCKS;
    return {(blockIdx.x - others) / OF_TILE,
            (gridDim.x - others) / OF_TILE,
            (outputs + T::ROWS - 1) / T::ROWS,
            (blockIdx.x - others) / T::SPLITS % T::ROW_BLOCKS * T::TOKENS,
            step,
            end - step,
            split};
  }
};

// The copying thread. GATED: how the map of w is laid out.
template <class T, bool GATED>
struct Copier {
  const Ring<T>& ring;
  const Work& work;
  const TensorMap &w, &x;
  const u64 once, often;
  Cursor<T> cursor;
  u32 tile, left, column;  // steps left of the tile; first input

  __device__ Copier(const Ring<T>& ring, const Work& work, const TensorMap& w, const TensorMap& x)
      : ring(ring), work(work), w(w), x(x), once(evict_first()), often(evict_last()) {
    begin();
  }
  __device__ void begin() {
    cursor = {};
    tile = work.first;
    begin_tile();
  }
  __device__ void begin_tile() {
    left = work.steps;
    column = work.step * T::CHUNKS * CHUNK;
  }
  __device__ bool is_done() const { return tile >= work.tiles; }
  __device__ void advance() {
    cursor.advance();
    column += T::CHUNKS * CHUNK;
    if (--left == 0) {
      tile += work.stride;
      begin_tile();
    }
  }
  __device__ void load_w() const {
    const u32 to = ring.w(cursor.stage), full = ring.full(cursor.stage);
    barrier_expect(full, T::W_BYTES + T::X_BYTES);
#pragma unroll
    for (u32 c = 0; c < T::CHUNKS; c++)
#pragma unroll
      for (u32 box = 0; box < T::ROWS / BOX_ROWS; box++) {
        const u32 place = to + c * T::W_CHUNK + box * BOX_BYTES;
        const u32 row = tile * T::ROWS + box * BOX_ROWS;
        if constexpr (GATED) copy_gated_box(place, w, column + c * CHUNK, row / 16, full, once);
        else copy_box(place, w, column + c * CHUNK, row, full, once);
      }
  }
  __device__ void load_x() const {
#pragma unroll
    for (u32 c = 0; c < T::CHUNKS; c++)
      copy_box(ring.x(cursor.stage) + c * T::X_CHUNK, x, column + c * CHUNK, work.row,
               ring.full(cursor.stage), often);
  }

  // W of the first stages.
  __device__ void run_ahead() {
#pragma unroll 1
    for (u32 i = 0; i < T::STAGES && !is_done(); i++, advance()) load_w();
  }
  // Their x, once the predecessor has ended, and all others.
  __device__ void run() {
    wait_for_predecessor();
    begin();
#pragma unroll 1
    for (u32 i = 0; i < T::STAGES && !is_done(); i++, advance()) load_x();
#pragma unroll 1
    for (; !is_done(); advance()) {
      barrier_wait(ring.empty(cursor.stage), cursor.parity ^ 1);
      load_w();
      load_x();
    }
  }
};

// One tile by the multipliers: sums over the next `steps` stages.
template <class T>
__device__ inline void accumulate(const Ring<T>& ring, Cursor<T>& cursor, u32 steps,
                                  typename T::Sums& sums) {
  const u32 group = threadIdx.x / GROUP;
  u32 before = 0;  // stage of the products that may still run
  for (u32 i = 0; i < steps; i++, cursor.advance()) {
    const u32 w = ring.w(cursor.stage) + group * T::TILES * BOX_BYTES, x = ring.x(cursor.stage);
    barrier_wait(ring.full(cursor.stage), cursor.parity);
    products_begin();
#pragma unroll
    for (u32 k = 0; k < T::CHUNKS * CHUNK / 16; k++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const u32 c = k / 4, at = k % 4 * 32;
        multiply_async<T::TOKENS>(sums[t], operand(w + c * T::W_CHUNK + t * BOX_BYTES + at),
                                  operand(x + c * T::X_CHUNK + at), k + i);
      }
    products_commit();
    if (i > 0) {
      products_wait<1>();
      ring.release(before);
    }
    before = cursor.stage;
  }
  products_wait<0>();
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++)
#pragma unroll
    for (u32 i = 0; i < T::TOKENS / 2; i++)
      asm volatile("" : "+f"(sums[t][i])::"memory");  // not read before the wait
  ring.release(before);
}

// Calls `f(row of the tile, token, sum)` for sums that lie like those of `accumulate`.
template <class T, class F>
__device__ inline void for_each_sum(const typename T::Sums& sums, F f) {
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++)
#pragma unroll
    for (u32 i = 0; i < T::TOKENS / 2; i++)
      f((group * T::TILES + t) * BOX_ROWS + warp * 16 + lane / 4 + i / 2 % 2 * 8,
        i / 4 * 8 + lane % 4 * 2 + i % 2, sums[t][i]);
}

#endif
