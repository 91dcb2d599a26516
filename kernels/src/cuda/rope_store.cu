// The finished product [rows, (heads + 2 kv_heads) * head_dim]: queries and keys are rotated,
// queries go to q [rows, heads * head_dim], keys and values to their row's place in its page. An
// item is one head of the rows of one piece, so that both halves of a rotated pair are in it;
// blocks take items in turn. T: elements of tiles and KV; Y: of the product. (Where every sequence
// has one row, attention may do all this in passing: `attention_decode.cu`.)
#include "expand.cuh"
#include "rotary.cuh"

constexpr u32 THREADS = 128;
constexpr u32 WARP_COLUMNS = 32;

// `RotaryView` of cuda/rope_store.rs.
struct Rotary {
  const float* inv_freq;  // [pairs] radians per position
  u32 pairs;  // element i of a head turns with element i + pairs; what lies behind 2 * pairs is
              // copied
  u32 heads;  // of the queries
  u32 layer;
};

// What a block knows of its piece, in shared memory.
struct Block {
  float* delta;  // [PIECE_ROWS, stride] of the head at hand, or null
  u32 stride;
  Turn* turns;  // [PIECE_ROWS, pairs]
  u32* slabs;   // [PIECE_ROWS] page of each row
  u32* places;  // [PIECE_ROWS] within the page
};

__device__ inline void locate(const Step& step, const Piece& piece, const Block& block) {
  if (threadIdx.x >= piece.rows) return;
  const u32 row = piece.row + threadIdx.x, position = step.positions[row];
  block.slabs[threadIdx.x] =
      step.page_indices[step.page_indptr[step.sequences[row]] + position / PAGE_TOKENS];
  block.places[threadIdx.x] = position % PAGE_TOKENS;
}

__device__ inline void turn(const Step& step, const Piece& piece, const Rotary& rotary,
                            const Block& block) {
  for (u32 i = threadIdx.x; i < piece.rows * rotary.pairs; i += THREADS) {
    const u32 position = step.positions[piece.row + i / rotary.pairs];
    block.turns[i] = turn_at(position, rotary.inv_freq[i % rotary.pairs]);
  }
}

// One head of every row of the piece, `V` elements at a time: V divides pairs and head_dim.
template <class T, class Y, int V>
__device__ void store_head(const Pool& pool, const Pending& qkv, const Rotary& rotary,
                           const Piece& piece, const Block& block, u32 head, void* q) {
  using Floats = Pack<float, V>;
  using Query = Activation<T>;
  const u32 dim = pool.head_dim, column = head * dim;
  const bool query = head < rotary.heads, value = head >= rotary.heads + pool.kv_heads;
  const u32 pairs = value ? 0 : rotary.pairs, items = (dim - pairs) / V;  // a pair is one item
  for (u32 item = threadIdx.x; item < piece.rows * items; item += THREADS) {
    const u32 at = item / items, i = item % items * V, row = piece.row + at;
    const float* delta = block.delta ? block.delta + at * block.stride : nullptr;
    const auto put = [&](u32 to, const Floats& from) {
      if (query)
        return store<Query, V>(static_cast<Query*>(q) + u64(row) * rotary.heads * dim + column + to,
                               from);
      T* page = page_head<T>(pool, block.slabs[at], rotary.layer, value,
                             head - rotary.heads - (value ? pool.kv_heads : 0));
      store<T, V>(page + block.places[at] * dim + to, from);
    };
    const u32 second = i + pairs;  // of the pair; or the element itself, behind the pairs
    Floats b = finish<Y, V>(qkv, row, column + second, delta ? delta + second : nullptr);
    if (i < pairs) {
      Floats a = finish<Y, V>(qkv, row, column + i, delta ? delta + i : nullptr);
#pragma unroll
      for (int j = 0; j < V; j++) rotate(a.at[j], b.at[j], block.turns[at * pairs + i + j]);
      put(i, a);
    }
    put(second, b);
  }
}

template <class T, class Y>
__device__ void rope_store(const Step& step, const Pool& pool, const Pending& qkv,
                           const Rotary& rotary, void* q) {
  alignas(16) extern __shared__ float shared[];  // delta, if any row has one; turns
  __shared__ u32 slabs[PIECE_ROWS], places[PIECE_ROWS];
  release_successor();
  wait_for_predecessor();
  const u32 dim = pool.head_dim, stride = (dim + 31) / 32 * 32 + 8;
  Turn* turns = reinterpret_cast<Turn*>(shared + (qkv.shrunk ? PIECE_ROWS * stride : 0));
  const u32 heads = rotary.heads + 2 * pool.kv_heads, items = step.counts->pieces * heads;
  for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
    const Piece piece = step.pieces[item / heads];
    const u32 head = item % heads;
    const bool lora = has_delta(qkv, piece);
    const Block block = {lora ? shared : nullptr, stride, turns, slabs, places};
    locate(step, piece, block);
    turn(step, piece, rotary, block);
    if (lora)
      for (u32 i = threadIdx.x / WARP * WARP_COLUMNS; i < dim; i += THREADS / WARP * WARP_COLUMNS)
        expand<T, WARP_COLUMNS>(qkv, piece, head * dim + i, least(WARP_COLUMNS, dim - i),
                                shared + i, stride);
    __syncthreads();
    if (dim % 2 == 0 && rotary.pairs % 2 == 0)
      store_head<T, Y, 2>(pool, qkv, rotary, piece, block, head, q);
    else store_head<T, Y, 1>(pool, qkv, rotary, piece, block, head, q);
    __syncthreads();  // before the next item's places and turns
  }
}

#define PARAMETERS Step step, Pool pool, Pending qkv, Rotary rotary, void *q
#define KERNEL(T, Y)                                                                       \
  extern "C" __global__ void __launch_bounds__(THREADS) rope_store_##T##_##Y(PARAMETERS) { \
    rope_store<T, Y>(step, pool, qkv, rotary, q);                                          \
  }
FOR_ELEMENTS(KERNEL)
