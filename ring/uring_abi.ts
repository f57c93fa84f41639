/**
 * io_uring's numbers, from include/uapi/linux/io_uring.h, and the few of Linux that requests carry. The number behind
 * a name is the kernel that brought it, where that is younger than our floor, 5.19.
 *
 * @module
 */

/** Opcodes, `IORING_OP_*`: all of Linux 6.18. */
export const Op = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  POLL_ADD: 6,
  POLL_REMOVE: 7,
  SYNC_FILE_RANGE: 8,
  SENDMSG: 9,
  RECVMSG: 10,
  TIMEOUT: 11,
  TIMEOUT_REMOVE: 12,
  ACCEPT: 13,
  ASYNC_CANCEL: 14,
  LINK_TIMEOUT: 15,
  CONNECT: 16,
  FALLOCATE: 17,
  OPENAT: 18,
  CLOSE: 19,
  FILES_UPDATE: 20,
  STATX: 21,
  READ: 22,
  WRITE: 23,
  FADVISE: 24,
  MADVISE: 25,
  SEND: 26,
  RECV: 27,
  OPENAT2: 28,
  EPOLL_CTL: 29,
  SPLICE: 30,
  PROVIDE_BUFFERS: 31,
  REMOVE_BUFFERS: 32,
  TEE: 33,
  SHUTDOWN: 34,
  RENAMEAT: 35,
  UNLINKAT: 36,
  MKDIRAT: 37,
  SYMLINKAT: 38,
  LINKAT: 39,
  MSG_RING: 40,
  FSETXATTR: 41,
  SETXATTR: 42,
  FGETXATTR: 43,
  GETXATTR: 44,
  SOCKET: 45,
  URING_CMD: 46,
  SEND_ZC: 47,
  SENDMSG_ZC: 48,
  READ_MULTISHOT: 49,
  WAITID: 50,
  FUTEX_WAIT: 51,
  FUTEX_WAKE: 52,
  FUTEX_WAITV: 53,
  FIXED_FD_INSTALL: 54,
  FTRUNCATE: 55,
  BIND: 56,
  LISTEN: 57,
  RECV_ZC: 58,
  EPOLL_WAIT: 59,
  READV_FIXED: 60,
  WRITEV_FIXED: 61,
  PIPE: 62,
} as const;

/** An opcode's name, without `IORING_OP_`. */
export type OpcodeName = keyof typeof Op;

/** The kernel that brought an opcode, where that is younger than 5.19. */
export const opcodeSince: ReadonlyMap<number, string> = new Map([
  [Op.SEND_ZC, "6.0"],
  [Op.SENDMSG_ZC, "6.1"],
  [Op.READ_MULTISHOT, "6.7"],
  [Op.WAITID, "6.7"],
  [Op.FUTEX_WAIT, "6.7"],
  [Op.FUTEX_WAKE, "6.7"],
  [Op.FUTEX_WAITV, "6.7"],
  [Op.FIXED_FD_INSTALL, "6.8"],
  [Op.FTRUNCATE, "6.9"],
  [Op.BIND, "6.11"],
  [Op.LISTEN, "6.11"],
  [Op.RECV_ZC, "6.15"],
  [Op.EPOLL_WAIT, "6.15"],
  [Op.READV_FIXED, "6.15"],
  [Op.WRITEV_FIXED, "6.15"],
  [Op.PIPE, "6.16"],
]);

/** The name of an opcode, for messages. */
export function opcodeName(opcode: number): string {
  return Object.entries(Op).find(([, number]) => number === opcode)?.[0] ?? `opcode ${opcode}`;
}

/** Flags of `io_uring_setup`, `IORING_SETUP_*`. */
export const Setup = {
  SQPOLL: 1 << 1,
  CQSIZE: 1 << 3,
  CLAMP: 1 << 4,
  SUBMIT_ALL: 1 << 7,
  COOP_TASKRUN: 1 << 8,
  /** 6.0 */
  SINGLE_ISSUER: 1 << 12,
  /** 6.6 */
  NO_SQARRAY: 1 << 16,
} as const;

/** Flags of `io_uring_enter`, `IORING_ENTER_*`. */
export const Enter = { GETEVENTS: 1, SQ_WAKEUP: 2, SQ_WAIT: 4 } as const;

/** Flags the kernel raises in the SQ ring, `IORING_SQ_*`. */
export const SqFlag = { NEED_WAKEUP: 1, CQ_OVERFLOW: 2 } as const;

/** Flags of an SQE, `IOSQE_*`. */
export const Sqe = { FIXED_FILE: 1, IO_LINK: 4, IO_HARDLINK: 8, ASYNC: 16, BUFFER_SELECT: 32 } as const;

/** Flags of a CQE, `IORING_CQE_F_*`. With `BUFFER`, the upper half is the number of the provided buffer. */
export const CqeFlag = { BUFFER: 1, MORE: 2, SOCK_NONEMPTY: 4, NOTIF: 8 } as const;

/** What the `ioprio` of the socket opcodes says, `IORING_RECV_*` and `IORING_ACCEPT_*`. */
export const SocketFlag = { ACCEPT_MULTISHOT: 1, RECV_MULTISHOT: 2 } as const;

/** Operations of `io_uring_register`, `IORING_REGISTER_*`. */
export const Register = {
  FILES_UPDATE: 6,
  PROBE: 8,
  FILES2: 13,
  BUFFERS2: 15,
  BUFFERS_UPDATE: 16,
  IOWQ_MAX_WORKERS: 19,
  PBUF_RING: 22,
} as const;

/** Words (u32) of an SQE. */
export const SQE_WORDS = 16;
/** Words (u32) of a CQE. */
export const CQE_WORDS = 4;

/** `AT_FDCWD`: paths are relative to the working directory. */
export const AT_FDCWD = -100;
/** The offset that stands for "the file's own position", and for sockets and pipes. */
export const CURRENT_POSITION = -1;
/** The most bytes that one request moves: longer buffers take several. */
export const MAX_TRANSFER_BYTES = 1 << 20;
