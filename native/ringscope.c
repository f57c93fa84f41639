/*
 * The native half of ringscope: sets an io_uring up, maps it, enters it, takes it down again, and makes the few
 * non-blocking system calls that have no request of their own. TypeScript writes the requests and reads the
 * completions in the mapped memory; nothing here knows what a request is.
 *
 * Every function takes integers and pointers to the caller's arrays, keeps no state, and returns a value or a
 * negative errno, so that any thread may call it. ffi/abi.ts is the other side of each prototype.
 */
#include "syscall.h"
#include "uring_abi.h"

#define EXPORT __attribute__((visibility("default")))
#define ABI_VERSION 3

enum { EINTR = 4, EINVAL = 22 };
enum { PROT_READ_WRITE = 3, MAP_SHARED_POPULATE = 0x8001, MAP_PRIVATE_ANONYMOUS = 0x22, MADV_DONTFORK = 10 };

/* mmap and the like return an address or, in the last page, a negative errno. */
static int is_error(long result)
{
	return result < 0 && result > -4096;
}

EXPORT i32 rs_abi(void)
{
	return ABI_VERSION;
}

/* What rs_ring_open reads and fills in. All fields are u64, so that TypeScript sees one BigUint64Array. */
struct rs_ring {
	u64 entries;        /* in: wanted, out: got */
	u64 cq_entries;     /* in: wanted, out: got */
	u64 flags;          /* in: IORING_SETUP_* that must be had, out: the flags in force */
	u64 optional_flags; /* in: IORING_SETUP_* to go without, one by one from the highest, where the kernel refuses */
	u64 sq_thread_idle; /* in: milliseconds before an SQPOLL thread sleeps */
	u64 fd, features;   /* out, as everything below */
	u64 rings, rings_bytes, sqes, sqes_bytes;
	u64 sq_head, sq_tail, sq_flags, cq_head, cq_tail, cq_overflow, cqes; /* byte offsets from rings */
};

static long setup_stepping_down(struct rs_ring *ring, struct io_uring_params *params)
{
	u32 optional = (u32)ring->optional_flags;

	for (;;) {
		u8 *bytes = (u8 *)params;
		for (u32 i = 0; i < sizeof *params; i++)
			((volatile u8 *)bytes)[i] = 0;
		params->flags = (u32)ring->flags | optional;
		params->cq_entries = (u32)ring->cq_entries;
		params->sq_thread_idle = (u32)ring->sq_thread_idle;
		long fd = syscall2(SYS_io_uring_setup, ring->entries, params);
		if (fd != -EINVAL || optional == 0)
			return fd;
		/* The highest flag is the youngest: an older kernel knows the ones below it. */
		optional &= ~(1U << (31 - __builtin_clz(optional)));
	}
}

EXPORT i32 rs_ring_open(struct rs_ring *ring)
{
	struct io_uring_params params;
	long fd = setup_stepping_down(ring, &params);
	if (fd < 0)
		return (i32)fd;

	u64 sq_bytes = params.sq_off.array;
	if (!(params.flags & IORING_SETUP_NO_SQARRAY))
		sq_bytes += params.sq_entries * sizeof(u32);
	u64 cq_bytes = params.cq_off.cqes + params.cq_entries * 16ULL;
	u64 rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes; /* IORING_FEAT_SINGLE_MMAP, 5.4 */
	u64 sqes_bytes = params.sq_entries * 64ULL;

	long rings = syscall6(SYS_mmap, 0, (long)rings_bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd,
			      IORING_OFF_SQ_RING);
	if (is_error(rings)) {
		syscall1(SYS_close, fd);
		return (i32)rings;
	}
	long sqes = syscall6(SYS_mmap, 0, (long)sqes_bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, IORING_OFF_SQES);
	if (is_error(sqes)) {
		syscall2(SYS_munmap, rings, rings_bytes);
		syscall1(SYS_close, fd);
		return (i32)sqes;
	}
	if (!(params.flags & IORING_SETUP_NO_SQARRAY)) {
		/* SQEs are used in the order of their slots, so the indirection is filled in once and for all. */
		u32 *array = (u32 *)(rings + params.sq_off.array);
		for (u32 i = 0; i < params.sq_entries; i++)
			array[i] = i;
	}

	ring->entries = params.sq_entries;
	ring->cq_entries = params.cq_entries;
	ring->flags = params.flags;
	ring->fd = (u64)fd;
	ring->features = params.features;
	ring->rings = (u64)rings;
	ring->rings_bytes = rings_bytes;
	ring->sqes = (u64)sqes;
	ring->sqes_bytes = sqes_bytes;
	ring->sq_head = params.sq_off.head;
	ring->sq_tail = params.sq_off.tail;
	ring->sq_flags = params.sq_off.flags;
	ring->cq_head = params.cq_off.head;
	ring->cq_tail = params.cq_off.tail;
	ring->cq_overflow = params.cq_off.overflow;
	ring->cqes = params.cq_off.cqes;
	return 0;
}

/*
 * Closes a ring whose requests have all completed. Should one be left after all (a bug of the caller), it is
 * cancelled here and waited for, a second at most: -ETIME then says that its memory must not be freed.
 */
EXPORT i32 rs_ring_close(const struct rs_ring *ring)
{
	struct io_uring_sync_cancel_reg cancel = {
		.fd = -1,
		.flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY,
		.timeout_sec = 1,
	};
	long left = syscall4(SYS_io_uring_register, ring->fd, IORING_REGISTER_SYNC_CANCEL, &cancel, 1);

	syscall2(SYS_munmap, ring->sqes, ring->sqes_bytes);
	syscall2(SYS_munmap, ring->rings, ring->rings_bytes);
	syscall1(SYS_close, ring->fd);
	return left == -62 /* ETIME */ ? (i32)left : 0;
}

EXPORT i32 rs_enter(i32 fd, u32 to_submit, u32 min_complete, u32 flags)
{
	return (i32)syscall4(SYS_io_uring_enter, fd, to_submit, min_complete, flags);
}

EXPORT i32 rs_register(i32 fd, u32 opcode, void *argument, u32 count)
{
	return (i32)syscall4(SYS_io_uring_register, fd, opcode, argument, count);
}

/* Memory that no garbage collector owns, and that a forked child does not get (its pages would be copied on write). */
EXPORT i32 rs_map(u32 bytes, u64 *address)
{
	long at = syscall6(SYS_mmap, 0, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
	if (is_error(at))
		return (i32)at;
	syscall3(SYS_madvise, at, bytes, MADV_DONTFORK);
	*address = (u64)at;
	return 0;
}

EXPORT i32 rs_unmap(u32 address_low, u32 address_high, u32 bytes)
{
	return (i32)syscall2(SYS_munmap, (u64)address_high << 32 | address_low, bytes);
}

/*
 * The fallback of the doorbell, for a thread of the runtime's pool: sleeps until the ring has a completion, or until a
 * byte arrives in the pipe, which it takes. It submits nothing, since requests die with the thread that made them.
 */
EXPORT i32 rs_wait(i32 ring_fd, i32 pipe_fd)
{
	struct { i32 fd; short events, revents; } watched[2] = { { ring_fd, 1, 0 }, { pipe_fd, 1, 0 } };
	u8 byte;
	long ready;

	do
		ready = syscall5(SYS_ppoll, watched, 2, 0, 0, 0);
	while (ready == -EINTR);
	if (watched[1].revents)
		syscall3(SYS_read, pipe_fd, &byte, 1);
	return (i32)ready;
}

/* The address of rs_wait, for a call that runs off the main thread while the library itself is closed. */
EXPORT void *rs_wait_address(void)
{
	return (void *)rs_wait;
}

/* Sends rs_wait home. */
EXPORT i32 rs_kick(i32 pipe_fd)
{
	u8 byte = 0;
	return (i32)syscall3(SYS_write, pipe_fd, &byte, 1);
}

EXPORT i32 rs_pipe(i32 *fds, i32 flags)
{
	return (i32)syscall2(SYS_pipe2, fds, flags);
}

EXPORT i32 rs_close(i32 fd)
{
	return (i32)syscall1(SYS_close, fd);
}

/* Of an open file: mode, size, device (major, minor) and inode. It is statx because that is one layout for every CPU. */
EXPORT i32 rs_fstat(i32 fd, u64 *facts)
{
	enum { AT_EMPTY_PATH = 0x1000, STATX_TYPE_MODE_INO_SIZE = 0x303 };
	u8 statx[256];
	long result = syscall5(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE_MODE_INO_SIZE, statx);

	if (result == 0) {
		facts[0] = *(unsigned short *)(statx + 28);
		facts[1] = *(u64 *)(statx + 40);
		facts[2] = *(u64 *)(statx + 136);
		facts[3] = *(u64 *)(statx + 32);
	}
	return (i32)result;
}

/* Has a pipe hold more; how many bytes it then holds. The kernel refuses where a user's pipes hold much already. */
EXPORT i32 rs_grow_pipe(i32 fd, u32 bytes)
{
	enum { F_SETPIPE_SZ = 1031 };
	return (i32)syscall3(SYS_fcntl, fd, F_SETPIPE_SZ, bytes);
}

/* Moves an open file's position; there is no request for it, and it never waits. */
EXPORT i32 rs_seek(i32 fd, i64 *offset, i32 whence)
{
	long at = syscall3(SYS_lseek, fd, *offset, whence);
	if (is_error(at))
		return (i32)at;
	*offset = at;
	return 0;
}

/* The next entries of an open directory (struct linux_dirent64), as many bytes of them as fit; 0 at the end. */
EXPORT i32 rs_getdents(i32 fd, u8 *entries, u32 capacity)
{
	return (i32)syscall3(SYS_getdents64, fd, entries, capacity);
}

/* The names of a file's extended attributes, a NUL after each; how many bytes they have. */
EXPORT i32 rs_listxattr(const char *path, u8 *names, u32 capacity)
{
	return (i32)syscall3(SYS_listxattr, path, names, capacity);
}

EXPORT i32 rs_fchmod(i32 fd, u32 mode)
{
	return (i32)syscall2(SYS_fchmod, fd, mode);
}

/* What IORING_OP_FTRUNCATE does, for kernels before 6.9. */
EXPORT i32 rs_ftruncate(i32 fd, const i64 *bytes)
{
	return (i32)syscall2(SYS_ftruncate, fd, *bytes);
}

/* 1 for a terminal. Settings are 36 bytes (TCGETS, struct termios) on both CPUs. */
EXPORT i32 rs_isatty(i32 fd)
{
	enum { TCGETS = 0x5401 };
	u8 settings[64];
	return syscall3(SYS_ioctl, fd, TCGETS, settings) == 0;
}

EXPORT i32 rs_socket(i32 domain, i32 type, i32 protocol)
{
	return (i32)syscall3(SYS_socket, domain, type, protocol);
}

EXPORT i32 rs_socketpair(i32 domain, i32 type, i32 *fds)
{
	return (i32)syscall4(SYS_socketpair, domain, type, 0, fds);
}

EXPORT i32 rs_bind(i32 fd, const u8 *address, u32 bytes)
{
	return (i32)syscall3(SYS_bind, fd, address, bytes);
}

EXPORT i32 rs_listen(i32 fd, i32 backlog)
{
	return (i32)syscall2(SYS_listen, fd, backlog);
}

/* The local (peer == 0) or the remote address of a socket; returns its length. */
EXPORT i32 rs_socket_name(i32 fd, i32 peer, u8 *address, u32 capacity)
{
	u32 bytes = capacity;
	long result = syscall3(peer ? SYS_getpeername : SYS_getsockname, fd, address, &bytes);
	return result < 0 ? (i32)result : (i32)bytes;
}

EXPORT i32 rs_set_socket_option(i32 fd, i32 level, i32 name, i32 value)
{
	return (i32)syscall5(SYS_setsockopt, fd, level, name, &value, sizeof value);
}
