// Low ranks of few rows, s = scale x A^T, summed up in fixed point: a sum of whole numbers is the
// same in any order, so whoever has a part of the inputs adds what it gives. A word counts in its
// low bits the inputs that it has, in eights, which tells a reader when it is complete.
#pragma once
#include "prelude.cuh"

using i64 = long long;

constexpr u32 COUNT_BITS = 13;
// The unit of a sum. Sums reach to 2^25, where those of f32 are four apart.
constexpr float UNIT = 1.0f / (1 << 25);

__device__ inline float from_fixed(i64 word) { return __ll2float_rn(word >> COUNT_BITS) * UNIT; }

// Adds what so many inputs give to a word, in this thread's own time.
__device__ inline void add_part(i64* word, float part, u32 inputs) {
  const i64 units = __float2ll_rn(part * (1 / UNIT)) << COUNT_BITS;
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(word), "l"(units + inputs / 8)
               : "memory");
}

// Two neighbouring words, as they are at the time.
struct TwoWords {
  i64 at[2];

  __device__ void load(const i64* words) {
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(at[0]), "=l"(at[1])
                 : "l"(words)
                 : "memory");
  }
  // Complete zeros.
  __device__ void clear(u32 inputs) { at[0] = at[1] = inputs / 8; }
  // Whether both have so many inputs.
  __device__ bool is_complete(u32 inputs) const {
    constexpr u32 COUNT = (1 << COUNT_BITS) - 1;
    const auto differs = [&](i64 word) { return (u32(word) ^ inputs / 8) & COUNT; };
    return !(differs(at[0]) | differs(at[1]));
  }
};
