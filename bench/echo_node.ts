/** An echo server over node:net: prints its port. */
import { type AddressInfo, createServer } from "node:net";
import { serveParent } from "./echo_server.ts";

const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on("data", (chunk) => socket.write(chunk));
  socket.on("error", () => socket.destroy());
});
server.listen(0, "127.0.0.1", () => serveParent((server.address() as AddressInfo).port));
