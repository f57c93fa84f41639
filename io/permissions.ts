/**
 * Deno's permissions, asked for on the program's behalf: FFI stands outside the sandbox, and this keeps the library
 * inside it.
 *
 * @module
 */

/** Throws `NotCapable` unless the path may be used; prompts where Deno would. */
export function requirePath(access: "read" | "write", path: string): void {
  require({ name: access, path }, `${access} access to "${path}"`, `--allow-${access}`);
}

/** Throws `NotCapable` unless the address (`host:port`) may be used; prompts where Deno would. */
export function requireNet(host: string): void {
  require({ name: "net", host }, `net access to "${host}"`, "--allow-net");
}

function require(descriptor: Deno.PermissionDescriptor, access: string, flag: string): void {
  if (Deno.permissions.requestSync(descriptor).state === "granted") return;
  throw new Deno.errors.NotCapable(`Requires ${access}, run again with the ${flag} flag`);
}
