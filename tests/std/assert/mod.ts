/**
 * The part of `@std/assert` that the tests use, over `node:assert`, so that they run where JSR cannot be reached.
 * `make test-jsr` runs the same tests with the published package: names, signatures and outcomes must stay its own.
 *
 * @module
 */
import nodeAssert, { AssertionError } from "node:assert";

export { AssertionError };

/** Any class, abstract ones included. */
// deno-lint-ignore no-explicit-any
export type AnyConstructor = abstract new (...args: any[]) => any;

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** Asserts that `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) fail(msg || "Expected a truthy value");
}

/** Asserts that the two are deeply equal, of the same types. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  explain(msg, () => nodeAssert.deepStrictEqual(actual, expected));
}

/** Asserts that the two are not deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  explain(msg, () => nodeAssert.notDeepStrictEqual(actual, expected));
}

/** Asserts that the two are the same, as `Object.is` has it. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  explain(msg, () => nodeAssert.strictEqual(actual, expected));
}

/** Asserts that `actual` is neither null nor undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual === null || actual === undefined) fail(msg ?? `Expected a value, got ${actual}`);
}

/** Asserts that `actual` is an instance of the class. */
export function assertInstanceOf<T extends AnyConstructor>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (actual instanceof expectedType) return;
  fail(`Expected an instance of ${expectedType.name}, got ${describe(actual)}${msg && `: ${msg}`}`);
}

/** Asserts that the string matches. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  explain(msg, () => nodeAssert.match(actual, expected));
}

/** Asserts that the string contains another. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) fail(msg ?? `Expected "${actual}" to contain "${expected}"`);
}

/** Fails. */
export function fail(msg?: string): never {
  throw new AssertionError({ message: msg || "Failed assertion.", stackStartFn: fail });
}

/** Asserts that `fn` throws, and returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Asserts that `fn` throws an error of that class whose message contains `msgIncludes`, and returns it. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  errorClassOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const expected = expectation(errorClassOrMsg, msgIncludes, msg);
  try {
    fn();
  } catch (error) {
    return expected(error);
  }
  fail(`Expected the function to throw${suffix(errorClassOrMsg, msg)}`);
}

/** Asserts that the promise `fn` returns rejects, and returns the reason. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Asserts that it rejects with an error of that class whose message contains `msgIncludes`, and returns it. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  errorClassOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const expected = expectation(errorClassOrMsg, msgIncludes, msg);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    // Throwing at once is not rejecting: a caller's `.catch()` would never see it.
    fail(`Expected the function to reject, but it threw ${describe(error)}${suffix(errorClassOrMsg, msg)}`);
  }
  try {
    await promise;
  } catch (error) {
    return expected(error);
  }
  fail(`Expected the function to reject${suffix(errorClassOrMsg, msg)}`);
}

/** What an error must be; the function returned hands it back or fails. */
function expectation(errorClassOrMsg: ErrorClass<Error> | string | undefined, msgIncludes?: string, msg?: string) {
  return (error: unknown): unknown => {
    if (typeof errorClassOrMsg !== "function") return error;
    const end = suffix(errorClassOrMsg, msg);
    if (!(error instanceof Error)) fail(`Expected an error, got ${describe(error)}${end}`);
    if (!(error instanceof errorClassOrMsg)) {
      fail(`Expected an error of class ${errorClassOrMsg.name}, got ${describe(error)}${end}`);
    }
    if (msgIncludes && !error.message.includes(msgIncludes)) {
      fail(`Expected the error's message to contain "${msgIncludes}", got "${error.message}"${end}`);
    }
    return error;
  };
}

function suffix(errorClassOrMsg: unknown, msg?: string): string {
  const text = typeof errorClassOrMsg === "string" ? errorClassOrMsg : msg;
  return text ? `: ${text}` : ".";
}

function describe(value: unknown): string {
  return value instanceof Error ? `${value.constructor.name} "${value.message}"` : Deno.inspect(value);
}

/** Puts the caller's message before the difference, which `node:assert` would drop for it. */
function explain(msg: string | undefined, compare: () => void): void {
  try {
    compare();
  } catch (error) {
    if (msg && error instanceof Error) fail(`${msg}\n${error.message}`);
    throw error;
  }
}
