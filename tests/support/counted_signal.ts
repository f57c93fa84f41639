/** An `AbortController` that counts who listens. */
import { assert, assertEquals } from "@std/assert";

/** Its signal keeps count of its "abort" listeners. */
export class CountedController extends AbortController {
  /** Listeners that are there now; one added `once` is gone when the signal has aborted. */
  readonly listeners = new Set<unknown>();
  /** The most there ever were. */
  most = 0;

  constructor() {
    super();
    const { signal, listeners } = this;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...[type, listener, options]: Parameters<typeof addEventListener>) => {
      assertEquals(type, "abort");
      assert(typeof options === "object" && options.once, "a listener that an abort does not remove");
      listeners.add(listener);
      this.most = Math.max(this.most, listeners.size);
      addEventListener.call(signal, type, listener, options);
    };
    signal.removeEventListener = (...[type, listener, options]: Parameters<typeof removeEventListener>) => {
      listeners.delete(listener);
      removeEventListener.call(signal, type, listener, options);
    };
  }

  override abort(reason?: unknown): void {
    super.abort(reason);
    this.listeners.clear();
  }
}
