// What the kernels share that multiply activations with A: out[row][column + rank] = scale * sum
// over inputs of x[row][input] * A[rank][input], with the A tiles of the row's adapter. x [rows,
// in], tile [ranks, length], out [rows, cols].
#pragma once
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

// Whether every 16-byte access to a row of x and to a rank of A is aligned and within it.
__device__ inline bool is_aligned(const Chunk& chunk, u32 in) {
  u32 all = in;
  for (const Tile* tile = chunk.first; tile != chunk.end; tile++) all |= tile->start | tile->length;
  return all % LANE_INPUTS == 0;
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
