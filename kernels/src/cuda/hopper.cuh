// What only Hopper has (sm_90a): asynchronous copies of tiles with the barriers that announce them,
// clusters of blocks that read each other's shared memory, and products of warpgroups.
#pragma once
#include "prelude.cuh"

// As cuda/tensor_map.rs encodes it; a `const __grid_constant__` parameter.
struct alignas(128) TensorMap {
  u64 words[16];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// ---- barriers in shared memory. A phase ends when all arrivals and all announced bytes are in;
// phases count from 0, and `barrier_wait(barrier, parity)` returns once the latest phase of that
// parity has ended.

__device__ inline void barrier_init(u32 barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes `barrier_init` visible to copies; a __syncthreads() makes it visible to the block.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Ends a barrier, so that its place may hold something else.
__device__ inline void barrier_end(u32 barrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Copies that this thread asks for from here on come after what it knows of shared memory.
__device__ inline void fence_before_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and announces bytes that copies will bring.
__device__ inline void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Whether the latest phase of that parity has ended.
__device__ inline bool barrier_has_ended(u32 barrier, u32 parity) {
  u32 done;
  asm volatile(
      "{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done;
}
__device__ inline void barrier_wait(u32 barrier, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, "
        "p;}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// As `barrier_wait`, for what other blocks of the cluster have pushed.
__device__ inline void barrier_wait_pushed(u32 barrier, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p;}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// ---- copies (TMA)

// For what every block reads.
__device__ inline u64 evict_last() {
  u64 policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// The map's box at (column, row) to shared memory, 1024-byte aligned; zeros where it leaves the
// matrix. `barrier` counts all bytes of the box.
__device__ inline void copy_box(u32 shared, const TensorMap& map, u32 column, u32 row, u32 barrier,
                                u64 policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(&map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}

// As `copy_box` of a matrix whose rows come in eights, of two halves in turn: `group` counts eights
// of either half.
__device__ inline void copy_gated_box(u32 shared, const TensorMap& map, u32 column, u32 group,
                                      u32 barrier, u64 policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, 0, 0, %3}], [%4], %5;" ::"r"(shared),
      "l"(&map), "r"(column), "r"(group), "r"(barrier), "l"(policy)
      : "memory");
}
// Neighbouring bytes to shared memory; addresses and count multiples of 16. `barrier` counts them.
__device__ inline void copy_bytes(u32 shared, const void* from, u32 bytes, u32 barrier,
                                  u64 policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// ---- shared memory by address

__device__ inline void store_shared(u32 shared, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(shared), "f"(x) : "memory");
}
// Without branches, which loads would be moved into.
__device__ inline float load_shared_if(bool condition, u32 shared) {
  float x;
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %2, 0; mov.f32 %0, 0f00000000; @p ld.shared.f32 %0, [%1];}"
      : "=&f"(x)
      : "r"(shared), "r"(u32(condition))
      : "memory");
  return x;
}
__device__ inline void store_shared_if(bool condition, u32 shared, float x) {
  asm volatile("{.reg .pred p; setp.ne.u32 p, %2, 0; @p st.shared.f32 [%0], %1;}" ::"r"(shared),
               "f"(x), "r"(u32(condition))
               : "memory");
}
__device__ inline void store_shared(u32 shared, u32 x) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(x) : "memory");
}
__device__ inline void store_shared(u32 shared, uint2 v) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(shared), "r"(v.x), "r"(v.y) : "memory");
}
__device__ inline void store_shared(u32 shared, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ inline u32 load_shared_1(u32 shared) {
  u32 x;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(shared) : "memory");
  return x;
}
__device__ inline uint2 load_shared_2(u32 shared) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(shared) : "memory");
  return v;
}
__device__ inline uint4 load_shared_4(u32 shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(shared)
               : "memory");
  return v;
}
__device__ inline void store_shared(u32 shared, float4 v) {
  store_shared(shared, make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z),
                                  __float_as_uint(v.w)));
}
__device__ inline float load_shared_float(u32 shared) {
  return __uint_as_float(load_shared_1(shared));
}
__device__ inline float4 load_shared_floats(u32 shared) {
  const uint4 v = load_shared_4(shared);
  return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z),
                     __uint_as_float(v.w));
}
__device__ inline float4 operator+(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ inline float4 operator*(float4 a, float4 b) {
  return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

// ---- clusters

// All threads of all blocks of the cluster, in turn; what they wrote to shared memory before they
// arrived is visible to those that have waited, by a fence of the device. For whole warps.
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// Of those that have written nothing that others read.
__device__ inline void cluster_pass() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// To this address of the `rank`-th block's shared memory, where `barrier` counts the bytes.
__device__ inline void push_float(u32 shared, float x, u32 barrier, u32 rank) {
  asm volatile(
      "{.reg .u32 a, b; mapa.shared::cluster.u32 a, %0, %3; mapa.shared::cluster.u32 b, %2, %3; "
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [a], %1, [b];}" ::"r"(shared),
      "f"(x), "r"(barrier), "r"(rank)
      : "memory");
}
// Four floats at this address of the `rank`-th block's shared memory.
__device__ inline float4 load_cluster(u32 shared, u32 rank) {
  float4 v;
  asm volatile(
      "{.reg .u32 a; mapa.shared::cluster.u32 a, %4, %5; ld.shared::cluster.v4.f32 {%0, %1, %2, "
      "%3}, [a];}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(shared), "r"(rank)
      : "memory");
  return v;
}

// ---- products of a warpgroup (PTX ISA, "wgmma"). Operands lie in shared memory as `copy_box`
// leaves boxes of 64 bf16 columns under the 128-byte swizzle: rows of 128 bytes, groups of 8 rows
// 1024 bytes apart, the first at 1024-byte alignment. Columns 16 i.. of a box begin 32 i bytes
// after it.

// Descriptor of an operand (K-major, 128-byte swizzle, 1024 bytes from group to group).
__device__ inline u64 operand(u32 shared) {
  return u64((shared & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}
// Before the first product, and after other instructions have touched the sums.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int PENDING>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// d[64 x N] = a[64 x 16] b[N x 16]^T, added to what it was where `add` is not 0. d[i] of a thread:
// row 16 (warp % 4) + lane / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (lane % 4) + i % 2.
template <int N>
__device__ inline void multiply_async(float (&d)[N / 2], u64 a, u64 b, u32 add);
#define SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
template <>
__device__ inline void multiply_async<8>(float (&d)[4], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %6, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;}"
      : SUMS_4(0)
      : "l"(a), "l"(b), "r"(add));
}
template <>
__device__ inline void multiply_async<16>(float (&d)[8], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %10, 0; wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, p, 1, 1, 0, 0;}"
      : SUMS_4(0), SUMS_4(4)
      : "l"(a), "l"(b), "r"(add));
}
template <>
__device__ inline void multiply_async<32>(float (&d)[16], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %18, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p, "
      "1, 1, 0, 0;}"
      : SUMS_16(0)
      : "l"(a), "l"(b), "r"(add));
}
template <>
__device__ inline void multiply_async<48>(float (&d)[24], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %26, 0; wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23}, %24, %25, p, 1, 1, 0, 0;}"
      : SUMS_16(0), SUMS_4(16), SUMS_4(20)
      : "l"(a), "l"(b), "r"(add));
}
template <>
__device__ inline void multiply_async<64>(float (&d)[32], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, "
      "1, 1, 0, 0;}"
      : SUMS_16(0), SUMS_16(16)
      : "l"(a), "l"(b), "r"(add));
}
template <>
__device__ inline void multiply_async<96>(float (&d)[48], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %50, 0; wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, "
      "%35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, %48, %49, p, "
      "1, 1, 0, 0;}"
      : SUMS_16(0), SUMS_16(16), SUMS_16(32)
      : "l"(a), "l"(b), "r"(add));
}
template <>
__device__ inline void multiply_async<128>(float (&d)[64], u64 a, u64 b, u32 add) {
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, "
      "%35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, "
      "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p, 1, 1, 0, "
      "0;}"
      : SUMS_16(0), SUMS_16(16), SUMS_16(32), SUMS_16(48)
      : "l"(a), "l"(b), "r"(add));
}
#undef SUMS_16
#undef SUMS_4

#endif
