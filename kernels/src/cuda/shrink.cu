// The first half of a LoRA product where its second half does not make it (low_rank_shrink.cuh):
// out[row][column + rank] = scale * sum over inputs of x[row][input] * A[rank][input], with the A
// tiles of the row's adapter. x [rows, in], tile [ranks, length], out [rows, cols].
//
// An item is one chunk of ranks for the rows of a few consecutive pieces that use the same adapter,
// so that one pass over A serves them. Blocks take items as they get free. Sums are split over
// warps by the tiles alone, and added in order: a row's result depends on the row and its adapter,
// not on the batch.
#include "prelude.cuh"

constexpr u32 WARPS = 8;
constexpr u32 PIECE_ROWS = 16;
// Inputs per step of a warp: each lane takes 8 neighbours, 16 bytes.
constexpr u32 LANE_INPUTS = 8;
constexpr u32 STEP_INPUTS = 4 * LANE_INPUTS;
constexpr u32 STEPS_MAX = 4;  // at a time

// Tiles first..end hold the same ranks over successive inputs.
struct Chunk {
  const Tile* first;
  const Tile* end;
};

// Whether every 16-byte access to a row of x and to a rank of A is aligned and within it. For whole
// warps.
__device__ inline bool is_aligned(const Chunk& chunk, u32 in) {
  u32 all = in;
  for (const Tile* tile = chunk.first + threadIdx.x % WARP; tile < chunk.end; tile += WARP)
    all |= tile->start | tile->length;
  return __all_sync(~0u, all % LANE_INPUTS == 0);
}

// A chunk for one piece without alignment: a warp takes a rank and ROWS rows at a time, its lanes
// every 32nd input.
template <class X, class A, u32 ROWS>
__device__ inline void multiply_plain(const Chunk& chunk, const X* x, u32 in, const Piece& piece,
                                      float* out, u32 cols) {
  const u32 lane = threadIdx.x % WARP, ranks = chunk.first->ranks;
  for (u32 i = threadIdx.x / WARP; i < ranks * (PIECE_ROWS / ROWS); i += WARPS) {
    const u32 rank = i % ranks, first = i / ranks * ROWS;
    float sums[ROWS] = {};
    for (const Tile* tile = chunk.first; tile != chunk.end; tile++) {
      const A* a = static_cast<const A*>(tile->data) + u64(rank) * tile->length;
      const X* rows = x + u64(piece.row + first) * in + tile->start;
      for (u32 k = lane; k < tile->length; k += WARP) {
        const float weight = to_float(a[k]);
#pragma unroll
        for (u32 row = 0; row < ROWS; row++)
          if (first + row < piece.rows) sums[row] += seen<A>(rows[u64(row) * in + k]) * weight;
      }
    }
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
      const float sum = warp_sum(sums[row]);
      if (lane == 0 && first + row < piece.rows)
        out[u64(piece.row + first + row) * cols + chunk.first->column + rank] =
            sum * chunk.first->scale;
    }
  }
}

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

// One warp's part of the products of a chunk: every WARPS-th half of its tiles. Inputs are permuted
// within a step, alike for x and A: lane (group, thread) holds inputs 8 thread.. of rows group (+8)
// and of ranks group (+8), and each mma takes four of them. sums: rows group (+8) of each piece,
// ranks 2 thread (+1) of each half of the chunk.
template <u32 PIECES, u32 DEPTH>
__device__ void multiply(const Chunk& chunk, const bf16* x, u32 in, const Piece (&pieces)[PIECES],
                         float (&sums)[PIECES][2][4]) {
  static_assert(STEPS_MAX % DEPTH == 0, "halves begin with a step");
  const u32 group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  const u32 halves = (chunk.end - chunk.first) * 2;
  for (u32 half = threadIdx.x / WARP; half < halves; half += WARPS) {
    const Tile tile = chunk.first[half / 2];
    const u32 start = tile.start, length = tile.length, ranks = tile.ranks;
    const u32 cut = length / 2 / (STEPS_MAX * STEP_INPUTS) * (STEPS_MAX * STEP_INPUTS);
    const u32 begin = half % 2 ? cut : 0, end = half % 2 ? length : cut;
    const bf16* a = static_cast<const bf16*>(tile.data) + u64(group) * length;
    for (u32 first = begin; first < end; first += DEPTH * STEP_INPUTS) {
      uint4 w[DEPTH][2];
#pragma unroll
      for (u32 d = 0; d < DEPTH; d++) {
        const u32 k = first + d * STEP_INPUTS + thread * LANE_INPUTS;
        const bool inside = k < end;
        w[d][0] = inside ? load_stream(a + k) : zero;
        w[d][1] = inside && ranks > 8 ? load_stream(a + 8 * u64(length) + k) : zero;
      }
#pragma unroll
      for (u32 d = 0; d < DEPTH; d++) {
        const u32 k = first + d * STEP_INPUTS + thread * LANE_INPUTS;
        const bool inside = k < end;
#pragma unroll
        for (u32 p = 0; p < PIECES; p++) {
          const bf16* row = x + u64(pieces[p].row + group) * in + start + k;
          const uint4 low =
              inside && group < pieces[p].rows ? *reinterpret_cast<const uint4*>(row) : zero;
          const uint4 high = inside && group + 8 < pieces[p].rows
                                 ? *reinterpret_cast<const uint4*>(row + 8 * u64(in))
                                 : zero;
#pragma unroll
          for (u32 n = 0; n < 2; n++) {
            mma_bf16(sums[p][n], {low.x, high.x, low.y, high.y}, {w[d][n].x, w[d][n].y});
            mma_bf16(sums[p][n], {low.z, high.z, low.w, high.w}, {w[d][n].z, w[d][n].w});
          }
        }
      }
    }
  }
}

// Adds the warps' parts in their order and writes the sums. For whole blocks.
template <u32 PIECES>
__device__ void write_sums(const Chunk& chunk, const Piece (&pieces)[PIECES],
                           const float (&sums)[PIECES][2][4], float* out, u32 cols) {
  // One column more than the ranks spreads rows over banks.
  __shared__ float parts[WARPS][PIECES * PIECE_ROWS][CHUNK_RANKS + 1];
  const u32 warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++)
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
      for (u32 i = 0; i < 4; i++)
        parts[warp][p * PIECE_ROWS + group + i / 2 * 8][half * 8 + thread * 2 + i % 2] =
            sums[p][half][i];
  __syncthreads();
  const u32 row = threadIdx.x / CHUNK_RANKS, rank = threadIdx.x % CHUNK_RANKS;
  const u32 column = chunk.first->column + rank;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++) {
    float total = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) total += parts[w][p * PIECE_ROWS + row][rank];
    if (row < pieces[p].rows && rank < chunk.first->ranks)
      out[u64(pieces[p].row + row) * cols + column] = total * chunk.first->scale;
  }
  __syncthreads();  // all parts have been read
}

// The pieces that go together: neighbours of a group of PIECES that use one adapter. Those missing
// from PIECES have no rows. Gives how many there are.
template <u32 PIECES>
__device__ u32 take_pieces(const Step& step, u32 first, u32 end, Piece (&pieces)[PIECES]) {
  const u32 slot = step.pieces[first].slot;
  u32 taken = 0;
  bool same = true;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++) {
    pieces[p] = {0, 0, slot};
    same = same && first + p < end && step.pieces[first + p].slot == slot;
    if (same) pieces[p] = step.pieces[first + p], taken++;
  }
  return taken;
}

// `Arguments` of cuda/shrink.rs.
struct Arguments {
  const void* x;
  float* out;
  u32* taken;  // items taken so far; zero between kernels
  u32 in, cols, layer, site;
  u32 chunks;  // of a piece: a bound
};

template <class X, class A, u32 PIECES>
__device__ void shrink_item(const Step& step, const Adapters& adapters, const Arguments& arguments,
                            u32 group, u32 wanted) {
  const auto& [any_x, out, taken, in, cols, layer, site, chunks] = arguments;
  const X* x = static_cast<const X*>(any_x);
  const u32 end = min((group + 1) * PIECES, step.counts->pieces);
  for (u32 first = group * PIECES, count; first < end; first += count) {
    Piece pieces[PIECES];
    count = take_pieces(step, first, end, pieces);
    if (pieces[0].slot == NO_ADAPTER) continue;
    const SiteTiles& tiles = site_tiles(adapters, pieces[0].slot, layer, site);
    const Chunk chunk = find_chunk(adapters.tiles + tiles.a, tiles.a_count, wanted);
    if (chunk.first == chunk.end) continue;
    if constexpr (sizeof(X) == 2) {
      if (is_aligned(chunk, in)) {
        float sums[PIECES][2][4] = {};
        multiply<PIECES, PIECES == 1 ? 4 : 2>(chunk, x, in, pieces, sums);
        write_sums(chunk, pieces, sums, out, cols);
        continue;
      }
    }
    for (u32 p = 0; p < PIECES && pieces[p].rows; p++)
      multiply_plain<X, A, 4>(chunk, x, in, pieces[p], out, cols);
  }
}

// The next item of a block. Whole blocks call it; those that start late find the items taken.
__device__ u32 take_item(u32* taken, u32 items) {
  __shared__ u32 next;
  __syncthreads();  // the one before has been read
  if (threadIdx.x == 0) {
    next = atomicAdd(taken, 1);
    if (next == items + gridDim.x - 1) *taken = 0;  // the last that anybody takes
  }
  __syncthreads();
  return next;
}

// Items: groups of PIECES pieces, chunks of ranks.
template <class X, class A, u32 PIECES>
__device__ void shrink(const Step& step, const Adapters& adapters, const Arguments& arguments) {
  release_successor();
  wait_for_predecessor();
  const u32 chunks = arguments.chunks;
  const u32 items = (step.counts->pieces + PIECES - 1) / PIECES * chunks;
  const bool dealt = items <= gridDim.x;
  const auto next = [&] { return dealt ? items : take_item(arguments.taken, items); };
  for (u32 item = dealt ? blockIdx.x : next(); item < items; item = next())
    shrink_item<X, A, PIECES>(step, adapters, arguments, item / chunks, item % chunks);
}

#define KERNEL(NAME, X, A, PIECES)                                               \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, PIECES == 1 ? 3 : 2) \
      NAME(Step step, Adapters adapters, Arguments arguments) {                  \
    shrink<X, A, PIECES>(step, adapters, arguments);                             \
  }
KERNEL(shrink_f32_f32, float, float, 1)
KERNEL(shrink_f32_f16, float, f16, 1)
KERNEL(shrink_f32_bf16, float, bf16, 1)
KERNEL(shrink_bf16_bf16, bf16, bf16, 1)
KERNEL(shrink_bf16_bf16_prefill, bf16, bf16, 4)

// For sums of low ranks (fixed.cuh): zeros to add to.
extern "C" __global__ void clear_low_ranks(u64* words, u32 count) {
  release_successor();
  wait_for_predecessor();
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    words[i] = 0;
}
