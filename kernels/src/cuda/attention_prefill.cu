// Attention of sequences with several rows in the batch, bf16, head_dim a multiple of 8 up to DIM.
//
// A block takes ROWS queries of one sequence and one key-value head: the rows' query heads of the
// group side by side, so that they share each tile of keys and values. Tiles start at multiples of
// TOKENS from position 0, so a row's sums are those of any other cut of its prompt. Keys and values
// of the next tile are under way while one is at work.
#include "attention.cuh"

constexpr u32 WARPS = 4;
constexpr u32 THREADS = WARPS * WARP;

// ROWS queries of a sequence. Query i of the part: row i / group, head i % group of the key-value
// head's.
struct Part {
  u32 row;           // the sequence's first, in the batch
  const u32* pages;  // [pages of the sequence] slabs
  u32 first, count;  // its queries, of the sequence's
  u32 kv_head, group, heads, head_dim;
  u32 end;  // positions that any of them sees

  // Element 0 of a query in `[rows, heads, head_dim]`.
  __device__ u64 query(u32 i) const {
    u32 q = first + i;
    return (u64(row + q / group) * heads + kv_head * group + q % group) * head_dim;
  }
};

// A tile's shape. HEIGHT: 16-row fragments of a warp, which share the fragments of keys and values.
template <u32 DIM_, u32 HEIGHT_, u32 TOKENS_>
struct Shape {
  static constexpr u32 DIM = DIM_, HEIGHT = HEIGHT_, TOKENS = TOKENS_;
  static constexpr u32 WARP_ROWS = 16 * HEIGHT, ROWS = WARPS * WARP_ROWS;
  static constexpr u32 ROW_BYTES = DIM * 2, CHUNKS = DIM / 8;
  // Shared memory: queries [ROWS, DIM], then [2 (next), 2 (keys, values), TOKENS, DIM], then
  // positions [ROWS].
  static constexpr u32 KEYS = ROWS * ROW_BYTES, TILE = TOKENS * ROW_BYTES,
                       POSITIONS = KEYS + 4 * TILE;
};

extern __shared__ uint4 dynamic_shared[];

// Where 16 bytes of a row lie: chunks of eight neighbouring rows are in different banks.
template <class S>
__device__ inline u32 chunk_at(u32 base, u32 row, u32 chunk) {
  return base + row * S::ROW_BYTES + ((chunk ^ (row % 8)) * 16);
}

// What a warp holds of its rows g and g + 8 of each fragment, g = lane / 4; columns 2 t (+1) of
// each 8, t = lane % 4.
template <class S>
struct Rows {
  float o[S::HEIGHT][S::DIM / 8][4];
  float m[S::HEIGHT][2], l[S::HEIGHT][2];  // l: this thread's columns
  u32 first, last;                         // lowest and highest position of the warp's rows
};

template <class S>
__device__ inline void load_queries(const Part& part, const bf16* q) {
  u32 base = shared_address(dynamic_shared);
  for (u32 i = threadIdx.x; i < S::ROWS * S::CHUNKS; i += THREADS) {
    u32 row = i / S::CHUNKS, chunk = i % S::CHUNKS;
    bool valid = row < part.count && chunk * 8 < part.head_dim;
    copy_async(chunk_at<S>(base, row, chunk), q + (valid ? part.query(row) + chunk * 8 : 0), valid);
  }
}

// Keys and values of tokens `tile * TOKENS` on; zeros past the part's end, for 0 * NaN is not 0.
template <class S>
__device__ inline void load_tile(const Part& part, const Pool& pool, u32 layer, u32 tile) {
  u32 keys = shared_address(dynamic_shared) + S::KEYS + tile % 2 * 2 * S::TILE,
      values = keys + S::TILE;
  u64 plane = u64(pool.kv_heads) * PAGE_TOKENS * part.head_dim;  // from keys to values
#pragma unroll
  for (u32 i = threadIdx.x; i < S::TOKENS * S::CHUNKS; i += THREADS) {
    u32 row = i / S::CHUNKS, chunk = i % S::CHUNKS, token = tile * S::TOKENS + row;
    bool valid = token < part.end && chunk * 8 < part.head_dim;
    u32 slab = part.pages[valid ? token / PAGE_TOKENS : 0];
    const bf16* from = page_head<bf16>(pool, slab, layer, 0, part.kv_head);
    if (valid) from += token % PAGE_TOKENS * part.head_dim + chunk * 8;
    copy_async(chunk_at<S>(keys, row, chunk), from, valid);
    copy_async(chunk_at<S>(values, row, chunk), from + plane, valid);
  }
}

// s = queries keys^T of the warp's rows
template <class S>
__device__ inline void score(float (&s)[S::HEIGHT][S::TOKENS / 8][4], u32 tile) {
  u32 lane = threadIdx.x % WARP, matrix = lane / 8, line = lane % 8;
  u32 queries = shared_address(dynamic_shared), keys = queries + S::KEYS + tile % 2 * 2 * S::TILE;
  u32 row = threadIdx.x / WARP * S::WARP_ROWS + matrix % 2 * 8 + line,
      token = matrix / 2 * 8 + line;
#pragma unroll
  for (u32 h = 0; h < S::HEIGHT; ++h) {
#pragma unroll
    for (u32 n = 0; n < S::TOKENS / 8; ++n) s[h][n][0] = s[h][n][1] = s[h][n][2] = s[h][n][3] = 0;
  }
#pragma unroll
  for (u32 k = 0; k < S::DIM / 16; ++k) {
    u32 a[S::HEIGHT][4];
#pragma unroll
    for (u32 h = 0; h < S::HEIGHT; ++h)
      load_matrix_4(a[h], chunk_at<S>(queries, row + 16 * h, 2 * k + matrix / 2));
#pragma unroll
    for (u32 n = 0; n < S::TOKENS / 16; ++n) {
      u32 b[4];
      load_matrix_4(b, chunk_at<S>(keys, token + 16 * n, 2 * k + matrix % 2));
      u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
      for (u32 h = 0; h < S::HEIGHT; ++h) {
        mma_bf16(s[h][2 * n], a[h], low);
        mma_bf16(s[h][2 * n + 1], a[h], high);
      }
    }
  }
}

// Products of tokens past a row's position become -infinity. `positions` [ROWS]
template <class S>
__device__ inline void mask(float (&s)[S::HEIGHT][S::TOKENS / 8][4], const u32* positions,
                            u32 tile) {
  u32 first = tile * S::TOKENS + threadIdx.x % 4 * 2,
      row = threadIdx.x / WARP * S::WARP_ROWS + threadIdx.x % WARP / 4;
#pragma unroll
  for (u32 h = 0; h < S::HEIGHT; ++h) {
#pragma unroll
    for (u32 n = 0; n < S::TOKENS / 8; ++n) {
#pragma unroll
      for (u32 i = 0; i < 4; ++i) {
        if (first + 8 * n + i % 2 > positions[row + 16 * h + i / 2 * 8]) s[h][n][i] = -infinity();
      }
    }
  }
}

// Products to weights of a raised maximum; what the rows hold is brought to it. m is finite from
// tile 0 on, for every row sees position 0.
template <class S>
__device__ inline void weigh(float (&s)[S::HEIGHT][S::TOKENS / 8][4], Rows<S>& rows, float scale) {
#pragma unroll
  for (u32 h = 0; h < S::HEIGHT; ++h) {
#pragma unroll
    for (u32 r = 0; r < 2; ++r) {
      float highest = -infinity();
#pragma unroll
      for (u32 n = 0; n < S::TOKENS / 8; ++n)
        highest = fmaxf(highest, fmaxf(s[h][n][2 * r], s[h][n][2 * r + 1]));
      float m = fmaxf(rows.m[h][r], quad_max(highest) * scale),
            kept = exp2_approximate(rows.m[h][r] - m);
      rows.m[h][r] = m;
      rows.l[h][r] *= kept;
#pragma unroll
      for (u32 n = 0; n < S::TOKENS / 8; ++n) {
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
          float& weight = s[h][n][2 * r + i];
          weight = exp2_approximate(fmaf(weight, scale, -m));
          rows.l[h][r] += weight;
        }
      }
#pragma unroll
      for (u32 n = 0; n < S::DIM / 8; ++n) {
        rows.o[h][n][2 * r] *= kept;
        rows.o[h][n][2 * r + 1] *= kept;
      }
    }
  }
}

// o += weights values: the fragments of `s` become the first operand as they stand.
template <class S>
__device__ inline void mix(Rows<S>& rows, const float (&s)[S::HEIGHT][S::TOKENS / 8][4], u32 tile) {
  u32 lane = threadIdx.x % WARP, matrix = lane / 8, line = lane % 8;
  u32 values = shared_address(dynamic_shared) + S::KEYS + (tile % 2 * 2 + 1) * S::TILE;
#pragma unroll
  for (u32 k = 0; k < S::TOKENS / 16; ++k) {
    u32 a[S::HEIGHT][4];
#pragma unroll
    for (u32 h = 0; h < S::HEIGHT; ++h) {
      const float (&left)[4] = s[h][2 * k], (&right)[4] = s[h][2 * k + 1];
      a[h][0] = pack_bf16(left[0], left[1]);
      a[h][1] = pack_bf16(left[2], left[3]);
      a[h][2] = pack_bf16(right[0], right[1]);
      a[h][3] = pack_bf16(right[2], right[3]);
    }
#pragma unroll
    for (u32 n = 0; n < S::DIM / 16; ++n) {
      u32 b[4];
      load_matrix_4_transposed(
          b, chunk_at<S>(values, 16 * k + matrix % 2 * 8 + line, 2 * n + matrix / 2));
      u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
      for (u32 h = 0; h < S::HEIGHT; ++h) {
        mma_bf16(rows.o[h][2 * n], a[h], low);
        mma_bf16(rows.o[h][2 * n + 1], a[h], high);
      }
    }
  }
}

// Fills the warp's part of `positions` [ROWS]. Rows past the part's count see what its last one
// sees, and are not stored.
template <class S>
__device__ inline void begin(Rows<S>& rows, const Part& part, const Step& step, u32* positions) {
  rows = {};
#pragma unroll
  for (u32 h = 0; h < S::HEIGHT; ++h) rows.m[h][0] = rows.m[h][1] = -infinity();
  u32 i = threadIdx.x / WARP * S::WARP_ROWS + threadIdx.x % S::WARP_ROWS;
  u32 position =
      i < part.count ? step.positions[part.row + (part.first + i) / part.group] : part.end - 1;
  positions[i] = position;
  rows.first = __reduce_min_sync(~0u, position);
  rows.last = __reduce_max_sync(~0u, position);
  __syncwarp();
}

// To `out` [rows, heads, head_dim] by way of the queries' place, of which a warp has its own part.
template <class S>
__device__ inline void finish(const Rows<S>& rows, const Part& part, bf16* out) {
  u32 lane = threadIdx.x % WARP, first = threadIdx.x / WARP * S::WARP_ROWS,
      base = shared_address(dynamic_shared);
  __syncwarp();
#pragma unroll
  for (u32 h = 0; h < S::HEIGHT; ++h) {
#pragma unroll
    for (u32 r = 0; r < 2; ++r) {
      float scale = 1 / quad_sum(rows.l[h][r]);
#pragma unroll
      for (u32 n = 0; n < S::CHUNKS; ++n) {
        u32 pair = pack_bf16(rows.o[h][n][2 * r] * scale, rows.o[h][n][2 * r + 1] * scale);
        u32 at = chunk_at<S>(base, first + 16 * h + 8 * r + lane / 4, n) + lane % 4 * 4 - base;
        reinterpret_cast<u32*>(dynamic_shared)[at / 4] = pair;
      }
    }
  }
  __syncwarp();
  for (u32 i = lane; i < S::WARP_ROWS * S::CHUNKS; i += WARP) {
    u32 row = first + i / S::CHUNKS, chunk = i % S::CHUNKS;
    if (row >= part.count || chunk * 8 >= part.head_dim) continue;
    uint4 value = dynamic_shared[(chunk_at<S>(base, row, chunk) - base) / 16];
    *reinterpret_cast<uint4*>(out + part.query(row) + chunk * 8) = value;
  }
}

// Sequences' tiles follow each other, sequence `s` from here on: at least as many as it has, at
// least one.
template <class S>
__device__ inline u32 first_tile(const Step& step, u32 sequence, u32 group) {
  return step.seq_indptr[sequence] * group / S::ROWS + sequence;
}

// The sequence whose tiles tile blockIdx.x is among, or one past the last. All threads call it.
template <class S>
__device__ inline u32 find_sequence(const Step& step, u32 tile, u32 group) {
  __shared__ u32 found;
  u32 sequences = step.counts->sequences;
  if (threadIdx.x == 0) found = sequences;
  __syncthreads();
  for (u32 s = threadIdx.x; s < sequences; s += THREADS) {
    if (first_tile<S>(step, s, group) <= tile && tile < first_tile<S>(step, s + 1, group))
      found = s;
  }
  __syncthreads();
  return found;
}

// The queries of tile blockIdx.x; false where it has none, or its sequence one row only.
template <class S>
__device__ inline bool find_part(Part& part, const Step& step, u32 kv_heads, u32 heads) {
  u32 group = heads / kv_heads, tile = gridDim.x - 1 - blockIdx.x;  // longest first
  u32 sequence = find_sequence<S>(step, tile, group);
  if (sequence == step.counts->sequences) return false;
  u32 row = step.seq_indptr[sequence], queries = (step.seq_indptr[sequence + 1] - row) * group;
  u32 first = (tile - first_tile<S>(step, sequence, group)) * S::ROWS;
  if (queries == group || first >= queries) return false;
  part.row = row;
  part.pages = step.page_indices + step.page_indptr[sequence];
  part.first = first;
  part.count = min(queries - first, S::ROWS);
  part.kv_head = blockIdx.y;
  part.group = group;
  part.heads = heads;
  part.end = step.positions[row + (first + part.count - 1) / group] + 1;
  return true;
}

// Grid: [rows * group / ROWS + sequences, kv_heads].
template <class S>
__device__ inline void prefill(const Step& step, const Pool& pool, u32 layer, u32 heads,
                               const bf16* q, bf16* out) {
  __shared__ Part part;  // here rather than in registers, which products need
  u32* positions = reinterpret_cast<u32*>(dynamic_shared + S::POSITIONS / 16);
  release_successor();
  wait_for_predecessor();
  Part found;
  if (!find_part<S>(found, step, pool.kv_heads, heads)) return;
  found.head_dim = pool.head_dim;
  if (threadIdx.x == 0) part = found;
  __syncthreads();
  load_queries<S>(part, q);
  load_tile<S>(part, pool, layer, 0);
  copy_commit();
  Rows<S> rows;
  begin<S>(rows, part, step, positions);
  float scale = score_scale(part.head_dim);
  u32 tiles = (part.end + S::TOKENS - 1) / S::TOKENS;
  for (u32 tile = 0; tile < tiles; ++tile) {
    copy_wait<0>();
    __syncthreads();  // the tile is there, and the one before has been used by all
    if (tile + 1 < tiles) load_tile<S>(part, pool, layer, tile + 1);
    copy_commit();
    if (tile * S::TOKENS > rows.last) continue;
    float s[S::HEIGHT][S::TOKENS / 8][4];
    score<S>(s, tile);
    if ((tile + 1) * S::TOKENS > rows.first + 1) mask<S>(s, positions, tile);
    weigh<S>(s, rows, scale);
    mix<S>(rows, s, tile);
  }
  finish<S>(rows, part, out);
}

#define PREFILL(DIM, HEIGHT, TOKENS)                                                \
  extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_prefill_##DIM( \
      Step step, Pool pool, u32 layer, u32 heads, const bf16* q, bf16* out) {       \
    prefill<Shape<DIM, HEIGHT, TOKENS>>(step, pool, layer, heads, q, out);          \
  }
PREFILL(64, 2, 64)
PREFILL(128, 2, 48)
PREFILL(256, 1, 32)
