// How a product runs beside the `shrink` ahead of it: by words in memory in place of the order of
// kernels. A product's blocks start once all of shrink's are there, so that those it waits for run.
#pragma once
#include "prelude.cuh"

// A site's words; zeros between its product and the next step's shrink. Those of other sites may be
// in flight too: a product can start before the one ahead of its shrink has ended.
struct Signals {
  u32 has_x;    // whether what both read is there
  u32 shrunk;   // blocks of shrink that have written all of theirs, or have nothing to write
  u32 arrived;  // blocks of the product that need no more signals
  u32 padding;
};

// `Beside` of cuda/signals.rs.
struct Beside {
  Signals* signals;
  u32 blocks;  // of the shrink beside the product; 0 where it has ended before x may be read

  __device__ operator bool() const { return blocks; }
};

__device__ inline void await_signal(const u32& word, u32 value) {
  u32 now;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(&word) : "memory");
  } while (now != value);
}
// What this thread has seen is seen by who sees it.
__device__ inline void raise_signal(u32& word, u32 by) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(&word), "r"(by) : "memory");
}
// For one thread of each of the product's blocks; the last one leaves zeros.
__device__ inline void arrive_signals(Signals& signals) {
  if (atomicInc(&signals.arrived, gridDim.x - 1) == gridDim.x - 1)
    signals.has_x = signals.shrunk = 0;
}
