// Attention of sequences with one row in the batch, bf16, head_dim a multiple of 8 up to DIM.
//
// A block takes HEADS query heads of one key-value head, and splits of the sequence's positions. A
// warp takes up to four pages of a split, their keys and then their values, through a ring of slots
// in shared memory: each is asked for as soon as its slot is free.
//
// FRESH: `rope_store` has not run. The block makes its queries and the newest key and value out of
// the finished product, and one block of each key-value head stores the two. What else it reads
// stands in its pages since earlier steps, so it is asked for before the predecessor has ended.
#include "attention_page.cuh"
#include "rotary.cuh"

constexpr u32 WARPS = 4;
constexpr u32 THREADS = WARPS * WARP;
constexpr u32 WARP_PAGES = 4;
// A sequence of 8,192 tokens and 8 key-value heads makes 256 blocks. What a split leaves for its
// sequence's last block is 1/32 of what it reads.
constexpr u32 SPLIT_PAGES = WARPS * WARP_PAGES;
constexpr u32 SPLIT_TOKENS = SPLIT_PAGES * PAGE_TOKENS;

// Slots of a warp. Up to heads of 128, what leaves room for four blocks on a multiprocessor; else
// for three.
template <u32 DIM>
constexpr u32 SLOTS = DIM <= 128 ? 384 / DIM : 2;
// Chunks of a warp's slots.
template <u32 DIM>
constexpr u32 AREA = SLOTS<DIM> * SLOT_CHUNKS<DIM>;

// What the blocks of a sequence leave for its last one. `HEADS * (DIM + 2)` floats: o [HEADS, DIM],
// m [HEADS], l [HEADS].
template <u32 DIM>
constexpr u32 PARTIAL = HEADS * (DIM + 2);
template <u32 DIM>
__device__ inline u64 split_stride() {
  return u64(gridDim.y) * PARTIAL<DIM>;
}

// `QueriesView` of cuda/attention.rs.
struct Queries {
  // bf16 [rows, heads, head_dim]; FRESH: f32 [rows, heads + 2 kv_heads, head_dim], the product.
  const void* rows;
  const float* inv_freq;  // [pairs] radians per position
  u32 pairs;              // element i of a head turns with element i + pairs
  u32 heads;
};

// One sequence's row and the heads that a block serves.
struct Task {
  u32 row, length;  // positions 0..length
  u32 splits;
  const u32* pages;  // [length / PAGE_TOKENS, rounded up] slabs
  float* partials;   // of split 0
  u32 kv_head;
  u32 head, heads;  // first query head; 1..=HEADS of them
};

template <u32 DIM>
struct Shared {
  float m[WARPS][HEADS];
  float l[WARPS][HEADS];
  alignas(16) Rows<DIM> rows;
  Task task;  // here rather than in registers, which pages need
  bool last;
};

// A warp's slots; in the end its share of a split.
alignas(SLOT_ALIGN) extern __shared__ Chunk dynamic_shared[];
template <u32 DIM>
__device__ inline Outputs<DIM>& outputs(u32 warp) {
  static_assert(sizeof(Outputs<DIM>) <= AREA<DIM> * sizeof(Chunk), "room for a warp's share");
  return reinterpret_cast<Outputs<DIM>&>(dynamic_shared[warp * AREA<DIM>]);
}
template <u32 DIM>
__device__ inline Chunk* slot_at(u32 slot) {
  return &dynamic_shared[threadIdx.x / WARP * AREA<DIM> + slot * SLOT_CHUNKS<DIM>];
}

// A warp's pages of a split: page `i` is the split's page `i * WARPS + warp`.
template <u32 DIM, bool FRESH>
struct Pages {
  const Pool& pool;
  u32 layer, kv_head, head_dim;
  int left;  // tokens from page 0 on, or less than one
  u32 slabs[WARP_PAGES];

  __device__ Pages(const Pool& pool, const Task& task, u32 layer, u32 head_dim)
      : pool(pool), layer(layer), kv_head(task.kv_head), head_dim(head_dim) {}
  __device__ void find(const Task& task, u32 split) {
    const u32 first = split * SPLIT_PAGES + threadIdx.x / WARP;
    left = int(task.length - first * PAGE_TOKENS);
#pragma unroll
    for (u32 i = 0; i < WARP_PAGES; ++i) slabs[i] = tokens(i) ? task.pages[first + i * WARPS] : 0;
  }
  __device__ int left_at(u32 i) const { return left - int(i * WARPS * PAGE_TOKENS); }
  // 0 where the sequence has no such page.
  __device__ u32 tokens(u32 i) const { return u32(min(max(left_at(i), 0), int(PAGE_TOKENS))); }
  // Whether the page's last token is the sequence's newest, which is not read there.
  __device__ bool is_fresh(u32 i) const {
    return FRESH && 0 < left_at(i) && left_at(i) <= int(PAGE_TOKENS);
  }
  __device__ u32 stored(u32 i) const { return tokens(i) - is_fresh(i); }
  __device__ const bf16* at(u32 half, u32 i) const {
    return page_head<bf16>(pool, slabs[i], layer, half, kv_head);
  }
  // Brings half pages from page `first` on near: all but the newest token stood there before the
  // step.
  __device__ void prefetch(u32 half, u32 first) const {
    if (threadIdx.x % WARP > 0) return;
#pragma unroll
    for (u32 i = first; i < WARP_PAGES; ++i) {
      if (!tokens(i)) break;
      prefetch_bytes(at(half, i), PAGE_TOKENS * head_dim * sizeof(bf16));
    }
  }
};

// Half pages in the order that they are taken: keys of all pages, then values.
constexpr u32 ITEMS = 2 * WARP_PAGES;

// Asks for an item whose slot is free: every lane of the warp is done with it. Each is a group of
// copies, one of a page that there is not, or past the last, too.
template <u32 DIM, bool FRESH>
__device__ inline void request_item(const Pages<DIM, FRESH>& pages, u32 item) {
  const u32 i = item % WARP_PAGES;
  if (item < ITEMS && pages.tokens(i))
    request<DIM>(slot_at<DIM>(item % SLOTS<DIM>), pages.at(item / WARP_PAGES, i), pages.head_dim,
                 pages.stored(i));
  copy_commit();
}
template <u32 DIM, bool FRESH>
__device__ inline void request_first(const Pages<DIM, FRESH>& pages) {
#pragma unroll
  for (u32 item = 0; item < SLOTS<DIM>; ++item) request_item(pages, item);
}

// Where an item is, with the newest token in its place. The items before it have been taken, and
// SLOTS have been asked for from the next of them on.
template <u32 DIM, bool FRESH>
__device__ inline const Chunk* await_item(const Shared<DIM>& shared, const Pages<DIM, FRESH>& pages,
                                          u32 item) {
  const u32 i = item % WARP_PAGES;
  Chunk* slot = slot_at<DIM>(item % SLOTS<DIM>);
  copy_wait<SLOTS<DIM> - 1>();
  if (pages.is_fresh(i)) renew<DIM>(slot, shared.rows[HEADS + item / WARP_PAGES], pages.stored(i));
  __syncwarp();
  return slot;
}

// A warp's share of a split whose first items have been asked for.
template <u32 DIM, bool FRESH>
__device__ inline void attend(Shared<DIM>& shared, const Pages<DIM, FRESH>& pages) {
  const float scale = score_scale(pages.head_dim);
  float s[WARP_PAGES][4], o[DIM / 16][4] = {};
  float m[2] = {-infinity(), -infinity()}, l[2] = {};
  Queried<DIM> q;
  load_queries<DIM>(q, shared.rows);
#pragma unroll
  for (u32 i = 0; i < WARP_PAGES; ++i) {
    s[i][0] = s[i][1] = s[i][2] = s[i][3] = -infinity();
    const Chunk* keys = await_item(shared, pages, i);
    if (pages.tokens(i)) score<DIM>(s[i], q, keys, scale, pages.tokens(i));
    __syncwarp();
    request_item(pages, i + SLOTS<DIM>);
#pragma unroll
    for (u32 odd = 0; odd < 2; ++odd) m[odd] = fmaxf(m[odd], fmaxf(s[i][odd], s[i][2 + odd]));
  }
#pragma unroll
  for (u32 odd = 0; odd < 2; ++odd) m[odd] = column_max(m[odd]);
#pragma unroll
  for (u32 i = 0; i < WARP_PAGES; ++i) {
    const Chunk* values = await_item(shared, pages, WARP_PAGES + i);
    if (pages.tokens(i)) {  // else m may be -infinity
#pragma unroll
      for (u32 word = 0; word < 4; ++word) {
        s[i][word] = exp2_approximate(s[i][word] - m[word % 2]);
        l[word % 2] += s[i][word];
      }
      mix<DIM>(o, s[i], values);
    }
    __syncwarp();
    request_item(pages, WARP_PAGES + i + SLOTS<DIM>);
  }
#pragma unroll
  for (u32 odd = 0; odd < 2; ++odd) l[odd] = column_sum(l[odd]);
  const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  // In the place of slots.
  put_outputs<DIM>(outputs<DIM>(warp), o);
#pragma unroll
  for (u32 odd = 0; odd < 2; ++odd) {
    if (lane >= 4) break;
    shared.m[warp][2 * lane + odd] = m[odd];
    shared.l[warp][2 * lane + odd] = l[odd];
  }
}

// Four columns of one head over the warps of a block.
template <u32 DIM>
struct WarpShares {
  const Shared<DIM>& shared;
  u32 head, column;
  __device__ float m(u32 i) const { return shared.m[i][head]; }
  __device__ float l(u32 i) const { return shared.l[i][head]; }
  __device__ float4 o(u32 i) const {
    return *reinterpret_cast<const float4*>(&outputs<DIM>(i)[head][column]);
  }
};

// And over the splits of a sequence, which other blocks have written: past L1.
template <u32 DIM>
struct SplitShares {
  const float* partials;  // of split 0
  u32 head, column;
  __device__ float m(u32 i) const {
    return __ldcg(partials + i * split_stride<DIM>() + HEADS * DIM + head);
  }
  __device__ float l(u32 i) const {
    return __ldcg(partials + i * split_stride<DIM>() + HEADS * DIM + HEADS + head);
  }
  __device__ float4 o(u32 i) const {
    return __ldcg(
        reinterpret_cast<const float4*>(partials + i * split_stride<DIM>() + head * DIM + column));
  }
};

// Calls `at(head, column)` for every four columns of the block's heads.
template <u32 DIM, class At>
__device__ inline void each_column(u32 heads, u32 head_dim, const At& at) {
  for (u32 i = threadIdx.x; i < heads * (DIM / 4); i += THREADS) {
    u32 head = i / (DIM / 4), column = i % (DIM / 4) * 4;
    if (column < head_dim) at(head, column);
  }
}

// `out` [rows, heads, head_dim]
__device__ inline void store(bf16* out, u64 head, u32 head_dim, u32 column, const Sum& sum) {
  Pack<bf16, 4> values;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) values.at[i] = from_float<bf16>(sum.o[i] / sum.l);
  *reinterpret_cast<Pack<bf16, 4>*>(out + head * head_dim + column) = values;
}

// Asynchronously; zeros for the heads and elements that there are not.
template <u32 DIM>
__device__ inline void load_rows(Shared<DIM>& shared, const Queries& queries, u32 head_dim) {
  const Task& task = shared.task;
  const bf16* from = static_cast<const bf16*>(queries.rows) +
                     (u64(task.row) * queries.heads + task.head) * head_dim;
  for (u32 i = threadIdx.x; i < HEADS * (DIM / 8); i += THREADS) {
    const u32 head = i / (DIM / 8), element = i % (DIM / 8) * 8;
    const bool valid = head < task.heads && element < head_dim;
    copy_async(shared_address(&shared.rows[head][element]),
               valid ? from + head * head_dim + element : from, valid);
  }
  copy_commit();
}

// FRESH: makes the block's rows out of the product. Its heads, then the key and the value as if
// they were the next two, go by warps; a lane takes PAIRS elements of the first half of a head, and
// their partners.
template <u32 DIM>
struct Fresh {
  static constexpr u32 PAIRS = DIM / 2 / WARP, ROUNDS = (HEADS + 2 + WARPS - 1) / WARPS;
  u32 head_dim, pairs;
  u32 heads;           // of queries
  const float* query;  // of the first, and what follows it
  const float* key;
  u64 to_value;  // from the key
  Turn turns[PAIRS];

  // What does not hang on the product.
  __device__ Fresh(Shared<DIM>& shared, const Queries& queries, u32 kv_heads, u32 head_dim)
      : head_dim(head_dim), pairs(queries.pairs), heads(shared.task.heads) {
    const Task& task = shared.task;
    const float* row = static_cast<const float*>(queries.rows) +
                       u64(task.row) * (queries.heads + 2 * kv_heads) * head_dim;
    query = row + task.head * head_dim;
    key = row + (queries.heads + task.kv_head) * head_dim;
    to_value = kv_heads * head_dim;
#pragma unroll
    for (u32 i = 0; i < PAIRS; ++i) {
      const u32 pair = i * WARP + threadIdx.x % WARP;
      turns[i] = {1, 0};
      if (pair < pairs) turns[i] = turn_at(task.length - 1, queries.inv_freq[pair]);
    }
    for (u32 i = threadIdx.x; i < (HEADS + 2) * DIM; i += THREADS) {
      const u32 row = i / DIM, element = i % DIM;
      const bool there = (row < heads || HEADS <= row) && element < head_dim;
      if (!there) shared.rows[row][element] = {0};
    }
  }

  __device__ const float* from(u32 head) const {
    return head < heads ? query + head * head_dim : key + (head - heads) * to_value;
  }
  __device__ bf16* to(Shared<DIM>& shared, u32 head) const {
    return shared.rows[head < heads ? head : HEADS + head - heads];
  }

  // Once the product is there.
  __device__ void make_rows(Shared<DIM>& shared) const {
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, firsts = head_dim - pairs;
    // What is left for a second pass, for which there are no turns, has no partner.
    for (u32 start = lane; start < firsts; start += PAIRS * WARP) {
      float x[ROUNDS][PAIRS], y[ROUNDS][PAIRS];
      const auto each = [&](const auto& visit) {
#pragma unroll
        for (u32 r = 0; r < ROUNDS; ++r) {
          const u32 head = r * WARPS + warp;
          if (head >= heads + 2) break;
#pragma unroll
          for (u32 i = 0; i < PAIRS; ++i)
            if (start + i * WARP < firsts)
              visit(head, start + i * WARP, x[r][i], y[r][i], turns[i]);
        }
      };
      // All that a lane reads is asked for at once.
      each([&](u32 head, u32 element, float& x, float& y, const Turn&) {
        if (element < pairs) x = __ldcg(from(head) + element);
        y = __ldcg(from(head) + element + pairs);
      });
      each([&](u32 head, u32 element, float& x, float& y, const Turn& turn) {
        const bool is_value = head == heads + 1;
        if (element < pairs && !is_value) rotate(x, y, turn);
        if (element < pairs) to(shared, head)[element] = from_float<bf16>(x);
        to(shared, head)[element + pairs] = from_float<bf16>(y);
      });
    }
  }
};

// The newest key and value to their place in the sequence's page.
template <u32 DIM>
__device__ inline void store_newest(const Shared<DIM>& shared, const Pool& pool, u32 layer,
                                    u32 head_dim) {
  const Task& task = shared.task;
  const u32 position = task.length - 1, half = threadIdx.x / (THREADS / 2);
  bf16* page = page_head<bf16>(pool, task.pages[position / PAGE_TOKENS], layer, half, task.kv_head);
  for (u32 i = threadIdx.x % (THREADS / 2) * 8; i < head_dim; i += THREADS / 2 * 8)
    *reinterpret_cast<Chunk*>(page + position % PAGE_TOKENS * head_dim + i) =
        *reinterpret_cast<const Chunk*>(&shared.rows[HEADS + half][i]);
}

// Whether this block is the last of the sequence's to arrive, having done `mine` of `splits`;
// whatever the others wrote before they arrived may then be read. The last one leaves the counter
// as it found it.
template <u32 DIM>
__device__ inline bool arrive_last(Shared<DIM>& shared, u32* arrivals, u32 mine, u32 splits) {
  __syncthreads();
  if (threadIdx.x == 0) {
    // Releases what the block has written, and acquires what others have, for all its threads.
    u32 before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(arrivals), "r"(mine)
                 : "memory");
    shared.last = before + mine == splits;
    if (shared.last) *arrivals = 0;
  }
  __syncthreads();
  return shared.last;
}

// What this block is to do; false where that is nothing. Grid: [sequences, kv_heads * ceil(group /
// HEADS), up to the splits of the longest sequence].
__device__ inline bool find_task(Task& task, const Step& step, u32 kv_heads, u32 heads) {
  // The grid is within what the step's arrays have room for, so these need not wait for the count.
  u32 sequence = blockIdx.x, sequences = step.counts->sequences;
  u32 row = step.seq_indptr[sequence], row_end = step.seq_indptr[sequence + 1],
      page = step.page_indptr[sequence];
  if (sequence >= sequences || row_end - row != 1) return false;
  u32 group = heads / kv_heads, parts = gridDim.y / kv_heads, head = blockIdx.y % parts * HEADS;
  task.row = row;
  task.length = step.positions[row] + 1;
  task.splits = (task.length + SPLIT_TOKENS - 1) / SPLIT_TOKENS;
  task.pages = step.page_indices + page;
  task.kv_head = blockIdx.y / parts;
  task.head = task.kv_head * group + head;
  task.heads = min(group - head, HEADS);
  return blockIdx.z < task.splits;
}

// A split's share to `out`, where it is the only one, or to its place among the partials.
template <u32 DIM>
__device__ inline void finish_split(const Shared<DIM>& shared, u32 heads, u32 head_dim, u32 split,
                                    bf16* out) {
  const Task& task = shared.task;
  each_column<DIM>(task.heads, head_dim, [&](u32 head, u32 column) {
    Sum sum = merge(WarpShares<DIM>{shared, head, column}, WARPS);
    if (task.splits == 1)
      return store(out, u64(task.row) * heads + task.head + head, head_dim, column, sum);
    float* to = task.partials + split * split_stride<DIM>();
    *reinterpret_cast<float4*>(to + head * DIM + column) =
        make_float4(sum.o[0], sum.o[1], sum.o[2], sum.o[3]);
    if (column == 0) {
      to[HEADS * DIM + head] = sum.m;
      to[HEADS * DIM + HEADS + head] = sum.l;
    }
  });
}

// `partials`: a run of splits for each sequence, from `page_indptr / SPLIT_PAGES + sequence` on,
// [splits, gridDim.y, PARTIAL]. `arrivals`: [sequences, gridDim.y], zeros between kernels.
template <u32 DIM, bool WHOLE, bool FRESH>
__device__ inline void decode(const Step& step, const Pool& pool, u32 layer, const Queries& queries,
                              bf16* out, float* partials, u32* arrivals) {
  __shared__ Shared<DIM> shared;
  const u32 head_dim = WHOLE ? DIM : pool.head_dim, heads = queries.heads;
  release_successor();
  Task found;
  if (!find_task(found, step, pool.kv_heads, heads)) return wait_for_predecessor();
  if (threadIdx.x == 0) {
    u32 first = step.page_indptr[blockIdx.x] / SPLIT_PAGES + blockIdx.x;
    found.partials = partials + first * split_stride<DIM>() + blockIdx.y * PARTIAL<DIM>;
    shared.task = found;
  }
  __syncthreads();
  u32 split = blockIdx.z;
  Pages<DIM, FRESH> pages(pool, shared.task, layer, head_dim);
  pages.find(shared.task, split);
  if (FRESH) {
    request_first(pages);
    pages.prefetch(KEYS, SLOTS<DIM>);
    pages.prefetch(VALUES, SLOTS<DIM> - min(SLOTS<DIM>, WARP_PAGES));
    const Fresh<DIM> fresh(shared, queries, pool.kv_heads, head_dim);
    wait_for_predecessor();
    fresh.make_rows(shared);
  } else {
    pages.prefetch(KEYS, 0);
    pages.prefetch(VALUES, 0);
    wait_for_predecessor();
    load_rows<DIM>(shared, queries, head_dim);
    request_first(pages);
    copy_wait<SLOTS<DIM>>();
  }
  __syncthreads();
  while (true) {
    attend(shared, pages);
    __syncthreads();
    finish_split<DIM>(shared, heads, head_dim, split, out);
    split += gridDim.z;
    if (split >= shared.task.splits) break;
    __syncthreads();  // the split has been read
    pages.find(shared.task, split);
    request_first(pages);
  }
  const Task& task = shared.task;
  const bool first_block = blockIdx.z == 0 && task.head == task.kv_head * (heads / pool.kv_heads);
  if (FRESH && first_block) store_newest<DIM>(shared, pool, layer, head_dim);
  u32 mine = (split - blockIdx.z) / gridDim.z;
  if (task.splits == 1 ||
      !arrive_last(shared, arrivals + blockIdx.x * gridDim.y + blockIdx.y, mine, task.splits))
    return;
  each_column<DIM>(task.heads, head_dim, [&](u32 head, u32 column) {
    Sum sum = merge(SplitShares<DIM>{task.partials, head, column}, task.splits);
    store(out, u64(task.row) * heads + task.head + head, head_dim, column, sum);
  });
}

// WHOLE: head_dim is DIM. Four blocks to a multiprocessor up to heads of 128, so that 64 sequences
// of 8 key-value heads are all under way at once.
#define DECODE(NAME, DIM, WHOLE, FRESH)                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS, DIM < 256 ? 4 : 3)                 \
      attention_decode_##NAME(Step step, Pool pool, u32 layer, Queries queries, bf16* out, \
                              float* partials, u32* arrivals) {                            \
    decode<DIM, WHOLE, FRESH>(step, pool, layer, queries, out, partials, arrivals);        \
  }
DECODE(64, 64, true, false)
DECODE(128, 128, true, false)
DECODE(256, 256, true, false)
DECODE(within_64, 64, false, false)
DECODE(within_128, 128, false, false)
DECODE(within_256, 256, false, false)
DECODE(fresh_64, 64, true, true)
DECODE(fresh_128, 128, true, true)
DECODE(fresh_256, 256, true, true)
DECODE(fresh_within_64, 64, false, true)
DECODE(fresh_within_128, 128, false, true)
DECODE(fresh_within_256, 256, false, true)
