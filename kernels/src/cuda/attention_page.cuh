// Half pages - keys or values - of attention while it decodes: from the pool into slots of shared
// memory, and from there into the fragments of its products.
//
// A warp asks for whole rows of a half page at once, half a line being as dear as a line. Its lanes
// read what others of them have copied, so it meets between a slot's filling and its reading, and
// between that and the next filling.
#pragma once
#include "attention.cuh"

// Query heads of a pass: the width of the second product.
constexpr u32 HEADS = 8;
// Halves of a page.
constexpr u32 KEYS = 0, VALUES = 1;

// Queries; then the newest key and value, where they are not in their page yet. Padded against bank
// conflicts.
template <u32 DIM>
using Rows = bf16[HEADS + 2][DIM + 8];

// 8 neighbours of a head.
using Chunk = Pack<u32, 4>;
// Of a token.
template <u32 DIM>
constexpr u32 CHUNKS = DIM / 8;
template <u32 DIM>
constexpr u32 SLOT_CHUNKS = PAGE_TOKENS * CHUNKS<DIM>;
// Tokens that a warp copies at once.
template <u32 DIM>
constexpr u32 COPIED = WARP / CHUNKS<DIM>;
// Slots begin at multiples, so that chunks of an address change places by its bits.
constexpr u32 SLOT_ALIGN = 8 * sizeof(Chunk);

// Where a token's chunk is in its slot. Of eight tokens in a row, like chunks are in different
// banks.
template <u32 DIM>
__device__ inline u32 place(u32 token, u32 chunk) {
  return token * CHUNKS<DIM> + (chunk ^ token % 8);
}
// From a place in tokens 0..COPIED to its like `i * COPIED` tokens on; in bytes.
template <u32 DIM>
__device__ inline u32 tokens_on(u32 address, u32 i) {
  return (address ^ i * COPIED<DIM> % 8 * sizeof(Chunk)) + i * WARP * sizeof(Chunk);
}
// From a place of chunk 0 or 1 to its like `2 * i` chunks on; in bytes.
__device__ inline u32 chunks_on(u32 address, u32 i) {
  return (address ^ 2 * i % 8 * sizeof(Chunk)) + 2 * i / 8 * SLOT_ALIGN;
}

// Brings `half_page` [PAGE_TOKENS, head_dim] to a slot, asynchronously. What lies behind the first
// `tokens` or behind head_dim is not read but becomes zeros: its weights are 0, but 0 * NaN is not.
template <u32 DIM>
__device__ inline void request(Chunk* slot, const bf16* half_page, u32 head_dim, u32 tokens) {
  const u32 token = threadIdx.x % WARP / CHUNKS<DIM>, chunk = threadIdx.x % CHUNKS<DIM>;
  const int left = chunk * 8 < head_dim ? int(tokens) - int(token) : 0;
  const u32 to = shared_address(slot + place<DIM>(token, chunk));
  const bf16* from = half_page + token * head_dim + chunk * 8;
#pragma unroll
  for (u32 i = 0; i < PAGE_TOKENS / COPIED<DIM>; ++i)
    copy_async_once(tokens_on<DIM>(to, i), from + i * COPIED<DIM> * head_dim,
                    int(i * COPIED<DIM>) < left);
}

// Puts a row's newest key or value in its token's place of a slot. A lane writes over what it has
// itself copied.
template <u32 DIM>
__device__ inline void renew(Chunk* slot, const bf16 (&row)[DIM + 8], u32 token) {
  const u32 chunk = threadIdx.x % CHUNKS<DIM>;
  if (threadIdx.x % WARP / CHUNKS<DIM> == token % COPIED<DIM>)
    slot[place<DIM>(token, chunk)] = *reinterpret_cast<const Chunk*>(&row[chunk * 8]);
}

// Queries as operands: words 2 i, 2 i + 1 of [j] are of elements 32 j + 16 i + 0..16.
template <u32 DIM>
using Queried = u32[DIM / 32][4];
template <u32 DIM>
__device__ inline void load_queries(Queried<DIM>& q, const Rows<DIM>& rows) {
  const u32 lane = threadIdx.x % WARP;
#pragma unroll
  for (u32 j = 0; j < DIM / 32; ++j)
    load_matrix_4(q[j], shared_address(&rows[lane % 8][32 * j + lane / 8 * 8]));
}

// Exponents over a page: word 2 half + i is token g + 8 half's, head 2 t + i's. Tokens are rows of
// the product, heads its columns; g = lane / 4, t = lane % 4.
template <u32 DIM>
__device__ inline void score(float (&s)[4], const Queried<DIM>& q, const Chunk* keys, float scale,
                             u32 tokens) {
  const u32 lane = threadIdx.x % WARP;
  const u32 from = shared_address(keys + place<DIM>(lane % 16, lane / 16));
  float even[4] = {}, odd[4] = {};  // for shorter chains of products
#pragma unroll
  for (u32 j = 0; j < DIM / 32; ++j) {
    u32 a[4], b[4];
    load_matrix_4(a, chunks_on(from, 2 * j));
    load_matrix_4(b, chunks_on(from, 2 * j + 1));
    mma_bf16(even, a, {q[j][0], q[j][1]});
    mma_bf16(odd, b, {q[j][2], q[j][3]});
  }
#pragma unroll
  for (u32 word = 0; word < 4; ++word)
    s[word] = lane / 4 + 8 * (word / 2) < tokens ? (even[word] + odd[word]) * scale : -infinity();
}

// o += values^T s^T, s as from `score`. o[c]: elements 16 c + g (words 0, 1) and + 8 (words 2, 3)
// of heads 2 t (words 0, 2) and 2 t + 1.
template <u32 DIM>
__device__ inline void mix(float (&o)[DIM / 16][4], const float (&s)[4], const Chunk* values) {
  const u32 weights[2] = {transpose(pack_bf16(s[0], s[1])), transpose(pack_bf16(s[2], s[3]))};
  const u32 lane = threadIdx.x % WARP;
  const u32 from = shared_address(values + place<DIM>(lane / 16 * 8 + lane % 8, lane / 8 % 2));
#pragma unroll
  for (u32 c = 0; c < DIM / 16; ++c) {
    u32 a[4];
    load_matrix_4_transposed(a, chunks_on(from, c));
    mma_bf16(o[c], a, weights);
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
  for (u32 c = 0; c < DIM / 16; ++c) {
#pragma unroll
    for (u32 word = 0; word < 4; ++word)
      outputs[2 * t + word % 2][16 * c + word / 2 * 8 + g] = o[c][word];
  }
}
