/*
 * Raw system calls: the helper is freestanding, so that one binary per CPU serves every Linux, whatever its libc.
 * Each returns what the kernel returns: a value, or a negative errno.
 */
#ifndef RINGSCOPE_SYSCALL_H
#define RINGSCOPE_SYSCALL_H

#if defined(__x86_64__)

enum {
	SYS_write = 1, SYS_close = 3, SYS_ppoll = 271, SYS_mmap = 9, SYS_munmap = 11,
	SYS_madvise = 28, SYS_read = 0, SYS_lseek = 8, SYS_ioctl = 16, SYS_ftruncate = 77, SYS_fchmod = 91, SYS_fcntl = 72, SYS_listxattr = 194, SYS_getdents64 = 217, SYS_socket = 41, SYS_bind = 49, SYS_listen = 50, SYS_getsockname = 51,
	SYS_getpeername = 52, SYS_socketpair = 53, SYS_setsockopt = 54, SYS_getsockopt = 55, SYS_pipe2 = 293,
	SYS_statx = 332, SYS_io_uring_setup = 425, SYS_io_uring_enter = 426, SYS_io_uring_register = 427,
};

static inline long syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#elif defined(__aarch64__)

enum {
	SYS_listxattr = 11, SYS_fcntl = 25, SYS_close = 57, SYS_ioctl = 29, SYS_ftruncate = 46, SYS_fchmod = 52, SYS_pipe2 = 59, SYS_getdents64 = 61, SYS_lseek = 62, SYS_read = 63, SYS_write = 64, SYS_ppoll = 73,
	SYS_socket = 198, SYS_socketpair = 199, SYS_bind = 200, SYS_listen = 201, SYS_getsockname = 204,
	SYS_getpeername = 205, SYS_setsockopt = 208, SYS_getsockopt = 209, SYS_munmap = 215, SYS_mmap = 222,
	SYS_madvise = 233, SYS_statx = 291, SYS_io_uring_setup = 425, SYS_io_uring_enter = 426,
	SYS_io_uring_register = 427,
};

static inline long syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

#else
#error "ringscope: this CPU has no system call gate yet; add one beside the others"
#endif

#define syscall1(n, a) syscall6(n, (long)(a), 0, 0, 0, 0, 0)
#define syscall2(n, a, b) syscall6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define syscall3(n, a, b, c) syscall6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define syscall4(n, a, b, c, d) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define syscall5(n, a, b, c, d, e) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

#endif
