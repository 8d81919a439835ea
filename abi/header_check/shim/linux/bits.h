/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Bit masks of the kernel. */
#ifndef SHIM_BITS_H
#define SHIM_BITS_H

#define BIT(n) (1ul << (n))
#define BIT_ULL(n) (1ull << (n))
#define GENMASK_ULL(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))
#define GENMASK(high, low) GENMASK_ULL(high, low)

#endif
