/**
 * The helper's functions as both sides see them: the C prototype beside each symbol. Integers go by the fast path;
 * addresses that outlive a call are numbers (user space has 47 bits, a number holds 53).
 *
 * @module
 */

/** What `rs_abi` of a helper that fits this table returns. */
export const ABI_VERSION = 3;

/** The symbols of `native/ringscope.c`. */
export const symbols = {
  /** `i32 rs_abi(void)` */
  rs_abi: { parameters: [], result: "i32" },
  /** `i32 rs_ring_open(struct rs_ring *ring)` */
  rs_ring_open: { parameters: ["buffer"], result: "i32" },
  /** `i32 rs_ring_close(const struct rs_ring *ring)` */
  rs_ring_close: { parameters: ["buffer"], result: "i32" },
  /** `i32 rs_enter(i32 fd, u32 to_submit, u32 min_complete, u32 flags)` */
  rs_enter: { parameters: ["i32", "u32", "u32", "u32"], result: "i32" },
  /** `i32 rs_register(i32 fd, u32 opcode, void *argument, u32 count)` */
  rs_register: { parameters: ["i32", "u32", "buffer", "u32"], result: "i32" },
  /** `i32 rs_map(u32 bytes, u64 *address)` */
  rs_map: { parameters: ["u32", "buffer"], result: "i32" },
  /** `i32 rs_unmap(u32 address_low, u32 address_high, u32 bytes)` */
  rs_unmap: { parameters: ["u32", "u32", "u32"], result: "i32" },
  /** `void *rs_wait_address(void)` */
  rs_wait_address: { parameters: [], result: "pointer" },
  /** `i32 rs_kick(i32 pipe_fd)` */
  rs_kick: { parameters: ["i32"], result: "i32" },
  /** `i32 rs_pipe(i32 *fds, i32 flags)` */
  rs_pipe: { parameters: ["buffer", "i32"], result: "i32" },
  /** `i32 rs_grow_pipe(i32 fd, u32 bytes)` */
  rs_grow_pipe: { parameters: ["i32", "u32"], result: "i32" },
  /** `i32 rs_close(i32 fd)` */
  rs_close: { parameters: ["i32"], result: "i32" },
  /** `i32 rs_fstat(i32 fd, u64 *mode_size_device_inode)` */
  rs_fstat: { parameters: ["i32", "buffer"], result: "i32" },
  /** `i32 rs_seek(i32 fd, i64 *offset, i32 whence)` */
  rs_seek: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  /** `i32 rs_getdents(i32 fd, u8 *entries, u32 capacity)` */
  rs_getdents: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  /** `i32 rs_listxattr(const char *path, u8 *names, u32 capacity)` */
  rs_listxattr: { parameters: ["buffer", "buffer", "u32"], result: "i32" },
  /** `i32 rs_fchmod(i32 fd, u32 mode)` */
  rs_fchmod: { parameters: ["i32", "u32"], result: "i32" },
  /** `i32 rs_ftruncate(i32 fd, const i64 *bytes)` */
  rs_ftruncate: { parameters: ["i32", "buffer"], result: "i32" },
  /** `i32 rs_isatty(i32 fd)` */
  rs_isatty: { parameters: ["i32"], result: "i32" },
  /** `i32 rs_socket(i32 domain, i32 type, i32 protocol)` */
  rs_socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  /** `i32 rs_socketpair(i32 domain, i32 type, i32 *fds)` */
  rs_socketpair: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  /** `i32 rs_bind(i32 fd, const u8 *address, u32 bytes)` */
  rs_bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  /** `i32 rs_listen(i32 fd, i32 backlog)` */
  rs_listen: { parameters: ["i32", "i32"], result: "i32" },
  /** `i32 rs_socket_name(i32 fd, i32 peer, u8 *address, u32 capacity)` */
  rs_socket_name: { parameters: ["i32", "i32", "buffer", "u32"], result: "i32" },
  /** `i32 rs_set_socket_option(i32 fd, i32 level, i32 name, i32 value)` */
  rs_set_socket_option: { parameters: ["i32", "i32", "i32", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** `i32 rs_wait(i32 ring_fd, i32 pipe_fd)`, which sleeps and is therefore called off the main thread. */
export const waitDefinition = {
  parameters: ["i32", "i32"],
  result: "i32",
  nonblocking: true,
} as const satisfies Deno.ForeignFunction;

/** The fields of `struct rs_ring`, each a u64, in their order. */
export const RingField = {
  entries: 0,
  cqEntries: 1,
  flags: 2,
  optionalFlags: 3,
  sqThreadIdle: 4,
  fd: 5,
  features: 6,
  rings: 7,
  ringsBytes: 8,
  sqes: 9,
  sqesBytes: 10,
  sqHead: 11,
  sqTail: 12,
  sqFlags: 13,
  cqHead: 14,
  cqTail: 15,
  cqOverflow: 16,
  cqes: 17,
  count: 18,
} as const;
