// Sums of LoRA's first half on tensor cores: the rows of a few pieces of one adapter and a few
// chunks of its ranks, x [rows, in] and A bf16. Inputs pass through shared memory by steps; each
// warp has its sixteen of every step, and the warps' sums are added in their order.
#pragma once
#include "prelude.cuh"

constexpr u32 WARPS = 8;
constexpr u32 PIECE_ROWS = 16;

// Tiles first..end hold the same ranks over successive inputs.
struct Chunk {
  const Tile* first;
  const Tile* end;

  __device__ bool is_empty() const { return first == end; }
};

// The `wanted`-th chunk of a site; empty behind the last. A chunk begins where the column changes.
// For whole warps.
__device__ Chunk find_chunk(const Tile* tiles, u32 count, u32 wanted) {
  const u32 lane = threadIdx.x % WARP;
  u32 first = count, end = count;
  for (u32 base = 0, seen = 0; base < count; base += WARP) {
    const u32 i = base + lane;
    const bool begins = i < count && (i == 0 || tiles[i].column != tiles[i - 1].column);
    const u32 all = __ballot_sync(~0u, begins);
    const u32 number = seen + __popc(all & ((1u << lane) - 1));
    const u32 here = __ballot_sync(~0u, begins && number == wanted);
    const u32 after = __ballot_sync(~0u, begins && number == wanted + 1);
    if (here) first = base + __ffs(here) - 1;
    if (after) {
      end = base + __ffs(after) - 1;
      break;
    }
    seen += __popc(all);
  }
  return {tiles + first, tiles + end};
}

// Whether every 16-byte access to a row of x and to a rank of A is aligned and within it, for all
// tiles of a site alike: which sums are made does not hang on the chunks beside theirs. For whole
// warps.
__device__ inline bool is_aligned(const Tile* tiles, u32 count, u32 in) {
  u32 all = in;
  for (u32 i = threadIdx.x % WARP; i < count; i += WARP) all |= tiles[i].start | tiles[i].length;
  return __all_sync(~0u, all % 8 == 0);
}

// A step takes so many inputs, of which each warp multiplies 16.
constexpr u32 STEP_INPUTS = WARPS * 16;
constexpr u32 LINE = STEP_INPUTS * 2;  // bytes of a row of x, or a rank of A
constexpr u32 LINE_SIXTEENS = LINE / 16;
static_assert(WARPS * WARP == PIECE_ROWS * LINE_SIXTEENS && PIECE_ROWS == CHUNK_RANKS,
              "16 bytes of a piece and of a chunk to a thread");

// What a block has at a time: the rows of PIECES pieces and CHUNKS chunks of ranks, by STAGES steps
// in shared memory.
template <u32 PIECES_, u32 CHUNKS_, u32 STAGES_>
struct Shape {
  static constexpr u32 PIECES = PIECES_, CHUNKS = CHUNKS_, STAGES = STAGES_;
  static constexpr u32 SIXTEEN_LINES = PIECE_ROWS * LINE;  // bytes of a piece, of a chunk
  static constexpr u32 STAGE_BYTES = (PIECES + CHUNKS) * SIXTEEN_LINES;
  using Sums = float[CHUNKS][PIECES][2][4];  // rows group (+8), ranks 8 half + 2 thread (+1)
};

// Where 16 bytes of a line lie, so that those of eight neighbouring lines are in different banks.
__device__ inline u32 place_in_lines(u32 line, u32 sixteen) {
  return line * LINE + (sixteen ^ line % 8) * 16;
}

// Where a thread finds one rank of a chunk, as inputs ascend.
struct RankOfA {
  const Tile* next;
  const Tile* end;
  Tile ahead;           // *next, if there is one: asked for early
  const bf16* weights;  // of the rank, as if the tile began at input 0; null without such a rank
  u32 start, stop;

  __device__ void begin(const Chunk& chunk) {
    next = chunk.first, end = chunk.end;
    if (next != end) ahead = *next;
    weights = nullptr, start = stop = 0;
  }
  // Eight weights from input k on, or null.
  __device__ const bf16* at(u32 k, u32 rank) {
    while (k >= stop && next != end) {
      start = ahead.start, stop = start + ahead.length;
      const bf16* data = static_cast<const bf16*>(ahead.data);
      weights = rank < ahead.ranks ? data + u64(rank) * ahead.length - start : nullptr;
      if (++next != end) ahead = *next;
    }
    return weights && start <= k && k < stop ? weights + k : nullptr;
  }
};

// Sums of the rows of pieces and the ranks of chunks, of which those missing are empty.
template <class S>
struct Multiplier {
  const Piece (&pieces)[S::PIECES];
  const bf16* x;
  u32 in, shared;

  // The thread's part of a step.
  __device__ void load(RankOfA (&ranks)[S::CHUNKS], u32 stage, u32 step) const {
    const u32 line = threadIdx.x / LINE_SIXTEENS, sixteen = threadIdx.x % LINE_SIXTEENS;
    const u32 k = step * STEP_INPUTS + sixteen * 8;
    u32 to = shared + stage * S::STAGE_BYTES + place_in_lines(line, sixteen);
#pragma unroll
    for (u32 p = 0; p < S::PIECES; p++, to += S::SIXTEEN_LINES) {
      const bool valid = line < pieces[p].rows && k < in;
      copy_async(to, x + u64(pieces[p].row + line) * in + k, valid);
    }
#pragma unroll
    for (u32 c = 0; c < S::CHUNKS; c++, to += S::SIXTEEN_LINES) {
      const bf16* a = ranks[c].at(k, line);
      copy_async(to, a, a);
    }
  }
  // The warp's part of it.
  __device__ void multiply(u32 stage, typename S::Sums& sums) const {
    const u32 lane = threadIdx.x % WARP, own = threadIdx.x / WARP * 2;
    const u32 from = shared + stage * S::STAGE_BYTES;
    u32 a[S::CHUNKS][4];
#pragma unroll
    for (u32 c = 0; c < S::CHUNKS; c++)
      load_matrix_4(a[c], from + (S::PIECES + c) * S::SIXTEEN_LINES +
                              place_in_lines(lane / 16 * 8 + lane % 8, own + lane / 8 % 2));
#pragma unroll
    for (u32 p = 0; p < S::PIECES; p++) {
      u32 rows[4];
      load_matrix_4(rows, from + p * S::SIXTEEN_LINES + place_in_lines(lane % 16, own + lane / 16));
#pragma unroll
      for (u32 c = 0; c < S::CHUNKS; c++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
          mma_bf16(sums[c][p][half], rows, {a[c][half * 2], a[c][half * 2 + 1]});
    }
  }
  // All steps, as they arrive.
  __device__ void run(const Chunk (&chunks)[S::CHUNKS], typename S::Sums& sums) const {
    RankOfA ranks[S::CHUNKS];
#pragma unroll
    for (u32 c = 0; c < S::CHUNKS; c++) ranks[c].begin(chunks[c]);
    const u32 steps = (in + STEP_INPUTS - 1) / STEP_INPUTS;
    u32 filled = 0, stage = 0, behind = S::STAGES - 1;
    for (; filled < S::STAGES - 1; filled++) {
      if (filled < steps) load(ranks, filled, filled);
      copy_commit();
    }
    for (u32 step = 0; step < steps; step++, filled++) {
      copy_wait<S::STAGES - 2>();
      __syncthreads();  // all have their part of it, and have read the step before
      if (filled < steps) load(ranks, behind, filled);
      copy_commit();
      multiply(stage, sums);
      behind = stage;
      if (++stage == S::STAGES) stage = 0;
    }
    copy_wait<0>();
    __syncthreads();
  }
};

constexpr u32 PARTS_PITCH = CHUNK_RANKS + 1;  // spreads rows over banks

// Adds the warps' parts of a chunk in their order and writes the sums. `parts`: [WARPS, rows,
// PARTS_PITCH] in shared memory. For whole blocks.
template <u32 PIECES>
__device__ void write_sums(const Chunk& chunk, const Piece (&pieces)[PIECES],
                           const float (&sums)[PIECES][2][4], float* parts, float* out, u32 cols) {
  constexpr u32 ROWS = PIECES * PIECE_ROWS;
  const u32 warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++)
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        const u32 row = p * PIECE_ROWS + group + i / 2 * 8, rank = half * 8 + thread * 2 + i % 2;
        parts[(warp * ROWS + row) * PARTS_PITCH + rank] = sums[p][half][i];
      }
  __syncthreads();
  const u32 row = threadIdx.x / CHUNK_RANKS, rank = threadIdx.x % CHUNK_RANKS;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++) {
    float total = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++)
      total += parts[(w * ROWS + p * PIECE_ROWS + row) * PARTS_PITCH + rank];
    if (row < pieces[p].rows && rank < chunk.first->ranks)
      out[u64(pieces[p].row + row) * cols + chunk.first->column + rank] =
          total * chunk.first->scale;
  }
  __syncthreads();  // all parts have been read
}
