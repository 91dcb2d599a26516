// The rest of a product: what `Pending` of pending.rs leaves to the kernel that reads `y` next, y +
// bias + delta with delta[row][n] = sum over ranks of s[row][rank] B[n][rank]. One warp makes the
// delta of a few columns in shared memory (`expand`), and `finish` adds it; or of two runs of
// columns in registers, by itself (`expand_lanes`). Products of few rows on Hopper end in all that
// by themselves: low_rank.cuh.
#pragma once
#include "prelude.cuh"

constexpr u32 PIECE_ROWS = 16;

// `PendingView` of cuda/expand.rs.
struct Pending {
  const void* y;        // [rows, width], f32 or bf16; null where there is nothing to add
  const float* bias;    // [width], or null
  const float* shrunk;  // [rows, ranks] with the scale in it, or null where no row has an adapter;
                        // unspecified for base rows
  Adapters adapters;
  u32 width, ranks;
  u32 layer, site;
};

// KERNEL(T, Y) for all elements of tiles and KV, T, and those of products, Y.
using f32 = float;
#define FOR_ELEMENTS(KERNEL) \
  KERNEL(f32, f32)           \
  KERNEL(f32, bf16)          \
  KERNEL(f16, f32)           \
  KERNEL(f16, bf16)          \
  KERNEL(bf16, f32)          \
  KERNEL(bf16, bf16)

template <class A, class B>
constexpr bool same = false;
template <class A>
constexpr bool same<A, A> = true;

// What feeds a product, by the elements of weights and KV: `Context::activation`.
template <class T>
struct ActivationOf {
  using type = float;
};
template <>
struct ActivationOf<bf16> {
  using type = bf16;
};
template <class T>
using Activation = typename ActivationOf<T>::type;

// Stores `V` neighbours as elements of type E.
template <class E, int V>
__device__ inline void store(E* to, const Pack<float, V>& from) {
  Pack<E, V> narrow;
#pragma unroll
  for (int i = 0; i < V; i++) narrow.at[i] = from_float<E>(from.at[i]);
  *reinterpret_cast<Pack<E, V>*>(to) = narrow;
}

// `V` neighbours of y + bias + delta; `delta` is that of the first of them, or null for base rows.
template <class Y, int V>
__device__ inline Pack<float, V> finish(const Pending& pending, u32 row, u32 column,
                                        const float* delta) {
  using Floats = Pack<float, V>;
  const Y* y = static_cast<const Y*>(pending.y) + u64(row) * pending.width + column;
  const Pack<Y, V> product = *reinterpret_cast<const Pack<Y, V>*>(y);
  Floats sum, more;
#pragma unroll
  for (int i = 0; i < V; i++) sum.at[i] = to_float(product.at[i]);
  if (pending.bias) {
    more = *reinterpret_cast<const Floats*>(pending.bias + column);
#pragma unroll
    for (int i = 0; i < V; i++) sum.at[i] += more.at[i];
  }
  if (delta) {
    more = *reinterpret_cast<const Floats*>(delta);
#pragma unroll
    for (int i = 0; i < V; i++) sum.at[i] += more.at[i];
  }
  return sum;
}

// ---- tiles

__device__ inline Tile broadcast(const Tile& tile, u32 lane) {
  Tile all;
  all.data =
      reinterpret_cast<const void*>(__shfl_sync(~0u, reinterpret_cast<u64>(tile.data), lane));
  all.start = __shfl_sync(~0u, tile.start, lane);
  all.length = __shfl_sync(~0u, tile.length, lane);
  const u32 ranks = __shfl_sync(~0u, u32(tile.column) << 16 | tile.ranks, lane);
  all.column = u16(ranks >> 16);
  all.ranks = u16(ranks);
  all.scale = 1;  // not needed: shrink has applied it
  return all;
}

// Visits the tiles that have some of the columns first..first + columns, in the order of the table,
// so that the order of the ranks is a function of the column and the adapter. A whole warp calls
// it; every lane looks at one tile of 32.
template <class Visit>
__device__ inline void for_tiles(const Tile* tiles, u32 count, u32 first, u32 columns,
                                 Visit visit) {
  const u32 lane = threadIdx.x % WARP;
  for (u32 base = 0; base < count; base += WARP) {
    Tile mine = {};
    if (base + lane < count) mine = tiles[base + lane];
    const bool overlaps = mine.start < first + columns &&
                          first < mine.start + mine.length;  // never where the length is 0
    for (u32 left = __ballot_sync(~0u, overlaps); left; left &= left - 1)
      visit(broadcast(mine, __ffs(left) - 1));
  }
}

// ---- bf16 tiles: tensor cores

// s of 16 rows and 16 ranks as two `a` operands, s = high + low: 16 bits of it. The product sums
// over ranks, so they may take any order that s and B share: thread t has ranks 4t..4t + 4, of
// which the first two stand at 2t, 2t + 1 and the others at 2t + 8, 2t + 9 of the fragment. So a
// lane reads 8 neighbouring bytes of B, and a warp whole sectors.
struct LowRank {
  u32 high[4], low[4];
};

__device__ inline void split(float x, float y, u32& high, u32& low) {
  high = pack_bf16(x, y);
  low = pack_bf16(x - low_bf16(high), y - high_bf16(high));
}

// `s`: of the piece's first row and the tile's first rank. Ranks past the tile's and rows past the
// piece's are zero.
__device__ inline LowRank load_low_rank(const float* s, u32 stride, u32 rows, u32 ranks) {
  const u32 group = threadIdx.x % WARP / 4, rank = threadIdx.x % 4 * 4;
  LowRank low_rank;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 row = group + half * 8;
    Pack<float, 4> at = {};
    if (row < rows && rank < ranks)
      at = *reinterpret_cast<const Pack<float, 4>*>(s + u64(row) * stride + rank);
    split(at.at[0], at.at[1], low_rank.high[half], low_rank.low[half]);
    split(at.at[2], at.at[3], low_rank.high[half + 2], low_rank.low[half + 2]);
  }
  return low_rank;
}

// 8 bytes that are read once: past L1.
__device__ inline uint2 load_stream_8(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(p));
  return v;
}

template <u32 COLUMNS>
__device__ inline void expand_tensor(const Pending& pending, const Piece& piece, u32 first,
                                     u32 columns, float* delta, u32 stride) {
  const SiteTiles site = site_tiles(pending.adapters, piece.slot, pending.layer, pending.site);
  const float* s = pending.shrunk + u64(piece.row) * pending.ranks;
  const u32 group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4, rank = thread * 4;
  float sums[COLUMNS / 8][4] = {};
  for_tiles(pending.adapters.tiles + site.b, site.b_count, first, columns, [&](const Tile& tile) {
    // This lane's first column within the tile, which wraps before the tile's start, and where its
    // columns end.
    const u32 index = first + group - tile.start;
    const u32 end = rank < tile.ranks ? least(tile.length, first + columns - tile.start) : 0;
    const bf16* from = static_cast<const bf16*>(tile.data) +
                       (static_cast<long long>(int(index)) * tile.ranks + rank);
    u32 b[COLUMNS / 8][2];
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n++) {
      uint2 weights = {0, 0};
      if (index + n * 8 < end) weights = load_stream_8(from + n * 8 * tile.ranks);
      b[n][0] = weights.x;
      b[n][1] = weights.y;
    }
    const LowRank low_rank = load_low_rank(s + tile.column, pending.ranks, piece.rows, tile.ranks);
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n++) {
      mma_bf16(sums[n], low_rank.high, b[n]);
      mma_bf16(sums[n], low_rank.low, b[n]);
    }
  });
#pragma unroll
  for (u32 n = 0; n < COLUMNS / 8; n++) {
    const u32 column = n * 8 + thread * 2;
    if (group < piece.rows)
      *reinterpret_cast<Pack<float, 2>*>(delta + group * stride + column) = {sums[n][0],
                                                                             sums[n][1]};
    if (group + 8 < piece.rows)
      *reinterpret_cast<Pack<float, 2>*>(delta + (group + 8) * stride + column) = {sums[n][2],
                                                                                   sums[n][3]};
  }
}

// ---- f16 and f32 tiles: a column per lane

template <class T>
__device__ inline void expand_plain(const Pending& pending, const Piece& piece, u32 first,
                                    u32 columns, float* delta, u32 stride) {
  const SiteTiles site = site_tiles(pending.adapters, piece.slot, pending.layer, pending.site);
  const float* s = pending.shrunk + u64(piece.row) * pending.ranks;
  const u32 lane = threadIdx.x % WARP;
  for (u32 column = lane; column < columns; column += WARP)
    for (u32 row = 0; row < piece.rows; row++) delta[row * stride + column] = 0;
  for_tiles(pending.adapters.tiles + site.b, site.b_count, first, columns, [&](const Tile& tile) {
    for (u32 column = lane; column < columns; column += WARP) {
      const u32 index = first + column - tile.start;  // wraps before the tile's start
      if (index >= tile.length) continue;
      const T* b = static_cast<const T*>(tile.data) + u64(index) * tile.ranks;
      for (u32 row = 0; row < piece.rows; row++) {
        const float* ranks = s + u64(row) * pending.ranks + tile.column;
        float sum = 0;
        for (u32 rank = 0; rank < tile.ranks; rank++) sum += ranks[rank] * to_float(b[rank]);
        delta[row * stride + column] += sum;
      }
    }
  });
}

// ----

// Whether rows of the piece have a delta.
__device__ inline bool has_delta(const Pending& pending, const Piece& piece) {
  return pending.shrunk && piece.slot != NO_ADAPTER;
}

// delta[row][i] for the rows of a piece that has one and the columns first..first + columns of the
// site, columns <= COLUMNS. A whole warp calls it. `delta`: [piece.rows, stride] in shared memory,
// at an even place, with room for COLUMNS in every row; `stride` is even (and 8 past a multiple of
// 32, so that the lanes of a store meet different banks). T: elements of the tiles.
template <class T, u32 COLUMNS>
__device__ inline void expand(const Pending& pending, const Piece& piece, u32 first, u32 columns,
                              float* delta, u32 stride) {
  if constexpr (same<T, bf16>)
    expand_tensor<COLUMNS>(pending, piece, first, columns, delta, stride);
  else expand_plain<T>(pending, piece, first, columns, delta, stride);
}

// ---- a warp by itself, two lanes to a column

constexpr u32 RUN = WARP;

// Two runs of columns of the site, one of each for a lane. Runs end early where there are no more
// columns.
struct Runs {
  u32 first, firsts;  // column, columns: at most RUN
  u32 second, seconds;
};

// The place of this lane's column in a run.
__device__ inline u32 lane_place() { return threadIdx.x % 2 * (RUN / 2) + threadIdx.x % WARP / 2; }

// Brings the weights of the runs near, which no kernel of a step writes.
template <class T>
__device__ inline void prefetch_runs(const Pending& pending, u32 slot, const Runs& runs) {
  if (slot == NO_ADAPTER) return;
  const u32 lane = threadIdx.x % WARP;
  const SiteTiles site = site_tiles(pending.adapters, slot, pending.layer, pending.site);
  for (u32 i = 0; i < site.b_count; i++) {
    const Tile tile = pending.adapters.tiles[site.b + i];
    const u32 first = runs.first + lane - tile.start, second = runs.second + lane - tile.start;
    const T* from = static_cast<const T*>(tile.data);
    if (lane < runs.firsts && first < tile.length)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + u64(first) * tile.ranks));
    if (lane < runs.seconds && second < tile.length)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + u64(second) * tile.ranks));
  }
}

// Eight neighbouring ranks of a column.
template <class T>
using Ranks = Pack<T, 8>;
template <class T>
__device__ inline Ranks<T> load_ranks(const T* from, bool valid) {
  constexpr u32 PARTS = sizeof(Ranks<T>) / 16;
  uint4 parts[PARTS];
#pragma unroll
  for (u32 i = 0; i < PARTS; i++)
    parts[i] = valid ? load_stream(from + i * (8 / PARTS)) : make_uint4(0, 0, 0, 0);
  return reinterpret_cast<Ranks<T>&>(parts);
}

// The delta of this lane's column of either run for the first ROWS rows of a group that has one. A
// whole warp calls it. Two lanes take half of a chunk's ranks each for two columns, so that
// neighbours read neighbouring bytes; sums go over ranks in their order, then over the halves.
template <class T, u32 ROWS>
__device__ inline void expand_lanes(const Pending& pending, const Piece& group, const Runs& runs,
                                    float (&delta)[2][ROWS]) {
  const SiteTiles site = site_tiles(pending.adapters, group.slot, pending.layer, pending.site);
  const u32 half = threadIdx.x % 2, place = threadIdx.x % WARP / 2;
  const u32 firsts[2] = {runs.first, runs.second}, counts[2] = {runs.firsts, runs.seconds};
  float sums[2][2][ROWS] = {};  // run, column
  for (u32 i = 0; i < site.b_count; i++) {
    const Tile tile = pending.adapters.tiles[site.b + i];
    if (half * 8 >= tile.ranks) continue;
    Ranks<T> b[2][2];
    bool any = false;
#pragma unroll
    for (u32 run = 0; run < 2; run++)
#pragma unroll
      for (u32 c = 0; c < 2; c++) {
        const u32 column = c * (RUN / 2) + place, index = firsts[run] + column - tile.start;
        const bool inside = column < counts[run] && index < tile.length;
        const T* from = static_cast<const T*>(tile.data) + u64(index) * tile.ranks + half * 8;
        b[run][c] = load_ranks(from, inside);
        any |= inside;
      }
    if (!any) continue;
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
      if (r >= group.rows) break;
      const float* s = pending.shrunk + u64(group.row + r) * pending.ranks + tile.column + half * 8;
      const Pack<float, 4> low = *reinterpret_cast<const Pack<float, 4>*>(s);
      const Pack<float, 4> high = *reinterpret_cast<const Pack<float, 4>*>(s + 4);
#pragma unroll
      for (u32 run = 0; run < 2; run++)
#pragma unroll
        for (u32 c = 0; c < 2; c++)
#pragma unroll
          for (u32 j = 0; j < 8; j++)
            sums[run][c][r] += (j < 4 ? low.at[j % 4] : high.at[j % 4]) * to_float(b[run][c].at[j]);
    }
  }
#pragma unroll
  for (u32 run = 0; run < 2; run++)
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
      for (u32 c = 0; c < 2; c++) sums[run][c][r] += __shfl_xor_sync(~0u, sums[run][c][r], 1);
      delta[run][r] = half ? sums[run][1][r] : sums[run][0][r];
    }
}
