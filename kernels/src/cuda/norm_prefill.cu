// norm.cuh for many rows: a cluster takes rows of one piece, so that the adapter's part of its
// columns is read once for all of them, and a warp takes one row after the other. T: elements of
// tiles and KV; Y: of the product.
#include "norm.cuh"

constexpr u32 WARPS = 8;
constexpr u32 WARP_COLUMNS = 32;
constexpr u32 BATCH = 4;

// The block's rows: some of a piece, or none.
__device__ inline Piece rows_of(const Step& step, const Norm& norm) {
  const u32 parts = (PIECE_ROWS + norm.rows - 1) / norm.rows, item = blockIdx.x / norm.slices;
  if (item / parts >= step.counts->pieces) return {0, 0, NO_ADAPTER};
  const Piece piece = step.pieces[item / parts];
  const u32 first = least(item % parts * norm.rows, piece.rows);
  return {piece.row + first, least(piece.rows - first, norm.rows), piece.slot};
}

// The block's columns of delta: [rows, stride].
template <class T>
__device__ void expand_slice(const Pending& pending, const Piece& rows, const Slice& slice,
                             float* delta, u32 stride) {
  for (u32 first = slice.begin + threadIdx.x / WARP * WARP_COLUMNS; first < slice.end;
       first += WARPS * WARP_COLUMNS)
    expand<T, WARP_COLUMNS>(pending, rows, first, least(WARP_COLUMNS, slice.end - first),
                            delta + (first - slice.begin), stride);
}

// V: divides the columns.
template <class T, class Y, int V>
__device__ void norm_rows(const Pending& pending, const Norm& norm, const Piece& rows,
                          const Slice& slice, float (*squares)[SLICES_MAX], float* x, u32 stride) {
  const u32 warp = threadIdx.x / WARP;
  const Team team = {threadIdx.x % WARP, WARP};
  const bool lora = has_delta(pending, rows);
  if (lora) {
    expand_slice<T>(pending, rows, slice, x, stride);
    __syncthreads();
  }
  for (u32 i = warp; i < rows.rows; i += WARPS) {
    float* own = x + i * stride;
    const float part = warp_sum(
        add<Y, V, BATCH>(pending, norm, rows.row + i, slice, team, lora ? own : nullptr, own));
    if (norm.slices == 1) squares[i][0] = part;
    else if (team.member < norm.slices) store_cluster(&squares[i][slice.index], team.member, part);
  }
  if (norm.slices > 1) {
    cluster_arrive();
    cluster_wait();
  }
  __syncwarp();
  for (u32 i = warp; i < rows.rows; i += WARPS) {
    float sum = 0;
    for (u32 s = 0; s < norm.slices; s++) sum += squares[i][s];
    write_row<T, V>(norm, rows.row + i, slice, team, sum, x + i * stride);
  }
}

template <class T, class Y>
__device__ void norm(const Step& step, const Pending& pending, const Norm& norm) {
  alignas(16) extern __shared__ float shared[];  // [rows, stride] delta, then the residual
  __shared__ float squares[PIECE_ROWS][SLICES_MAX];
  release_successor();
  if (norm.slices > 1) cluster_arrive();
  wait_for_predecessor();
  if (norm.slices > 1) cluster_wait();  // all blocks of the rows have started
  const Piece rows = rows_of(step, norm);
  const Slice slice(norm);
  const u32 stride = (norm.slice + 31) / 32 * 32 + 8;  // see `expand`
  if (rows.rows == 0) return;
  if (norm.hidden % 4 == 0) norm_rows<T, Y, 4>(pending, norm, rows, slice, squares, shared, stride);
  else norm_rows<T, Y, 1>(pending, norm, rows, slice, squares, shared, stride);
}

#define KERNEL(T, Y)                                                        \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, 3)              \
      norm_prefill_##T##_##Y(Step step, Pending pending, Norm parameters) { \
    norm<T, Y>(step, pending, parameters);                                  \
  }
FOR_ELEMENTS(KERNEL)
