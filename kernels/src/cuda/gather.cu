// out[i] = x[logit_rows[i]]: x [rows, hidden], out [logits, hidden], both f32 or both bf16; and the
// squares that go with a row, `parts` of them. One block per row of out.
#include "prelude.cuh"

template <class T, int V>
__device__ void copy_row(const T* from, T* to, u32 hidden) {
  using Part = Pack<T, V>;
  for (u32 i = threadIdx.x * V; i < hidden; i += blockDim.x * V)
    *reinterpret_cast<Part*>(to + i) = *reinterpret_cast<const Part*>(from + i);
}

template <class T>
__device__ void gather(const Step& step, const void* x, void* out, u32 hidden, const float* squares,
                       float* squares_out, u32 parts) {
  release_successor();
  wait_for_predecessor();
  if (blockIdx.x >= step.counts->logits) return;
  const u64 row = step.logit_rows[blockIdx.x];
  for (u32 i = threadIdx.x; i < parts; i += blockDim.x)
    squares_out[u64(blockIdx.x) * parts + i] = squares[row * parts + i];
  const T* from = static_cast<const T*>(x) + row * hidden;
  T* to = static_cast<T*>(out) + u64(blockIdx.x) * hidden;
  constexpr int WIDE = 16 / sizeof(T);
  if (hidden % WIDE == 0) copy_row<T, WIDE>(from, to, hidden);
  else copy_row<T, 1>(from, to, hidden);
}

#define PARAMETERS                                                                           \
  Step step, const void *x, void *out, u32 hidden, const float *squares, float *squares_out, \
      u32 parts
extern "C" __global__ void gather_f32(PARAMETERS) {
  gather<float>(step, x, out, hidden, squares, squares_out, parts);
}
extern "C" __global__ void gather_bf16(PARAMETERS) {
  gather<bf16>(step, x, out, hidden, squares, squares_out, parts);
}
