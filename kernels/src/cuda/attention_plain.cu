// Attention for every element type and any head_dim up to 32 * ELEMENTS: right before fast.
//
// A block takes one query head of one row; a warp every WARPS-th page, with head_dim spread over
// its lanes.
#include "attention.cuh"

constexpr u32 WARPS = 4;
constexpr u32 ELEMENTS = 8;  // of a head, for one lane: lane, lane + 32, ...

// A warp's share of the row's positions.
struct Share {
  float o[ELEMENTS], m, l;
};

// Adds the first `tokens` of a page; `keys`, `values` [PAGE_TOKENS, head_dim], `q` this lane's
// elements, scaled.
template <class T>
__device__ inline void attend(Share& share, const float (&q)[ELEMENTS], const T* keys,
                              const T* values, u32 head_dim, u32 tokens) {
  u32 lane = threadIdx.x % WARP;
  float s[PAGE_TOKENS], m = share.m;
#pragma unroll
  for (u32 token = 0; token < PAGE_TOKENS; ++token) {
    s[token] = -infinity();
    if (token >= tokens) continue;
    float product = 0;
#pragma unroll
    for (u32 i = 0; i < ELEMENTS; ++i) {
      u32 element = lane + i * WARP;
      if (element < head_dim) product += q[i] * to_float(keys[token * head_dim + element]);
    }
    s[token] = warp_sum(product);
    m = fmaxf(m, s[token]);
  }
  float kept = exp2_approximate(share.m - m);
  share.m = m;
  share.l *= kept;
#pragma unroll
  for (u32 i = 0; i < ELEMENTS; ++i) share.o[i] *= kept;
#pragma unroll
  for (u32 token = 0; token < PAGE_TOKENS; ++token) {
    if (token >= tokens) continue;
    float weight = exp2_approximate(s[token] - m);
    share.l += weight;
#pragma unroll
    for (u32 i = 0; i < ELEMENTS; ++i) {
      u32 element = lane + i * WARP;
      if (element < head_dim) share.o[i] += weight * to_float(values[token * head_dim + element]);
    }
  }
}

// Grid: [rows, heads]. `Q`: type of `q` and `out`, both [rows, heads, head_dim]; T: of the cache.
template <class Q, class T>
__device__ inline void plain(const Step& step, const Pool& pool, u32 layer, u32 heads, const Q* q,
                             Q* out) {
  __shared__ Share shared[WARPS][WARP];
  release_successor();
  wait_for_predecessor();
  u32 row = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP,
      head_dim = pool.head_dim;
  if (row >= step.counts->rows) return;
  u32 length = step.positions[row] + 1, kv_head = head / (heads / pool.kv_heads);
  const u32* pages = step.page_indices + step.page_indptr[step.sequences[row]];
  u64 first = (u64(row) * heads + head) * head_dim;
  float query[ELEMENTS], scale = score_scale(head_dim);
#pragma unroll
  for (u32 i = 0; i < ELEMENTS; ++i)
    query[i] = lane + i * WARP < head_dim ? to_float(q[first + lane + i * WARP]) * scale : 0;
  Share share = {};
  share.m = -infinity();
  for (u32 page = warp; page * PAGE_TOKENS < length; page += WARPS) {
    const T* keys = page_head<T>(pool, pages[page], layer, 0, kv_head);
    const T* values = page_head<T>(pool, pages[page], layer, 1, kv_head);
    attend(share, query, keys, values, head_dim, min(length - page * PAGE_TOKENS, PAGE_TOKENS));
  }
  shared[warp][lane] = share;
  __syncthreads();
  float m = -infinity(), l = 0;
#pragma unroll
  for (u32 i = 0; i < WARPS; ++i) m = fmaxf(m, shared[i][lane].m);
#pragma unroll
  for (u32 i = 0; i < WARPS; ++i) l += exp2_approximate(shared[i][lane].m - m) * shared[i][lane].l;
  for (u32 element = threadIdx.x; element < head_dim; element += WARPS * WARP) {
    float sum = 0;
#pragma unroll
    for (u32 i = 0; i < WARPS; ++i)
      sum += exp2_approximate(shared[i][lane].m - m) * shared[i][lane].o[element / WARP];
    out[first + element] = from_float<Q>(sum / l);
  }
}

#define PLAIN(NAME, Q, T)                                                                      \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP)                                    \
      attention_plain_##NAME(Step step, Pool pool, u32 layer, u32 heads, const Q* q, Q* out) { \
    plain<Q, T>(step, pool, layer, heads, q, out);                                             \
  }
PLAIN(f32, float, float)
PLAIN(f16, float, f16)
PLAIN(bf16, bf16, bf16)
