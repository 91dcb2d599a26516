// Products of few rows of which gate and up become one.
#include "matmul_decode.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KERNEL(ROWS, TOKENS, SPLITS, PER, CHUNKS) \
  MATMUL_DECODE(matmul_gated, GATED, ROWS, TOKENS, SPLITS, PER, CHUNKS)
#if OF_TOKENS == 8
KERNEL(64, 8, 1, 2, 2)
KERNEL(128, 8, 1, 2, 1)
#elif OF_TOKENS == 32
KERNEL(64, 32, 1, 2, 1)
LORA_KERNEL(128, 16, 1, 2, 1)
KERNEL(128, 32, 1, 2, 1)
#elif OF_TOKENS == 64
KERNEL(64, 64, 1, 2, 1)
LORA_KERNEL(128, 32, 1, 2, 1)
KERNEL(128, 64, 1, 2, 1)
#elif OF_TOKENS == 96
KERNEL(64, 96, 1, 2, 1)
LORA_KERNEL(128, 48, 1, 2, 1)
KERNEL(256, 96, 1, 1, 1)
#elif OF_TOKENS == 128
BASE_KERNEL(64, 128, 1, 2, 1)
LORA_KERNEL(128, 64, 1, 2, 1)
KERNEL(256, 128, 1, 1, 1)
#endif
#endif
