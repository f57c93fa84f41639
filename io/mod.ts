/**
 * What people use: files, sockets, pipes, time, chains, and the ring they run on.
 *
 * @module
 */
export {
  Chain,
  chain,
  ChainError,
  type ChainOptions,
  type ChainSource,
  type ChainTarget,
  type ChainTransferOptions,
  type LinkOutcome,
} from "./chain.ts";
export {
  connectDatagram,
  type Datagram,
  DatagramConn,
  listenDatagram,
  type MulticastV4Membership,
  type MulticastV6Membership,
  type UdpConnectOptions,
  type UdpListenOptions,
  type UnixConnectDatagramOptions,
  type UnixListenDatagramOptions,
} from "./datagram.ts";
export { File, type FileAdvice, open, type OpenOptions, stderr, stdin, stdout, type VectoredOptions } from "./file.ts";
export {
  copyFile,
  create,
  type FsOptions,
  getXattr,
  link,
  listXattr,
  lstat,
  mkdir,
  type MkdirOptions,
  readDir,
  readFile,
  readTextFile,
  remove,
  type RemoveOptions,
  rename,
  setXattr,
  type SetXattrOptions,
  stat,
  symlink,
  type SymlinkOptions,
  truncate,
  writeFile,
  type WriteFileOptions,
  writeTextFile,
} from "./fs.ts";
export { type ConnDuplex, toDuplex } from "./node_stream.ts";
export { pipe, type PipeOptions, PipeReader, PipeWriter } from "./pipe.ts";
export { sleep, type SleepOptions } from "./sleep.ts";
export {
  Conn,
  connect,
  type ConnectOptions,
  listen,
  Listener,
  type ListenOptions,
  socketpair,
  type SocketpairOptions,
  type UnixConnectOptions,
  type UnixListenOptions,
} from "./tcp.ts";
export type { BufferSizeOptions, KeepAliveOptions, TcpOptions } from "./socket_options.ts";
export { IoUringUnavailableError, type SystemErrorFields } from "../ring/errors.ts";
export type { OperationOptions } from "../ring/request.ts";
export { defaultRing, Ring, type RingOptions } from "../ring/ring.ts";
export type { DoorbellKind } from "../ring/doorbell.ts";
export type { Completion } from "../ring/driver.ts";
export { Op, type OpcodeName } from "../ring/uring_abi.ts";
export { interval, type IntervalOptions } from "./interval.ts";
export { poll, type PollEvent, pollEvents, type PollInterest, type PollOptions, type PollSource } from "./poll.ts";
export type { RawAddress, RawCompletion, RawMemory, RawRequest } from "../ring/submit.ts";
export { copy, type CopyOptions, type CopySource, type CopyTarget, tee } from "./copy.ts";
export { type FutexOptions, futexWait, futexWake } from "./futex.ts";
export { type ProcessStatus, waitProcess, type WaitProcessOptions } from "./process.ts";
