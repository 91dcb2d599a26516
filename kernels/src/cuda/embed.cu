// out[row] = table[token of row]: table [vocabulary, hidden] of T, out [rows, hidden] f32. One block per row.
#include "prelude.cuh"

template <class T, int V> __device__ void widen_row(const T* from, float* to, u32 hidden) {
  for (u32 i = threadIdx.x * V; i < hidden; i += blockDim.x * V) {
    const Pack<T, V> weights = *reinterpret_cast<const Pack<T, V>*>(from + i);
    Pack<float, V> wide;
#pragma unroll
    for (int j = 0; j < V; j++) wide.at[j] = to_float(weights.at[j]);
    *reinterpret_cast<Pack<float, V>*>(to + i) = wide;
  }
}

template <class T> __device__ void embed(const Step& step, const void* table, float* out, u32 hidden) {
  release_successor();
  wait_for_predecessor();
  const u32 row = blockIdx.x;
  if (row >= step.counts->rows) return;
  const T* from = static_cast<const T*>(table) + u64(step.tokens[row]) * hidden;
  float* to = out + u64(row) * hidden;
  if (hidden % 4 == 0) widen_row<T, 4>(from, to, hidden);
  else widen_row<T, 1>(from, to, hidden);
}

extern "C" __global__ void embed_f32(Step step, const void* table, float* out, u32 hidden) { embed<float>(step, table, out, hidden); }
extern "C" __global__ void embed_f16(Step step, const void* table, float* out, u32 hidden) { embed<f16>(step, table, out, hidden); }
extern "C" __global__ void embed_bf16(Step step, const void* table, float* out, u32 hidden) { embed<bf16>(step, table, out, hidden); }
