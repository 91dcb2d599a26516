// What the kernels of attention share.
#pragma once
#include "prelude.cuh"

// 2^x, exactly 0 at -infinity.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Dot products times this are exponents of two, so that softmax takes no base change per score.
__device__ inline float score_scale(u32 head_dim) { return 1.44269504f / sqrtf(float(head_dim)); }

// Over the four lanes that hold one row of a product's fragment.
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// Over the eight lanes that hold one column of a product's fragment.
__device__ inline float column_max(float x) {
#pragma unroll
  for (u32 lanes = 4; lanes < WARP; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
__device__ inline float column_sum(float x) {
#pragma unroll
  for (u32 lanes = 4; lanes < WARP; lanes *= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// Of a fragment of 8 rows and 8 columns, two neighbours of a row in a word: row and column change
// places.
__device__ inline u32 transpose(u32 pair) {
  u32 y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(pair));
  return y;
}

// Shares of a sum over positions are kept as (o, m, l): weighted values, highest exponent, sum of
// weights, with weights 2^(exponent - m). A share of no position has m = -infinity and l = 0. One
// thread's four columns of the whole:
struct Sum {
  float o[4];
  float m, l;
};

// The whole of `count` shares, in their order; at least one is of some position.
template <class Shares>
__device__ inline Sum merge(const Shares& shares, u32 count) {
  Sum sum = {{0, 0, 0, 0}, -infinity(), 0};
#pragma unroll 4
  for (u32 i = 0; i < count; ++i) sum.m = fmaxf(sum.m, shares.m(i));
#pragma unroll 4
  for (u32 i = 0; i < count; ++i) {
    float weight = exp2_approximate(shares.m(i) - sum.m);
    float4 o = shares.o(i);
    sum.l += weight * shares.l(i);
    sum.o[0] += weight * o.x;
    sum.o[1] += weight * o.y;
    sum.o[2] += weight * o.z;
    sum.o[3] += weight * o.w;
  }
  return sum;
}
