/**
 * Time, as scopes see it. Scopes know nothing of rings; whoever has a clock gives it to them once, at load time.
 *
 * @module
 */

/** A timer that has been set. */
export interface Alarm {
  /** Stops the timer. Resolves when nothing of it is left, whether it fired or not; never rejects. */
  stop(): Promise<void>;
}

/** A source of monotonic time and of timers. */
export interface Clock {
  /** Monotonic time, in milliseconds. */
  now(): number;
  /** Calls `fire` once, at `now() + ms` or soon after, unless stopped before. Throws if no timer can be set. */
  set(ms: number, fire: () => void): Alarm;
}

let installed: Clock | null = null;

/** Makes `clock` the one that deadlines run on. */
export function installClock(clock: Clock): void {
  installed = clock;
}

/** The clock that deadlines run on. */
export function clock(): Clock {
  if (installed === null) throw new Error("BUG: no clock was installed");
  return installed;
}
