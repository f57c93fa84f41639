/**
 * What `statx` tells, as Deno puts it.
 *
 * @module
 */
import { OperandWord } from "../ring/operations.ts";
import type { Request } from "../ring/request.ts";
import { isFileType } from "./descriptor.ts";
import { pathOperand } from "./path.ts";

const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;
const STATX_BTIME = 0x800;
const STATX_BYTES = 256;

/** How to look: through a symbolic link, at the link itself, or at what a descriptor is. */
export enum StatKind {
  Follow = 0,
  NoFollow = AT_SYMLINK_NOFOLLOW,
  Descriptor = AT_EMPTY_PATH,
}

/** Makes a request (of STATX, with its `fd` set) that of looking at a path, as seen from the directory `fd`. */
export function describeStat(request: Request, path: string, kind: StatKind): void {
  const info = new Uint8Array(STATX_BYTES);
  request.operands = [pathOperand(path), { word: OperandWord.Address2, bytes: STATX_BYTES, output: info }];
  request.length = STATX_BASIC_STATS | STATX_BTIME;
  request.opFlags = kind;
  request.decode = () => decodeStatx(new DataView(info.buffer));
}

/** `struct statx`, include/uapi/linux/stat.h. */
function decodeStatx(view: DataView): Deno.FileInfo {
  const u32 = (at: number) => view.getUint32(at, true);
  const u64 = (at: number) => u32(at) + u32(at + 4) * 0x1_0000_0000;
  const time = (at: number) => {
    const seconds = Number(view.getBigInt64(at, true));
    return new Date(seconds * 1000 + Math.floor(u32(at + 8) / 1e6));
  };
  const mode = view.getUint16(28, true);
  return {
    ...fileTypes(mode),
    size: u64(40),
    mtime: time(112),
    atime: time(64),
    birthtime: (u32(0) & STATX_BTIME) === 0 ? null : time(80),
    ctime: time(96),
    dev: deviceNumber(u32(136), u32(140)),
    ino: u64(32),
    mode,
    nlink: u32(16),
    uid: u32(20),
    gid: u32(24),
    rdev: deviceNumber(u32(128), u32(132)),
    blksize: u32(4),
    blocks: u64(48),
  };
}

function fileTypes(mode: number) {
  return {
    isFile: isFileType(mode, "file"),
    isDirectory: isFileType(mode, "directory"),
    isSymlink: isFileType(mode, "symlink"),
    isBlockDevice: isFileType(mode, "blockDevice"),
    isCharDevice: isFileType(mode, "charDevice"),
    isFifo: isFileType(mode, "fifo"),
    isSocket: isFileType(mode, "socket"),
  };
}

/** As the C library's makedev(3) does it. */
function deviceNumber(major: number, minor: number): number {
  const low = (major & 0xfff) << 8 | minor & 0xff;
  const high = Math.floor(major / 0x1000) * 0x1000_0000_0000 + Math.floor(minor / 0x100) * 0x10_0000;
  return low + high;
}
