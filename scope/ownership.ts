/**
 * Whose a resource is that nobody can take any more. A connection that was accepted inside the loser of a race, and is
 * the loser's value, reaches no one: it is closed. One that lives elsewhere and is only returned stays open.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import { runUnder } from "./cancellation.ts";

const birthTokens = new WeakMap<object, CancelToken>();

/** Notes in which scope a resource has come to be; returns it. */
export function born<Resource extends object>(resource: Resource): Resource {
  const token = CancelToken.current();
  if (token !== undefined) birthTokens.set(resource, token);
  return resource;
}

/**
 * Disposes of a value that nobody will receive, if it is a resource that was born within that token. Rejects if the
 * disposal fails.
 */
export async function disposeUnclaimed(value: unknown, token: CancelToken): Promise<void> {
  if (typeof value !== "object" || value === null) return;
  let birth: CancelToken | null = birthTokens.get(value) ?? null;
  while (birth !== null && birth !== token) birth = birth.parent;
  if (birth === null) return;
  await runUnder(new CancelToken(token, { shielded: true }), async () => {
    if (Symbol.asyncDispose in value) await (value as AsyncDisposable)[Symbol.asyncDispose]();
    else if (Symbol.dispose in value) (value as Disposable)[Symbol.dispose]();
  });
}
