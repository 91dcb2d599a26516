// What every kernel starts from: element types, vector access, tensor-core products, programmatic
// launch, and the tables that describe a step and its adapters. No external headers, so that NVRTC
// needs no include path.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr u32 WARP = 32;
constexpr u32 PAGE_TOKENS = 16;
constexpr u32 CHUNK_RANKS = 16;  // of a tile, at the most
constexpr u32 NO_ADAPTER = 0xffffffffu;
constexpr u32 DRAWN = 1u << 31;

__device__ inline float infinity() { return __int_as_float(0x7f800000); }

__device__ constexpr u32 least(u32 a, u32 b) { return a < b ? a : b; }

// ---- elements

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ inline float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
__device__ inline f16 from_float<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// What a product with weights of type W sees of an activation: rounded to bf16 beside bf16 weights
// (dtype.rs).
template <class W, class X>
__device__ inline float seen(X x) {
  return to_float(x);
}
template <>
__device__ inline float seen<bf16, float>(float x) {
  return to_float(from_float<bf16>(x));
}

// As the CPU: 0 where the gate is far below zero. The division gives it from 2^126 on.
__device__ inline float silu(float x) { return __fdividef(x, 1 + __expf(-x)); }

// Columns of a row whose squares are added up to one, where a product leaves the root of their mean
// to the readers of its row; and words of a row of such sums, whole 16 bytes (tensor.rs).
constexpr u32 PART = 64;
__device__ inline u32 parts_of(u32 columns) { return (columns + 4 * PART - 1) / (4 * PART) * 4; }

// Two neighbours in one word, the first in the low half.
__device__ inline u32 pack_bf16(float low, float high) {
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
__device__ inline float low_bf16(u32 pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// `N` elements that are read and written in one access; `N * sizeof(T)` is 2, 4, 8 or 16.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

// ---- memory

__device__ inline u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }
// 16 bytes that are read once: past L1.
__device__ inline uint4 load_stream(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
// For what is read once: it leaves the second-level cache before all else.
__device__ inline u64 evict_first() {
  u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// Brings bytes that are read once into the second-level cache; both multiples of 16. No effect
// before sm_90.
__device__ inline void prefetch_bytes(const void* p, u32 bytes) {
#if __CUDA_ARCH__ >= 900
  if (bytes)
    asm volatile("cp.async.bulk.prefetch.L2.global.L2::cache_hint [%0], %1, %2;" ::"l"(p),
                 "r"(bytes), "l"(evict_first()));
#endif
}
// 16 bytes from global to shared memory, asynchronously; zeros where `!valid`.
__device__ inline void copy_async(u32 shared, const void* global, bool valid = true) {
  int size = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(size)
               : "memory");
}
// The same of what is read once.
__device__ inline void copy_async_once(u32 shared, const void* global, bool valid) {
  int size = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared),
               "l"(global), "r"(size), "l"(evict_first())
               : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
__device__ inline void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// ---- tensor cores (PTX ISA, "Matrix fragments for mma.m16n8k16"): group = lane / 4, thread = lane
// % 4

// c[16 x 8] += a[16 x 16] b[16 x 8]. a: rows group (+8), columns 2 thread (+1, +8). b: rows 2
// thread (+1, +8), column group. c: rows group (+8), columns 2 thread (+1).
__device__ inline void mma_bf16(float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4],
                                const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_bf16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  mma_bf16(c[0], c[1], c[2], c[3], a, b);
}
__device__ inline void load_matrix_4(u32 (&r)[4], u32 shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}
__device__ inline void load_matrix_4_transposed(u32 (&r)[4], u32 shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}

// ---- programmatic dependent launch (no effect before sm_90)

// The next kernel of the stream may start; call it first.
__device__ inline void release_successor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// Nothing that an earlier kernel of the stream writes may be read, and nothing written, before
// this.
__device__ inline void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- reductions

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// ---- the step (filled by cuda/step.rs; addresses are fixed for the life of the backend, contents
// change every step)

// A run of at most 16 rows that use the same adapter, or none.
struct Piece {
  u32 row;   // first
  u32 rows;  // 1..=16
  u32 slot;  // or NO_ADAPTER
};

struct Counts {
  u32 rows, sequences, pieces, logits;
};

struct Step {
  const Counts* counts;
  const u32* tokens;  // [rows] token id, or DRAWN | i: the id that row i of the latest draw wrote
                      // to the sampler's buffer
  const u32* positions;     // [rows]
  const u32* sequences;     // [rows] sequence of each row
  const u32* seq_indptr;    // [sequences + 1] first row of each sequence
  const u32* page_indptr;   // [sequences + 1]
  const Piece* pieces;      // [pieces] cover the rows in order
  const u32* logit_rows;    // [logits]
  const u32* page_indices;  // slabs of each sequence's pages, in order
};

// ---- the pool (slab = [layers, 2, kv_heads, PAGE_TOKENS, head_dim])

struct Pool {
  u8* memory;
  u64 slab_bytes;
  u32 layers, kv_heads, head_dim;
};

// Where one head of one page begins. `half`: 0 keys, 1 values. T: element of the cache.
template <class T>
__device__ inline T* page_head(const Pool& pool, u32 slab, u32 layer, u32 half, u32 kv_head) {
  u64 plane = u64(layer) * 2 + half;
  return reinterpret_cast<T*>(pool.memory + slab * pool.slab_bytes) +
         (plane * pool.kv_heads + kv_head) * PAGE_TOKENS * pool.head_dim;
}

// ---- adapters (filled by cuda/adapters.rs between steps)

// One contiguous tile. A: [ranks, length], each rank's weights over inputs start..start + length.
// B: [length, ranks], each output's weights over the ranks; `start` counts columns of the site's
// product.
struct Tile {
  const void* data;  // 128-byte aligned
  u32 start, length;
  u16 column;   // first of its ranks within the row of `shrink`
  u16 ranks;    // 8 or 16
  float scale;  // of the linear; applied by shrink
};

// Tiles of one site of one layer of one adapter.
struct alignas(16) SiteTiles {
  u32 a, a_count;  // into `tiles`; ordered by (linear, rank, input)
  u32 b, b_count;  // into `tiles`; ordered by (linear, output, rank)
  // Of the second and the third linear: its first column of the site's product, and how many tiles
  // of B come before its own. Where there is none, columns that no product has, and all tiles.
  u32 columns[2], before[2];
};

struct Adapters {
  const SiteTiles* sites;  // [slots, layers, 4] in the order qkv, output, gate_up, down
  const Tile* tiles;
  u32 layers;
};

__device__ inline const SiteTiles& site_tiles(const Adapters& adapters, u32 slot, u32 layer,
                                              u32 site) {
  return adapters.sites[(u64(slot) * adapters.layers + layer) * 4 + site];
}
