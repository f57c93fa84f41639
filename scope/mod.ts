/**
 * Structured concurrency. It knows nothing of files and sockets: operations find the scope they belong to by its token.
 *
 * @module
 */
export { all, type AllOptions } from "./all.ts";
export { any } from "./any.ts";
export type { CancelOptions } from "./cancellation.ts";
export { Channel, channel, ChannelClosedError } from "./channel.ts";
export { map, type MapOptions } from "./map.ts";
export { race } from "./race.ts";
export { type Backoff, retry, type RetryOptions } from "./retry.ts";
export { Scope, scope, type ScopeCancelOptions, type SpawnOptions } from "./scope.ts";
export { settled } from "./settled.ts";
export { shield } from "./shield.ts";
export { Task } from "./task.ts";
export { timeout, type TimeoutOptions } from "./timeout.ts";
