// Half pages - keys or values - of attention while it decodes: from the pool into slots of shared
// memory, and from there into the fragments of its products.
//
// A lane reads back nothing but what it has copied itself, so slots need no barriers. A chunk of 16
// bytes holds 8 neighbours of a head, so products run over a permutation of head_dim that queries
// and keys, or values and outputs, share.
#pragma once
#include "attention.cuh"

// Query heads of a pass: the width of the second product.
constexpr u32 HEADS = 8;
// Halves of a page.
constexpr u32 KEYS = 0, VALUES = 1;

// Queries; then the newest key and value, where they are not in their page yet. Padded against bank
// conflicts.
template <u32 DIM>
using Rows = bf16[HEADS + 2][DIM + 32];

// 8 neighbours of a head.
using Chunk = Pack<u32, 4>;
// A lane's, of a half page; in a slot they stand WARP apart.
template <u32 DIM>
constexpr u32 CHUNKS = DIM / 16;

// Where a chunk begins in its half page.
struct Place {
  u32 token, element;
};

// A lane's chunk `i` is at `base_of() + step_of(i)`. Keys: tokens g (+ 8), elements 8 t + 32 j.
// Values: tokens 2 t (+ 1, 8, 9), elements 8 g + 64 c. g = lane / 4, t = lane % 4.
template <u32 HALF>
__device__ inline Place base_of() {
  const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  if (HALF == KEYS) return {g, 8 * t};
  return {2 * t, 8 * g};
}
template <u32 DIM, u32 HALF>
__device__ constexpr Place step_of(u32 i) {
  if (HALF == KEYS) return {8 * (i / (DIM / 32)), 32 * (i % (DIM / 32))};
  const u32 n = i / (DIM / 64), c = i % (DIM / 64);
  return {n % 2 + 8 * (n / 2), 64 * c};
}

// Brings `half_page` [PAGE_TOKENS, head_dim] to a slot, asynchronously. What lies behind the first
// `tokens` or behind head_dim is not read but becomes zeros: its weights are 0, but 0 * NaN is not.
template <u32 DIM, u32 HALF>
__device__ inline void request(Chunk* slot, const bf16* half_page, u32 head_dim, u32 tokens) {
  const Place base = base_of<HALF>();
  const int tokens_left = int(tokens) - int(base.token), left = int(head_dim) - int(base.element);
  const u32 to = shared_address(slot);
  const bf16* from = half_page + base.token * head_dim + base.element;
#pragma unroll
  for (u32 i = 0; i < CHUNKS<DIM>; ++i) {
    const Place step = step_of<DIM, HALF>(i);
    copy_async(to + i * WARP * sizeof(Chunk), from + step.token * head_dim + step.element,
               int(step.token) < tokens_left && int(step.element) < left);
  }
}

// Puts the newest key or value in its token's place of a slot that has been filled.
template <u32 DIM, u32 HALF>
__device__ inline void renew(Chunk* slot, const Rows<DIM>& rows, u32 token) {
  const Place base = base_of<HALF>();
#pragma unroll
  for (u32 i = 0; i < CHUNKS<DIM>; ++i) {
    const Place step = step_of<DIM, HALF>(i);
    if (step.token == token - base.token)
      slot[i * WARP] =
          *reinterpret_cast<const Chunk*>(&rows[HEADS + HALF][base.element + step.element]);
  }
}

// Exponents over a page: word 2 half + i is token g + 8 half's, head 2 t + i's. Tokens are rows of
// the product, heads its columns.
template <u32 DIM>
__device__ inline void score(float (&s)[4], const Rows<DIM>& rows, const Chunk* keys, float scale,
                             u32 tokens) {
  const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  float first[4] = {}, second[4] = {};  // of each chunk's halves, for shorter chains of products
#pragma unroll
  for (u32 j = 0; j < DIM / 32; ++j) {
    const Chunk q = *reinterpret_cast<const Chunk*>(&rows[g][8 * (4 * j + t)]);
    const Chunk upper = keys[j * WARP], lower = keys[(DIM / 32 + j) * WARP];
    const u32 a[4] = {upper.at[0], lower.at[0], upper.at[1], lower.at[1]};
    const u32 b[4] = {upper.at[2], lower.at[2], upper.at[3], lower.at[3]};
    mma_bf16(first, a, {q.at[0], q.at[1]});
    mma_bf16(second, b, {q.at[2], q.at[3]});
  }
#pragma unroll
  for (u32 word = 0; word < 4; ++word)
    s[word] = g + 8 * (word / 2) < tokens ? (first[word] + second[word]) * scale : -infinity();
}

// o += values^T s^T, s as from `score`. o[4 c + e]: elements 8 (8 c + g) + 2 e (words 0, 1) and
// + 2 e + 1 (words 2, 3) of heads 2 t (words 0, 2) and 2 t + 1.
template <u32 DIM>
__device__ inline void mix(float (&o)[DIM / 16][4], const float (&s)[4], const Chunk* values) {
  const u32 weights[2] = {transpose(pack_bf16(s[0], s[1])), transpose(pack_bf16(s[2], s[3]))};
#pragma unroll
  for (u32 c = 0; c < DIM / 64; ++c) {
    Chunk tokens[4];
#pragma unroll
    for (u32 n = 0; n < 4; ++n) tokens[n] = values[(n * (DIM / 64) + c) * WARP];
#pragma unroll
    for (u32 e = 0; e < 4; ++e) {
      // Neighbouring tokens of one element in one word: even elements by the low halves, odd ones
      // by the high.
      const u32 a[4] = {__byte_perm(tokens[0].at[e], tokens[1].at[e], 0x5410),
                        __byte_perm(tokens[0].at[e], tokens[1].at[e], 0x7632),
                        __byte_perm(tokens[2].at[e], tokens[3].at[e], 0x5410),
                        __byte_perm(tokens[2].at[e], tokens[3].at[e], 0x7632)};
      mma_bf16(o[4 * c + e], a, weights);
    }
  }
}

// Sums over tokens. Rows are padded against bank conflicts.
template <u32 DIM>
using Outputs = float[HEADS][DIM + 4];

// `o` as `mix` leaves it.
template <u32 DIM>
__device__ inline void put_outputs(Outputs<DIM>& outputs, const float (&o)[DIM / 16][4]) {
  const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
  for (u32 c = 0; c < DIM / 64; ++c) {
#pragma unroll
    for (u32 odd = 0; odd < 2; ++odd) {
      float4* to = reinterpret_cast<float4*>(&outputs[2 * t + odd][8 * (8 * c + g)]);
      to[0] =
          make_float4(o[4 * c][odd], o[4 * c][2 + odd], o[4 * c + 1][odd], o[4 * c + 1][2 + odd]);
      to[1] = make_float4(o[4 * c + 2][odd], o[4 * c + 2][2 + odd], o[4 * c + 3][odd],
                          o[4 * c + 3][2 + odd]);
    }
  }
}
