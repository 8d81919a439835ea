/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What Linux's include/hyperv headers need of the kernel, for a 64-bit x86 user-space compiler. */
#ifndef SHIM_TYPES_H
#define SHIM_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define CONFIG_X86 1
#define CONFIG_X86_64 1
/* An undefined option is 0 in a preprocessor condition, the only place where the headers use this. */
#define IS_ENABLED(option) option

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef unsigned long ulong;

#define __packed __attribute__((packed))
#define __aligned(n) __attribute__((aligned(n)))

#define DECLARE_FLEX_ARRAY(type, name) \
	struct { \
		struct { } shim_empty; \
		type name[]; \
	}

#define __TRAILING_OVERLAP(type, name, array, attributes, members) \
	union { \
		type name; \
		struct { \
			u8 shim_head[offsetof(type, array)]; \
			members \
		} attributes; \
	}

#endif
