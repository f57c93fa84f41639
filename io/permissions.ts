/**
 * Deno's permissions, asked for on the program's behalf: FFI stands outside the sandbox, and this keeps the library
 * inside it.
 *
 * @module
 */
import { isAbstract } from "./address.ts";

/** Throws `NotCapable` unless the path may be used; prompts where Deno would. */
export function requirePath(access: "read" | "write", path: string): void {
  requireGranted({ name: access, path }, `${access} access to "${path}"`, `--allow-${access}`);
}

/** Throws `NotCapable` unless every path may be used, as links need it: nobody knows where they lead. */
export function requireEverything(access: "read" | "write"): void {
  requireGranted({ name: access }, `${access} access to everything`, `--allow-${access}`);
}

/** Throws `NotCapable` unless the address (`host:port`) may be used; prompts where Deno would. */
export function requireNet(host: string): void {
  requireGranted({ name: "net", host }, `net access to "${host}"`, "--allow-net");
}

/**
 * Throws `NotCapable` unless the Unix socket may be used, for which Deno requires to read and to write its path, and newer
 * ones of it network access too. An abstract name (which begins with NUL) is no file's: it requires all of the network.
 */
export function requireUnix(path: string): void {
  if (isAbstract(path)) {
    requireGranted({ name: "net" }, "net access to abstract Unix sockets", "--allow-net");
    return;
  }
  requirePath("read", path);
  requirePath("write", path);
  let state: Deno.PermissionState;
  try {
    const host = `unix:${path.startsWith("/") ? path : `${Deno.cwd()}/${path}`}`;
    state = stateOf({ name: "net", host });
  } catch {
    return; // an older Deno, to which this is no host
  }
  if (state !== "granted") throw notCapable(`net access to "unix:${path}"`, "--allow-net");
}

function requireGranted(descriptor: Deno.PermissionDescriptor, access: string, flag: string): void {
  if (stateOf(descriptor) !== "granted") throw notCapable(access, flag);
}

/** Asks before it requests: Deno keeps a list of what was granted by a request, and goes through all of it each time. */
function stateOf(descriptor: Deno.PermissionDescriptor): Deno.PermissionState {
  const { state } = Deno.permissions.querySync(descriptor);
  return state === "granted" ? state : Deno.permissions.requestSync(descriptor).state;
}

function notCapable(access: string, flag: string): Error {
  return new Deno.errors.NotCapable(`Requires ${access}, run again with the ${flag} flag`);
}
