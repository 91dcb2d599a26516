// The first half of a LoRA product where its second half does not make it (low_rank_shrink.cuh):
// out[row][column + rank] = scale * sum over inputs of x[row][input] * A[rank][input], with the A
// tiles of the row's adapter. x [rows, in], tile [ranks, length], out [rows, cols].
//
// An item is a few chunks of ranks for the rows of a few consecutive pieces that use the same
// adapter, so that one pass over A and over x serves them. Blocks take items as they get free. Sums
// are split over warps by inputs alone, and added in order: a row's result depends on the row and
// its adapter, not on the batch.
#include "shrink_tensor.cuh"

// A chunk for one piece without alignment: a warp takes a rank and ROWS rows at a time, its lanes
// every 32nd input.
template <class X, class A, u32 ROWS>
__device__ inline void multiply_plain(const Chunk& chunk, const X* x, u32 in, const Piece& piece,
                                      float* out, u32 cols) {
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
          if (first + row < piece.rows) sums[row] += seen<A>(rows[u64(row) * in + k]) * weight;
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
  u32* taken;  // items taken so far; zero between kernels
  u32 in, cols, layer, site;
  u32 chunks;  // of a piece: a bound
};

// The chunks first, first + 1, .. of a site for pieces that go together, on tensor cores. For whole
// blocks.
template <class S>
__device__ void shrink_tensor(const Piece (&pieces)[S::PIECES], const Tile* tiles, u32 count,
                              const Arguments& arguments, u32 first) {
  alignas(16) extern __shared__ float shared[];
  Chunk chunks[S::CHUNKS];
#pragma unroll
  for (u32 c = 0; c < S::CHUNKS; c++) chunks[c] = find_chunk(tiles, count, first + c);
  if (chunks[0].is_empty()) return;
  typename S::Sums sums = {};
  const Multiplier<S> multiplier = {pieces, static_cast<const bf16*>(arguments.x), arguments.in,
                                    shared_address(shared)};
  multiplier.run(chunks, sums);
#pragma unroll
  for (u32 c = 0; c < S::CHUNKS; c++)
    if (!chunks[c].is_empty())
      write_sums(chunks[c], pieces, sums[c], shared, arguments.out, arguments.cols);
}

// The same for a piece at a time, whatever the alignment and the types.
template <class X, class A, class S>
__device__ void shrink_plain(const Step& step, u32 begin, u32 end, const Tile* tiles, u32 count,
                             const Arguments& arguments, u32 first) {
  for (u32 c = first; c < first + S::CHUNKS; c++) {
    const Chunk chunk = find_chunk(tiles, count, c);
    if (chunk.is_empty()) return;
    for (u32 p = begin; p < end; p++)
      multiply_plain<X, A, 4>(chunk, static_cast<const X*>(arguments.x), arguments.in,
                              step.pieces[p], arguments.out, arguments.cols);
  }
}

template <class X, class A, class S>
__device__ void shrink_item(const Step& step, const Adapters& adapters, const Arguments& arguments,
                            u32 group, u32 first) {
  const u32 end = min((group + 1) * S::PIECES, step.counts->pieces);
  for (u32 i = group * S::PIECES, taken; i < end; i += taken) {
    Piece pieces[S::PIECES];
    taken = take_pieces(step, i, end, pieces);
    if (pieces[0].slot == NO_ADAPTER) continue;
    const SiteTiles& site = site_tiles(adapters, pieces[0].slot, arguments.layer, arguments.site);
    const Tile* tiles = adapters.tiles + site.a;
    const u32 count = site.a_count;
    if constexpr (sizeof(X) == 2)
      if (is_aligned(tiles, count, arguments.in)) {
        shrink_tensor<S>(pieces, tiles, count, arguments, first);
        continue;
      }
    shrink_plain<X, A, S>(step, i, i + taken, tiles, count, arguments, first);
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

// Items: groups of pieces, chunks of ranks.
template <class X, class A, class S>
__device__ void shrink(const Step& step, const Adapters& adapters, const Arguments& arguments) {
  release_successor();
  wait_for_predecessor();
  const u32 sets = (arguments.chunks + S::CHUNKS - 1) / S::CHUNKS;
  const u32 items = (step.counts->pieces + S::PIECES - 1) / S::PIECES * sets;
  const bool dealt = items <= gridDim.x;
  const auto next = [&] { return dealt ? items : take_item(arguments.taken, items); };
  for (u32 item = dealt ? blockIdx.x : next(); item < items; item = next())
    shrink_item<X, A, S>(step, adapters, arguments, item / sets, item % sets * S::CHUNKS);
}

// PER: blocks of a multiprocessor; then pieces and chunks of an item, stages. `Shape` of
// cuda/shrink.rs.
#define KERNEL(NAME, X, A, PER, ...)                             \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, PER) \
      NAME(Step step, Adapters adapters, Arguments arguments) {  \
    shrink<X, A, Shape<__VA_ARGS__>>(step, adapters, arguments); \
  }
KERNEL(shrink_f32_f32, float, float, 3, 1, 1, 8)
KERNEL(shrink_f32_f16, float, f16, 3, 1, 1, 8)
KERNEL(shrink_f32_bf16, float, bf16, 3, 1, 1, 8)
KERNEL(shrink_bf16_bf16, bf16, bf16, 3, 1, 1, 8)
KERNEL(shrink_bf16_bf16_prefill, bf16, bf16, 1, 4, 3, 3)

// For sums of low ranks (fixed.cuh): zeros to add to.
extern "C" __global__ void clear_low_ranks(u64* words, u32 count) {
  release_successor();
  wait_for_predecessor();
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    words[i] = 0;
}
