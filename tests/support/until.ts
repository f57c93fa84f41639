/** Waiting for a condition of the kernel's, with a bound: the one way tests wait for what sends no event. */

/** Longer than anything here takes on a busy machine; only a failure reaches it. */
export const PATIENCE_MS = 20_000;

/** Resolves once `condition` holds; throws, saying `what` did not come about, when patience ends. */
export async function until(what: string, condition: () => boolean, patienceMs = PATIENCE_MS): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`Waited ${patienceMs} ms, and still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Settles as `promise` does; throws, saying `what` is stuck, when patience ends. */
export async function within<T>(what: string, promise: PromiseLike<T>, patienceMs = PATIENCE_MS): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Stuck for ${patienceMs} ms: ${what}`)), patienceMs);
  });
  try {
    return await Promise.race([promise, end]);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets `count` microtask turns go by. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await null;
}

/** Lets the event loop turn once: whatever is ready by then has been served. */
export function loopTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
