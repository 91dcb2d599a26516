// residual += y + bias + delta, then out = residual / sqrt(mean(residual^2) + eps) * weight:
// residual and out [rows, hidden]. Blocks of a cluster take a slice of the columns each: for one
// multiprocessor a row, and the adapter's part of it, is much to read. Where there are no clusters
// a row is one slice.
#pragma once
#include "expand.cuh"

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
  u32 rows;           // of a block
};

// The block's columns.
struct Slice {
  u32 index, begin, end;

  __device__ explicit Slice(const Norm& norm)
      : index(blockIdx.x % norm.slices),
        begin(least(index * norm.slice, norm.hidden)),
        end(least(begin + norm.slice, norm.hidden)) {}
};

// Who goes over a row together: neighbours take neighbouring columns.
struct Team {
  u32 member, size;
};

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

// ---- rows

// Adds y + bias + delta to a row's residual and leaves it in `x` [slice] too. Gives the member's
// sum of squares. `delta`: [slice], `x` or null. BATCH: columns asked for at a time, each V.
template <class Y, int V, u32 BATCH>
__device__ float add(const Pending& pending, const Norm& norm, u32 row, const Slice& slice,
                     const Team& team, const float* delta, float* x) {
  using Floats = Pack<float, V>;
  float* residual = norm.residual + u64(row) * norm.hidden;
  float squares = 0;
  for (u32 first = slice.begin + team.member * V; first < slice.end;
       first += BATCH * team.size * V) {
    Floats sums[BATCH];
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) {
      const u32 i = first + b * team.size * V;
      if (i < slice.end) sums[b] = *reinterpret_cast<const Floats*>(residual + i);
    }
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) {
      const u32 i = first + b * team.size * V;
      if (i >= slice.end || !pending.y) continue;
      const float* own = delta ? delta + (i - slice.begin) : nullptr;
      const Floats more = finish<Y, V>(pending, row, i, own);
#pragma unroll
      for (int j = 0; j < V; j++) sums[b].at[j] += more.at[j];
    }
#pragma unroll
    for (u32 b = 0; b < BATCH; b++) {
      const u32 i = first + b * team.size * V;
      if (i >= slice.end) continue;
      if (pending.y) *reinterpret_cast<Floats*>(residual + i) = sums[b];
      *reinterpret_cast<Floats*>(x + (i - slice.begin)) = sums[b];
#pragma unroll
      for (int j = 0; j < V; j++) squares += sums[b].at[j] * sums[b].at[j];
    }
  }
  return squares;
}

// Writes a row of what its residuals in `x` [slice] come to, once the sum of their squares is
// known. A member has what it left there, or another of its block.
template <class T, int V>
__device__ void write_row(const Norm& norm, u32 row, const Slice& slice, const Team& team,
                          float squares, const float* x) {
  using Out = Activation<T>;
  using Floats = Pack<float, V>;
  const float scale = 1 / sqrtf(squares / norm.hidden + norm.eps);
  Out* out = static_cast<Out*>(norm.out) + u64(row) * norm.hidden;
#pragma unroll 4
  for (u32 i = slice.begin + team.member * V; i < slice.end; i += team.size * V) {
    const Floats weight = *reinterpret_cast<const Floats*>(norm.weight + i);
    Floats scaled = *reinterpret_cast<const Floats*>(x + (i - slice.begin));
#pragma unroll
    for (int j = 0; j < V; j++) scaled.at[j] = scaled.at[j] * scale * weight.at[j];
    store<Out, V>(out + i, scaled);
  }
}
