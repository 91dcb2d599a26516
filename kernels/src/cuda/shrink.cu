// The first half of a LoRA product: out[row][column + rank] = scale * sum over inputs of
// x[row][input] * A[rank][input], with the A tiles of the row's adapter. x [rows, in], tile [ranks,
// length], out [rows, cols].
//
// A block takes all inputs of one chunk of ranks, for the rows of a few consecutive pieces that use
// the same adapter, so that one pass over A serves them. Sums are split over warps by the tile's
// length alone and added in the order of warps: a row's result depends on the row and its adapter,
// not on the batch.
#include "prelude.cuh"

constexpr u32 WARPS = 8;
constexpr u32 PIECE_ROWS = 16;
constexpr u32 CHUNK_RANKS = 16;
// Inputs per step of a warp: each lane takes 8 neighbours, 16 bytes.
constexpr u32 LANE_INPUTS = 8;
constexpr u32 STEP_INPUTS = 4 * LANE_INPUTS;

// Tiles first..end hold the same ranks over successive inputs.
struct Chunk {
  const Tile* first;
  const Tile* end;
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

// Whether every 16-byte access to a row of x and to a rank of A is aligned and within it.
__device__ bool is_aligned(const Chunk& chunk, u32 in) {
  u32 all = in;
  for (const Tile* tile = chunk.first; tile != chunk.end; tile++) all |= tile->start | tile->length;
  return all % LANE_INPUTS == 0;
}

// One warp's part of the products of a chunk. Inputs are permuted within a step, alike for x and A:
// lane (group, thread) holds inputs 8 thread.. of rows group (+8) and of ranks group (+8), and each
// mma takes four of them. sums: rows group (+8) of each piece, ranks 2 thread (+1) of each half of
// the chunk.
template <u32 PIECES, u32 DEPTH>
__device__ void multiply(const Chunk& chunk, const bf16* x, u32 in, const Piece (&pieces)[PIECES],
                         float (&sums)[PIECES][2][4]) {
  const u32 warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  for (const Tile* tile = chunk.first; tile != chunk.end; tile++) {
    const u32 length = tile->length, ranks = tile->ranks;
    const u32 steps = (length + STEP_INPUTS - 1) / STEP_INPUTS, share = (steps + WARPS - 1) / WARPS;
    const u32 end = min((warp + 1) * share, steps);
    const bf16* a = static_cast<const bf16*>(tile->data) + u64(group) * length;
    for (u32 step = warp * share; step < end; step += DEPTH) {
      uint4 w[DEPTH][2];
#pragma unroll
      for (u32 d = 0; d < DEPTH; d++) {
        const u32 k = (step + d) * STEP_INPUTS + thread * LANE_INPUTS;
        const bool inside = step + d < end && k < length;
        w[d][0] = inside ? load_stream(a + k) : zero;
        w[d][1] = inside && ranks > 8 ? load_stream(a + 8 * u64(length) + k) : zero;
      }
#pragma unroll
      for (u32 d = 0; d < DEPTH; d++) {
        const u32 k = (step + d) * STEP_INPUTS + thread * LANE_INPUTS;
        const bool inside = step + d < end && k < length;
#pragma unroll
        for (u32 p = 0; p < PIECES; p++) {
          const bf16* row = x + u64(pieces[p].row + group) * in + tile->start + k;
          const uint4 low =
              inside && group < pieces[p].rows ? *reinterpret_cast<const uint4*>(row) : zero;
          const uint4 high = inside && group + 8 < pieces[p].rows
                                 ? *reinterpret_cast<const uint4*>(row + 8 * u64(in))
                                 : zero;
#pragma unroll
          for (u32 half = 0; half < 2; half++) {
            mma_bf16(sums[p][half], {low.x, high.x, low.y, high.y}, {w[d][half].x, w[d][half].y});
            mma_bf16(sums[p][half], {low.z, high.z, low.w, high.w}, {w[d][half].z, w[d][half].w});
          }
        }
      }
    }
  }
}

// Adds the warps' parts in their order and writes them. For whole blocks.
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
    float sum = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) sum += parts[w][p * PIECE_ROWS + row][rank];
    if (row < pieces[p].rows && rank < chunk.first->ranks)
      out[u64(pieces[p].row + row) * cols + column] = sum * chunk.first->scale;
  }
  // The next chunk overwrites the parts.
  __syncthreads();
}

// What a product with weights of type A sees of an activation.
template <class A, class X>
__device__ float operand(X x) {
  return to_float(x);
}
template <>
__device__ float operand<bf16, float>(float x) {
  return to_float(from_float<bf16>(x));
}

// A chunk for one piece without alignment: a warp takes a rank at a time, its lanes every 32nd
// input.
template <class X, class A>
__device__ void multiply_plain(const Chunk& chunk, const X* x, u32 in, const Piece& piece,
                               float* out, u32 cols) {
  const u32 lane = threadIdx.x % WARP;
  for (u32 rank = threadIdx.x / WARP; rank < chunk.first->ranks; rank += WARPS) {
    float sums[PIECE_ROWS] = {};
    for (const Tile* tile = chunk.first; tile != chunk.end; tile++) {
      const A* a = static_cast<const A*>(tile->data) + u64(rank) * tile->length;
      const X* rows = x + u64(piece.row) * in + tile->start;
      for (u32 k = lane; k < tile->length; k += WARP) {
        const float weight = to_float(a[k]);
#pragma unroll
        for (u32 row = 0; row < PIECE_ROWS; row++)
          if (row < piece.rows) sums[row] += operand<A>(rows[u64(row) * in + k]) * weight;
      }
    }
#pragma unroll
    for (u32 row = 0; row < PIECE_ROWS; row++) {
      const float sum = warp_sum(sums[row]);
      if (lane == 0 && row < piece.rows)
        out[u64(piece.row + row) * cols + chunk.first->column + rank] = sum * chunk.first->scale;
    }
  }
}

template <class X, class A, u32 PIECES>
__device__ void shrink_chunk(const Chunk& chunk, const X* x, u32 in, const Piece (&pieces)[PIECES],
                             float* out, u32 cols) {
  if constexpr (sizeof(X) == 2) {
    if (is_aligned(chunk, in)) {
      float sums[PIECES][2][4] = {};
      multiply<PIECES, PIECES == 1 ? 8 : 2>(chunk, x, in, pieces, sums);
      return write_sums(chunk, pieces, sums, out, cols);
    }
  }
  for (u32 p = 0; p < PIECES && pieces[p].rows; p++)
    multiply_plain<X, A>(chunk, x, in, pieces[p], out, cols);
}

struct Arguments {
  const void* x;
  float* out;
  u32 in, cols, layer, site;
};

// Grid: x strides over chunks, y over groups of PIECES pieces. Neighbours of a group that use one
// adapter go together; the pieces that are missing from PIECES have no rows.
template <class X, class A, u32 PIECES>
__device__ void shrink(const Step& step, const Adapters& adapters, const Arguments& arguments) {
  release_successor();
  wait_for_predecessor();
  const auto [any_x, out, in, cols, layer, site] = arguments;
  const X* x = static_cast<const X*>(any_x);
  const u32 count = step.counts->pieces;
  for (u32 group = blockIdx.y; group < (count + PIECES - 1) / PIECES; group += gridDim.y) {
    const u32 end = min((group + 1) * PIECES, count);
    for (u32 first = group * PIECES, next; first < end; first = next) {
      const u32 slot = step.pieces[first].slot;
      Piece pieces[PIECES];
      bool same = true;
      next = first;
#pragma unroll
      for (u32 p = 0; p < PIECES; p++) {
        pieces[p] = {0, 0, slot};
        same = same && first + p < end && step.pieces[first + p].slot == slot;
        if (same) pieces[p] = step.pieces[first + p], next++;
      }
      if (slot == NO_ADAPTER) continue;
      const SiteTiles& tiles = site_tiles(adapters, slot, layer, site);
      for (u32 wanted = blockIdx.x;; wanted += gridDim.x) {
        const Chunk chunk = find_chunk(adapters.tiles + tiles.a, tiles.a_count, wanted);
        if (chunk.first == chunk.end) break;
        shrink_chunk<X, A>(chunk, x, in, pieces, out, cols);
      }
    }
  }
}

// Two blocks of a multiprocessor keep 64 KiB of A in flight each.
#define KERNEL(NAME, X, A, PIECES)                              \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, 2)  \
      NAME(Step step, Adapters adapters, Arguments arguments) { \
    shrink<X, A, PIECES>(step, adapters, arguments);            \
  }
KERNEL(shrink_f32_f32, float, float, 1)
KERNEL(shrink_f32_f16, float, f16, 1)
KERNEL(shrink_f32_bf16, float, bf16, 1)
KERNEL(shrink_bf16_bf16, bf16, bf16, 1)
KERNEL(shrink_bf16_bf16_prefill, bf16, bf16, 4)
