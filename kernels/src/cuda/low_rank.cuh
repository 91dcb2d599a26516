// The second half of LoRA products of few rows, where the base product of the same outputs ends:
// delta[token][output] = sum over ranks of s[token][rank] B[output][rank].
//
// A helping warp sends what the block's outputs need of each adapter through the stages that
// weights came by: items of a chunk of ranks, each with its part of B and the rows of s that use
// it. Multipliers add them to sums that lie like those of the base product. A row's delta is added
// up over its own chunks in their order, whatever else is in the batch; other rows' items add
// exact zeros to it.
#pragma once
#include "product.cuh"

// `LowRankView` of cuda/matmul/decode.rs.
struct LowRank {
  const float* s;  // [rows, ranks] of `shrink`, or null where no row has an adapter
  Adapters adapters;
  u32 ranks, layer, site;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr u32 LAST = 1u << 31;   // of Board::counts
constexpr u32 S_ROW_BYTES = 64;  // of an item: a chunk of ranks

// Outputs of one item: first..first + height of the site.
struct Outputs {
  u32 first, height;
};

// A block's `i`-th run of outputs: of two where gate and up alternate.
template <class T, bool GATED>
__device__ inline Outputs outputs_of(u32 tile, u32 outputs, u32 i) {
  if constexpr (GATED) return {i * (outputs / 2) + tile * (T::ROWS / 2), T::ROWS / 2};
  else return {tile * T::ROWS, T::ROWS};
}

// Rows first..end of the batch.
struct RowRange {
  u32 first, end;
};

// The rows whose deltas a block adds.
template <class T>
__device__ inline RowRange share_of(const Work& work) {
  const u32 first = T::SPLITS == 1 ? 0 : work.split * T::SHARE;
  return {first, first + T::SHARE < T::TOKENS ? first + T::SHARE : T::TOKENS};
}

// Between the copying warp and the helping one: a stage must not be waited for over two rounds, so
// low ranks come only once all weights are on their way.
__device__ inline void weights_are_sent() { asm volatile("bar.arrive 4, 64;" ::: "memory"); }
__device__ inline void all_weights_are_sent() { asm volatile("bar.sync 4, 64;" ::: "memory"); }

// Brings the descriptors near that `Sender` goes through. For whole warps.
__device__ inline void prefetch_descriptors(const Step& step, const LowRank& low_rank) {
  constexpr u32 LINE = 128;
  const u32 pieces = step.counts->pieces;
  for (u32 i = threadIdx.x % WARP; i < pieces; i += WARP) {
    const u32 slot = step.pieces[i].slot;
    if (slot == NO_ADAPTER) continue;
    const SiteTiles site = site_tiles(low_rank.adapters, slot, low_rank.layer, low_rank.site);
    const u8* tiles = reinterpret_cast<const u8*>(low_rank.adapters.tiles + site.b);
    for (u32 at = 0; at < site.b_count * sizeof(Tile); at += LINE)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(tiles + at));
  }
}

// What a lane of the helping warp has for an item.
struct Item {
  u32 row, rows;  // of s
  u32 run;        // of the block's outputs
  u32 begin, end; // outputs of the run that the tile has
  const void* b;  // [end - begin, ranks]
  u32 column, ranks;  // of s
};

// The helping warp's side. All its calls are for the whole warp.
template <class T>
struct Sender {
  const Ring<T>& ring;
  const LowRank& low_rank;
  Cursor<T> cursor;    // stage being filled
  u32 filled;          // stages before it, those of the base product too
  u32 used = 0;        // items of it so far

  __device__ void open() const {
    if (filled >= T::STAGES) barrier_wait(ring.empty(cursor.stage), cursor.parity ^ 1);
  }
  // Copies this lane's part of B to place `i` of the stage and describes it.
  __device__ void copy_b(const Item& item, u32 i) const {
    const u32 bytes = (item.end - item.begin) * item.ranks * 2, full = ring.full(cursor.stage);
    barrier_expect_more(full, bytes);
    copy_bytes(ring.w(cursor.stage) + i * T::B_BYTES + item.begin * item.ranks * 2, item.b, bytes,
               full);
    ring.board->items[cursor.stage][i] =
        make_uint4(item.row | item.rows << 16, item.begin | item.end << 16,
                   item.ranks | item.run << 16, item.column);
  }
  // Copies the rows of s of the item in place `i`: four ranks to a lane.
  __device__ void copy_s(u32 i) const {
    const u32 lane = threadIdx.x % WARP, rank = lane % 4 * 4;
    const uint4 item = load_shared_4(shared_address(&ring.board->items[cursor.stage][i]));
    const u32 rows = item.x >> 16, to = ring.x(cursor.stage) + i * T::S_BYTES + rank * 4;
    if (rank >= (item.z & 0xffff)) return;
    const float* s = low_rank.s + u64(item.x & 0xffff) * low_rank.ranks + item.w + rank;
    for (u32 row = lane / 4; row < rows; row += WARP / 4)
      copy_async(to + row * S_ROW_BYTES, s + u64(row) * low_rank.ranks);
  }
  // Announces the stage as it is and turns to the next.
  __device__ void close(u32 mark) {
    copy_arrive(ring.full(cursor.stage));
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
      ring.board->counts[cursor.stage] = used | mark;
      barrier_arrive(ring.full(cursor.stage));
    }
    cursor.advance();
    filled++;
    used = 0;
  }
  // Sends the items of the lanes that have one, in the order of lanes.
  __device__ void send(bool has, const Item& item) {
    const u32 all = __ballot_sync(~0u, has), count = __popc(all);
    const u32 mine = __popc(all & ((1u << threadIdx.x % WARP) - 1));
    for (u32 done = 0; done < count;) {
      if (used == 0) open();
      const u32 take = least(T::ITEMS - used, count - done);
      if (has && mine - done < take) copy_b(item, used + mine - done);
      __syncwarp();
      for (u32 i = 0; i < take; i++) copy_s(used + i);
      used += take;
      done += take;
      if (used == T::ITEMS) close(0);
    }
  }
  __device__ void end() {
    if (used == 0) open();
    close(LAST);
  }
};

// The next tile of a piece's adapter, from the `at`-th on, that has some of the wanted outputs.
// False behind the last.
__device__ inline bool find_item(const LowRank& low_rank, const SiteTiles& site, u32& at,
                                 const Outputs& wanted, Item& item) {
  while (at < site.b_count) {
    const Tile tile = low_rank.adapters.tiles[site.b + at++];
    const u32 first = max(tile.start, wanted.first);
    const u32 end = min(tile.start + tile.length, wanted.first + wanted.height);
    if (first >= end) continue;
    item.begin = first - wanted.first;
    item.end = end - wanted.first;
    item.b = static_cast<const bf16*>(tile.data) + u64(first - tile.start) * tile.ranks;
    item.column = tile.column;
    item.ranks = tile.ranks;
    return true;
  }
  return false;
}

// Sends what the outputs of a tile need, for the rows of `share`, by stages behind `steps` of the
// base product. A lane looks after a piece; the k-th tiles of 32 pieces go together.
template <class T, bool GATED>
__device__ inline void send_low_rank(const Ring<T>& ring, u32 steps, const Step& step,
                                     const LowRank& low_rank, u32 tile, u32 outputs,
                                     const RowRange& share) {
  Sender<T> sender{ring, low_rank, Cursor<T>::after(steps), steps};
  const u32 pieces = step.counts->pieces, lane = threadIdx.x % WARP;
  bool may_send = false;
  for (u32 base = 0; base < pieces; base += WARP) {
    Piece piece = {0, 0, NO_ADAPTER};
    if (base + lane < pieces) piece = step.pieces[base + lane];
    const u32 row = max(piece.row, share.first), end = min(piece.row + piece.rows, share.end);
    SiteTiles site = {};
    if (piece.slot != NO_ADAPTER && row < end)
      site = site_tiles(low_rank.adapters, piece.slot, low_rank.layer, low_rank.site);
    for (u32 run = 0; run < (GATED ? 2 : 1); run++) {
      const Outputs wanted = outputs_of<T, GATED>(tile, outputs, run);
      Item item = {row, end - row, run};
      for (u32 at = 0;;) {
        const bool has = find_item(low_rank, site, at, wanted, item);
        if (!__any_sync(~0u, has)) break;
        if (!may_send) all_weights_are_sent();
        may_send = true;
        sender.send(has, item);
      }
    }
  }
  if (!may_send) all_weights_are_sent();
  sender.end();
}

// ---- the multipliers' side

__device__ inline void split_pair(u32 x, u32 y, u32& high, u32& low) {
  const float a = __uint_as_float(x), b = __uint_as_float(y);
  high = pack_bf16(a, b);
  low = pack_bf16(a - low_bf16(high), b - high_bf16(high));
}

// Four ranks of an output, by a thread's own: 4 (lane % 4).. ; zeros where the item has none.
__device__ inline uint2 load_weights(u32 b, u32 row, u32 ranks, u32 begin, u32 end) {
  const u32 rank = threadIdx.x % 4 * 4;
  if (row - begin >= end - begin || rank >= ranks) return make_uint2(0, 0);
  return load_shared_2(b + (row * ranks + rank) * 2);
}

// What a thread needs of an item.
template <class T>
struct Loaded {
  u32 row, last;  // tokens of the block's share
  u32 s_at, ranks;
  u32 b[T::TILES][4];
  uint4 s;  // of the first eight tokens that it touches
};

// s of the `n`-th eight tokens, for a thread's four ranks; zeros where other items' rows are.
template <class T>
__device__ inline uint4 load_s(const Loaded<T>& item, u32 n) {
  const u32 rank = threadIdx.x % 4 * 4, token = n * 8 + threadIdx.x % WARP / 4;
  if (token < item.row || token > item.last || rank >= item.ranks) return make_uint4(0, 0, 0, 0);
  return load_shared_4(item.s_at + (token - item.row) * S_ROW_BYTES + rank * 4);
}

template <class T, bool GATED>
__device__ inline Loaded<T> load_item(const Ring<T>& ring, u32 stage, u32 i, u32 first) {
  const uint4 item = load_shared_4(shared_address(&ring.board->items[stage][i]));
  Loaded<T> loaded;
  loaded.row = (item.x & 0xffff) - first;
  loaded.last = loaded.row + (item.x >> 16) - 1;
  loaded.s_at = ring.x(stage) + i * T::S_BYTES;
  loaded.ranks = item.z & 0xffff;
  const u32 begin = item.y & 0xffff, end = item.y >> 16, at = ring.w(stage) + i * T::B_BYTES;
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, g = threadIdx.x % WARP / 4;
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
    const u32 sixteen = (group * T::TILES + t) * 4 + warp;
    u32(&b)[4] = loaded.b[t];
    if constexpr (GATED) {
      const uint2 v = load_weights(at, sixteen * 8 + g, loaded.ranks, begin, end);
      const bool up = item.z >> 16;
      b[0] = up ? 0 : v.x, b[1] = up ? v.x : 0, b[2] = up ? 0 : v.y, b[3] = up ? v.y : 0;
    } else {
      const uint2 low = load_weights(at, sixteen * 16 + g, loaded.ranks, begin, end);
      const uint2 high = load_weights(at, sixteen * 16 + g + 8, loaded.ranks, begin, end);
      b[0] = low.x, b[1] = high.x, b[2] = low.y, b[3] = high.y;
    }
  }
  loaded.s = load_s(loaded, loaded.row / 8);
  return loaded;
}

template <u32 I>
struct Index {
  static constexpr u32 value = I;
};
// Calls `f(Index<i>)`: registers have no address, so their number is known when this is compiled.
template <u32 LOW, u32 HIGH, class F>
__device__ inline void at_index(u32 i, const F& f) {
  constexpr u32 MIDDLE = (LOW + HIGH) / 2;
  if constexpr (HIGH - LOW == 1) f(Index<LOW>{});
  else if (i < MIDDLE) at_index<LOW, MIDDLE>(i, f);
  else at_index<MIDDLE, HIGH>(i, f);
}

// Adds an item to the sums of all ROWS outputs and eight tokens. s = high + low, 16 bits of it, as
// operands of bf16; the product sums over ranks, so they may take any order that s and B share: a
// thread has four neighbours (PTX ISA, "Matrix fragments for mma.m16n8k16").
template <class T, u32 TOKENS>
__device__ inline void add_eight(float (&sums)[T::TILES][TOKENS / 2], u32 n,
                                 const u32 (&b)[T::TILES][4], const uint4& s) {
  u32 high[2], low[2];
  split_pair(s.x, s.y, high[0], low[0]);
  split_pair(s.z, s.w, high[1], low[1]);
  at_index<0, TOKENS / 8>(n, [&](auto index) {
    constexpr u32 I = 4 * decltype(index)::value;
#pragma unroll
    for (u32 t = 0; t < T::TILES; t++) {
      float(&c)[TOKENS / 2] = sums[t];
      mma_bf16(c[I], c[I + 1], c[I + 2], c[I + 3], b[t], high);
      mma_bf16(c[I], c[I + 1], c[I + 2], c[I + 3], b[t], low);
    }
  });
}

// Adds all that `send_low_rank` sends by stages from `cursor` on to the sums of TOKENS rows of the
// batch, from `first` on. For whole warpgroups.
template <class T, bool GATED, u32 TOKENS>
__device__ inline void add_low_rank(const Ring<T>& ring, Cursor<T>& cursor, u32 first,
                                    float (&sums)[T::TILES][TOKENS / 2]) {
  constexpr u32 AT_ONCE = T::TILES * T::TOKENS > 64 ? 1 : T::ITEMS < 4 || T::TOKENS > 32 ? 2 : 4;
  for (bool last = false; !last; cursor.advance()) {
    barrier_wait(ring.full(cursor.stage), cursor.parity);
    const u32 mark = load_shared_1(shared_address(&ring.board->counts[cursor.stage]));
    const u32 count = mark & ~LAST;
    last = mark & LAST;
    for (u32 base = 0; base < count; base += AT_ONCE) {
      Loaded<T> items[AT_ONCE];
#pragma unroll
      for (u32 i = 0; i < AT_ONCE; i++)
        if (base + i < count) items[i] = load_item<T, GATED>(ring, cursor.stage, base + i, first);
#pragma unroll
      for (u32 i = 0; i < AT_ONCE; i++) {
        if (base + i >= count) break;
        const Loaded<T>& item = items[i];
        add_eight<T, TOKENS>(sums, item.row / 8, item.b, item.s);
        for (u32 n = item.row / 8 + 1; n <= item.last / 8; n++)
          add_eight<T, TOKENS>(sums, n, item.b, load_s(item, n));
      }
    }
    if (threadIdx.x < GROUP) asm volatile("bar.sync 2, %0;" ::"n"(GROUP) : "memory");
    else asm volatile("bar.sync 3, %0;" ::"n"(GROUP) : "memory");
    ring.release(cursor.stage);
  }
}

#endif
