// Products of few rows that are written as they are.
#include "matmul_decode.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KERNEL(ROWS, TOKENS, SPLITS, PER, CHUNKS) \
  MATMUL_DECODE(matmul_sums, PLAIN, ROWS, TOKENS, SPLITS, PER, CHUNKS)
#if OF_TOKENS == 8
KERNEL(64, 8, 1, 2, 2)
KERNEL(128, 8, 1, 2, 1)
KERNEL(64, 8, 2, 2, 2)
KERNEL(64, 8, 3, 2, 2)
KERNEL(64, 8, 6, 2, 2)
#elif OF_TOKENS == 32
KERNEL(64, 32, 1, 2, 1)
KERNEL(128, 32, 1, 2, 1)
KERNEL(64, 32, 2, 2, 1)
KERNEL(64, 32, 3, 2, 1)
KERNEL(64, 32, 6, 2, 1)
#elif OF_TOKENS == 64
KERNEL(64, 64, 1, 2, 1)
KERNEL(256, 64, 1, 1, 1)
KERNEL(64, 64, 2, 2, 1)
KERNEL(64, 64, 3, 2, 1)
KERNEL(64, 64, 6, 2, 1)
#elif OF_TOKENS == 96
KERNEL(64, 96, 1, 2, 1)
KERNEL(256, 96, 1, 1, 1)
KERNEL(64, 96, 2, 2, 1)
KERNEL(64, 96, 3, 2, 1)
KERNEL(64, 96, 6, 2, 1)
#elif OF_TOKENS == 128
KERNEL(64, 128, 1, 2, 1)
KERNEL(256, 128, 1, 1, 1)
BASE_KERNEL(64, 128, 2, 2, 1)
LORA_KERNEL(128, 64, 2, 2, 1)
BASE_KERNEL(64, 128, 3, 2, 1)
LORA_KERNEL(128, 64, 3, 2, 1)
BASE_KERNEL(64, 128, 6, 2, 1)
LORA_KERNEL(128, 64, 6, 2, 1)
#endif
#endif
