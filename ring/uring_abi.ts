/**
 * io_uring's numbers, from include/uapi/linux/io_uring.h, and the few of Linux that requests carry. The number behind
 * a name is the kernel that brought it, where that is younger than our floor, 5.19.
 *
 * @module
 */

/** Opcodes, `IORING_OP_*`. */
export const Op = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  POLL_ADD: 6,
  SENDMSG: 9,
  RECVMSG: 10,
  TIMEOUT: 11,
  ACCEPT: 13,
  ASYNC_CANCEL: 14,
  LINK_TIMEOUT: 15,
  CONNECT: 16,
  FALLOCATE: 17,
  CLOSE: 19,
  STATX: 21,
  READ: 22,
  WRITE: 23,
  SEND: 26,
  RECV: 27,
  OPENAT2: 28,
  SHUTDOWN: 34,
} as const;

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
export const Sqe = { FIXED_FILE: 1, IO_LINK: 4, IO_HARDLINK: 8, ASYNC: 16 } as const;

/** Operations of `io_uring_register`, `IORING_REGISTER_*`. */
export const Register = { FILES2: 13 } as const;

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
