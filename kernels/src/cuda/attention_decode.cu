// Attention of sequences with one row in the batch, bf16, head_dim a multiple of 8 up to DIM.
//
// A block takes HEADS query heads of one key-value head, and splits of the sequence's positions. A
// warp takes two pages of a split, straight from global memory into the fragments of its products,
// so that all keys of a split are asked for at once, and values as soon as their place is free. A
// thread's 16 bytes hold 8 neighbours of a head, so products run over a permutation of head_dim
// that queries and keys, or values and outputs, share.
#include "attention.cuh"

constexpr u32 WARPS = 8;
// Query heads of a pass: the width of the second product.
constexpr u32 HEADS = 8;
constexpr u32 WARP_PAGES = 2;
// A sequence of 8,192 tokens and 8 key-value heads makes 256 blocks. What a split leaves for its
// sequence's last block is 1/32 of what it reads.
constexpr u32 SPLIT_PAGES = WARPS * WARP_PAGES;
constexpr u32 SPLIT_TOKENS = SPLIT_PAGES * PAGE_TOKENS;

// What the blocks of a sequence leave for its last one. `HEADS * (DIM + 2)` floats: o [HEADS, DIM],
// m [HEADS], l [HEADS].
template <u32 DIM>
constexpr u32 PARTIAL = HEADS * (DIM + 2);
template <u32 DIM>
__device__ inline u64 split_stride() {
  return u64(gridDim.y) * PARTIAL<DIM>;
}

// One sequence's row and the heads that a block serves.
struct Task {
  u32 row, length;  // positions 0..length
  u32 splits;
  const u32* pages;  // [length / PAGE_TOKENS, rounded up] slabs
  float* partials;   // of split 0
  u32 kv_head;
  u32 head, heads;  // first query head; 1..=HEADS of them
};

// Each warp's share of a split: `Outputs`, and in `Shared` its m and l. Rows are padded against
// bank conflicts.
template <u32 DIM>
using Outputs = float[WARPS][HEADS][DIM + 4];
extern __shared__ float4 dynamic_shared[];
template <u32 DIM>
__device__ inline Outputs<DIM>& outputs() {
  return reinterpret_cast<Outputs<DIM>&>(dynamic_shared);
}

template <u32 DIM>
struct Shared {
  float m[WARPS][HEADS];
  float l[WARPS][HEADS];
  alignas(16) bf16 q[HEADS][DIM + 32];
  Task task;  // here rather than in registers, which pages need
  bool last;
};

// 16 bytes of a page, past L1; zeros where `!valid`. Not the read-only path: the kernel before has
// just written pages.
__device__ inline void load_chunk(u32 (&to)[4], const bf16* from, bool valid) {
  to[0] = to[1] = to[2] = to[3] = 0;
  if (valid) {
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "l"(from));
  }
}

// A thread's part of a page's keys: tokens g (+8), elements 8 (4 j + t) .. +8; g = lane / 4, t =
// lane % 4.
template <u32 DIM>
using Keys = u32[2][DIM / 32][4];
// And of its values: tokens 2 t (+1, +8, +9), elements 8 (8 c + g) .. +8.
template <u32 DIM>
using Values = u32[4][DIM / 64][4];

// `page` [PAGE_TOKENS, head_dim], of which the first `tokens` are read.
template <u32 DIM>
__device__ inline void load_keys(Keys<DIM>& keys, const bf16* page, u32 head_dim, u32 tokens) {
  u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
#pragma unroll
    for (u32 j = 0; j < DIM / 32; ++j) {
      u32 token = g + 8 * half, element = 8 * (4 * j + t);
      load_chunk(keys[half][j], page + token * head_dim + element,
                 token < tokens && element < head_dim);
    }
  }
}

// As `load_keys`. Values past `tokens` become zeros: their weights are 0, but 0 * NaN is not.
template <u32 DIM>
__device__ inline void load_values(Values<DIM>& values, const bf16* page, u32 head_dim,
                                   u32 tokens) {
  u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
#pragma unroll
    for (u32 c = 0; c < DIM / 64; ++c) {
      u32 token = 2 * t + i % 2 + 8 * (i / 2), element = 8 * (8 * c + g);
      load_chunk(values[i][c], page + token * head_dim + element,
                 token < tokens && element < head_dim);
    }
  }
}

// Exponents over a page: word 2 half + i is head g's, token 8 half + 2 t + i.
template <u32 DIM>
__device__ inline void score(float (&s)[4], const Shared<DIM>& shared, const Keys<DIM>& keys,
                             float scale, u32 tokens) {
  u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    // A fragment is 16 rows high. Words 0 and 2 of a query stand in rows 0..8 and 1 and 3 in
    // rows 8..16; each product is right in the rows whose words meet their own, and the other rows
    // are not used.
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (u32 j = 0; j < DIM / 32; ++j) {
      uint4 q = *reinterpret_cast<const uint4*>(&shared.q[g][8 * (4 * j + t)]);
      u32 a[4] = {q.x, q.y, q.z, q.w};
      u32 even_keys[2] = {keys[half][j][0], keys[half][j][2]},
          odd_keys[2] = {keys[half][j][1], keys[half][j][3]};
      mma_bf16(even, a, even_keys);
      mma_bf16(odd, a, odd_keys);
    }
#pragma unroll
    for (u32 i = 0; i < 2; ++i)
      s[2 * half + i] =
          8 * half + 2 * t + i < tokens ? (even[i] + odd[2 + i]) * scale : -infinity();
  }
}

// o += values^T s^T: exponents become the second operand's fragment as they stand.
// o[4 c + e]: elements 8 (8 c + g) + 2 e (words 0, 1) and + 2 e + 1 (words 2, 3) of heads 2 t
// (words 0, 2) and 2 t + 1.
template <u32 DIM>
__device__ inline void mix(float (&o)[DIM / 16][4], const float (&s)[4],
                           const Values<DIM>& values) {
  u32 weights[2] = {pack_bf16(s[0], s[1]), pack_bf16(s[2], s[3])};
#pragma unroll
  for (u32 c = 0; c < DIM / 64; ++c) {
#pragma unroll
    for (u32 e = 0; e < 4; ++e) {
      // Neighbouring tokens of one element in one word: even elements by the low halves, odd ones
      // by the high.
      u32 a[4] = {__byte_perm(values[0][c][e], values[1][c][e], 0x5410),
                  __byte_perm(values[0][c][e], values[1][c][e], 0x7632),
                  __byte_perm(values[2][c][e], values[3][c][e], 0x5410),
                  __byte_perm(values[2][c][e], values[3][c][e], 0x7632)};
      mma_bf16(o[4 * c + e], a, weights);
    }
  }
}

template <u32 DIM>
__device__ inline void publish(Shared<DIM>& shared, const float (&o)[DIM / 16][4], float m,
                               float l) {
  u32 warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  if (t == 0) {
    shared.m[warp][g] = m;
    shared.l[warp][g] = l;
  }
#pragma unroll
  for (u32 c = 0; c < DIM / 64; ++c) {
#pragma unroll
    for (u32 odd = 0; odd < 2; ++odd) {
      float4* to = reinterpret_cast<float4*>(&outputs<DIM>()[warp][2 * t + odd][8 * (8 * c + g)]);
      to[0] =
          make_float4(o[4 * c][odd], o[4 * c][2 + odd], o[4 * c + 1][odd], o[4 * c + 1][2 + odd]);
      to[1] = make_float4(o[4 * c + 2][odd], o[4 * c + 2][2 + odd], o[4 * c + 3][odd],
                          o[4 * c + 3][2 + odd]);
    }
  }
}

// A warp's share of a split: pages `warp` and `warp + WARPS`, as far as the sequence has them.
template <u32 DIM>
__device__ inline void attend(Shared<DIM>& shared, const Pool& pool, u32 head_dim, u32 layer,
                              u32 split) {
  const Task& task = shared.task;
  u32 slab[WARP_PAGES], tokens[WARP_PAGES];
  Keys<DIM> keys[WARP_PAGES];
#pragma unroll
  for (u32 i = 0; i < WARP_PAGES; ++i) {
    u32 page = split * SPLIT_PAGES + threadIdx.x / WARP + i * WARPS, start = page * PAGE_TOKENS;
    tokens[i] = start < task.length ? min(task.length - start, PAGE_TOKENS) : 0;
    slab[i] = task.pages[tokens[i] ? page : 0];
    load_keys<DIM>(keys[i], page_head<bf16>(pool, slab[i], layer, 0, task.kv_head), head_dim,
                   tokens[i]);
  }
  copy_wait<0>();
  __syncthreads();  // queries are there
  float scale = score_scale(head_dim), m = -infinity(), l = 0, s[WARP_PAGES][4],
        o[DIM / 16][4] = {};
  Values<DIM> values[WARP_PAGES];
#pragma unroll
  for (u32 i = 0; i < WARP_PAGES; ++i) {
    score<DIM>(s[i], shared, keys[i], scale, tokens[i]);
    load_values<DIM>(values[i], page_head<bf16>(pool, slab[i], layer, 1, task.kv_head), head_dim,
                     tokens[i]);
    m = fmaxf(m, quad_max(fmaxf(fmaxf(s[i][0], s[i][1]), fmaxf(s[i][2], s[i][3]))));
  }
  float highest = tokens[0] ? m : 0;  // without a token, weights are 2^(-infinity - 0)
#pragma unroll
  for (u32 i = 0; i < WARP_PAGES; ++i) {
#pragma unroll
    for (u32 word = 0; word < 4; ++word) {
      s[i][word] = exp2_approximate(s[i][word] - highest);
      l += s[i][word];
    }
    mix<DIM>(o, s[i], values[i]);
  }
  publish<DIM>(shared, o, m, quad_sum(l));
}

// Four columns of one head over the warps of a block.
template <u32 DIM>
struct WarpShares {
  const Shared<DIM>& shared;
  u32 head, column;
  __device__ float m(u32 i) const { return shared.m[i][head]; }
  __device__ float l(u32 i) const { return shared.l[i][head]; }
  __device__ float4 o(u32 i) const {
    return *reinterpret_cast<const float4*>(&outputs<DIM>()[i][head][column]);
  }
};

// And over the splits of a sequence, which other blocks have written: past L1.
template <u32 DIM>
struct SplitShares {
  const float* partials;  // of split 0
  u32 head, column;
  __device__ float m(u32 i) const {
    return __ldcg(partials + i * split_stride<DIM>() + HEADS * DIM + head);
  }
  __device__ float l(u32 i) const {
    return __ldcg(partials + i * split_stride<DIM>() + HEADS * DIM + HEADS + head);
  }
  __device__ float4 o(u32 i) const {
    return __ldcg(
        reinterpret_cast<const float4*>(partials + i * split_stride<DIM>() + head * DIM + column));
  }
};

// Calls `at(head, column)` for every four columns of the block's heads.
template <u32 DIM, class At>
__device__ inline void each_column(u32 heads, u32 head_dim, const At& at) {
  for (u32 i = threadIdx.x; i < heads * (DIM / 4); i += WARPS * WARP) {
    u32 head = i / (DIM / 4), column = i % (DIM / 4) * 4;
    if (column < head_dim) at(head, column);
  }
}

// `out` [rows, heads, head_dim]
__device__ inline void store(bf16* out, u64 head, u32 head_dim, u32 column, const Sum& sum) {
  Pack<bf16, 4> values;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) values.at[i] = from_float<bf16>(sum.o[i] / sum.l);
  *reinterpret_cast<Pack<bf16, 4>*>(out + head * head_dim + column) = values;
}

// Asynchronously; zeros for the heads and elements that there are not.
template <u32 DIM>
__device__ inline void load_queries(Shared<DIM>& shared, const Task& task, const bf16* q, u32 heads,
                                    u32 head_dim) {
  for (u32 i = threadIdx.x; i < HEADS * (DIM / 8); i += WARPS * WARP) {
    u32 head = i / (DIM / 8), element = i % (DIM / 8) * 8;
    bool valid = head < task.heads && element < head_dim;
    const bf16* from = q + (u64(task.row) * heads + task.head) * head_dim;
    copy_async(shared_address(&shared.q[head][element]),
               valid ? from + head * head_dim + element : from, valid);
  }
  copy_commit();
}

// Whether this block is the last of the sequence's to arrive, having done `mine` of `splits`;
// whatever the others wrote before they arrived may then be read. The last one leaves the counter
// as it found it.
template <u32 DIM>
__device__ inline bool arrive_last(Shared<DIM>& shared, u32* arrivals, u32 mine, u32 splits) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.last = atomicAdd(arrivals, mine) + mine == splits;
    if (shared.last) *arrivals = 0;
  }
  __syncthreads();
  __threadfence();
  return shared.last;
}

// Brings a warp's pages of a split near: all but the newest token stood there before the step.
template <u32 DIM>
__device__ inline void prefetch_pages(const Task& task, const Pool& pool, u32 head_dim, u32 layer,
                                      u32 split) {
  constexpr u32 LINE = 128;
  const u32 bytes = PAGE_TOKENS * head_dim * sizeof(bf16);
#pragma unroll
  for (u32 i = 0; i < WARP_PAGES; ++i) {
    const u32 page = split * SPLIT_PAGES + threadIdx.x / WARP + i * WARPS;
    if (page * PAGE_TOKENS >= task.length) break;
    for (u32 half = 0; half < 2; ++half) {
      const bf16* from = page_head<bf16>(pool, task.pages[page], layer, half, task.kv_head);
      for (u32 at = threadIdx.x % WARP * LINE; at < bytes; at += WARP * LINE)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(reinterpret_cast<const u8*>(from) + at));
    }
  }
}

// What this block is to do; false where that is nothing. Grid: [sequences, kv_heads * ceil(group /
// HEADS), up to the splits of the longest sequence].
__device__ inline bool find_task(Task& task, const Step& step, u32 kv_heads, u32 heads) {
  // The grid is within what the step's arrays have room for, so these need not wait for the count.
  u32 sequence = blockIdx.x, sequences = step.counts->sequences;
  u32 row = step.seq_indptr[sequence], row_end = step.seq_indptr[sequence + 1],
      page = step.page_indptr[sequence];
  if (sequence >= sequences || row_end - row != 1) return false;
  u32 group = heads / kv_heads, parts = gridDim.y / kv_heads, head = blockIdx.y % parts * HEADS;
  task.row = row;
  task.length = step.positions[row] + 1;
  task.splits = (task.length + SPLIT_TOKENS - 1) / SPLIT_TOKENS;
  task.pages = step.page_indices + page;
  task.kv_head = blockIdx.y / parts;
  task.head = task.kv_head * group + head;
  task.heads = min(group - head, HEADS);
  return blockIdx.z < task.splits;
}

// A split's share to `out`, where it is the only one, or to its place among the partials.
template <u32 DIM>
__device__ inline void finish_split(const Shared<DIM>& shared, u32 heads, u32 head_dim, u32 split,
                                    bf16* out) {
  const Task& task = shared.task;
  each_column<DIM>(task.heads, head_dim, [&](u32 head, u32 column) {
    Sum sum = merge(WarpShares<DIM>{shared, head, column}, WARPS);
    if (task.splits == 1)
      return store(out, u64(task.row) * heads + task.head + head, head_dim, column, sum);
    float* to = task.partials + split * split_stride<DIM>();
    *reinterpret_cast<float4*>(to + head * DIM + column) =
        make_float4(sum.o[0], sum.o[1], sum.o[2], sum.o[3]);
    if (column == 0) {
      to[HEADS * DIM + head] = sum.m;
      to[HEADS * DIM + HEADS + head] = sum.l;
    }
  });
}

// `partials`: a run of splits for each sequence, from `page_indptr / SPLIT_PAGES + sequence` on,
// [splits, gridDim.y, PARTIAL]. `arrivals`: [sequences, gridDim.y], zeros between kernels.
template <u32 DIM, bool WHOLE>
__device__ inline void decode(const Step& step, const Pool& pool, u32 layer, u32 heads,
                              const bf16* q, bf16* out, float* partials, u32* arrivals) {
  __shared__ Shared<DIM> shared;
  u32 head_dim = WHOLE ? DIM : pool.head_dim;
  release_successor();
  Task found;
  const bool has_task = find_task(found, step, pool.kv_heads, heads);
  if (has_task) prefetch_pages<DIM>(found, pool, head_dim, layer, blockIdx.z);
  wait_for_predecessor();
  if (!has_task) return;
  if (threadIdx.x == 0) {
    u32 first = step.page_indptr[blockIdx.x] / SPLIT_PAGES + blockIdx.x;
    found.partials = partials + first * split_stride<DIM>() + blockIdx.y * PARTIAL<DIM>;
    shared.task = found;
  }
  load_queries<DIM>(shared, found, q, heads, head_dim);
  u32 split = blockIdx.z;
  do {
    __syncthreads();  // the task is there; the split before has been read
    attend<DIM>(shared, pool, head_dim, layer, split);
    __syncthreads();
    finish_split<DIM>(shared, heads, head_dim, split, out);
    split += gridDim.z;
  } while (split < shared.task.splits);
  const Task& task = shared.task;
  u32 mine = (split - blockIdx.z) / gridDim.z;
  if (task.splits == 1 ||
      !arrive_last(shared, arrivals + blockIdx.x * gridDim.y + blockIdx.y, mine, task.splits))
    return;
  each_column<DIM>(task.heads, head_dim, [&](u32 head, u32 column) {
    Sum sum = merge(SplitShares<DIM>{task.partials, head, column}, task.splits);
    store(out, u64(task.row) * heads + task.head + head, head_dim, column, sum);
  });
}

// WHOLE: head_dim is DIM.
#define DECODE(NAME, DIM, WHOLE)                                                         \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, WHOLE&& DIM < 256 ? 2 : 1)   \
      attention_decode_##NAME(Step step, Pool pool, u32 layer, u32 heads, const bf16* q, \
                              bf16* out, float* partials, u32* arrivals) {               \
    decode<DIM, WHOLE>(step, pool, layer, heads, q, out, partials, arrivals);            \
  }
DECODE(64, 64, true)
DECODE(128, 128, true)
DECODE(256, 256, true)
DECODE(within_64, 64, false)
DECODE(within_128, 128, false)
DECODE(within_256, 256, false)
