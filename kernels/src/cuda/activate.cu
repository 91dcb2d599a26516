// out = silu(gate) * up of a finished product [rows, 2 * intermediate]: gate, then up. An item is
// the rows of one piece and OUTPUTS columns of out, so that the adapter's part is read once for all
// rows of the piece; blocks take items in turn. T: elements of tiles and KV; Y: of the product.
#include "expand.cuh"

constexpr u32 THREADS = 128;
constexpr u32 OUTPUTS = 128;
constexpr u32 WARP_COLUMNS = 2 * OUTPUTS / (THREADS / WARP);
constexpr u32 STRIDE = 2 * OUTPUTS + 8;  // of delta: gate, then up; see `expand`

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

#define KERNEL(T, Y)                                              \
  extern "C" __global__ void __launch_bounds__(THREADS)           \
      activate_##T##_##Y(Step step, Pending gate_up, void* out) { \
    activate<T, Y>(step, gate_up, out);                           \
  }
FOR_ELEMENTS(KERNEL)
