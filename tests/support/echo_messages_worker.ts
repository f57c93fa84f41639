/** A worker that sends back each ring message plus 1, until it gets 0: see ring_message_test.ts. */
import { defaultRing } from "../../mod.ts";

declare const self: {
  onmessage: ((event: MessageEvent<number>) => void) | null;
  postMessage(message: number | string): void;
  close(): void;
};

self.onmessage = async ({ data: back }) => {
  const ring = defaultRing();
  self.postMessage(ring.fd);
  for await (const message of ring.messages()) {
    if (message === 0) break;
    await ring.send(back, message + 1);
  }
  await ring.close();
  self.postMessage("ended");
  self.close();
};
