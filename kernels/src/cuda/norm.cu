// norm.cuh for a row of a decoding step: one cluster each. T: elements of tiles and KV; Y: of the
// product.
#include "norm.cuh"

constexpr u32 THREADS = 128;

// What stands in shared memory ahead of the slice.
struct Block {
  float warps[THREADS / WARP];                     // sums of squares
  float slices[SLICES_MAX];                        // of the row
  u32 slot;                                        // of the row
  u32 fill[32 - THREADS / WARP - SLICES_MAX - 1];  // to 128 bytes
};

static_assert(sizeof(Block) == 128, "BLOCK_BYTES of cuda/norm.rs");

// Sum over the row: threads of a warp, then warps, then slices, each in ascending order. All blocks
// of the row have started.
__device__ inline float row_sum(float x, u32 slice, u32 slices, Block& block) {
  x = warp_sum(x);
  if (threadIdx.x % WARP == 0) block.warps[threadIdx.x / WARP] = x;
  __syncthreads();
  float part = 0;
#pragma unroll
  for (u32 i = 0; i < THREADS / WARP; i++) part += block.warps[i];
  if (slices == 1) return part;
  if (threadIdx.x < slices) store_cluster(block.slices + slice, threadIdx.x, part);
  cluster_arrive();
  cluster_wait();
  float sum = 0;
  for (u32 i = 0; i < slices; i++) sum += block.slices[i];
  return sum;
}

// ----

// The piece that has the row. All threads of the block get it.
__device__ inline Piece piece_of(const Step& step, u32 pieces_bound, u32 row, Block& block) {
  const u32 pieces = step.counts->pieces;
  for (u32 i = threadIdx.x; i < pieces_bound; i += THREADS) {
    const Piece piece = step.pieces[i];
    // One thread finds it; the difference wraps for later pieces.
    if (i < pieces && row - piece.row < piece.rows) block.slot = piece.slot;
  }
  __syncthreads();
  return {row, 1, block.slot};
}

// A warp's columns from `first` on, of those before `end`.
__device__ inline Runs runs_from(u32 first, u32 end) {
  const u32 second = least(first + RUN, end);
  return {first, least(RUN, end - first), second, least(RUN, end - second)};
}

// As `add` for a row of an adapter, whose delta is added too.
template <class T, class Y>
__device__ float add_delta(const Pending& pending, const Norm& norm, const Piece& piece,
                           const Slice& slice, float* x) {
  constexpr u32 COLUMNS = 2 * RUN;
  float* residual = norm.residual + u64(piece.row) * norm.hidden;
  float squares = 0;
  for (u32 first = slice.begin + threadIdx.x / WARP * COLUMNS; first < slice.end;
       first += THREADS / WARP * COLUMNS) {
    const Runs runs = runs_from(first, slice.end);
    float delta[2][1];
    expand_lanes<T>(pending, piece, runs, delta);
#pragma unroll
    for (u32 run = 0; run < 2; run++) {
      const u32 i = first + run * RUN + lane_place();
      if (i >= slice.end) break;
      const float sum = residual[i] + finish<Y, 1>(pending, piece.row, i, &delta[run][0]).at[0];
      residual[i] = x[i - slice.begin] = sum;
      squares += sum * sum;
    }
  }
  return squares;
}

template <class T, class Y>
__device__ void norm(const Step& step, const Pending& pending, const Norm& norm) {
  alignas(16) extern __shared__ float shared[];
  Block& block = *reinterpret_cast<Block*>(shared);
  float* x = shared + sizeof(Block) / sizeof(float);  // [slice] the residual
  release_successor();
  if (norm.slices > 1) cluster_arrive();
  const u32 row = blockIdx.x / norm.slices;
  const Slice slice(norm);
  for (u32 i = slice.begin + threadIdx.x * 32; i < slice.end; i += THREADS * 32)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(norm.weight + i));
  const bool live = row < step.counts->rows;
  Piece piece = {row, 1, NO_ADAPTER};
  if (live && pending.shrunk) {
    piece = piece_of(step, norm.pieces, row, block);
    for (u32 first = slice.begin + threadIdx.x / WARP * 2 * RUN; first < slice.end;
         first += THREADS / WARP * 2 * RUN)
      prefetch_runs<T>(pending, piece.slot, runs_from(first, slice.end));
  }
  wait_for_predecessor();
  if (norm.slices > 1) cluster_wait();  // all blocks of the row have started
  if (!live) return;
  const Team team = {threadIdx.x, THREADS};
  const bool whole = norm.hidden % 4 == 0;
  float squares;
  if (has_delta(pending, piece)) squares = add_delta<T, Y>(pending, norm, piece, slice, x);
  else if (whole) squares = add<Y, 4, 1>(pending, norm, row, slice, team, nullptr, x);
  else squares = add<Y, 1, 1>(pending, norm, row, slice, team, nullptr, x);
  squares = row_sum(squares, slice.index, norm.slices, block);
  if (whole) write_row<T, 4>(norm, row, slice, team, squares, x);
  else write_row<T, 1>(norm, row, slice, team, squares, x);
}

#define KERNEL(T, Y)                                                \
  extern "C" __global__ void __launch_bounds__(THREADS, 8)          \
      norm_##T##_##Y(Step step, Pending pending, Norm parameters) { \
    norm<T, Y>(step, pending, parameters);                          \
  }
FOR_ELEMENTS(KERNEL)

// x[row] /= sqrt(mean of the residual's squares + eps), where a product has left that to its
// readers. One block per row of x [rows, cols]; squares [rows, parts_of(residuals)].
template <class T>
__device__ void scale_rows(T* x, u32 cols, const float* squares, u32 residuals, float eps) {
  __shared__ float sum;
  release_successor();
  wait_for_predecessor();
  const u32 parts = (residuals + PART - 1) / PART, stride = parts_of(residuals);
  if (threadIdx.x < WARP) {
    float part = 0;
    for (u32 i = threadIdx.x; i < parts; i += WARP) part += squares[u64(blockIdx.x) * stride + i];
    part = warp_sum(part);
    if (threadIdx.x == 0) sum = part;
  }
  __syncthreads();
  const float scale = 1 / sqrtf(sum / residuals + eps);
  T* row = x + u64(blockIdx.x) * cols;
  for (u32 i = threadIdx.x; i < cols; i += THREADS)
    row[i] = from_float<T>(to_float(row[i]) * scale);
}
#define SCALE_ROWS(NAME, T)                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS)                      \
      NAME(T* x, const float* squares, u32 cols, u32 residuals, float eps) { \
    scale_rows<T>(x, cols, squares, residuals, eps);                         \
  }
SCALE_ROWS(scale_rows_bf16, bf16)
SCALE_ROWS(scale_rows_f32, float)
