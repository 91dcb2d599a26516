// residual += y + bias + delta, then out = residual / sqrt(mean(residual^2) + eps) * weight:
// residual and out [rows, hidden]. One cluster per row, of which each block takes a slice of the
// columns: for one multiprocessor the adapter's part of a row is much to read. Where there are no
// clusters a row is one slice. T: elements of tiles and KV; Y: of the product.
#include "expand.cuh"

constexpr u32 THREADS = 128;
constexpr u32 SLICES_MAX = 8;

// `NormView` of cuda/norm.rs.
struct Norm {
  float* residual;      // [rows, hidden]
  const float* weight;  // [hidden]
  void* out;            // [rows, hidden]
  float eps;
  u32 hidden;
  u32 slices, slice;  // blocks of a row; columns of a block, a multiple of 64
  u32 pieces;         // bound of the step's, for which the image has room
};

// What stands in shared memory ahead of the slice.
struct Block {
  float warps[THREADS / WARP];                     // sums of squares
  float slices[SLICES_MAX];                        // of the row
  u32 slot;                                        // of the row
  u32 fill[32 - THREADS / WARP - SLICES_MAX - 1];  // to 128 bytes
};

static_assert(sizeof(Block) == 128, "BLOCK_BYTES of cuda/norm.rs");

// ---- clusters

__device__ inline void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}
__device__ inline void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}
// Writes to the same place of another block's shared memory.
__device__ inline void store_cluster(float* place, u32 block, float x) {
#if __CUDA_ARCH__ >= 900
  u32 there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(there)
               : "r"(shared_address(place)), "r"(block));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(x) : "memory");
#endif
}

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

// Adds y + bias to the residual and leaves it in `x` too. Gives the thread's sum of squares.
template <class Y, int V>
__device__ float add(const Pending& pending, const Norm& norm, u32 row, u32 begin, u32 end,
                     float* x) {
  using Floats = Pack<float, V>;
  float* residual = norm.residual + u64(row) * norm.hidden;
  float squares = 0;
  for (u32 i = begin + threadIdx.x * V; i < end; i += THREADS * V) {
    Floats sum = *reinterpret_cast<const Floats*>(residual + i);
    if (pending.y) {
      const Floats more = finish<Y, V>(pending, row, i, nullptr);
#pragma unroll
      for (int j = 0; j < V; j++) sum.at[j] += more.at[j];
      *reinterpret_cast<Floats*>(residual + i) = sum;
    }
    *reinterpret_cast<Floats*>(x + (i - begin)) = sum;
#pragma unroll
    for (int j = 0; j < V; j++) squares += sum.at[j] * sum.at[j];
  }
  return squares;
}

// A warp's columns from `first` on, of those before `end`.
__device__ inline Runs runs_from(u32 first, u32 end) {
  const u32 second = least(first + RUN, end);
  return {first, least(RUN, end - first), second, least(RUN, end - second)};
}

// As `add` for a row of an adapter, whose delta is added too.
template <class T, class Y>
__device__ float add_delta(const Pending& pending, const Norm& norm, const Piece& piece, u32 begin,
                           u32 end, float* x) {
  constexpr u32 COLUMNS = 2 * RUN;
  float* residual = norm.residual + u64(piece.row) * norm.hidden;
  float squares = 0;
  for (u32 first = begin + threadIdx.x / WARP * COLUMNS; first < end;
       first += THREADS / WARP * COLUMNS) {
    const Runs runs = runs_from(first, end);
    float delta[2][1];
    expand_lanes<T>(pending, piece, runs, delta);
#pragma unroll
    for (u32 run = 0; run < 2; run++) {
      const u32 i = first + run * RUN + lane_place();
      if (i >= end) break;
      const float sum = residual[i] + finish<Y, 1>(pending, piece.row, i, &delta[run][0]).at[0];
      residual[i] = x[i - begin] = sum;
      squares += sum * sum;
    }
  }
  return squares;
}

// The part of the residual that this thread left in `x`, or another of its block.
template <class T, int V>
__device__ void scale_row(const Norm& norm, u32 row, u32 begin, u32 end, float scale,
                          const float* x) {
  using Out = Activation<T>;
  using Floats = Pack<float, V>;
  Out* out = static_cast<Out*>(norm.out) + u64(row) * norm.hidden;
  for (u32 i = begin + threadIdx.x * V; i < end; i += THREADS * V) {
    const Floats weight = *reinterpret_cast<const Floats*>(norm.weight + i);
    Floats scaled = *reinterpret_cast<const Floats*>(x + (i - begin));
#pragma unroll
    for (int j = 0; j < V; j++) scaled.at[j] = scaled.at[j] * scale * weight.at[j];
    store<Out, V>(out + i, scaled);
  }
}

template <class T, class Y>
__device__ void norm(const Step& step, const Pending& pending, const Norm& norm) {
  alignas(16) extern __shared__ float shared[];
  Block& block = *reinterpret_cast<Block*>(shared);
  float* x = shared + sizeof(Block) / sizeof(float);  // [slice] the residual
  release_successor();
  if (norm.slices > 1) cluster_arrive();
  const u32 row = blockIdx.x / norm.slices,
            begin = least(blockIdx.x % norm.slices * norm.slice, norm.hidden);
  const u32 end = least(begin + norm.slice, norm.hidden);
  for (u32 i = begin + threadIdx.x * 32; i < end; i += THREADS * 32)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(norm.weight + i));
  const bool live = row < step.counts->rows;
  Piece piece = {row, 1, NO_ADAPTER};
  if (live && pending.shrunk) {
    piece = piece_of(step, norm.pieces, row, block);
    for (u32 first = begin + threadIdx.x / WARP * 2 * RUN; first < end;
         first += THREADS / WARP * 2 * RUN)
      prefetch_runs<T>(pending, piece.slot, runs_from(first, end));
  }
  wait_for_predecessor();
  if (norm.slices > 1) cluster_wait();  // all blocks of the row have started
  if (!live) return;
  const bool whole = norm.hidden % 4 == 0;
  float squares;
  if (has_delta(pending, piece)) squares = add_delta<T, Y>(pending, norm, piece, begin, end, x);
  else if (whole) squares = add<Y, 4>(pending, norm, row, begin, end, x);
  else squares = add<Y, 1>(pending, norm, row, begin, end, x);
  const float sum = row_sum(squares, blockIdx.x % norm.slices, norm.slices, block);
  const float scale = 1 / sqrtf(sum / norm.hidden + norm.eps);
  if (whole) scale_row<T, 4>(norm, row, begin, end, scale, x);
  else scale_row<T, 1>(norm, row, begin, end, scale, x);
}

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 8)
#define PARAMETERS Step step, Pending pending, Norm parameters
KERNEL norm_f32_f32(PARAMETERS) { norm<float, float>(step, pending, parameters); }
KERNEL norm_f32_bf16(PARAMETERS) { norm<float, bf16>(step, pending, parameters); }
KERNEL norm_f16_f32(PARAMETERS) { norm<f16, float>(step, pending, parameters); }
KERNEL norm_f16_bf16(PARAMETERS) { norm<f16, bf16>(step, pending, parameters); }
KERNEL norm_bf16_f32(PARAMETERS) { norm<bf16, float>(step, pending, parameters); }
KERNEL norm_bf16_bf16(PARAMETERS) { norm<bf16, bf16>(step, pending, parameters); }

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
