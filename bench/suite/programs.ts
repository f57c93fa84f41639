/**
 * The programs of peers: what runs them, whether that is installed here, and how they are built.
 *
 * @module
 */

/** A program that can be started, if what it needs is here. */
export interface Program {
  /** What it needs and lacks here, with how to get it; `null` if nothing. Builds what must be built. */
  prepare(): Promise<string | null>;
  /** Command and arguments; only after `prepare`. */
  readonly command: readonly string[];
}
