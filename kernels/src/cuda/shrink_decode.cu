// The first half of a LoRA product (shrink.cuh) for the rows of decoding, x and A in bf16. The
// product of the same x comes next and reads what this leaves.
//
// An item is a chunk of ranks for up to eight rows of a piece. Clusters take items in turn; each
// block of a cluster has a run of the inputs, and the runs' sums meet in shared memory. Weights
// come into registers a batch ahead: the first before the kernel that writes x has ended.
//
// A row's sums depend on the row, its adapter and the runs, which are a function of the inputs:
// steps of a warp, warps, runs, each in ascending order.
#include "hopper.cuh"
#include "shrink.cuh"
#include "signals.cuh"

constexpr u32 ITEMS = 16;         // of a cluster that are looked up at a time
constexpr u32 DEPTH = 4;          // steps of a batch
constexpr u32 EIGHT = 8;          // rows of an mma
constexpr u32 SLOT_ROWS = 2 * 7;  // most that runs * tokens is, for up to 8 runs

// `DecodeArguments` of cuda/shrink.rs.
struct Arguments {
  const bf16* x;
  float* out;
  Signals* signals;  // for the product of the same x, or null
  u32 in, cols, layer, site;
  u32 pieces;      // of the step: a bound, at most a block's threads
  u32 runs;        // blocks of a cluster
  u32 run_inputs;  // a multiple of STEP_INPUTS
};

struct Item {
  Tile tile;    // the first of the chunk
  u32 at;       // its place among all tiles
  u32 tiles;    // of the chunk
  bool simple;  // whether its inputs are not aligned: see multiply_plain
  u8 row, rows;
};

struct Shared {
  uint4 x[DEPTH][WARPS * WARP];  // what each lane needs of a batch
  float4 parts[WARPS][WARP];     // sums of each warp's inputs, by the lanes that have them
  // [runs, tokens, CHUNK_RANKS] sums of the runs, for the tokens that this block adds up: every
  // runs-th of an item.
  float slots[SLOT_ROWS * CHUNK_RANKS];
  Item items[ITEMS];
  u32 first, count, later;  // items of the cluster: ahead of those looked up, these, behind them
  u32 idle;                 // blocks without items, but for the grid's first
  u32 warps[WARPS];         // items of each warp's pieces
  u64 filled;               // barrier: the slots have an item's sums
};

// A batch of A. Inputs are permuted within a step, alike for x and A: lane (group, thread) holds
// inputs 8 thread.. of ranks group (+8), and each mma takes four of them.
struct Weights {
  uint4 at[DEPTH][2];
};

// The block's place in its cluster, the cluster's in the grid, and clusters of the grid: read where
// they are needed, as no register is to spare.
__device__ inline u32 run_of_block() {
  u32 rank = 0;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}
__device__ inline u32 cluster_index() {
  u32 index = blockIdx.x;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("mov.u32 %0, %%clusterid.x;" : "=r"(index));
#endif
  return index;
}
__device__ inline u32 cluster_count() {
  u32 count = gridDim.x;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("mov.u32 %0, %%nclusterid.x;" : "=r"(count));
#endif
  return count;
}

// One block's part of the work.
struct Decode {
  const Step& step;
  const Adapters& adapters;
  const Arguments& arguments;
  Shared& shared;

  // The next batch: of an item that was looked up, of one of its tiles. What follows from these is
  // found anew each time: no register is to spare.
  u32 item, tile, batch;
  u32 parity = 0;  // of the barrier's present phase

  // ---- looking up

  __device__ Chunk chunk_of(const Item& item) const {
    return {adapters.tiles + item.at, adapters.tiles + item.at + item.tiles};
  }

  // `i`: of the piece's items.
  __device__ void describe(Item& item, const Piece& piece, const SiteTiles& site, u32 i) const {
    const u32 chunk = i % site.chunks, row = i / site.chunks * EIGHT;
    u32 first = chunk, tiles = 1;
    if (site.a_count != site.chunks) {
      // A chunk begins where the column changes.
      const Tile* all = adapters.tiles + site.a;
      first = tiles = 0;
      for (u32 i = 0, number = 0; i < site.a_count && number <= chunk; i++) {
        if (i > 0 && all[i].column != all[i - 1].column) number++;
        if (number < chunk) first = i + 1;
        if (number == chunk) tiles++;
      }
    }
    item.at = site.a + first;
    item.tiles = tiles;
    item.tile = adapters.tiles[item.at];
    item.simple = (arguments.in | item.tile.start | item.tile.length) % LANE_INPUTS != 0 ||
                  (tiles > 1 && !is_aligned(chunk_of(item), arguments.in));
    item.row = piece.row + row;
    item.rows = least(piece.rows - row, EIGHT);
  }

  // Looks up the cluster's items behind the `first` ones. A thread looks after a piece.
  __device__ void look_up(u32 first) const {
    const u32 thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const u32 cluster = cluster_index(), clusters = cluster_count();
    const u32 pieces = step.counts->pieces;
    Piece piece = {0, 0, NO_ADAPTER};
    if (thread < arguments.pieces) piece = step.pieces[thread];
    SiteTiles site = {};
    if (thread < pieces && piece.slot != NO_ADAPTER)  // behind them are those of other steps
      site = site_tiles(adapters, piece.slot, arguments.layer, arguments.site);
    const u32 own = site.chunks * ((piece.rows + EIGHT - 1) / EIGHT);
    u32 end = own;
#pragma unroll
    for (u32 offset = 1; offset < WARP; offset *= 2) {
      const u32 before = __shfl_up_sync(~0u, end, offset);
      if (lane >= offset) end += before;
    }
    if (lane == WARP - 1) shared.warps[warp] = end;
    __syncthreads();
    u32 items = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
      if (w == warp) end += items;
      items += shared.warps[w];
    }
    const u32 begin = end - own;
    u32 i = begin > cluster ? (begin - cluster + clusters - 1) / clusters : 0;
    for (i = max(i, first); i < first + ITEMS && cluster + i * clusters < end; i++)
      describe(shared.items[i - first], piece, site, cluster + i * clusters - begin);
    const u32 total = items > cluster ? (items - cluster - 1) / clusters + 1 : 0;
    if (thread == 0) {
      shared.first = first;
      shared.count = min(total - first, ITEMS);
      shared.later = total - first - shared.count;
      shared.idle = gridDim.x - max(min(items, clusters) * arguments.runs, 1u);
    }
    __syncthreads();
  }

  // ---- weights

  // The inputs begin..stop of a tile that are in the block's run, by the tile's own count.
  __device__ void part_of(const Tile& tile, u32& begin, u32& stop) const {
    const u32 first = run_of_block() * arguments.run_inputs, end = first + arguments.run_inputs;
    begin = max(first, tile.start) - tile.start;
    stop = max(min(end, tile.start + tile.length), tile.start) - tile.start;
  }

  __device__ Tile tile_now() const {
    return tile ? adapters.tiles[shared.items[item].at + tile] : shared.items[item].tile;
  }

  // The lane's first input in the batch by the tile's own count, and inputs from there to where the
  // warp's end.
  struct Lane {
    u32 first;
    int left;
    __device__ bool has(u32 d) const { return int(d * STEP_INPUTS) < left; }
  };

  // The batch is empty where the block has no inputs of the tile. Gives batches of the tile too.
  __device__ Lane lane_of(const Tile& tile, u32& batches) const {
    const u32 warp = threadIdx.x / WARP, thread = threadIdx.x % 4;
    u32 begin, stop;
    part_of(tile, begin, stop);
    if (shared.items[item].simple || begin > stop) begin = stop;
    const u32 steps = (stop - begin + STEP_INPUTS - 1) / STEP_INPUTS;
    const u32 share = (steps + WARPS - 1) / WARPS;
    batches = max((share + DEPTH - 1) / DEPTH, 1u);
    const u32 from = begin + warp * share * STEP_INPUTS, end = from + share * STEP_INPUTS;
    const u32 first = from + batch * DEPTH * STEP_INPUTS + thread * LANE_INPUTS;
    return {first, int(min(end, stop)) - int(first)};
  }

  // Turns to the next batch. Whether the present one was its item's last.
  __device__ bool advance() {
    u32 batches;
    lane_of(tile_now(), batches);
    if (++batch < batches) return false;
    batch = 0;
    if (++tile < shared.items[item].tiles) return false;
    tile = 0;
    item++;
    return true;
  }

  // Gives batches of the tile.
  __device__ u32 load(Weights& w) const {
    const Tile tile = tile_now();
    u32 batches;
    const Lane lane = lane_of(tile, batches);
    const bf16* a = static_cast<const bf16*>(tile.data) +
                    u64(threadIdx.x % WARP / 4) * tile.length + lane.first;
    const bf16* upper = a + 8 * u64(tile.length);
    const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (u32 d = 0; d < DEPTH; d++) {
      w.at[d][0] = lane.has(d) ? load_stream(a + d * STEP_INPUTS) : zero;
      w.at[d][1] = lane.has(d) && tile.ranks > 8 ? load_stream(upper + d * STEP_INPUTS) : zero;
    }
    return batches;
  }

  // Brings an item near. A warp does it, a lane for each rank.
  __device__ void prefetch(u32 i) const {
    if (i >= shared.count || threadIdx.x / WARP != i % WARPS) return;
    const Item& item = shared.items[i];
    const u32 rank = threadIdx.x % WARP;
    u32 begin, stop;
    part_of(item.tile, begin, stop);
    if (item.simple || begin >= stop || rank >= item.tile.ranks) return;
    prefetch_bytes(static_cast<const bf16*>(item.tile.data) + u64(rank) * item.tile.length + begin,
                   (stop - begin) * sizeof(bf16));
  }

  // ---- products

  // Where a lane's x of the batch begins, and how many inputs it has; none where there is no token.
  struct Source {
    const bf16* x;
    Lane lane;
  };
  __device__ Source source() const {
    const Tile tile = tile_now();
    const u32 token = threadIdx.x % WARP / 4, row = shared.items[item].row + token;
    u32 batches;
    Lane lane = lane_of(tile, batches);
    if (token >= shared.items[item].rows) lane.left = 0;
    return {arguments.x + u64(row) * arguments.in + tile.start + lane.first, lane};
  }

  // Brings x of the batch, each lane its own.
  __device__ void copy_x(const Source& from) const {
#pragma unroll
    for (u32 d = 0; d < DEPTH; d++)
      copy_async(shared_address(&shared.x[d][threadIdx.x]), from.x + d * STEP_INPUTS,
                 from.lane.has(d));
    copy_commit();
  }

  // Adds a batch to the sums: ranks group (+8), tokens 2 thread (+1).
  __device__ void multiply(const Weights& w, float (&sums)[4]) const {
    copy_wait<0>();
#pragma unroll
    for (u32 d = 0; d < DEPTH; d++) {
      const uint4 low = w.at[d][0], high = w.at[d][1], x = shared.x[d][threadIdx.x];
      mma_bf16(sums, {low.x, high.x, low.y, high.y}, {x.x, x.y});
      mma_bf16(sums, {low.z, high.z, low.w, high.w}, {x.z, x.w});
    }
  }

  // ---- sums

  __device__ void write(const Item& item, u32 token, u32 rank, float sum) const {
    if (token < item.rows && rank < item.tile.ranks)
      arguments.out[u64(item.row + token) * arguments.cols + item.tile.column + rank] =
          sum * item.tile.scale;
  }

  // Adds up the runs' sums, in their order, in the blocks that look after the tokens. All threads
  // of the cluster have arrived since they last read a slot.
  __device__ void add_runs(const Item& item, u32 token, u32 rank, float sum, bool last) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const u32 run = run_of_block(), runs = arguments.runs, tokens = (EIGHT + runs - 1) / runs;
    const u32 filled = shared_address(&shared.filled);
    cluster_wait();
    if (token < item.rows) {
      const u32 slot = (run * tokens + token / runs) * CHUNK_RANKS + rank;
      store_cluster(shared_address(shared.slots + slot), sum, token % runs, filled);
    }
    const u32 own = item.rows > run ? (item.rows - run - 1) / runs + 1 : 0;  // tokens
    if (own > 0) {
      if (threadIdx.x == 0) barrier_expect(filled, runs * own * CHUNK_RANKS * sizeof(float));
      if (threadIdx.x < own * CHUNK_RANKS) {
        barrier_wait(filled, parity);
        sum = 0;
        for (u32 i = 0; i < runs; i++) sum += shared.slots[i * tokens * CHUNK_RANKS + threadIdx.x];
        write(item, threadIdx.x / CHUNK_RANKS * runs + run, threadIdx.x % CHUNK_RANKS, sum);
      }
      parity ^= 1;
    }
    if (!last) cluster_arrive();
#endif
  }

  // `last`: of the cluster's items.
  __device__ void finish(const Item& item, const float (&sums)[4], bool last) {
    constexpr u32 SUMS = EIGHT * CHUNK_RANKS;
    const u32 thread = threadIdx.x, runs = arguments.runs;
    if (!item.simple) {
      shared.parts[thread / WARP][thread % WARP] = make_float4(sums[0], sums[1], sums[2], sums[3]);
      __syncthreads();
      // The warps' sums, in their order, of one token and one rank.
      u32 token = EIGHT, rank = 0;
      float sum = 0;
      if (thread < SUMS) {
        token = thread / 4 % 4 * 2 + thread % 2;
        rank = thread / 16 + thread / 2 % 2 * 8;
        const float* parts = &shared.parts[0][0].x + thread;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) sum += parts[w * SUMS];
      }
      if (runs > 1) add_runs(item, token, rank, sum, last);
      else write(item, token, rank, sum);
      __syncthreads();  // all parts have been read
    } else if (runs > 1 && last) {
      leave();
    }
  }

  // For those who have arrived in vain: nobody ends between the two.
  __device__ void leave() const {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    cluster_wait();
#endif
  }

  // For blocks of a cluster that have items.
  __device__ void enter() const {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if (threadIdx.x == 0) {
      barrier_init(shared_address(&shared.filled), 1);
      barrier_init_fence();
    }
    cluster_arrive();
#endif
  }

  // ----

  // The items that have been looked up.
  __device__ void run_items(Weights& w) {
    float sums[4] = {};
    for (;;) {
      multiply(w, sums);
      const u32 now = item;
      const bool ends = advance(), more = item < shared.count;
      if (more) {
        load(w);
        copy_x(source());
      }
      if (ends) {
        prefetch(item + 2);
        finish(shared.items[now], sums, !more && shared.later == 0);
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[i] = 0;
      }
      if (!more) return;
    }
  }

  // The same for those without alignment: the first run's block takes all inputs.
  __device__ void run_simple_items() const {
    if (run_of_block() > 0) return;
    for (u32 i = 0; i < shared.count; i++) {
      const Item& item = shared.items[i];
      if (!item.simple) continue;
      const Piece piece = {item.row, item.rows, NO_ADAPTER};
      multiply_plain<bf16, bf16, 1>(chunk_of(item), arguments.x, arguments.in, piece, arguments.out,
                                    arguments.cols);
    }
  }

  // For all threads of the block, once.
  __device__ void await_x() const {
    wait_for_predecessor();
    if (arguments.signals && blockIdx.x == 0 && threadIdx.x == 0)
      raise_signal(arguments.signals->has_x, 1);
  }

  // When the block has written all of its items. The first one does it for the idle ones too.
  __device__ void announce() const {
    if (!arguments.signals) return;
    __syncthreads();
    if (threadIdx.x == 0)
      raise_signal(arguments.signals->shrunk, blockIdx.x == 0 ? 1 + shared.idle : 1);
  }

  __device__ void run_all() {
    release_successor();
    look_up(0);
    if (shared.count == 0) {
      if (blockIdx.x > 0) return;
      // Who waits for this kernel waits for its predecessor: one block has to.
      await_x();
      return announce();
    }
    if (arguments.runs > 1) enter();
    for (;;) {
      Weights w;
      item = tile = batch = 0;
      const u32 batches = load(w);
      for (u32 i = batches > 1 ? 0 : 1; i < 3; i++) prefetch(i);
      const Source from = source();
      if (shared.first == 0) await_x();
      copy_x(from);
      run_items(w);
      run_simple_items();
      if (shared.later == 0) return announce();
      look_up(shared.first + ITEMS);
    }
  }
};

// Four blocks' registers fill a multiprocessor: two leave those of a block of the product that
// comes next. rows <= 128. Grid: clusters of `runs` blocks.
extern "C" __global__ void __launch_bounds__(WARPS* WARP, 4)
    shrink_decode(Step step, Adapters adapters, Arguments arguments) {
  __shared__ Shared shared;
  Decode decode = {step, adapters, arguments, shared};
  decode.run_all();
}

// For signals that no product has taken. The product behind the next shrink must not see them, so
// nothing starts before this has ended.
extern "C" __global__ void lower_signals(Signals* signals) {
  wait_for_predecessor();
  *signals = {};
}
