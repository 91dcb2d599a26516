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
#include "signals.cuh"

// `LowRankView` of cuda/matmul/decode.rs.
struct LowRank {
  const float* s;  // [rows, ranks] of `shrink`, or null where no row has an adapter
  Adapters adapters;
  Beside shrink;
  u32 ranks, layer, site;

  // Once x and all that is older may be read, by copies too.
  __device__ void await_x() const {
    if (!shrink) return wait_for_predecessor();
    await_signal(shrink.signals->has_x, 1);
    asm volatile("fence.proxy.async;" ::: "memory");
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Marks of Board::counts: the last stage; one that is full of simple items, which have one row each
// of the same eight, all outputs of the same run and as many ranks; whether that run is the second;
// and whether there are only eight ranks.
constexpr u32 LAST = 1u << 31, SIMPLE = 1u << 30, SECOND = 1u << 29, EIGHT_RANKS = 1u << 28,
              COUNT = EIGHT_RANKS - 1;
constexpr u32 S_ROW_BYTES = 32;  // of an item: a chunk of ranks in bf16

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
  u32 row, rows;      // of s
  u32 run;            // of the block's outputs
  u32 begin, end;     // outputs of the run that the tile has
  const void* b;      // [end - begin, ranks]
  u32 column, ranks;  // of s
};

// Half of a chunk of ranks of a row of s: four, and the four eight behind them.
struct HalfRow {
  float4 s = {}, behind = {};

  // As the words of an operand in the order of the threads that need them: thread t has ranks 2 t
  // (+1) and 2 t + 8 (+9) (PTX ISA, "Matrix fragments for mma.m16n8k16").
  __device__ uint4 words() const {
    return make_uint4(pack_bf16(s.x, s.y), pack_bf16(behind.x, behind.y), pack_bf16(s.z, s.w),
                      pack_bf16(behind.z, behind.w));
  }
};

// The helping warp's side. All its calls are for the whole warp.
template <class T>
struct Sender {
  const Ring<T>& ring;
  const LowRank& low_rank;
  Cursor<T> cursor;  // stage being filled
  u32 filled;        // stages before it, those of the base product too
  u32 used = 0;      // items of it so far
  u32 bytes = 0;     // of B that they bring

  __device__ void open() const {
    if (filled >= T::STAGES) barrier_wait(ring.empty(cursor.stage), cursor.parity ^ 1);
  }
  __device__ HalfRow load_half(const Item& item, u32 row, u32 half) const {
    const float* s = low_rank.s + u64(item.row + row) * low_rank.ranks + item.column + half * 4;
    HalfRow loaded;
    loaded.s = *reinterpret_cast<const float4*>(s);
    if (item.ranks == 16) loaded.behind = *reinterpret_cast<const float4*>(s + 8);
    return loaded;
  }
  // Copies this lane's part of B to place `i` of the stage and describes it, with the first row of
  // s. Gives bytes on their way.
  __device__ u32 copy(const Item& item, const HalfRow (&first)[2], u32 i) const {
    const u32 size = (item.end - item.begin) * item.ranks * 2;
    copy_bytes(ring.w(cursor.stage) + i * T::B_BYTES + item.begin * item.ranks * 2, item.b, size,
               ring.full(cursor.stage));
    const u32 s = ring.x(cursor.stage) + i * T::S_BYTES;
    store_shared(s, first[0].words());
    store_shared(s + 16, first[1].words());
    ring.board->rows[cursor.stage][i] = item.row;
    ring.board->items[cursor.stage][i] =
        make_uint4(item.row | item.rows << 16, item.begin | item.end << 16,
                   item.ranks | item.run << 16, item.column);
    return size;
  }
  // The rows of s behind the first of items in places `i`.. of the stage, two lanes to a row.
  __device__ void copy_rows(u32 i, u32 count) const {
    const u32 row = 1 + threadIdx.x % WARP / 2, half = threadIdx.x % 2;
    uint4 words[T::ITEMS];
    bool has[T::ITEMS];
    __syncwarp();  // they have been described
#pragma unroll
    for (u32 k = 0; k < T::ITEMS; k++) {
      has[k] = false;
      if (k >= count) continue;
      const uint4 v = load_shared_4(shared_address(&ring.board->items[cursor.stage][i + k]));
      const Item item = {v.x & 0xffff, v.x >> 16, 0, 0, 0, nullptr, v.w, v.z & 0xffff};
      has[k] = row < item.rows;
      if (has[k]) words[k] = load_half(item, row, half).words();
    }
#pragma unroll
    for (u32 k = 0; k < T::ITEMS; k++)
      if (has[k])
        store_shared(ring.x(cursor.stage) + (i + k) * T::S_BYTES + row * S_ROW_BYTES + half * 16,
                     words[k]);
  }
  // Announces the stage as it is and turns to the next.
  __device__ void close(u32 mark) {
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
      ring.board->counts[cursor.stage] = used | mark;
      barrier_expect(ring.full(cursor.stage), bytes);
    }
    cursor.advance();
    filled++;
    used = bytes = 0;
  }
  // Sends the items of the lanes that have one, in the order of lanes. `height`: outputs of a run.
  __device__ void send(bool has, const Item& item, u32 height) {
    const u32 all = __ballot_sync(~0u, has), count = __popc(all);
    const u32 mine = __popc(all & ((1u << threadIdx.x % WARP) - 1));
    const bool one_row = __all_sync(~0u, !has || item.rows == 1);
    const bool whole = item.begin == 0 && item.end == height;
    const u32 simple = __ballot_sync(~0u, item.rows == 1 && whole);
    // What simple items of a stage have in common.
    const u32 kind = (item.run ? SECOND : 0) | (item.ranks == 8 ? EIGHT_RANKS : 0) | item.row / 8;
    HalfRow first[2];
    if (has) first[0] = load_half(item, 0, 0), first[1] = load_half(item, 0, 1);
    for (u32 done = 0; done < count;) {
      if (used == 0) open();
      const u32 take = least(T::ITEMS - used, count - done);
      const bool now = has && mine - done < take;
      const u32 those = __ballot_sync(~0u, now);
      const u32 common = __shfl_sync(~0u, kind, __ffs(those) - 1);
      const bool alike = __all_sync(~0u, !now || kind == common) && !(those & ~simple);
      const u32 marks = take == T::ITEMS && alike ? SIMPLE | (common & (SECOND | EIGHT_RANKS)) : 0;
      const u32 size = now ? copy(item, first, used + mine - done) : 0;
      bytes += __reduce_add_sync(~0u, size);
      if (!one_row) copy_rows(used, take);
      used += take;
      done += take;
      if (used == T::ITEMS) close(marks);
    }
  }
  __device__ void end() {
    if (used == 0) open();
    close(LAST);
  }
};

// A lane's piece of 32, as far as it is in the share, and those tiles of its adapter that are left.
struct Lookup {
  u32 row, end;
  u32 left;
  const Tile* next;
  Tile tile;  // the next one, on its way

  // All of it is asked for at once, and here.
  __device__ void load() {
    if (left == 0) return;
    uint2 data, outputs, ranks;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(data.x), "=r"(data.y) : "l"(next));
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2 + 8];"
                 : "=r"(outputs.x), "=r"(outputs.y)
                 : "l"(next));
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2 + 16];"
                 : "=r"(ranks.x), "=r"(ranks.y)
                 : "l"(next));
    tile = {reinterpret_cast<const void*>(u64(data.y) << 32 | data.x),
            outputs.x,
            outputs.y,
            u16(ranks.x),
            u16(ranks.x >> 16),
            __uint_as_float(ranks.y)};
  }
};

__device__ inline Lookup look_up(const Step& step, const LowRank& low_rank, u32 base,
                                 const RowRange& share) {
  const u32 i = base + threadIdx.x % WARP;
  Piece piece = {0, 0, NO_ADAPTER};
  if (i < step.counts->pieces) piece = step.pieces[i];
  Lookup found = {max(piece.row, share.first), min(piece.row + piece.rows, share.end)};
  if (piece.slot != NO_ADAPTER && found.row < found.end) {
    const SiteTiles& site =
        site_tiles(low_rank.adapters, piece.slot, low_rank.layer, low_rank.site);
    found.next = low_rank.adapters.tiles + site.b;
    found.left = site.b_count;
  }
  found.load();
  return found;
}

// The next of the lookup's tiles that has outputs of a block's `tile`; false behind the last.
template <class T, bool GATED>
__device__ inline bool find_item(Lookup& found, u32 tile, u32 outputs, Item& item) {
  while (found.left) {
    const Tile b = found.tile;
    found.next++, found.left--;
    found.load();
    item.run = GATED && b.start >= outputs / 2;
    const Outputs wanted = outputs_of<T, GATED>(tile, outputs, item.run);
    const u32 first = max(b.start, wanted.first);
    const u32 end = min(b.start + b.length, wanted.first + wanted.height);
    if (first >= end) continue;
    item.begin = first - wanted.first;
    item.end = end - wanted.first;
    item.b = static_cast<const bf16*>(b.data) + u64(first - b.start) * b.ranks;
    item.column = b.column;
    item.ranks = b.ranks;
    return true;
  }
  return false;
}

// Sends what the outputs of a tile need, for the rows of `share`, by stages behind `steps` of the
// base product. A lane looks after a piece; the k-th tiles of 32 pieces go together. `found`: the
// first 32, looked up ahead of time.
template <class T, bool GATED>
__device__ inline void send_low_rank(const Ring<T>& ring, u32 steps, const Step& step,
                                     const LowRank& low_rank, u32 tile, u32 outputs,
                                     const RowRange& share, Lookup found) {
  constexpr u32 HEIGHT = GATED ? T::ROWS / 2 : T::ROWS;
  Sender<T> sender{ring, low_rank, Cursor<T>::after(steps), steps};
  const u32 pieces = step.counts->pieces;
  bool may_send = false;
  for (u32 base = 0; base < pieces; base += WARP) {
    if (base > 0) found = look_up(step, low_rank, base, share);
    Item item = {found.row, found.end - found.row};
    for (;;) {
      const bool has = find_item<T, GATED>(found, tile, outputs, item);
      if (!__any_sync(~0u, has)) break;
      if (!may_send) all_weights_are_sent();
      may_send = true;
      sender.send(has, item, HEIGHT);
    }
  }
  if (!may_send) all_weights_are_sent();
  sender.end();
}

// ---- the multipliers' side

// The `n`-th eight tokens of the block's share of an item's s; zeros where other items' rows are.
// `item`: as described, `first`: token 0 of the share.
__device__ inline uint2 load_s(u32 s_at, const uint4& item, u32 first, u32 n) {
  const u32 token = first + n * 8 + threadIdx.x % WARP / 4, row = token - (item.x & 0xffff);
  if (row >= item.x >> 16) return make_uint2(0, 0);  // wraps before the item's first
  return load_shared_2(s_at + row * S_ROW_BYTES + threadIdx.x % 4 * 8);
}

// The eight weights rows `row`.. of B [.., ranks] as half of an operand: ranks 0..8 and 8..16.
// Zeros where the item has no outputs or ranks.
__device__ inline void load_eight(u32 at, u32 row, u32 ranks, u32 begin, u32 end, u32& low,
                                  u32& high) {
  const u32 lane = threadIdx.x % WARP;
  if (ranks == 16 && begin <= row && row + 8 <= end) {
    load_matrix_2(low, high, at + (row + lane % 8) * 32 + lane / 8 % 2 * 16);
    return;
  }
  const u32 own = row + lane / 4;
  const bool inside = begin <= own && own < end;
  const u32 from = at + own * ranks * 2 + lane % 4 * 4;
  low = inside ? load_shared_1(from) : 0;
  high = inside && ranks == 16 ? load_shared_1(from + 16) : 0;
}

// A warp's part of B of an item: 16 outputs of each of its boxes.
template <class T, bool GATED>
__device__ inline void load_b(u32 at, const uint4& item, u32 (&a)[T::TILES][4]) {
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
  const u32 begin = item.y & 0xffff, end = item.y >> 16, ranks = item.z & 0xffff;
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
    const u32 sixteen = (group * T::TILES + t) * 4 + warp;
    if constexpr (GATED) {
      a[t][0] = a[t][1] = a[t][2] = a[t][3] = 0;
      if (item.z >> 16) load_eight(at, sixteen * 8, ranks, begin, end, a[t][1], a[t][3]);
      else load_eight(at, sixteen * 8, ranks, begin, end, a[t][0], a[t][2]);
    } else if (ranks == 16 && begin == 0 && end == T::ROWS) {
      load_matrix_4(a[t], at + (sixteen * 16 + lane % 16) * 32 + lane / 16 * 16);
    } else {
      load_eight(at, sixteen * 16, ranks, begin, end, a[t][0], a[t][2]);
      load_eight(at, sixteen * 16 + 8, ranks, begin, end, a[t][1], a[t][3]);
    }
  }
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

// Adds an item to the sums of all ROWS outputs and of the I-th eight tokens.
template <class T, u32 TOKENS, u32 I>
__device__ inline void add_at(float (&sums)[T::TILES][TOKENS / 2], const u32 (&a)[T::TILES][4],
                              const uint2& s) {
  const u32 b[2] = {s.x, s.y};
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
    float (&c)[TOKENS / 2] = sums[t];
    mma_bf16(c[4 * I], c[4 * I + 1], c[4 * I + 2], c[4 * I + 3], a[t], b);
  }
}

// Adds a stage full of simple items. What they read is asked for at once, AT_ONCE of them.
template <class T, bool GATED, u32 TOKENS>
__device__ inline void add_simple(const Ring<T>& ring, u32 stage, u32 marks, u32 first,
                                  float (&sums)[T::TILES][TOKENS / 2]) {
  constexpr u32 AT_ONCE = T::TILES > 1 ? 1 : T::ITEMS, HEIGHT = GATED ? 8 : 16;
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
  // A lane gives the address of eight weights to `load_matrix_4`; of zeros for the rows of the
  // other run, and for ranks that there are not.
  const bool in_run = !GATED || (marks & SECOND) / SECOND == lane / 8 % 2;
  const bool there = in_run && !(marks & EIGHT_RANKS && lane >= 16);
  const u32 row_bytes = marks & EIGHT_RANKS ? 16 : 32;
  const u32 first_row = (group * T::TILES * 4 + warp) * HEIGHT;
  const u32 own = ring.w(stage) + (first_row + lane % HEIGHT) * row_bytes + lane / 16 * 16;
  const u32 from = there ? own : shared_address(&ring.board->zero);
  const u32 s_at = ring.x(stage) + lane % 4 * 8;
  const uint4 all = load_shared_4(shared_address(ring.board->rows[stage]));
  const u32 rows[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
  for (u32 base = 0; base < T::ITEMS; base += AT_ONCE) {
    u32 a[AT_ONCE][T::TILES][4];
    uint2 s[AT_ONCE];
#pragma unroll
    for (u32 i = 0; i < AT_ONCE; i++) {
#pragma unroll
      for (u32 t = 0; t < T::TILES; t++) {
        const u32 step = (base + i) * T::B_BYTES + t * 4 * HEIGHT * row_bytes;
        load_matrix_4(a[i][t], from + (there ? step : 0));
      }
      s[i] = load_shared_2(s_at + (base + i) * T::S_BYTES);
    }
#pragma unroll
    for (u32 i = 0; i < AT_ONCE; i++)
      if ((rows[base + i] - first) % 8 != lane / 4) s[i] = make_uint2(0, 0);
    at_index<0, TOKENS / 8>((rows[0] - first) / 8, [&](auto index) {
#pragma unroll
      for (u32 i = 0; i < AT_ONCE; i++) add_at<T, TOKENS, decltype(index)::value>(sums, a[i], s[i]);
    });
  }
}

// Adds any item of a stage.
template <class T, bool GATED, u32 TOKENS>
__device__ inline void add_item(const Ring<T>& ring, u32 stage, u32 i, u32 first,
                                float (&sums)[T::TILES][TOKENS / 2]) {
  const uint4 item = load_shared_4(shared_address(&ring.board->items[stage][i]));
  const u32 row = (item.x & 0xffff) - first, last = row + (item.x >> 16) - 1;
  u32 a[T::TILES][4];
  load_b<T, GATED>(ring.w(stage) + i * T::B_BYTES, item, a);
#pragma unroll 1
  for (u32 n = row / 8; n <= last / 8; n++) {
    const uint2 s = load_s(ring.x(stage) + i * T::S_BYTES, item, first, n);
    at_index<0, TOKENS / 8>(
        n, [&](auto index) { add_at<T, TOKENS, decltype(index)::value>(sums, a, s); });
  }
}

// Adds all that `send_low_rank` sends by stages from `cursor` on to the sums of TOKENS rows of the
// batch, from `first` on. For whole warpgroups.
template <class T, bool GATED, u32 TOKENS>
__device__ inline void add_low_rank(const Ring<T>& ring, Cursor<T>& cursor, u32 first,
                                    float (&sums)[T::TILES][TOKENS / 2]) {
  u32 mark;
  do {
    const u32 stage = cursor.stage;
    barrier_wait(ring.full(stage), cursor.parity);
    mark = load_shared_1(shared_address(&ring.board->counts[stage]));
    if (T::ITEMS == 4 && mark & SIMPLE) {
      add_simple<T, GATED, TOKENS>(ring, stage, mark, first, sums);
    } else {
#pragma unroll 1
      for (u32 i = 0; i < (mark & COUNT); i++)
        add_item<T, GATED, TOKENS>(ring, stage, i, first, sums);
    }
    __syncwarp();  // all lanes have read
    ring.release(stage);
    cursor.advance();
  } while (!(mark & LAST));
}

#endif
