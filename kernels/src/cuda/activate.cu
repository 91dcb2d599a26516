// out = silu(gate) * up of a finished product [rows, 2 * intermediate]: gate, then up. A block
// takes the rows of one piece and OUTPUTS columns of out after each other, so that the adapter's
// part is read once for all rows of the piece. T: elements of tiles and KV; Y: of the product.
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
  // Read side by side: the image has room for as many pieces as the grid.
  const u32 pieces = step.counts->pieces;
  const Piece piece = step.pieces[blockIdx.x];
  if (blockIdx.x >= pieces) return;
  const u32 intermediate = pending.width / 2;
  const bool lora = has_delta(pending, piece);
  for (u32 first = blockIdx.y * OUTPUTS; first < intermediate; first += gridDim.y * OUTPUTS) {
    const u32 outputs = least(OUTPUTS, intermediate - first);
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

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL activate_f32_f32(Step step, Pending gate_up, void* out) {
  activate<float, float>(step, gate_up, out);
}
KERNEL activate_f32_bf16(Step step, Pending gate_up, void* out) {
  activate<float, bf16>(step, gate_up, out);
}
KERNEL activate_f16_f32(Step step, Pending gate_up, void* out) {
  activate<f16, float>(step, gate_up, out);
}
KERNEL activate_f16_bf16(Step step, Pending gate_up, void* out) {
  activate<f16, bf16>(step, gate_up, out);
}
KERNEL activate_bf16_f32(Step step, Pending gate_up, void* out) {
  activate<bf16, float>(step, gate_up, out);
}
KERNEL activate_bf16_bf16(Step step, Pending gate_up, void* out) {
  activate<bf16, bf16>(step, gate_up, out);
}
