// y = x w^T for any sizes and element types: x [rows, inputs], w [outputs, inputs], y [rows,
// outputs] f32.
//
// A block of 16 x 16 threads owns 16 PER rows and 64 outputs, a thread PER rows and 4 outputs, each
// 16 apart. STEP inputs at a time pass through shared memory as floats. A sum is a chain of STEP
// products per step, and the steps in ascending order: the same for every tile, so that a row does
// not depend on the rows beside it.
#include "prelude.cuh"

constexpr u32 SIDE = 16;  // threads along either side of a tile
constexpr u32 STEP = 32;
constexpr u32 OUTPUTS = 4;  // of a thread

// STEP inputs from `input` of LINES lines from `line`, as [STEP][LINES + 1] floats; zeros beyond
// the matrix.
template <u32 LINES, class T, class F>
__device__ inline void load_step(float (&to)[STEP][LINES + 1], const T* from, u32 line, u32 lines,
                                 u32 input, u32 inputs, F widen) {
  for (u32 i = threadIdx.x; i < LINES * STEP; i += SIDE * SIDE) {
    const u32 k = i % STEP, l = i / STEP;
    const bool valid = line + l < lines && input + k < inputs;
    to[k][l] = valid ? widen(from[u64(line + l) * inputs + input + k]) : 0.f;
  }
}

// Grid: (tiles of outputs, tiles of rows).
template <class X, class W, u32 PER>
__device__ inline void multiply(const X* x, const W* w, float* y, u32 rows, u32 inputs,
                                u32 outputs) {
  constexpr u32 ROWS = SIDE * PER, COLUMNS = SIDE * OUTPUTS;
  __shared__ float xs[STEP][ROWS + 1], ws[STEP][COLUMNS + 1];
  const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE, row = blockIdx.y * ROWS,
            output = blockIdx.x * COLUMNS;
  release_successor();
  wait_for_predecessor();
  float sums[PER][OUTPUTS] = {};
  for (u32 input = 0; input < inputs; input += STEP) {
    load_step<ROWS>(xs, x, row, rows, input, inputs, [](X value) { return seen<W>(value); });
    load_step<COLUMNS>(ws, w, output, outputs, input, inputs,
                       [](W value) { return to_float(value); });
    __syncthreads();
    float part[PER][OUTPUTS] = {};
#pragma unroll
    for (u32 k = 0; k < STEP; k++)
#pragma unroll
      for (u32 i = 0; i < PER; i++)
#pragma unroll
        for (u32 j = 0; j < OUTPUTS; j++)
          part[i][j] = fmaf(xs[k][ty + i * SIDE], ws[k][tx + j * SIDE], part[i][j]);
#pragma unroll
    for (u32 i = 0; i < PER; i++)
#pragma unroll
      for (u32 j = 0; j < OUTPUTS; j++) sums[i][j] += part[i][j];
    __syncthreads();
  }
#pragma unroll
  for (u32 i = 0; i < PER; i++)
#pragma unroll
    for (u32 j = 0; j < OUTPUTS; j++) {
      const u32 r = row + ty + i * SIDE, o = output + tx + j * SIDE;
      if (r < rows && o < outputs) y[u64(r) * outputs + o] = sums[i][j];
    }
}

// matmul_plain_X_W_ROWS: element types and the rows of a tile.
#define MATMUL_PLAIN(X, X_NAME, W, W_NAME, PER, ROWS)                                       \
  extern "C" __global__ void __launch_bounds__(SIDE* SIDE)                                  \
      matmul_plain_##X_NAME##_##W_NAME##_##ROWS(const X* x, const W* w, float* y, u32 rows, \
                                                u32 inputs, u32 outputs) {                  \
    multiply<X, W, PER>(x, w, y, rows, inputs, outputs);                                    \
  }
#define MATMUL_PLAIN_WEIGHTS(W, W_NAME)      \
  MATMUL_PLAIN(float, f32, W, W_NAME, 1, 16) \
  MATMUL_PLAIN(float, f32, W, W_NAME, 4, 64) \
  MATMUL_PLAIN(bf16, bf16, W, W_NAME, 1, 16) \
  MATMUL_PLAIN(bf16, bf16, W, W_NAME, 4, 64)
MATMUL_PLAIN_WEIGHTS(float, f32)
MATMUL_PLAIN_WEIGHTS(f16, f16)
MATMUL_PLAIN_WEIGHTS(bf16, bf16)
