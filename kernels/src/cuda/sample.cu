// Logits to tokens: one block per row of logits, the same function as cpu/sample.rs.
//
// A candidate is a 55-bit rank: the logit as an ordered integer, then the id so that the lower
// wins. Ranks are unique, so "the best k" and "the best that hold top_p" are both "every rank from
// a threshold on", ties included. A weight is an integer in units of 2^-44: sums are exact in any
// order, so a draw depends on nothing but its row, and shared-memory atomics may add.
//
// Greedy rows take one pass, draws without cuts two. With cuts the second pass lists the best few
// hundred candidates in shared memory, where a radix select finds the thresholds; if they are not
// enough, the same select reads the row instead.
#include "prelude.cuh"

constexpr u32 THREADS = 1024, WARPS = THREADS / WARP;  // the scan below wants a warp of warps
constexpr int DIGIT = 11, KEY_BITS = 32, ID_BITS = 23;
constexpr u32 BINS = 1 << DIGIT, CHUNK = 1024;
constexpr u64 IDS = (1ull << ID_BITS) - 1;
constexpr int WEIGHT_BITS =
    44;  // a sum over 2^19 tokens, the most that sample.rs admits, stays below 2^63
constexpr u32 LIST = 2048;        // candidates that fit in shared memory
constexpr u32 LIST_WANTED = 512;  // a list holds at least so many of the best, or all there are
constexpr u32 TOP_MAX = 128;      // `TOP_MAX` of sample.rs
constexpr u32 NONE = 0xffffffffu;
constexpr float FLOAT_MAX = 3.402823466e38f;
static_assert((KEY_BITS + ID_BITS) % DIGIT == 0 && BINS == 2 * THREADS,
              "whole digits; two bins for each thread");

// How a row is drawn, as `image` of sample.rs writes it.
struct RowImage {
  double uniform;     // in (0, 1)
  float temperature;  // above 0, or greedy
  float top_p;        // below 1, or no cut
  u32 top_k;          // 0: no cut
  u32 mask;           // first word of the mask within the image, or NONE
  u32 mask_words;
  u32 top;     // best alternatives to report, at most TOP_MAX
  u32 report;  // word of the results where [logprob, count, count x (id, logprob)] goes, or NONE
  u32 unused;
};

// ---- ranks and weights

// For a logit above minus infinity; plus infinity counts as the largest number, minus zero as zero.
__device__ inline u64 rank_of(float logit, u32 id) {
  u32 bits = __float_as_uint(logit == 0.0f ? 0.0f : fminf(logit, FLOAT_MAX));
  u32 key = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return u64(key) << ID_BITS | (IDS - id);
}
__device__ inline float logit_of(u64 rank) {
  u32 key = u32(rank >> ID_BITS);
  return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}
__device__ inline u32 id_of(u64 rank) {
  return ~u32(rank) & (BINS * BINS - 1);
}  // of as many bits as `BY_ID` orders by
// False for NaN and minus infinity.
__device__ inline bool is_candidate(float logit) { return logit >= -FLOAT_MAX; }

// exp((logit - best) / temperature), in units of 2^-WEIGHT_BITS, rounded down.
struct Weight {
  float best, temperature;
  __device__ u64 operator()(float logit) const {
    float distance = fminf(logit, FLOAT_MAX) - best;
    if (temperature != 1.0f) distance /= temperature;
    float weight = expf(distance);
    if (!(weight > 0.0f)) return 0;  // NaN: an infinite distance at an infinite temperature
    u32 bits = __float_as_uint(weight);
    u32 mantissa = (bits & 0x7fffffu) | 0x800000u;
    int shift = int(bits >> 23) - (127 + 23 - WEIGHT_BITS);  // at most 21, as weights are at most 1
    return shift >= 0 ? u64(mantissa) << shift : mantissa >> min(-shift, 31);
  }
};

// ---- what the block works on

struct Row {
  const void* logits;  // [vocabulary]
  const u32* mask;     // [mask_words], or null; what it does not cover is not allowed
  u32 mask_words, vocabulary;

  __device__ u32 allowed(u32 word) const {
    return !mask ? ~0u : word < mask_words ? mask[word] : 0;
  }
  template <class T>
  __device__ float at(u32 id) const {
    return allowed(id / 32) >> (id % 32) & 1 ? to_float(static_cast<const T*>(logits)[id])
                                             : -infinity();
  }
};

struct Shared {
  RowImage how;
  Row row;
  Weight weight;
  u32 low[BINS], high[BINS];  // halves of 64-bit sums; the best bin is the last
  u64 list[LIST];             // ranks, in no order
  u64 warps[WARPS];
  u64 found_above;
  u32 found_bin;
  u32 listed;        // candidates that asked for a place in `list`
  u32 topped;        // entries of `top`
  u32 lowest;        // allowed id
  u64 top[TOP_MAX];  // ranks, in no order
};
__shared__ Shared s;

// Calls `visit(logit, id)` for each id of first..end, spread over `workers`, ascending for each.
// What the mask forbids has minus infinity. `first` is a multiple of CHUNK; `end` too, or the
// vocabulary.
template <class T, class F>
__device__ void each_logit(u32 first, u32 end, u32 worker, u32 workers, F visit) {
  constexpr u32 N = 8;  // divides the ids of a word of the mask
  const Row row = s.row;
  if (row.vocabulary % N) {
#pragma unroll 1
    for (u32 id = first + worker; id < end; id += workers) visit(row.at<T>(id), id);
    return;
  }
#pragma unroll 1
  for (u32 id = first + worker * N; id < end; id += workers * N) {
    // 16 or 32 bytes; rows start at multiples of that, as N divides the vocabulary.
    Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(static_cast<const T*>(row.logits) + id);
    u32 bits = row.allowed(id / 32) >> (id % 32);
#pragma unroll
    for (u32 i = 0; i < N; i++) visit(bits >> i & 1 ? to_float(pack.at[i]) : -infinity(), id + i);
  }
}
template <class T, class F>
__device__ void each_logit(F visit) {
  each_logit<T>(0, s.row.vocabulary, threadIdx.x, THREADS, visit);
}

// From here on weights are relative to a logit, at a temperature.
__device__ inline void weigh_at(float best, float temperature) {
  if (threadIdx.x == 0) s.weight = {best, temperature};
  __syncthreads();
}

// ---- over the block; every thread calls these

// Sum of `x` over the threads before this one.
__device__ u64 scan(u64 x, u64& total) {
  u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  auto within_warp = [lane](u64 sum) {
#pragma unroll
    for (u32 offset = 1; offset < WARP; offset *= 2) {
      u64 before = __shfl_up_sync(~0u, sum, offset);
      if (lane >= offset) sum += before;
    }
    return sum;
  };
  u64 sum = within_warp(x);
  if (lane == WARP - 1) s.warps[warp] = sum;
  __syncthreads();
  u64 warps = within_warp(s.warps[lane]);
  __syncthreads();  // `warps` is free again
  total = __shfl_sync(~0u, warps, WARP - 1);
  u64 before = __shfl_sync(~0u, warps, (warp + WARP - 1) % WARP);
  return (warp ? before : 0) + sum - x;
}

__device__ __noinline__ u64 block_sum(u64 x) {
  u64 total;
  scan(x, total);
  return total;
}

__device__ __noinline__ u64 block_max(u64 x) {
  auto over_warp = [](u64 most) {
#pragma unroll
    for (u32 offset = 16; offset; offset /= 2) most = max(most, __shfl_xor_sync(~0u, most, offset));
    return most;
  };
  x = over_warp(x);
  if (threadIdx.x % WARP == 0) s.warps[threadIdx.x / WARP] = x;
  __syncthreads();
  x = over_warp(s.warps[threadIdx.x % WARP]);
  __syncthreads();
  return x;
}

// ---- bins

__device__ inline void set_bin(u32 bin, u64 sum) {
  s.low[bin] = u32(sum), s.high[bin] = u32(sum >> 32);
}
__device__ inline u64 sum_of_bin(u32 bin) { return u64(s.high[bin]) << 32 | s.low[bin]; }
// Exact whatever the order: each wrap of the low half is seen by the one addition that causes it.
__device__ inline void add_to_bin(u32 bin, u64 x) {
  u32 low = u32(x), before = atomicAdd(&s.low[bin], low);
  u32 high = u32(x >> 32) + (before + low < before);
  if (high) atomicAdd(&s.high[bin], high);
}
__device__ inline void clear_bins() {
  for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) set_bin(bin, 0);
  __syncthreads();
}

// The bin at which the bins from the top down reach `wanted`, at least 1, and what those above it
// hold; NONE if all do not.
struct Found {
  u32 bin;
  u64 above;
};
__device__ __noinline__ Found find_bin(u64 wanted) {
  u32 upper = BINS - 1 - 2 * threadIdx.x, lower = upper - 1;
  u64 in_upper = sum_of_bin(upper), in_lower = sum_of_bin(lower), total;
  u64 before = scan(in_upper + in_lower, total);
  if (total < wanted) return {NONE, 0};
  if (before < wanted && wanted <= before + in_upper + in_lower) {
    bool first = wanted <= before + in_upper;
    s.found_bin = first ? upper : lower;
    s.found_above = first ? before : before + in_upper;
  }
  __syncthreads();
  return {s.found_bin, s.found_above};  // written again only behind the barriers of another `scan`
}

// ---- selection

// What a rank adds to a sum: nothing below `threshold`, else its weight, or 1.
struct Measure {
  u64 threshold;
  bool weighs;
  __device__ u64 operator()(u64 rank) const {
    if (rank < threshold) return 0;
    return weighs ? s.weight(logit_of(rank)) : 1;
  }
};

// Where candidates are taken from.
enum class From { ROW, LIST };

template <class T, class F>
__device__ void each_rank(From from, F take) {
  if (from == From::LIST) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < s.listed; i += THREADS) take(s.list[i]);
    return;
  }
  each_logit<T>([&](float logit, u32 id) {
    if (is_candidate(logit)) take(rank_of(logit, id));
  });
}

template <class T>
__device__ __noinline__ u64 sum(From from, Measure measure) {
  u64 mine = 0;
  each_rank<T>(from, [&](u64 rank) { mine += measure(rank); });
  return block_sum(mine);
}

// What ranks are ordered by: the bits `last..first + DIGIT`; those above have no say.
struct Order {
  int first, last;
};
constexpr Order BY_RANK{KEY_BITS + ID_BITS - DIGIT, 0};
constexpr Order BY_RANK_ROUGHLY{KEY_BITS + ID_BITS - DIGIT, KEY_BITS + ID_BITS - 2 * DIGIT};
constexpr Order BY_ID{DIGIT, 0};  // lower ids first

// The smallest set of best candidates that measures at least `wanted`, at least 1: its lowest rank,
// those of its bits that are ordered by. 0 if all do not reach it.
template <class T>
__device__ __noinline__ u64 select(From from, Measure measure, u64 wanted, Order order) {
  u64 prefix = 0, ordered = (1ull << (order.first + DIGIT)) - 1;
  for (int shift = order.first; shift >= order.last; shift -= DIGIT) {
    clear_bins();
    each_rank<T>(from, [&](u64 rank) {
      u64 digits = (rank & ordered) >> shift;
      if (digits >> DIGIT == prefix) add_to_bin(u32(digits) & (BINS - 1), measure(rank));
    });
    __syncthreads();
    Found found = find_bin(wanted);
    if (found.bin == NONE) return 0;
    wanted -= found.above;
    prefix = prefix << DIGIT | found.bin;
  }
  return prefix << order.last;
}

// This thread's best of the row, 0 if it has no candidate.
template <class T>
__device__ __noinline__ u64 best_of_thread() {
  float best = -infinity();
  u32 best_id = 0;
  each_logit<T>([&](float logit, u32 id) {
    logit = logit > FLOAT_MAX ? FLOAT_MAX : logit;  // keeps NaN
    if (logit > best) best = logit, best_id = id;
  });
  return is_candidate(best) ? rank_of(best, best_id) : 0;
}

// What one pass over the row leaves in the list.
struct Collected {
  bool fits;      // the list has every candidate from some rank on: LIST_WANTED or more
  bool complete;  // and these are all
  u64 total;      // weight of all candidates, if it was asked for
};

// Lists the best candidates. The LIST_WANTED'th of the threads' bests is no better than the
// LIST_WANTED'th of all, and unless ids and logits go together few more than LIST_WANTED are above
// it.
template <class T>
__device__ __noinline__ Collected collect(u64 thread_best, bool weigh) {
  s.list[threadIdx.x] = thread_best;
  if (threadIdx.x == 0) s.listed = THREADS;
  __syncthreads();
  u64 floor = select<T>(From::LIST, Measure{1, false}, LIST_WANTED, BY_RANK_ROUGHLY);
  float least = floor ? logit_of(floor) : -FLOAT_MAX;
  if (threadIdx.x == 0) s.listed = 0;
  __syncthreads();
  const Weight weight = s.weight;
  u64 total = 0;
  each_logit<T>([&](float logit, u32 id) {
    if (weigh && is_candidate(logit)) total += weight(logit);
    if (logit >= least) {
      u32 at = atomicAdd(&s.listed, 1);
      if (at < LIST) s.list[at] = rank_of(logit, id);
    }
  });
  total = block_sum(total);
  bool fits = s.listed <= LIST;
  return {fits, fits && !floor, total};
}

// ---- drawing

// Where the draw lies: the running sum that reaches it is the first above uniform * total. At most
// `total`.
__device__ inline u64 units_wanted(u64 total) {
  return __double2ull_rd(s.how.uniform * double(total)) + 1;
}
// What the nucleus has to reach.
__device__ inline u64 units_held(u64 total) {
  return max(1ull, __double2ull_ru(double(s.how.top_p) * double(total)));
}

// Draws in order of ids among the candidates from `threshold` on: first the chunk, then the id
// within it.
template <class T>
__device__ __noinline__ u32 draw_from_row(u64 threshold) {
  const Weight weight = s.weight;
  const u32 vocabulary = s.row.vocabulary;
  auto measure = [&](float logit, u32 id) -> u64 {
    bool kept = is_candidate(logit) && (!threshold || rank_of(logit, id) >= threshold);
    return kept ? weight(logit) : 0;
  };
  u64 mine = 0;
  clear_bins();
#pragma unroll 1
  for (u32 chunk = threadIdx.x / WARP; chunk * CHUNK < vocabulary; chunk += WARPS) {
    u64 sum = 0;
    u32 end = min(vocabulary, (chunk + 1) * CHUNK);
    each_logit<T>(chunk * CHUNK, end, threadIdx.x % WARP, WARP,
                  [&](float logit, u32 id) { sum += measure(logit, id); });
    mine += sum;
#pragma unroll
    for (u32 offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (threadIdx.x % WARP == 0) set_bin(BINS - 1 - chunk, sum);
  }
  u64 wanted = units_wanted(block_sum(mine));
  Found chunk = find_bin(wanted);
  u32 first = (BINS - 1 - chunk.bin) * CHUNK;
#pragma unroll 1
  for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
    bool inside = i < CHUNK && first + i < vocabulary;
    set_bin(BINS - 1 - i, inside ? measure(s.row.at<T>(first + i), first + i) : 0);
  }
  __syncthreads();
  return first + BINS - 1 - find_bin(wanted - chunk.above).bin;
}

// Draws at a temperature. `best` is the row's best rank.
template <class T>
__device__ u32 draw(u64 thread_best, u64 best) {
  const RowImage& how = s.how;
  weigh_at(logit_of(best), how.temperature);
  bool cut_p = how.top_p < 1.0f;
  if (!how.top_k && !cut_p) return draw_from_row<T>(0);
  Collected all = collect<T>(thread_best, !how.top_k);
  Measure kept{0, true};
  u64 total = all.total;
  From from = all.fits ? From::LIST : From::ROW;
  if (all.fits && !all.complete) {
    bool enough = how.top_k ? how.top_k <= s.listed : sum<T>(from, kept) >= units_held(total);
    if (!enough) from = From::ROW;
  }
  if (how.top_k) {
    kept.threshold = select<T>(from, Measure{0, false}, how.top_k, BY_RANK);
    total = sum<T>(from, kept);
  }
  if (cut_p) {
    kept.threshold = max(kept.threshold, select<T>(from, kept, units_held(total), BY_RANK));
    total = sum<T>(from, kept);
  }
  if (from == From::ROW) return draw_from_row<T>(kept.threshold);
  return id_of(select<T>(from, kept, units_wanted(total), BY_ID));
}

// For a row without candidates.
__device__ __noinline__ u32 lowest_allowed() {
  if (threadIdx.x == 0) s.lowest = NONE;
  __syncthreads();
#pragma unroll 1
  for (u32 id = threadIdx.x; id < s.row.vocabulary; id += THREADS) {
    if (!(s.row.allowed(id / 32) >> (id % 32) & 1)) continue;
    atomicMin(&s.lowest, id);
    break;
  }
  __syncthreads();
  return s.lowest == NONE ? 0 : s.lowest;
}

// ---- log-probabilities of the raw distribution: `s.row` has no mask

__device__ inline u32 logprob(float logit, u64 total) {
  double log_total = log(double(total)) - WEIGHT_BITS * 0.693147180559945309417;
  return __float_as_uint(float(double(fminf(logit, FLOAT_MAX) - s.weight.best) - log_total));
}

// Writes [logprob of `token`, count, count x (id, logprob)] to `report`.
template <class T>
__device__ void write_report(u32 token, u64 thread_best, u32* report) {
  weigh_at(logit_of(block_max(thread_best)), 1.0f);
  Collected all = collect<T>(thread_best, true);
  From from = all.fits ? From::LIST : From::ROW;
  if (threadIdx.x == 0) s.topped = 0;
  __syncthreads();
  if (s.how.top) {
    u64 threshold = select<T>(from, Measure{0, false}, s.how.top, BY_RANK);
    each_rank<T>(from, [&](u64 rank) {
      if (rank >= threshold) s.top[atomicAdd(&s.topped, 1)] = rank;
    });
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    float own = s.row.at<T>(token);
    report[0] = is_candidate(own) ? logprob(own, all.total) : __float_as_uint(-infinity());
    report[1] = s.topped;
  }
  if (threadIdx.x < s.topped) {
    u64 rank = s.top[threadIdx.x];
    u32 place = 0;
    for (u32 i = 0; i < s.topped; i++) place += s.top[i] > rank;
    report[2 + 2 * place] = id_of(rank);
    report[3 + 2 * place] = logprob(logit_of(rank), all.total);
  }
}

// ---- entry points: grid [rows]

template <class T>
__device__ void begin_row(const T* logits, u32 vocabulary, const u32* image) {
  constexpr u32 WORDS = sizeof(RowImage) / 4;
  if (threadIdx.x < WORDS)
    reinterpret_cast<u32*>(&s.how)[threadIdx.x] = image[blockIdx.x * WORDS + threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) {
    const u32* mask = s.how.mask == NONE ? nullptr : image + s.how.mask;
    s.row = Row{logits + u64(blockIdx.x) * vocabulary, mask, s.how.mask_words, vocabulary};
  }
  __syncthreads();
}

// logits: [rows, vocabulary]. image: [rows] of RowImage, then masks. results: [rows] tokens, then
// reports.
template <class T>
__device__ void sample(const T* logits, u32 vocabulary, const u32* image, u32* results) {
  release_successor();
  wait_for_predecessor();
  begin_row(logits, vocabulary, image);
  u64 thread_best = best_of_thread<T>(), best = block_max(thread_best);
  u32 token;
  if (!best) token = lowest_allowed();
  else if (s.how.temperature > 0.0f) token = draw<T>(thread_best, best);
  else token = id_of(best);
  if (threadIdx.x == 0) results[blockIdx.x] = token;
  if (s.how.report == NONE) return;
  if (s.row.mask) {
    __syncthreads();  // all have seen the mask
    if (threadIdx.x == 0) s.row.mask = nullptr;
    __syncthreads();
    thread_best = best_of_thread<T>();
  }
  write_report<T>(token, thread_best, results + s.how.report);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sample_f32(const float* logits, u32 vocabulary, const u32* image, u32* results) {
  sample(logits, vocabulary, image, results);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    sample_bf16(const bf16* logits, u32 vocabulary, const u32* image, u32* results) {
  sample(logits, vocabulary, image, results);
}
