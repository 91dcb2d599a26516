// y = x w^T for at most 128 rows of x on Hopper: x [rows, inputs] and w [outputs, inputs] bf16, y
// [rows, outputs] f32.
//
// The time is that of reading w once. A block owns ROWS outputs; one warp keeps a ring of
// shared-memory stages filled by TMA, each a chunk of 64 inputs of its weights and of all rows of
// x, and one or two warpgroups multiply them, w as the tall operand and x, padded to TOKENS rows,
// as the wide one. Where outputs are few, the SPLITS blocks of a cluster share the inputs of a tile
// and add their sums up in the order of their ranks, through each other's shared memory.
//
// A row's sums are a function of that row and of SPLITS: chunks in ascending order, then ranks;
// ROWS and TOKENS don't matter. The predecessor does not write weights, so the ring is filled with
// them before it is waited for.
#include "hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr u32 CHUNK = 64;     // inputs of a stage, 128 bytes of a row
constexpr u32 BOX_ROWS = 64;  // weights per copy (decode.rs: WEIGHT_BOX), the height of a product
constexpr u32 BOX_BYTES = BOX_ROWS * CHUNK * 2;
constexpr u32 GROUP = 4 * WARP;  // threads of a warpgroup

// Shape of a block; the host computes STAGES, THREADS and SHARED too (decode.rs: Tiling).
template <u32 ROWS_, u32 TOKENS_, u32 SPLITS_>
struct Tiling {
  static constexpr u32 ROWS = ROWS_, TOKENS = TOKENS_, SPLITS = SPLITS_;
  static constexpr u32 GROUPS = ROWS >= 128 ? 2 : 1;         // consumer warpgroups
  static constexpr u32 TILES = ROWS / BOX_ROWS / GROUPS;     // boxes of a warpgroup
  static constexpr u32 THREADS = GROUPS * GROUP + WARP;      // the last warp copies
  static constexpr u32 PER_PROCESSOR = ROWS >= 256 ? 1 : 2;  // blocks
  static constexpr u32 W_BYTES = ROWS * CHUNK * 2, X_BYTES = TOKENS * CHUNK * 2;
  static constexpr u32 FIT = (PER_PROCESSOR == 1 ? 208 : 105) * 1024 / (W_BYTES + X_BYTES);
  static constexpr u32 STAGES = FIT < 8 ? FIT : 8;
  static constexpr u32 PITCH =
      ROWS + 4;  // floats from token to token of a partial tile: no bank twice
  using Sums = float[TILES][TOKENS / 2];
  static_assert(SPLITS == 1 || TOKENS * PITCH * 4 <= STAGES * (W_BYTES + X_BYTES),
                "a partial tile fits into the stages");
};

// The stages of a block. Step `i` of its work uses stage `i % STAGES`.
template <class T>
struct Ring {
  u32 base;  // 1024-byte aligned

  __device__ u32 w(u32 i) const { return base + i % T::STAGES * T::W_BYTES; }
  __device__ u32 x(u32 i) const {
    return base + T::STAGES * T::W_BYTES + i % T::STAGES * T::X_BYTES;
  }
  __device__ u32 full(u32 i) const {
    return base + T::STAGES * (T::W_BYTES + T::X_BYTES) + i % T::STAGES * 8;
  }
  __device__ u32 empty(u32 i) const { return full(i) + T::STAGES * 8; }
  __device__ static u32 parity(u32 i) { return i / T::STAGES % 2; }

  __device__ void init() const {
    for (u32 i = 0; i < T::STAGES; i++) {
      barrier_init(full(i), 1);
      barrier_init(empty(i), T::GROUPS);
    }
    barrier_init_fence();
  }
};

// Tiles first, first + stride, .. of a block, and its part of the inputs: `chunks` from `chunk`.
struct Work {
  u32 first, stride, tiles, chunk, chunks;

  template <class T>
  __device__ static Work of_block(u32 inputs, u32 outputs) {
    const u32 rank = blockIdx.x % T::SPLITS, all = inputs / CHUNK, chunk = all * rank / T::SPLITS;
    return {blockIdx.x / T::SPLITS, gridDim.x / T::SPLITS, (outputs + T::ROWS - 1) / T::ROWS, chunk,
            all * (rank + 1) / T::SPLITS - chunk};
  }
  __device__ u32 steps() const {
    return first < tiles ? (tiles - first + stride - 1) / stride * chunks : 0;
  }
};

// The copying warp.
template <class T>
__device__ inline void produce(const Ring<T> ring, const Work work, const TensorMap& w,
                               const TensorMap& x) {
  const bool leader = threadIdx.x % WARP == 0;
  const u64 once = evict_first(), often = evict_last();
  const u32 steps = work.steps(), ahead = steps < T::STAGES ? steps : T::STAGES;
  auto load_w = [&](u32 i) {
    const u32 row = (work.first + i / work.chunks * work.stride) * T::ROWS,
              column = (work.chunk + i % work.chunks) * CHUNK;
    barrier_expect(ring.full(i), T::W_BYTES + T::X_BYTES);
#pragma unroll
    for (u32 box = 0; box < T::ROWS / BOX_ROWS; box++)
      copy_box(ring.w(i) + box * BOX_BYTES, w, column, row + box * BOX_ROWS, ring.full(i), once);
  };
  auto load_x = [&](u32 i) {
    copy_box(ring.x(i), x, (work.chunk + i % work.chunks) * CHUNK, 0, ring.full(i), often);
  };
  if (leader)
    for (u32 i = 0; i < ahead; i++) load_w(i);
  wait_for_predecessor();
  release_successor();  // which may then count on x
  if (leader) {
    for (u32 i = 0; i < ahead; i++) load_x(i);
    for (u32 i = ahead; i < steps; i++) {
      barrier_wait(ring.empty(i), Ring<T>::parity(i - T::STAGES));
      load_w(i);
      load_x(i);
    }
  }
  __syncwarp();
}

// One tile by the consumers: sums over steps step .. step + chunks.
template <class T>
__device__ inline void consume(const Ring<T> ring, u32 step, u32 chunks, typename T::Sums& sums) {
  const u32 group = threadIdx.x / GROUP;
  auto release = [&](u32 i) {
    if (threadIdx.x % GROUP == 0) barrier_arrive(ring.empty(i));
  };
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++)
#pragma unroll
    for (u32 i = 0; i < T::TOKENS / 2; i++) sums[t][i] = 0.f;
  for (u32 i = step; i < step + chunks; i++) {
    barrier_wait(ring.full(i), Ring<T>::parity(i));
    products_begin();
#pragma unroll
    for (u32 k = 0; k < CHUNK / 16; k++)
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++)
        multiply_async<T::TOKENS>(sums[t],
                                  operand(ring.w(i) + (group * T::TILES + t) * BOX_BYTES + k * 32),
                                  operand(ring.x(i) + k * 32));
    products_commit();
    if (i > step) {
      products_wait<1>();
      release(i - 1);
    }
  }
  products_wait<0>();
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++)
#pragma unroll
    for (u32 i = 0; i < T::TOKENS / 2; i++)
      asm volatile("" : "+f"(sums[t][i])::"memory");  // not read before the wait
  release(step + chunks - 1);
}

// Calls `f(row of the tile, token, sum)` for every sum of a thread.
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

// Adds up the partial tiles [TOKENS, PITCH] of the cluster's blocks, each block a share of them,
// and writes y.
template <class T>
__device__ inline void add_partials(u32 partial, u32 tile, float* y, u32 rows, u32 outputs) {
  const u32 rank = blockIdx.x % T::SPLITS;
  constexpr u32 QUADS = T::ROWS / 4;
  for (u32 i = rank * T::THREADS + threadIdx.x; i < rows * QUADS; i += T::SPLITS * T::THREADS) {
    const u32 token = i / QUADS, row = i % QUADS * 4, output = tile * T::ROWS + row;
    if (output >= outputs) continue;
    float4 part[T::SPLITS];
#pragma unroll
    for (u32 j = 0; j < T::SPLITS; j++)
      part[j] = load_cluster(partial + (token * T::PITCH + row) * 4, j);
#pragma unroll
    for (u32 j = 1; j < T::SPLITS; j++) {
      part[0].x += part[j].x;
      part[0].y += part[j].y;
      part[0].z += part[j].z;
      part[0].w += part[j].w;
    }
    *reinterpret_cast<float4*>(y + u64(token) * outputs + output) = part[0];
  }
}

// rows <= TOKENS; inputs a multiple of CHUNK, at least one chunk per split; outputs a multiple
// of 8. Grid: SPLITS blocks per tile, or with one split any number of blocks.
template <class T>
__device__ inline void multiply(const TensorMap& w, const TensorMap& x, float* y, u32 rows,
                                u32 inputs, u32 outputs) {
  extern __shared__ u8 shared[];
  const Ring<T> ring{(shared_address(shared) + 1023) & ~1023u};
  const Work work = Work::of_block<T>(inputs, outputs);
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  if (threadIdx.x >= T::GROUPS * GROUP) {
    produce<T>(ring, work, w, x);
  } else {
    wait_for_predecessor();
    typename T::Sums sums;
    u32 step = 0;
    for (u32 tile = work.first; tile < work.tiles; tile += work.stride, step += work.chunks) {
      consume<T>(ring, step, work.chunks, sums);
      if constexpr (T::SPLITS == 1)
        for_each_sum<T>(sums, [&](u32 row, u32 token, float sum) {
          const u32 output = tile * T::ROWS + row;
          if (output < outputs && token < rows) y[u64(token) * outputs + output] = sum;
        });
    }
    if constexpr (T::SPLITS > 1) {
      asm volatile("bar.sync 1, %0;" ::"n"(T::GROUPS * GROUP)
                   : "memory");  // every stage has been read and is free
      for_each_sum<T>(sums, [&](u32 row, u32 token, float sum) {
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(ring.base + (token * T::PITCH + row) * 4),
                     "f"(sum)
                     : "memory");
      });
    }
  }
  if constexpr (T::SPLITS > 1) {
    cluster_sync();
    add_partials<T>(ring.base, work.first, y, rows, outputs);
    cluster_sync();  // no block ends while another reads its sums
  }
}

#define MATMUL_DECODE(ROWS, TOKENS, SPLITS)                                                     \
  extern "C" __global__ void __launch_bounds__(Tiling<ROWS, TOKENS, SPLITS>::THREADS,           \
                                               Tiling<ROWS, TOKENS, SPLITS>::PER_PROCESSOR)     \
      matmul_decode_##ROWS##_##TOKENS##_##SPLITS(const __grid_constant__ TensorMap w,           \
                                                 const __grid_constant__ TensorMap x, float* y, \
                                                 u32 rows, u32 inputs, u32 outputs) {           \
    multiply<Tiling<ROWS, TOKENS, SPLITS>>(w, x, y, rows, inputs, outputs);                     \
  }
#define MATMUL_DECODE_TOKENS(TOKENS, NARROW, WIDE) \
  MATMUL_DECODE(NARROW, TOKENS, 1)                 \
  MATMUL_DECODE(WIDE, TOKENS, 1)                   \
  MATMUL_DECODE(NARROW, TOKENS, 4)                 \
  MATMUL_DECODE(WIDE, TOKENS, 4)
MATMUL_DECODE_TOKENS(8, 64, 128)
MATMUL_DECODE_TOKENS(16, 64, 128)
MATMUL_DECODE_TOKENS(32, 64, 128)
MATMUL_DECODE_TOKENS(64, 64, 128)
MATMUL_DECODE_TOKENS(128, 64, 256)

#endif
