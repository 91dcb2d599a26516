// The finished product [rows, (heads + 2 kv_heads) * head_dim]: queries and keys are rotated,
// queries go to q [rows, heads * head_dim], keys and values to their row's place in its page. An
// item is one head of the rows of one piece, so that both halves of a rotated pair are in it;
// blocks take items in turn. T: elements of tiles and KV; Y: of the product.
#include "expand.cuh"

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

struct Turn {
  float cosine, sine;
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

// The angle is the f32 product that the CPU takes sine and cosine of.
__device__ inline void turn(const Step& step, const Piece& piece, const Rotary& rotary,
                            const Block& block) {
  for (u32 i = threadIdx.x; i < piece.rows * rotary.pairs; i += THREADS) {
    const float position = float(step.positions[piece.row + i / rotary.pairs]);
    Turn at;
    sincosf(__fmul_rn(position, rotary.inv_freq[i % rotary.pairs]), &at.sine, &at.cosine);
    block.turns[i] = at;
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
      for (int j = 0; j < V; j++) {
        const Turn by = block.turns[at * pairs + i + j];
        const float x = a.at[j], y = b.at[j];
        a.at[j] = x * by.cosine - y * by.sine;
        b.at[j] = y * by.cosine + x * by.sine;
      }
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

// ---- few rows: a warp takes RUN pairs of one head, or elements that have no partner

struct Item {
  u32 head, first, second;  // elements of the head of this lane; `first` where it is below `pairs`
  Runs runs;
};

__device__ inline u32 parts_of_head(const Pool& pool, const Rotary& rotary) {
  return (pool.head_dim - rotary.pairs + RUN - 1) / RUN;
}
__device__ inline u32 parts_of_row(const Pool& pool, const Rotary& rotary) {
  return (rotary.heads + 2 * pool.kv_heads) * parts_of_head(pool, rotary);
}

__device__ inline Item item_of(u32 part, const Pool& pool, const Rotary& rotary) {
  const u32 parts = parts_of_head(pool, rotary), head = part / parts, i = part % parts * RUN;
  const u32 lane = lane_place(), column = head * pool.head_dim;
  const u32 firsts = i < rotary.pairs ? least(RUN, rotary.pairs - i) : 0;
  const u32 seconds = least(RUN, pool.head_dim - rotary.pairs - i);
  return {head,
          i + lane,
          i + lane + rotary.pairs,
          {column + i, firsts, column + rotary.pairs + i, seconds}};
}

// Where a row of a head goes, and how this lane's pair turns: of the step alone, so that it is
// known before the product is.
template <class T>
struct Target {
  void* head;  // element 0
  Turn by;

  __device__ Target(const Step& step, const Pool& pool, const Rotary& rotary, const Item& item,
                    u32 row, void* q)
      : by{1, 0} {
    const u32 position = step.positions[row], kv_head = item.head - rotary.heads;
    const bool query = item.head < rotary.heads, half = !query && kv_head >= pool.kv_heads;
    if (query) {
      head = static_cast<Activation<T>*>(q) + (u64(row) * rotary.heads + item.head) * pool.head_dim;
    } else {
      const u32 page = step.page_indptr[step.sequences[row]] + position / PAGE_TOKENS;
      head = page_head<T>(pool, step.page_indices[page], rotary.layer, half,
                          kv_head - half * pool.kv_heads) +
             position % PAGE_TOKENS * pool.head_dim;
    }
    if (!half && item.first < rotary.pairs)
      sincosf(__fmul_rn(float(position), rotary.inv_freq[item.first]), &by.sine, &by.cosine);
  }
};

// One lane's elements of a row, and what is to be added to them.
template <class T, class Y>
__device__ inline void put_row(const Pending& qkv, const Rotary& rotary, const Item& item, u32 row,
                               const Target<T>& to, float more_first, float more_second) {
  const u32 place = lane_place();
  if (place >= item.runs.seconds) return;
  const auto put = [&](u32 element, float value) {
    using Query = Activation<T>;
    if (item.head < rotary.heads) static_cast<Query*>(to.head)[element] = from_float<Query>(value);
    else static_cast<T*>(to.head)[element] = from_float<T>(value);
  };
  const float y = finish<Y, 1>(qkv, row, item.runs.second + place, nullptr).at[0] + more_second;
  if (place >= item.runs.firsts) return put(item.second, y);
  const float x = finish<Y, 1>(qkv, row, item.runs.first + place, nullptr).at[0] + more_first;
  put(item.first, x * to.by.cosine - y * to.by.sine);
  put(item.second, y * to.by.cosine + x * to.by.sine);
}

template <class T, class Y, bool LORA>
__device__ void rope_store_few(const Step& step, const Pool& pool, const Pending& qkv,
                               const Rotary& rotary, void* q) {
  release_successor();
  const u32 parts = parts_of_row(pool, rotary), groups = step.counts->groups;
  const Share share(groups, parts, THREADS / WARP);
  bool waited = false;
  for (u32 g = share.group; g < groups; g += share.groups_stride) {
    const Piece group = step.groups[g];
    for (u32 part = share.part; part < parts; part += share.parts_stride) {
      const Item item = item_of(part, pool, rotary);
      if (LORA) prefetch_runs<T>(qkv, group.slot, item.runs);
      const Target<T> first(step, pool, rotary, item, group.row, q);
      if (!waited) wait_for_predecessor();
      waited = true;
      float delta[2][GROUP_ROWS] = {};
      if (LORA && group.slot != NO_ADAPTER) expand_lanes<T>(qkv, group, item.runs, delta);
      put_row<T, Y>(qkv, rotary, item, group.row, first, delta[0][0], delta[1][0]);
#pragma unroll
      for (u32 r = 1; r < GROUP_ROWS; r++) {
        if (r >= group.rows) break;
        const Target<T> to(step, pool, rotary, item, group.row + r, q);
        put_row<T, Y>(qkv, rotary, item, group.row + r, to, delta[0][r], delta[1][r]);
      }
    }
  }
  wait_for_predecessor();
}

// Without a delta: a warp takes one row.
template <class T, class Y>
__device__ void rope_store_base(const Step& step, const Pool& pool, const Pending& qkv,
                                const Rotary& rotary, void* q) {
  release_successor();
  const u32 parts = parts_of_row(pool, rotary), items = step.counts->rows * parts;
  bool waited = false;
  for (u32 i = (blockIdx.x * THREADS + threadIdx.x) / WARP; i < items;
       i += gridDim.x * (THREADS / WARP)) {
    const Item item = item_of(i % parts, pool, rotary);
    const Target<T> to(step, pool, rotary, item, i / parts, q);
    if (!waited) wait_for_predecessor();
    waited = true;
    put_row<T, Y>(qkv, rotary, item, i / parts, to, 0, 0);
  }
  wait_for_predecessor();
}

#define PARAMETERS Step step, Pool pool, Pending qkv, Rotary rotary, void *q
#define KERNEL(T, Y)                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS) rope_store_##T##_##Y(PARAMETERS) {        \
    rope_store<T, Y>(step, pool, qkv, rotary, q);                                                 \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(THREADS, 5) rope_store_few_##T##_##Y(PARAMETERS) { \
    rope_store_few<T, Y, true>(step, pool, qkv, rotary, q);                                       \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(THREADS) rope_store_base_##T##_##Y(PARAMETERS) {   \
    rope_store_base<T, Y>(step, pool, qkv, rotary, q);                                            \
  }
using f32 = float;
KERNEL(f32, f32)
KERNEL(f32, bf16)
KERNEL(f16, f32)
KERNEL(f16, bf16)
KERNEL(bf16, f32)
KERNEL(bf16, bf16)
