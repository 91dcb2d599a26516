// Rotary embedding of one pair of elements, for kernels that have to agree bit for bit.
#pragma once
#include "prelude.cuh"

struct Turn {
  float cosine, sine;
};

// The angle is the f32 product that the CPU takes sine and cosine of.
__device__ inline Turn turn_at(u32 position, float inv_freq) {
  Turn turn;
  sincosf(__fmul_rn(float(position), inv_freq), &turn.sine, &turn.cosine);
  return turn;
}

// Intrinsics, because a compiler is free to fuse either product with the sum.
__device__ inline void rotate(float& x, float& y, const Turn& by) {
  const float first = __fmaf_rn(x, by.cosine, -__fmul_rn(y, by.sine));
  y = __fmaf_rn(y, by.cosine, __fmul_rn(x, by.sine));
  x = first;
}
