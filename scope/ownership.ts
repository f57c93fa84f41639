/**
 * Whose a resource is that nobody can take any more. A connection that was accepted inside the loser of a race, and is
 * the loser's value, reaches no one: it is closed. One that lives elsewhere and is only returned stays open.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import { oneOrAll, runUnder } from "./cancellation.ts";

const birthTokens = new WeakMap<object, CancelToken>();

/** Notes in which scope a resource has come to be; returns it. */
export function born<Resource extends object>(resource: Resource): Resource {
  const token = CancelToken.current();
  if (token !== undefined) birthTokens.set(resource, token);
  return resource;
}

/** Notes that somebody disposes of a resource in any case. */
export function adopted(resource: object): void {
  birthTokens.delete(resource);
}

/**
 * Disposes of a value that nobody will receive: of the resources in it that were born within that token, but not of
 * those that are in `claimed` too, which somebody receives. In a value are itself, the elements of an array, and the
 * properties of a plain object, such as the two ends of a pipe. Rejects if a disposal fails.
 */
export async function disposeUnclaimed(value: unknown, token: CancelToken, claimed?: unknown): Promise<void> {
  if (typeof value !== "object" || value === null) return;
  const kept = partsOf(claimed);
  const errors: unknown[] = [];
  for (const part of partsOf(value)) {
    if (!wasBornWithin(part, token) || kept.includes(part)) continue;
    birthTokens.delete(part);
    try {
      await runUnder(new CancelToken(token, { shielded: true }), async () => {
        if (Symbol.asyncDispose in part) await (part as AsyncDisposable)[Symbol.asyncDispose]();
        else if (Symbol.dispose in part) (part as Disposable)[Symbol.dispose]();
      });
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw oneOrAll(errors);
}

function partsOf(value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  const plain = typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
  return plain ? Object.values(value) : [value];
}

function wasBornWithin(value: unknown, token: CancelToken): value is object {
  let birth: CancelToken | null = birthTokens.get(value as object) ?? null;
  while (birth !== null && birth !== token) birth = birth.parent;
  return birth !== null;
}
