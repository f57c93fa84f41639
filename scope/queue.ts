/**
 * A line of waiting things, of which any can step out at any time.
 *
 * @module
 */

/** A place in a {@linkcode Queue}. */
export class Place<T> {
  readonly value: T;
  /** Written by the queue alone. */
  queue: Queue<T> | null;
  previous: Place<T> | null = null;
  next: Place<T> | null = null;

  constructor(value: T, queue: Queue<T>) {
    this.value = value;
    this.queue = queue;
  }

  /** Leaves the queue. Nothing happens if it has left. */
  leave(): void {
    this.queue?.remove(this);
  }
}

/** First in, first out; leaving from the middle takes no longer. */
export class Queue<T> {
  length = 0;
  #first: Place<T> | null = null;
  #last: Place<T> | null = null;

  push(value: T): Place<T> {
    const place = new Place(value, this);
    place.previous = this.#last;
    if (this.#last !== null) this.#last.next = place;
    else this.#first = place;
    this.#last = place;
    this.length++;
    return place;
  }

  /** Takes the first; `undefined` if there is none. */
  shift(): T | undefined {
    const first = this.#first;
    if (first === null) return undefined;
    this.remove(first);
    return first.value;
  }

  /** The first, which stays; `undefined` if there is none. */
  peek(): T | undefined {
    return this.#first?.value;
  }

  remove(place: Place<T>): void {
    if (place.queue !== this) return;
    place.queue = null;
    this.length--;
    const { previous, next } = place;
    if (previous !== null) previous.next = next;
    else this.#first = next;
    if (next !== null) next.previous = previous;
    else this.#last = previous;
    place.previous = place.next = null;
  }
}
