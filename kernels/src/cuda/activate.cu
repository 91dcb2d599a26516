// out = silu(gate) * up of a finished product [rows, 2 * intermediate]: gate, then up. An item is
// the rows of one piece and OUTPUTS columns of out, so that the adapter's part is read once for all
// rows of the piece; blocks take items in turn. T: elements of tiles and KV; Y: of the product.
#include "expand.cuh"

constexpr u32 THREADS = 128;
constexpr u32 OUTPUTS = 128;
constexpr u32 WARP_COLUMNS = 2 * OUTPUTS / (THREADS / WARP);
constexpr u32 STRIDE = 2 * OUTPUTS + 8;  // of delta: gate, then up; see `expand`

// As the CPU: 1 / (1 + infinity) = 0 where the gate is far below zero.
__device__ inline float silu(float x) { return x / (1 + expf(-x)); }

// Columns first..first + outputs of out. `delta`: [PIECE_ROWS, STRIDE] or null.
template <class T, class Y, int V>
__device__ void gate_rows(const Pending& pending, const Piece& piece, u32 first, u32 outputs,
                          const float* delta, void* out) {
  constexpr u32 GROUPS = OUTPUTS / V;  // of V columns
  const u32 intermediate = pending.width / 2, i = threadIdx.x % GROUPS * V;
  if (i >= outputs) return;
  for (u32 row = threadIdx.x / GROUPS; row < piece.rows; row += THREADS / GROUPS) {
    const float* d = delta ? delta + row * STRIDE + i : nullptr;
    const Pack<float, V> gate = finish<Y, V>(pending, piece.row + row, first + i, d);
    const Pack<float, V> up =
        finish<Y, V>(pending, piece.row + row, intermediate + first + i, d ? d + OUTPUTS : nullptr);
    Pack<float, V> gated;
#pragma unroll
    for (int j = 0; j < V; j++) gated.at[j] = silu(gate.at[j]) * up.at[j];
    using Out = Activation<T>;
    store<Out, V>(static_cast<Out*>(out) + u64(piece.row + row) * intermediate + first + i, gated);
  }
}

// The same columns of gate and up for the rows of a piece: half of the warps take gate, half up.
template <class T>
__device__ void expand_range(const Pending& pending, const Piece& piece, u32 first, u32 outputs,
                             float* delta) {
  const u32 place = threadIdx.x / WARP * WARP_COLUMNS, up = place / OUTPUTS,
            column = place % OUTPUTS;
  if (column >= outputs) return;
  const u32 site_column = up * (pending.width / 2) + first + column;
  expand<T, WARP_COLUMNS>(pending, piece, site_column, least(WARP_COLUMNS, outputs - column),
                          delta + place, STRIDE);
}

template <class T, class Y>
__device__ void activate(const Step& step, const Pending& pending, void* out) {
  __shared__ alignas(32) float delta[PIECE_ROWS * STRIDE];
  release_successor();
  wait_for_predecessor();
  const u32 intermediate = pending.width / 2, parts = (intermediate + OUTPUTS - 1) / OUTPUTS;
  const u32 items = step.counts->pieces * parts;
  for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
    const Piece piece = step.pieces[item / parts];
    const u32 first = item % parts * OUTPUTS, outputs = least(OUTPUTS, intermediate - first);
    const bool lora = has_delta(pending, piece);
    if (lora) {
      expand_range<T>(pending, piece, first, outputs, delta);
      __syncthreads();
    }
    const float* d = lora ? delta : nullptr;
    constexpr int WIDE = 16 / sizeof(Y);
    if (intermediate % WIDE == 0) gate_rows<T, Y, WIDE>(pending, piece, first, outputs, d, out);
    else gate_rows<T, Y, 1>(pending, piece, first, outputs, d, out);
    if (lora) __syncthreads();  // before the next delta
  }
}

// ---- few rows

// This lane's column of out for the rows of a group. `delta`: of gate and of up.
template <class T, class Y, bool LORA>
__device__ inline void gate_lane(const Pending& pending, const Piece& group, const Runs& runs,
                                 const float (&delta)[2][GROUP_ROWS], void* any_out) {
  using Out = Activation<T>;
  const u32 place = lane_place(), intermediate = pending.width / 2;
  if (place >= runs.firsts) return;
  Out* out = static_cast<Out*>(any_out) + u64(group.row) * intermediate + runs.first + place;
  float gates[GROUP_ROWS], ups[GROUP_ROWS];
#pragma unroll
  for (u32 r = 0; r < GROUP_ROWS; r++) {
    if (r >= group.rows) break;
    const u32 row = group.row + r;
    gates[r] = finish<Y, 1>(pending, row, runs.first + place, LORA ? &delta[0][r] : nullptr).at[0];
    ups[r] = finish<Y, 1>(pending, row, runs.second + place, LORA ? &delta[1][r] : nullptr).at[0];
  }
#pragma unroll
  for (u32 r = 0; r < GROUP_ROWS; r++)
    if (r < group.rows) out[u64(r) * intermediate] = from_float<Out>(silu(gates[r]) * ups[r]);
}

// Every warp has RUN columns of its own, of gate and of up.
template <class T, class Y, bool LORA>
__device__ void activate_few(const Step& step, const Pending& pending, void* out) {
  release_successor();
  const u32 intermediate = pending.width / 2, parts = (intermediate + RUN - 1) / RUN;
  const u32 groups = step.counts->groups;
  const auto runs_of = [&](u32 part) {
    const u32 first = part * RUN, columns = least(RUN, intermediate - first);
    return Runs{first, columns, intermediate + first, columns};
  };
  const Share share(groups, parts, THREADS / WARP);
  if (LORA && share.group < groups)
    prefetch_runs<T>(pending, step.groups[share.group].slot, runs_of(share.part));
  wait_for_predecessor();
  for (u32 g = share.group; g < groups; g += share.groups_stride) {
    const Piece group = step.groups[g];
    for (u32 part = share.part; part < parts; part += share.parts_stride) {
      const Runs runs = runs_of(part);
      float delta[2][GROUP_ROWS] = {};
      if (LORA && group.slot != NO_ADAPTER) {
        if (part + share.parts_stride < parts)
          prefetch_runs<T>(pending, group.slot, runs_of(part + share.parts_stride));
        expand_lanes<T>(pending, group, runs, delta);
      }
      gate_lane<T, Y, LORA>(pending, group, runs, delta, out);
    }
  }
}

#define KERNEL(T, Y)                                                   \
  extern "C" __global__ void __launch_bounds__(THREADS)                \
      activate_##T##_##Y(Step step, Pending gate_up, void* out) {      \
    activate<T, Y>(step, gate_up, out);                                \
  }                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS, 5)             \
      activate_few_##T##_##Y(Step step, Pending gate_up, void* out) {  \
    activate_few<T, Y, true>(step, gate_up, out);                      \
  }                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS)                \
      activate_base_##T##_##Y(Step step, Pending gate_up, void* out) { \
    activate_few<T, Y, false>(step, gate_up, out);                     \
  }
using f32 = float;
KERNEL(f32, f32)
KERNEL(f32, bf16)
KERNEL(f16, f32)
KERNEL(f16, bf16)
KERNEL(bf16, f32)
KERNEL(bf16, bf16)
