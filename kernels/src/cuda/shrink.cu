// The first half of a LoRA product: out[row][column + rank] = scale * sum over inputs of
// x[row][input] * A[rank][input], with the A tiles of the row's adapter. x [rows, in], tile [ranks,
// length], out [rows, cols].
//
// An item is one chunk of ranks over one run of inputs, for the rows of a few consecutive pieces
// that use the same adapter, so that one pass over A serves them. Blocks take items as they get
// free: they run beside the base product of the same x, on what room it leaves. Sums are split over
// runs and over warps by the inputs alone, and added in order: a row's result depends on the row
// and its adapter, not on the batch.
#include "prelude.cuh"

constexpr u32 WARPS = 8;
constexpr u32 PIECE_ROWS = 16;
constexpr u32 CHUNK_RANKS = 16;
// Inputs per step of a warp: each lane takes 8 neighbours, 16 bytes.
constexpr u32 LANE_INPUTS = 8;
constexpr u32 STEP_INPUTS = 4 * LANE_INPUTS;

// Inputs first..end.
struct Run {
  u32 first, end;
};

// Tiles first..end hold the same ranks over successive inputs.
struct Chunk {
  const Tile* first;
  const Tile* end;
};

// The `wanted`-th chunk of a site; empty behind the last. A chunk begins where the column changes.
// For whole warps.
__device__ Chunk find_chunk(const Tile* tiles, u32 count, u32 wanted) {
  const u32 lane = threadIdx.x % WARP;
  u32 first = count, end = count;
  for (u32 base = 0, seen = 0; base < count; base += WARP) {
    const u32 i = base + lane;
    const bool begins = i < count && (i == 0 || tiles[i].column != tiles[i - 1].column);
    const u32 all = __ballot_sync(~0u, begins);
    const u32 number = seen + __popc(all & ((1u << lane) - 1));
    const u32 here = __ballot_sync(~0u, begins && number == wanted);
    const u32 after = __ballot_sync(~0u, begins && number == wanted + 1);
    if (here) first = base + __ffs(here) - 1;
    if (after) {
      end = base + __ffs(after) - 1;
      break;
    }
    seen += __popc(all);
  }
  return {tiles + first, tiles + end};
}

// Whether every 16-byte access to a row of x and to a rank of A is aligned and within it.
__device__ bool is_aligned(const Chunk& chunk, u32 in) {
  u32 all = in;
  for (const Tile* tile = chunk.first; tile != chunk.end; tile++) all |= tile->start | tile->length;
  return all % LANE_INPUTS == 0;
}

// One warp's part of the products of a chunk. Inputs are permuted within a step, alike for x and A:
// lane (group, thread) holds inputs 8 thread.. of rows group (+8) and of ranks group (+8), and each
// mma takes four of them. sums: rows group (+8) of each piece, ranks 2 thread (+1) of each half of
// the chunk.
template <u32 PIECES, u32 DEPTH>
__device__ void multiply(const Chunk& chunk, const Run& run, const bf16* x, u32 in,
                         const Piece (&pieces)[PIECES], float (&sums)[PIECES][2][4]) {
  const u32 warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  for (const Tile* tile = chunk.first; tile != chunk.end; tile++) {
    // The part of the run that is in the tile, by the tile's own count.
    const u32 begin = max(run.first, tile->start) - tile->start;
    const u32 stop = max(min(run.end, tile->start + tile->length), tile->start) - tile->start;
    if (begin >= stop) continue;
    const u32 length = tile->length, ranks = tile->ranks;
    const u32 steps = (stop - begin + STEP_INPUTS - 1) / STEP_INPUTS,
              share = (steps + WARPS - 1) / WARPS;
    const u32 end = min((warp + 1) * share, steps);
    const bf16* a = static_cast<const bf16*>(tile->data) + u64(group) * length;
    for (u32 step = warp * share; step < end; step += DEPTH) {
      uint4 w[DEPTH][2];
#pragma unroll
      for (u32 d = 0; d < DEPTH; d++) {
        const u32 k = begin + (step + d) * STEP_INPUTS + thread * LANE_INPUTS;
        const bool inside = step + d < end && k < stop;
        w[d][0] = inside ? load_stream(a + k) : zero;
        w[d][1] = inside && ranks > 8 ? load_stream(a + 8 * u64(length) + k) : zero;
      }
#pragma unroll
      for (u32 d = 0; d < DEPTH; d++) {
        const u32 k = begin + (step + d) * STEP_INPUTS + thread * LANE_INPUTS;
        const bool inside = step + d < end && k < stop;
#pragma unroll
        for (u32 p = 0; p < PIECES; p++) {
          const bf16* row = x + u64(pieces[p].row + group) * in + tile->start + k;
          const uint4 low =
              inside && group < pieces[p].rows ? *reinterpret_cast<const uint4*>(row) : zero;
          const uint4 high = inside && group + 8 < pieces[p].rows
                                 ? *reinterpret_cast<const uint4*>(row + 8 * u64(in))
                                 : zero;
#pragma unroll
          for (u32 half = 0; half < 2; half++) {
            mma_bf16(sums[p][half], {low.x, high.x, low.y, high.y}, {w[d][half].x, w[d][half].y});
            mma_bf16(sums[p][half], {low.z, high.z, low.w, high.w}, {w[d][half].z, w[d][half].w});
          }
        }
      }
    }
  }
}

// ---- runs that are added up

// What the runs of a product leave for the one that ends last.
struct Runs {
  float* partials;  // [chunks of the step, runs, PIECE_ROWS, CHUNK_RANKS], where there are several
  u32* arrivals;    // [chunks of the step] runs that have ended; zeros between kernels
  u32 inputs;       // of a run: a multiple of STEP_INPUTS
  u32 count;
};

// Whether all runs of a chunk have now ended; their partials may then be read.
__device__ bool arrive_last(u32* arrivals, u32 runs) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(arrivals, 1) + 1 == runs;
    if (last) *arrivals = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// Adds the warps' parts in their order, then the runs in theirs, and writes the sums. `place` is
// the chunk's among the step's. For whole blocks.
template <u32 PIECES>
__device__ void write_sums(const Chunk& chunk, const Runs& runs, u32 place, u32 run,
                           const Piece (&pieces)[PIECES], const float (&sums)[PIECES][2][4],
                           float* out, u32 cols) {
  // One column more than the ranks spreads rows over banks.
  __shared__ float parts[WARPS][PIECES * PIECE_ROWS][CHUNK_RANKS + 1];
  const u32 warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, thread = threadIdx.x % 4;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++)
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
      for (u32 i = 0; i < 4; i++)
        parts[warp][p * PIECE_ROWS + group + i / 2 * 8][half * 8 + thread * 2 + i % 2] =
            sums[p][half][i];
  __syncthreads();
  const u32 row = threadIdx.x / CHUNK_RANKS, rank = threadIdx.x % CHUNK_RANKS;
  float total[PIECES];
#pragma unroll
  for (u32 p = 0; p < PIECES; p++) {
    total[p] = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) total[p] += parts[w][p * PIECE_ROWS + row][rank];
  }
  if (PIECES == 1 && runs.count > 1) {
    constexpr u32 SIZE = PIECE_ROWS * CHUNK_RANKS;
    float* partials = runs.partials + u64(place) * runs.count * SIZE;
    if (row < pieces[0].rows) partials[run * SIZE + threadIdx.x] = total[0];
    if (!arrive_last(runs.arrivals + place, runs.count)) return;
    if (row < pieces[0].rows) {
      total[0] = 0;
      for (u32 i = 0; i < runs.count; i++) total[0] += __ldcg(partials + i * SIZE + threadIdx.x);
    }
  }
  const u32 column = chunk.first->column + rank;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++)
    if (row < pieces[p].rows && rank < chunk.first->ranks)
      out[u64(pieces[p].row + row) * cols + column] = total[p] * chunk.first->scale;
}

// What a product with weights of type A sees of an activation.
template <class A, class X>
__device__ float operand(X x) {
  return to_float(x);
}
template <>
__device__ float operand<bf16, float>(float x) {
  return to_float(from_float<bf16>(x));
}

// A chunk for one piece without alignment: a warp takes a rank and a few rows at a time, its lanes
// every 32nd input.
template <class X, class A>
__device__ void multiply_plain(const Chunk& chunk, const X* x, u32 in, const Piece& piece,
                               float* out, u32 cols) {
  constexpr u32 ROWS = 4;
  const u32 lane = threadIdx.x % WARP, ranks = chunk.first->ranks;
  for (u32 i = threadIdx.x / WARP; i < ranks * (PIECE_ROWS / ROWS); i += WARPS) {
    const u32 rank = i % ranks, first = i / ranks * ROWS;
    float sums[ROWS] = {};
    for (const Tile* tile = chunk.first; tile != chunk.end; tile++) {
      const A* a = static_cast<const A*>(tile->data) + u64(rank) * tile->length;
      const X* rows = x + u64(piece.row + first) * in + tile->start;
      for (u32 k = lane; k < tile->length; k += WARP) {
        const float weight = to_float(a[k]);
#pragma unroll
        for (u32 row = 0; row < ROWS; row++)
          if (first + row < piece.rows) sums[row] += operand<A>(rows[u64(row) * in + k]) * weight;
      }
    }
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
      const float sum = warp_sum(sums[row]);
      if (lane == 0 && first + row < piece.rows)
        out[u64(piece.row + first + row) * cols + chunk.first->column + rank] =
            sum * chunk.first->scale;
    }
  }
}

// The pieces that go together: neighbours of a group of PIECES that use one adapter. Those missing
// from PIECES have no rows. Gives how many there are.
template <u32 PIECES>
__device__ u32 take_pieces(const Step& step, u32 first, u32 end, Piece (&pieces)[PIECES]) {
  const u32 slot = step.pieces[first].slot;
  u32 taken = 0;
  bool same = true;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++) {
    pieces[p] = {0, 0, slot};
    same = same && first + p < end && step.pieces[first + p].slot == slot;
    if (same) pieces[p] = step.pieces[first + p], taken++;
  }
  return taken;
}

// `Arguments` of cuda/shrink.rs.
struct Arguments {
  const void* x;
  float* out;
  Runs runs;
  u32* taken;  // items taken so far; zero between kernels
  u32 in, cols, layer, site;
  u32 chunks;   // of a piece: a bound
  u32 is_late;  // whether the base product of the same x came before, and waited for it
};

template <class X, class A, u32 PIECES>
__device__ void shrink_item(const Step& step, const Adapters& adapters, const Arguments& arguments,
                            u32 group, u32 wanted, u32 run) {
  const auto& [any_x, out, runs, taken, in, cols, layer, site, chunks, is_late] = arguments;
  const X* x = static_cast<const X*>(any_x);
  const u32 end = min((group + 1) * PIECES, step.counts->pieces);
  for (u32 first = group * PIECES, count; first < end; first += count) {
    Piece pieces[PIECES];
    count = take_pieces(step, first, end, pieces);
    if (pieces[0].slot == NO_ADAPTER) continue;
    const SiteTiles& tiles = site_tiles(adapters, pieces[0].slot, layer, site);
    const Chunk chunk = find_chunk(adapters.tiles + tiles.a, tiles.a_count, wanted);
    if (chunk.first == chunk.end) continue;
    if constexpr (sizeof(X) == 2) {
      if (is_aligned(chunk, in)) {
        float sums[PIECES][2][4] = {};
        const Run inputs = {run * runs.inputs, min((run + 1) * runs.inputs, in)};
        multiply<PIECES, PIECES == 1 ? 4 : 2>(chunk, inputs, x, in, pieces, sums);
        write_sums(chunk, runs, group * chunks + wanted, run, pieces, sums, out, cols);
        continue;
      }
    }
    if (run > 0) continue;  // the first takes all inputs
    for (u32 p = 0; p < PIECES && pieces[p].rows; p++)
      multiply_plain<X, A>(chunk, x, in, pieces[p], out, cols);
  }
}

// Brings near what describes the B tiles of the site, and the tiles where they are few: whoever
// expands comes next and has less to wait behind. Of many tiles most would be pushed out again by
// the weights that stream through the cache meanwhile, and be read twice.
template <class A>
__device__ void prefetch_expand(const Step& step, const Adapters& adapters,
                                const Arguments& arguments) {
  constexpr u32 BYTES = 4 << 20, ALIGNMENT = 128;
  const u32 pieces = step.counts->pieces, lane = threadIdx.x % WARP;
  // The last blocks first, which may have nothing else to do.
  const u32 block = gridDim.x - 1 - blockIdx.x;
  for (u32 i = block * WARPS + threadIdx.x / WARP; i < pieces; i += gridDim.x * WARPS) {
    const u32 slot = step.pieces[i].slot;
    if (slot == NO_ADAPTER) continue;
    const SiteTiles site = site_tiles(adapters, slot, arguments.layer, arguments.site);
    const u32 share = BYTES / (pieces * max(site.b_count, 1u)) / ALIGNMENT * ALIGNMENT;
    for (u32 t = lane; t < site.b_count; t += WARP) {
      const Tile& tile = adapters.tiles[site.b + t];
      prefetch_bytes(tile.data, min(u32(tile.length * tile.ranks * sizeof(A)), share));
    }
  }
}

// The next item of a block. Whole blocks call it; those that start late find the items taken.
__device__ u32 take_item(u32* taken, u32 items) {
  __shared__ u32 next;
  __syncthreads();  // the one before has been read
  if (threadIdx.x == 0) {
    next = atomicAdd(taken, 1);
    if (next == items + gridDim.x - 1) *taken = 0;  // the last that anybody takes
  }
  __syncthreads();
  return next;
}

// Items: groups of PIECES pieces, chunks of ranks, runs of inputs.
template <class X, class A, u32 PIECES>
__device__ void shrink(const Step& step, const Adapters& adapters, const Arguments& arguments) {
  release_successor();
  if (!arguments.is_late) wait_for_predecessor();
  else prefetch_expand<A>(step, adapters, arguments);
  const u32 runs = arguments.runs.count, chunks = arguments.chunks;
  const u32 items = (step.counts->pieces + PIECES - 1) / PIECES * chunks * runs;
  const bool dealt = items <= gridDim.x;
  const auto next = [&] { return dealt ? items : take_item(arguments.taken, items); };
  for (u32 item = dealt ? blockIdx.x : next(); item < items; item = next())
    shrink_item<X, A, PIECES>(step, adapters, arguments, item / runs / chunks, item / runs % chunks,
                              item % runs);
  // Whoever waits for this kernel waits for the product too.
  if (arguments.is_late) wait_for_predecessor();
}

// Beside the blocks of a product there is room for one of these on a multiprocessor.
#define KERNEL(NAME, X, A, PIECES)                                               \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, PIECES == 1 ? 3 : 2) \
      NAME(Step step, Adapters adapters, Arguments arguments) {                  \
    shrink<X, A, PIECES>(step, adapters, arguments);                             \
  }
KERNEL(shrink_f32_f32, float, float, 1)
KERNEL(shrink_f32_f16, float, f16, 1)
KERNEL(shrink_f32_bf16, float, bf16, 1)
KERNEL(shrink_bf16_bf16, bf16, bf16, 1)
KERNEL(shrink_bf16_bf16_prefill, bf16, bf16, 4)
