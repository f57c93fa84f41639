/*
 * The part of the kernel's io_uring interface that the helper uses. A copy of our own, because distributions' headers
 * are older than the kernels they meet. Values from include/uapi/linux/io_uring.h; the number behind a feature is the
 * kernel that brought it.
 */
#ifndef RINGSCOPE_URING_ABI_H
#define RINGSCOPE_URING_ABI_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#define IORING_OFF_SQ_RING 0ULL
#define IORING_OFF_SQES 0x10000000ULL

#define IORING_SETUP_SQPOLL (1U << 1)
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* 6.6 */

#define IORING_REGISTER_SYNC_CANCEL 24 /* 6.0 */
#define IORING_ASYNC_CANCEL_ALL (1U << 0)
#define IORING_ASYNC_CANCEL_ANY (1U << 2)

struct io_sqring_offsets {
	u32 head, tail, ring_mask, ring_entries, flags, dropped, array, resv1;
	u64 user_addr;
};

struct io_cqring_offsets {
	u32 head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1;
	u64 user_addr;
};

struct io_uring_params {
	u32 sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3];
	struct io_sqring_offsets sq_off;
	struct io_cqring_offsets cq_off;
};

struct io_uring_sync_cancel_reg {
	u64 addr;
	i32 fd;
	u32 flags;
	i64 timeout_sec, timeout_nsec;
	u8 opcode, pad[7];
	u64 pad2[3];
};

#endif
