// What the rows of a step have at a site, found by a warp ahead of time.
#pragma once
#include "product.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Of each 32 pieces of the step one of a lane, and the tiles of its adapter; no rows or tiles where
// there is none. All are looked up side by side.
template <class T>
struct Lookup {
  static constexpr u32 GROUPS = (T::ROW_BLOCKS * T::TOKENS + WARP - 1) / WARP;
  Piece pieces[GROUPS];
  SiteTiles sites[GROUPS];

  // `bound`: pieces that may be read, which need not wait for the number of those that there are.
  __device__ Lookup(const Step& step, u32 bound, const Adapters& adapters, u32 layer, u32 site) {
    const u32 lane = threadIdx.x % WARP, count = step.counts->pieces;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      pieces[g] = {0, 0, NO_ADAPTER};
      if (g * WARP + lane < bound) pieces[g] = step.pieces[g * WARP + lane];
    }
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      if (g * WARP + lane >= count) pieces[g].slot = NO_ADAPTER;
      sites[g] = {};
      if (pieces[g].slot == NO_ADAPTER) pieces[g].rows = 0;
      else sites[g] = site_tiles(adapters, pieces[g].slot, layer, site);
    }
  }
  // Pieces of one adapter that follow each other become one, with which its tiles come once.
  __device__ void join() {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      Piece& piece = pieces[g];
      const u32 stop = piece.row + piece.rows, slot = __shfl_up_sync(~0u, piece.slot, 1);
      const bool follows = __shfl_up_sync(~0u, stop, 1) == piece.row && slot == piece.slot;
      const bool joins = lane > 0 && piece.rows > 0 && follows;
      const u32 later = __ballot_sync(~0u, !joins) & ~((2u << lane) - 1);  // that join none before
      const u32 end = __shfl_sync(~0u, stop, later ? __ffs(later) - 2 : WARP - 1);
      piece.rows = joins ? 0 : end - piece.row;
      if (joins) sites[g] = {};
    }
  }
};

// The tiles of B that a piece has of the linears with some of the product's columns begin..end.
struct TileRange {
  u32 first, count;

  __device__ TileRange(const SiteTiles& site, u32 begin, u32 end) {
    const auto [second, third] = site.before;
    const u32 from = begin < site.columns[0] ? 0 : begin < site.columns[1] ? second : third;
    const u32 to = end <= site.columns[0] ? second : end <= site.columns[1] ? third : site.b_count;
    first = site.b + from, count = to - from;
  }
};

// Goes over these of all pieces with rows in `share`: the first of each, the second of each, and so
// on, a lane one at a time, while the next ones are on their way. Of gate and up the halves of a
// piece's take turns, of 32 pieces at a time, so that a row comes again later. Pieces differ in how
// many they have, so lanes take what is next in turn, unless a lane has one piece, with a chunk of
// ranks.
template <class T>
struct TilesOfB {
  static constexpr u32 GROUPS = Lookup<T>::GROUPS;
  static_assert(GROUPS <= 4, "16 bits each");
  const Tile* tiles;
  u32* queue;                       // [2 WARP], shared: which tile of which piece is next
  u32 first[GROUPS], rows[GROUPS];  // of the lane's pieces: a tile; row, and how many above it
  u64 counts = 0;                   // of their tiles, 16 bits each
  u32 most = 0;                     // of any piece
  u32 round = 0, group = 0;         // queued next
  u32 head = 0, tail = 0;           // of the queue
  Tile ahead;
  u32 rows_ahead = 0;  // its piece's; none where there is no tile

  // Of the linears with some of the product's columns begin..end.
  __device__ TilesOfB(const Ring<T>& ring, const Lookup<T>& found, const Tile* tiles,
                      const RowRange& share, u32 begin, u32 end)
      : tiles(tiles), queue(ring.board->turns) {
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      const Piece& piece = found.pieces[g];
      const TileRange range(found.sites[g], begin, end);
      const bool shared = piece.row < share.end && share.first < piece.row + piece.rows;
      const u32 count = shared ? range.count : 0;
      first[g] = range.first;
      rows[g] = piece.row | piece.rows << 16;
      counts |= u64(count) << 16 * g;
      most = max(most, count);
    }
    most = __reduce_max_sync(~0u, most);
    if (T::GATED) most += most % 2;  // whole pairs of rounds
  }
  // Queues until there are 32, or all.
  __device__ void queue_some() {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll 1
    while (tail - head < WARP && round < most) {
      const u32 count = u16(counts >> 16 * group);
      const u32 tile = T::GATED ? round / 2 + round % 2 * ((count + 1) / 2) : round;
      const bool has = round < count;
      const u32 having = __ballot_sync(~0u, has), before = __popc(having & ((1u << lane) - 1));
      if (has) queue[(tail + before) % (2 * WARP)] = (tile * GROUPS + group) * WARP + lane;
      tail += __popc(having);
      const bool is_gate = T::GATED && round % 2 == 0;
      if (is_gate) round++;  // up's of the same pieces
      else if (++group == GROUPS) group = 0, round++;
      else if (T::GATED) round--;
    }
    __syncwarp();
  }
  // The lane's next tile, and its piece's rows; none if there is no other.
  __device__ u32 next(u32& of_piece) {
    if (GROUPS == 1 && most <= (T::GATED ? 2 : 1)) {
      of_piece = round < counts ? rows[0] : 0;
      return first[0] + round++;
    }
    queue_some();
    const u32 lane = threadIdx.x % WARP, turn = queue[(head + lane) % (2 * WARP)];
    const bool has = lane < tail - head;
    u32 tile = turn / WARP / GROUPS;
    of_piece = 0;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
      const u32 of_first = __shfl_sync(~0u, first[g], turn);
      const u32 of_rows = __shfl_sync(~0u, rows[g], turn);
      if (has && turn / WARP % GROUPS == g) tile += of_first, of_piece = of_rows;
    }
    head += least(tail - head, WARP);
    return tile;
  }
  // A tile and its piece's rows, none for a lane without. Whether any has one. For all lanes alike.
  __device__ bool take(Tile& tile, RowRange& of_piece) {
    bool taken, follows;
    do {  // twice at first, when no tile is on its way
      u32 of_next;
      const u32 place = next(of_next);
      tile = ahead;
      of_piece = {u16(rows_ahead), u16(rows_ahead) + (rows_ahead >> 16)};
      taken = __any_sync(~0u, rows_ahead > 0);
      follows = __any_sync(~0u, of_next > 0);
      rows_ahead = of_next;
      if (of_next > 0) ahead = tiles[place];
    } while (!taken && follows);
    return taken;
  }
};

// What the lanes before this one have is added to `before`; gives what all have. For whole warps.
__device__ inline u32 scan(u32 own, u32& before) {
  const u32 lane = threadIdx.x % WARP;
  u32 end = own;
#pragma unroll 1
  for (u32 offset = 1; offset < WARP; offset *= 2) {
    const u32 other = __shfl_up_sync(~0u, end, offset);
    if (lane >= offset) end += other;
  }
  before += end - own;
  return __shfl_sync(~0u, end, WARP - 1);
}

#endif
