// out[row] = table[token of row]: table [vocabulary, hidden] of T, out [rows, hidden] f32. One
// block per row. drawn: tokens of the latest draw.
#include "prelude.cuh"

template <class T, int V>
__device__ void widen_row(const T* from, float* to, u32 hidden) {
  for (u32 i = threadIdx.x * V; i < hidden; i += blockDim.x * V) {
    const Pack<T, V> weights = *reinterpret_cast<const Pack<T, V>*>(from + i);
    Pack<float, V> wide;
#pragma unroll
    for (int j = 0; j < V; j++) wide.at[j] = to_float(weights.at[j]);
    *reinterpret_cast<Pack<float, V>*>(to + i) = wide;
  }
}

template <class T>
__device__ void embed(const Step& step, const u32* drawn, const void* table, float* out,
                      u32 hidden) {
  release_successor();
  wait_for_predecessor();
  const u32 row = blockIdx.x;
  if (row >= step.counts->rows) return;
  const u32 source = step.tokens[row];
  const u32 token = source & DRAWN ? drawn[source & ~DRAWN] : source;
  const T* from = static_cast<const T*>(table) + u64(token) * hidden;
  float* to = out + u64(row) * hidden;
  if (hidden % 4 == 0) widen_row<T, 4>(from, to, hidden);
  else widen_row<T, 1>(from, to, hidden);
}

extern "C" __global__ void embed_f32(Step step, const u32* drawn, const void* table, float* out,
                                     u32 hidden) {
  embed<float>(step, drawn, table, out, hidden);
}
extern "C" __global__ void embed_f16(Step step, const u32* drawn, const void* table, float* out,
                                     u32 hidden) {
  embed<f16>(step, drawn, table, out, hidden);
}
extern "C" __global__ void embed_bf16(Step step, const u32* drawn, const void* table, float* out,
                                      u32 hidden) {
  embed<bf16>(step, drawn, table, out, hidden);
}
