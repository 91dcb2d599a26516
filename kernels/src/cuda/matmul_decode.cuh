// y = (x w^T + delta) scale + bias for at most 128 rows of x on Hopper, and what its reader makes
// of y: x [rows, inputs] and w [outputs, inputs] bf16.
//
// The time is that of reading w, and B of the batch's adapters, once. Kernels that follow each
// other in a step do not write weights, so the stages are filled with them before the predecessor
// is waited for.
//
// A row's sums are a function of that row, its adapter and SPLITS: chunks in ascending order, then
// the blocks of a cluster in theirs, then delta; ROWS, TOKENS and CHUNKS don't matter.
#pragma once
#include "low_rank_add.cuh"
#include "low_rank_shrink.cuh"

// `ProductView` of cuda/matmul/decode.rs.
struct Product {
  void* out;  // PLAIN: y, f32 [rows, outputs]; GATED: bf16 [rows, outputs / 2]; RESIDUAL: the
              // next x, bf16 [rows, outputs], residual * weight, not yet divided by its root mean
              // square
  const float* bias;     // [outputs], or null
  const float* squares;  // [rows, parts_of(inputs)] of x before its weight: x is to be divided by
                         // the root of their mean; or null
  float* residual;       // RESIDUAL: [rows, outputs], added to
  const float* weight;   // RESIDUAL: [outputs]
  float* squares_out;    // RESIDUAL: [rows, parts_of(outputs)] of the residual
  LowRank low_rank;
  u32 rows, inputs, outputs;
  float eps;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What each row of the product is to be multiplied with. Eight lanes take eight rows, in the same
// order for every batch. For the warp `warp` of `warps`.
template <class T>
__device__ inline void find_scales(const Ring<T>& ring, const Work& work, const Product& p,
                                   u32 warp, u32 warps) {
  constexpr u32 EIGHT = 8, EIGHTS = WARP / EIGHT;
  const u32 lane = threadIdx.x % WARP, sub = lane % EIGHT;
  const u32 parts = (p.inputs + PART - 1) / PART, stride = parts_of(p.inputs);
#pragma unroll 1
  for (u32 base = warp * WARP + lane / EIGHT; base < T::TOKENS; base += warps * WARP) {
    float sums[EIGHT] = {};
#pragma unroll 1
    for (u32 i = sub * 4; p.squares && i < parts; i += EIGHT * 4) {
      float4 v[EIGHT];
#pragma unroll
      for (u32 b = 0; b < EIGHT; b++) {
        const u32 token = work.row + base + b * EIGHTS;
        v[b] = make_float4(0, 0, 0, 0);
        if (token < p.rows)
          v[b] = *reinterpret_cast<const float4*>(p.squares + u64(token) * stride + i);
      }
#pragma unroll
      for (u32 b = 0; b < EIGHT; b++) {
        sums[b] += v[b].x;
        if (i + 1 < parts) sums[b] += v[b].y;
        if (i + 2 < parts) sums[b] += v[b].z;
        if (i + 3 < parts) sums[b] += v[b].w;
      }
    }
    // Each lane passes on the half of its rows that it does not look after any more, until one is
    // left to it: the sub-th.
#pragma unroll
    for (u32 half = EIGHT / 2; half; half /= 2)
#pragma unroll
      for (u32 b = 0; b < half; b++) {
        const bool upper = sub & half;
        const float other = __shfl_xor_sync(~0u, upper ? sums[b] : sums[b + half], half);
        sums[b] = (upper ? sums[b + half] : sums[b]) + other;
      }
    const u32 token = base + sub * EIGHTS;
    if (token < T::TOKENS)
      ring.board->scales[token] = p.squares ? 1 / sqrtf(sums[0] / p.inputs + p.eps) : 1;
  }
  barrier_arrive(shared_address(&ring.board->scaled));  // each lane for what it has written
}

// ---- sums that become results where they are, in registers

// Scaled, with bias, before anything is stored: loads need not wait for stores of others.
template <class T, class F>
__device__ inline void scale_sums(const Ring<T>& ring, const Product& p, typename T::Sums& sums,
                                  const F& output_of) {
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
    float bias[2] = {0, 0};
#pragma unroll
    for (u32 below = 0; below < 2; below++) {
      const u32 output = output_of(((group * T::TILES + t) * 4 + warp) * 16 + lane / 4 + 8 * below);
      if (p.bias && output < p.outputs) bias[below] = p.bias[output];
    }
#pragma unroll
    for (u32 i = 0; i < T::TOKENS / 2; i++) {
      const float scale = ring.board->scales[i / 4 * 8 + lane % 4 * 2 + i % 2];
      sums[t][i] = sums[t][i] * scale + bias[i / 2 % 2];
    }
  }
}

template <class T>
__device__ inline void write_plain(const Ring<T>& ring, const Work& work, const Product& p,
                                   u32 tile, typename T::Sums& sums) {
  float* y = static_cast<float*>(p.out);
  scale_sums<T>(ring, p, sums, [&](u32 row) { return tile * T::ROWS + row; });
  for_each_sum<T>(sums, [&](u32 row, u32 of_block, float sum) {
    const u32 output = tile * T::ROWS + row, token = work.row + of_block;
    if (output < p.outputs && token < p.rows) y[u64(token) * p.outputs + output] = sum;
  });
}

// A thread has gate and up of a column for two tokens; neighbours swap one, so that each stores
// two columns of one token.
template <class T>
__device__ inline void write_gated(const Ring<T>& ring, const Work& work, const Product& p,
                                   u32 tile, typename T::Sums& sums) {
  const u32 group = threadIdx.x / GROUP, warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
  const u32 columns = p.outputs / 2, odd = lane / 4 % 2;
  // Of 16 rows of a tile eight are of gate, the others of up.
  const auto column_of = [&](u32 row) { return tile * (T::ROWS / 2) + row / 16 * 8 + row % 8; };
  scale_sums<T>(ring, p, sums, [&](u32 row) {
    return column_of(row) < columns ? column_of(row) + row / 8 % 2 * columns : p.outputs;
  });
  bf16* out = static_cast<bf16*>(p.out);
#pragma unroll
  for (u32 t = 0; t < T::TILES; t++) {
    const u32 column = column_of(((group * T::TILES + t) * 4 + warp) * 16 + lane / 4);
    if (column >= columns) continue;  // for eight columns alike
#pragma unroll
    for (u32 n = 0; n < T::TOKENS / 8; n++)
#pragma unroll
      for (u32 i = 0; i < 2; i++)
        sums[t][n * 4 + i] = silu(sums[t][n * 4 + i]) * sums[t][n * 4 + 2 + i];
#pragma unroll
    for (u32 n = 0; n < T::TOKENS / 8; n++) {
      const float first = sums[t][n * 4], second = sums[t][n * 4 + 1];
      const float other = __shfl_xor_sync(~0u, odd ? first : second, 4);
      const u32 token = work.row + n * 8 + lane % 4 * 2 + odd;
      const u32 pair = odd ? pack_bf16(other, second) : pack_bf16(first, other);
      if (token < p.rows) *reinterpret_cast<u32*>(out + u64(token) * columns + column - odd) = pair;
    }
  }
}

// ---- sums that meet in shared memory

template <class T>
__device__ inline void put_tile(u32 tile, const typename T::Sums& sums) {
  static_assert(T::TOKENS * T::PITCH * 4 <= Ring<T>::BYTES, "a tile fits");
  for_each_sum<T>(sums, [&](u32 row, u32 token, float sum) {
    store_shared(tile + (token * T::PITCH + row) * 4, sum);
  });
}

// To the blocks of the cluster that add them up, of rows that there are.
template <class T>
__device__ inline void push_tile(const Ring<T>& ring, const Work& work, const Product& p,
                                 const typename T::Sums& sums) {
  const u32 barrier = shared_address(&ring.board->placed);
  for_each_sum<T>(sums, [&](u32 row, u32 token, float sum) {
    if (work.row + token >= p.rows) return;
    const u32 to = ring.pushed(work.split) + (token % T::SHARE * T::PITCH + row) * 4;
    push_float(to, sum, barrier, token / T::SHARE);
  });
}
// Announces what will be pushed to this block. For one thread.
template <class T>
__device__ inline void expect_pushed(const Ring<T>& ring, const Work& work, const Product& p) {
  const RowRange share = share_of<T>(work);
  const u32 end = least(share.end, p.rows), rows = end > share.first ? end - share.first : 0;
  barrier_expect(shared_address(&ring.board->placed), T::SPLITS * rows * T::ROWS * 4);
}

__device__ inline float4 load_floats(const float* p) { return *reinterpret_cast<const float4*>(p); }

// Four outputs of a row of the block: the blocks' sums in their order, then delta.
template <class T>
__device__ inline float4 sum_up(const Ring<T>& ring, const Work& work, u32 token, u32 row) {
  const u32 at = ring.parts() + (token * T::PITCH + row) * 4;
  if constexpr (T::SPLITS == 1) return load_shared_floats(at);
  const u32 own = ((token - work.split * T::SHARE) * T::PITCH + row) * 4;  // of the block's share
  float4 part[T::SPLITS];
#pragma unroll
  for (u32 j = 0; j < T::SPLITS; j++)
    part[j] = T::PUSHES ? load_shared_floats(ring.pushed(j) + own) : load_cluster(at, j);
  float4 sum = part[0];
#pragma unroll
  for (u32 j = 1; j < T::SPLITS; j++) sum = sum + part[j];
  if constexpr (T::LORA) sum = sum + load_shared_floats(ring.totals() + own);
  return sum;
}

// The residual of four outputs of a token, and the next x. 16 neighbouring lanes have a part, or
// are outside. For whole warps.
__device__ inline void add_residual(const Product& p, u32 token, u32 output, bool inside, float4 y,
                                    float4 before, float4 weight) {
  const float4 now = before + y, x = now * weight;
  float squares = inside ? now.x * now.x + now.y * now.y + now.z * now.z + now.w * now.w : 0;
#pragma unroll
  for (u32 offset = 8; offset; offset /= 2) squares += __shfl_xor_sync(~0u, squares, offset);
  if (!inside) return;
  const u64 at = u64(token) * p.outputs + output;
  *reinterpret_cast<float4*>(p.residual + at) = now;
  *reinterpret_cast<uint2*>(static_cast<bf16*>(p.out) + at) =
      make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
  if (threadIdx.x % 16 == 0)
    p.squares_out[u64(token) * parts_of(p.outputs) + output / PART] = squares;
}

// Finishes the block's share of the tokens of a tile. For all its threads.
template <class T, Epilogue E>
struct Finish {
  static constexpr u32 QUADS = T::ROWS / 4;
  const Ring<T>& ring;
  const Product& p;
  const Work& work;
  const RowRange share;
  float4 before, weight;  // RESIDUAL: of the next quad

  __device__ Finish(const Ring<T>& ring, const Product& p, const Work& work)
      : ring(ring), p(p), work(work), share(share_of<T>(work)) {
    load(threadIdx.x);
  }
  __device__ u32 token(u32 i) const { return share.first + i / QUADS; }
  __device__ u32 output(u32 i) const { return work.first * T::ROWS + i % QUADS * 4; }
  __device__ bool is_live(u32 i) const { return token(i) < least(share.end, p.rows); }

  // Ahead of the sums, what does not depend on them.
  __device__ void load(u32 i) {
    if (E != Epilogue::RESIDUAL || !is_live(i) || output(i) >= p.outputs) return;
    before = load_floats(p.residual + u64(token(i)) * p.outputs + output(i));
    weight = load_floats(p.weight + output(i));
  }
  // Once all sums are there.
  __device__ void run() {
#pragma unroll 1
    for (u32 i = threadIdx.x; is_live(i - i % WARP); i += T::THREADS) {  // for all lanes alike
      const u32 token = is_live(i) ? this->token(i) : share.first, output = this->output(i);
      const float scale = ring.board->scales[token - work.row];
      const bool inside = is_live(i) && output < p.outputs;
      float4 y = make_float4(0, 0, 0, 0);
      if (inside)  // what is read of others is used, and so there, before the block lets them end
        y = sum_up<T>(ring, work, token - work.row, i % QUADS * 4) *
            make_float4(scale, scale, scale, scale);
      if (inside && p.bias) y = y + load_floats(p.bias + output);
      if constexpr (E == Epilogue::RESIDUAL) {
        const float4 before = this->before, weight = this->weight;
        load(i + T::THREADS);
        add_residual(p, token, output, inside, y, before, weight);
      } else if (inside) {
        *reinterpret_cast<float4*>(static_cast<float*>(p.out) + u64(token) * p.outputs + output) =
            y;
      }
    }
  }
};

// ----

// The helping warp.
template <class T, Epilogue E>
__device__ inline void help(const Ring<T>& ring, const Work& work, const Step& step,
                            const Product& p) {
  if constexpr (!T::LORA) {
    wait_for_predecessor();
    return find_scales<T>(ring, work, p, 0, 1);
  }
  const RowRange share = share_of<T>(work);
  const LowRank& low = p.low_rank;
  Lookup<T> found(step, low.pieces, low.adapters, low.layer, low.site);
  found.join();
  LowRankLister<T> lister(ring, found, p.low_rank, work.first, p.outputs, share);
  // The first two lists are made before the predecessor has ended; then one after the other, as
  // those before them have been read.
  bool more = true;
  for (u32 made = 0, seated = 0; more; made++) {
    LowRankItems<T>& list = low_rank_items(ring, made);
    if (made > 1)
      barrier_wait(shared_address(&ring.board->read[made % 2]), parity_of_list(made - 2));
    more = lister.fill(list);
    barrier_arrive(shared_address(&ring.board->listed[made % 2]));  // each lane for what it wrote
    if (made == 0 && more) continue;
    if (seated == 0) {
      wait_for_predecessor();
      clear_spent(p.low_rank);
      using Seater = LowRankSeater<T>;
      if constexpr (Seater::AWAITS_FEW) Seater(p.low_rank, low_rank_items(ring, 0)).await_few();
    }
    for (; seated <= made; seated++) {
      LowRankSeater<T>(p.low_rank, low_rank_items(ring, seated)).run();
      barrier_arrive(shared_address(&ring.board->seated[seated % 2]));
    }
  }
}

// The multipliers, where a block adds up its sums by itself: any number of tiles, or one where
// there are adapters.
template <class T, Epilogue E>
__device__ inline void multiply_tiles(const Ring<T>& ring, const Work& work, const Product& p) {
  Cursor<T> cursor;
  for (u32 tile = work.first; tile < work.tiles; tile += work.stride) {
    typename T::Sums sums;
    accumulate<T>(ring, cursor, work.steps, sums);
    if constexpr (T::LORA) {
      barrier_arrive(shared_address(&ring.board->summed));
      add_low_rank<T>(ring, work, sums);
    }
    barrier_wait(shared_address(&ring.board->scaled), 0);
    if constexpr (E == Epilogue::GATED) write_gated<T>(ring, work, p, tile, sums);
    else write_plain<T>(ring, work, p, tile, sums);
  }
}

// And where sums meet in shared memory: one tile. Those that other blocks wait for come first.
template <class T>
__device__ inline void multiply_part(const Ring<T>& ring, const Work& work, const Product& p) {
  const u32 summed = shared_address(&ring.board->summed);
  Cursor<T> cursor;
  typename T::Sums sums;
  if constexpr (T::PUSHES) cluster_wait();  // all blocks have begun
  accumulate<T>(ring, cursor, work.steps, sums);
  barrier_arrive(summed);
  if constexpr (T::PUSHES) push_tile<T>(ring, work, p, sums);
  if constexpr (T::LORA && T::SPLITS == 1) add_low_rank<T>(ring, work, sums);
  barrier_wait(summed, 0);
  if constexpr (T::LORA && T::SPLITS == 1) {  // B has been read too
    barrier_arrive(summed);
    barrier_wait(summed, 1);
  }
  if constexpr (!T::PUSHES) put_tile<T>(ring.parts(), sums);
  barrier_wait(shared_address(&ring.board->scaled), 0);
  if constexpr (T::FETCHES) barrier_arrive(shared_address(&ring.board->placed));
  __syncwarp();
  if constexpr (T::FETCHES) cluster_pass();
  if constexpr (T::LORA && T::SPLITS > 1)
    add_lists<T>(ring, work.steps, share_of<T>(work).first, Deltas<T>(ring));
}

// Until the sums and deltas of the block's share are there. For all its threads.
template <class T>
__device__ inline void await_sums(const Ring<T>& ring) {
  if constexpr (T::PUSHES) {
    if (threadIdx.x >= T::MULTIPLIERS) {
      cluster_wait();
      barrier_wait(shared_address(&ring.board->scaled), 0);
    }
    barrier_wait_pushed(shared_address(&ring.board->placed), 0);
  }
  if constexpr (T::FETCHES) cluster_wait();
  if constexpr (T::SPLITS == 1 || T::LORA) __syncthreads();
}

// rows <= ROW_BLOCKS TOKENS; outputs a multiple of 8, of 16 where they are GATED; at least a stage
// of inputs per split. Grid: clusters that shrink, then one for each tile and TOKENS rows; or with
// PLAIN, one split and no adapter any number of blocks.
template <class T, Epilogue E>
__device__ inline void multiply(const TensorMap& w, const TensorMap& x, const Step& step,
                                const Product& p) {
  constexpr bool MEET = T::SPLITS > 1 || E == Epilogue::RESIDUAL;
  alignas(1024) extern __shared__ u8 shared[];
  const Ring<T> ring = Ring<T>::in(shared);
  release_successor();
  ring.init();
  __syncthreads();
  if constexpr (T::LORA && !T::SHRINKS)
    if (blockIdx.x < p.low_rank.shrinkers) return shrink_only<T>(ring, step, p.low_rank);
  // What another block has of low ranks: all it does, some, or nothing.
  const bool only = T::SHRINKS && blockIdx.x < p.low_rank.shrinkers;
  const bool shrinks = T::SHRINKS && (only || p.low_rank.all_shrink);
  const Work work = Work::of_block<T>(p.inputs, p.outputs, T::LORA ? p.low_rank.shrinkers : 0);
  if constexpr (T::PUSHES) {
    if (threadIdx.x == 0) expect_pushed<T>(ring, work, p);
    __syncwarp();
    cluster_pass();
  }
  if (threadIdx.x >= T::MULTIPLIERS + WARP) {
    if (only) return;
    help<T, E>(ring, work, step, p);
    if constexpr (T::FETCHES) {  // here a fence of the device keeps no multiplier waiting
      barrier_wait(shared_address(&ring.board->placed), 0);
      __syncwarp();
      cluster_arrive();
    }
  } else if (threadIdx.x >= T::MULTIPLIERS) {
    Copier<T, E == Epilogue::GATED> copier(ring, work, w, x);
    if (threadIdx.x == T::MULTIPLIERS && !only) copier.run_ahead();
    __syncwarp();
    if constexpr (T::SHRINKS) {
      if (shrinks) copy_units<T>(ShrinkRoom::of<T>(ring, only), step, p.low_rank);
      if (only) return;
    }
    if constexpr (T::FETCHES) cluster_pass();
    if (threadIdx.x == T::MULTIPLIERS) copier.run();
    __syncwarp();
    wait_for_predecessor();
    if constexpr (T::LORA) copy_low_rank<T>(ring, work.steps);
  } else {
    if constexpr (T::SHRINKS)
      if (shrinks) barrier_wait(shared_address(&ring.board->units_known), 0);
    if (!only) wait_for_predecessor();
    // While x is on its way.
    if constexpr (T::LORA)
      if (!only) find_scales<T>(ring, work, p, threadIdx.x / WARP, T::MULTIPLIERS / WARP);
    if constexpr (T::SHRINKS) {
      if (shrinks) take_units<T>(ShrinkRoom::of<T>(ring, only), p.low_rank);
      if (only) return;
    }
    if constexpr (MEET) multiply_part<T>(ring, work, p);
    else multiply_tiles<T, E>(ring, work, p);
  }
  if constexpr (MEET) {
    __syncwarp();
    Finish<T, E> finish(ring, p, work);
    await_sums<T>(ring);
    finish.run();
  }
  if constexpr (T::FETCHES) {  // no block ends while another looks into it
    __syncwarp();
    cluster_pass();
    cluster_wait();
  }
}

// A source that lists kernels comes as several modules (matmul/decode.rs), which compile side by
// side: one for each OF_TOKENS, for rows with adapters where HAS_LORA and for rows without. What
// adapters need would take registers from kernels that have none, and so room beside their
// neighbours.

// A kernel NAME_ROWS_TOKENS_SPLITS_PER_CHUNKS; see `Tiling`. Blocks of fewer than OF_TOKENS rows
// share them.
#define MATMUL_DECODE(NAME, EPILOGUE, ROWS, TOKENS, SPLITS, PER, CHUNKS)                \
  MATMUL_KERNEL(NAME##_##ROWS##_##TOKENS##_##SPLITS##_##PER##_##CHUNKS, EPILOGUE, PER,  \
                Tiling<ROWS, TOKENS, SPLITS, PER, CHUNKS, OF_TOKENS / TOKENS, HAS_LORA, \
                       Epilogue::EPILOGUE == Epilogue::GATED>)
#define MATMUL_KERNEL(NAME, EPILOGUE, PER, ...)                                                 \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__::THREADS, PER)                       \
      NAME(const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap x, Step step, \
           Product p) {                                                                         \
    multiply<__VA_ARGS__, Epilogue::EPILOGUE>(w, x, step, p);                                   \
  }

// A KERNEL of rows without adapters alone, and of rows with them.
#if HAS_LORA
#define BASE_KERNEL(...)
#define LORA_KERNEL(...) KERNEL(__VA_ARGS__)
#else
#define BASE_KERNEL(...) KERNEL(__VA_ARGS__)
#define LORA_KERNEL(...)
#endif

#endif
