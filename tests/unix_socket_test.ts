import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { connect, defaultRing, listen, type SystemErrorFields, timeout } from "../mod.ts";
import { assertDescriptors, sockets } from "./support/descriptors.ts";
import { program } from "./support/program.ts";
import { isDeno2 } from "./support/runtime.ts";
import { until } from "./support/until.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** A directory for sockets, which is gone afterwards. */
async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await run(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("Unix: addresses, bytes both ways, half closing, and the path goes with the listener", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.sock`;
    const addr: Deno.UnixAddr = { transport: "unix", path };
    {
      await using listener = await listen({ transport: "unix", path });
      assertEquals(listener.addr, addr);
      await using client = await connect({ transport: "unix", path });
      await using server = await listener.accept();
      assertEquals([client.remoteAddr, server.localAddr], [addr, addr]);
      assertEquals([client.localAddr.path, server.remoteAddr.path], ["", ""]);
      await client.writeAll(bytes("hello"));
      await client.closeWrite();
      assertEquals(await server.readAll(), bytes("hello"));
      await server.writeAll(bytes("goodbye"));
      await server.closeWrite();
      assertEquals(await client.readAll(), bytes("goodbye"));
    }
    assertEquals([...Deno.readDirSync(directory)], []);
    const again = await listen({ transport: "unix", path });
    using _closing = again;
    again.close(); // its path is gone before it is awaited
    assertEquals([...Deno.readDirSync(directory)], []);
  }));

Deno.test("Unix: a path that is another's by now stays when the listener closes, and one that is gone is no error", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.sock`;
    const first = await listen({ transport: "unix", path });
    await Deno.remove(path);
    const second = await listen({ transport: "unix", path });
    await first.close();
    assert((await Deno.lstat(path)).isSocket);
    await using client = await connect({ transport: "unix", path });
    await using _server = await second.accept({ timeout: 5000 });
    assertEquals(client.remoteAddr.path, path);
    await Deno.remove(path);
    await Deno.writeTextFile(path, "a file");
    await second.close();
    assertEquals(await Deno.readTextFile(path), "a file");
    await Deno.remove(path);
    const third = await listen({ transport: "unix", path });
    await Deno.remove(path);
    await third.close();
  }));

Deno.test("Unix: an abstract name needs no file, ends with its listener, and counts to its last byte", async () => {
  const path = `\0ringscope ${Deno.pid} unix_socket_test`;
  {
    await using listener = await listen({ transport: "unix", path });
    assertEquals(listener.addr.path, path);
    await using longer = await listen({ transport: "unix", path: `${path}\0x` });
    assertEquals(longer.addr.path, `${path}\0x`);
    await using client = await connect({ transport: "unix", path });
    assertEquals(client.remoteAddr.path, path);
    await using _server = await listener.accept({ timeout: 5000 });
  }
  await assertRejects(() => connect({ transport: "unix", path }), Deno.errors.ConnectionRefused);
});

Deno.test("Unix: ENOENT, ECONNREFUSED and EADDRINUSE name the path and leave nothing open", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.sock`;
    const fields = (error: unknown) => {
      const { code, operation, path } = error as SystemErrorFields;
      return [code, operation, path];
    };
    const listener = await listen({ transport: "unix", path });
    const before = sockets();
    const inUse = await assertRejects(() => listen({ transport: "unix", path }));
    assertInstanceOf(inUse, Deno.errors.AddrInUse);
    assertEquals(fields(inUse), ["EADDRINUSE", "listen", path]);
    await assertDescriptors(before, sockets);
    await Deno.rename(path, `${path}.kept`);
    await listener.close();
    await Deno.rename(`${path}.kept`, path);
    const without = sockets();
    for (let i = 0; i < 10; i++) {
      const refused = await assertRejects(() => connect({ transport: "unix", path }));
      assertInstanceOf(refused, Deno.errors.ConnectionRefused);
      assertEquals(fields(refused), ["ECONNREFUSED", "connect", path]);
    }
    await Deno.remove(path);
    const missing = await assertRejects(() => connect({ transport: "unix", path }));
    assertInstanceOf(missing, Deno.errors.NotFound);
    assertEquals(fields(missing), ["ENOENT", "connect", path]);
    await assertDescriptors(without, sockets);
  }));

Deno.test("Unix: 107 bytes of path are the most, and a path that is none is refused", () =>
  inDirectory(async (directory) => {
    const longest = `${directory}/${"ä".repeat(200)}`;
    let path = longest;
    while (bytes(path).byteLength > 107) path = path.slice(0, -1);
    path += "x".repeat(107 - bytes(path).byteLength);
    {
      await using listener = await listen({ transport: "unix", path });
      assertEquals(listener.addr.path, path);
    }
    await assertRejects(
      () => listen({ transport: "unix", path: `${path}x` }),
      RangeError,
      "107 bytes, and this has 108",
    );
    await assertRejects(() => connect({ transport: "unix", path: `\0${"x".repeat(108)}` }), RangeError, "108 bytes");
    await assertRejects(() => connect({ transport: "unix", path: "" }), TypeError);
    await assertRejects(() => connect({ transport: "unix", path: "a\0b" }), TypeError);
    // @ts-expect-error: no such transport
    await assertRejects(() => connect({ transport: "vsock", port: 1 }), TypeError, "vsock");
  }));

Deno.test("Unix: a connect to a listener whose backlog is full waits; a timeout and a cancel end it, and leak nothing", async () => {
  const path = `\0ringscope ${Deno.pid} full backlog`;
  await using listener = await listen({ transport: "unix", path, backlog: 0 });
  await using _first = await connect({ transport: "unix", path });
  const before = sockets();
  const overdue = await assertRejects(() => connect({ transport: "unix", path, timeout: 30 })) as DOMException;
  assertEquals(overdue.name, "TimeoutError");
  await assertRejects(() => timeout(30, () => connect({ transport: "unix", path })), DOMException);
  const controller = new AbortController();
  const aborted = assertRejects(() => connect({ transport: "unix", path, signal: controller.signal }), Error, "enough");
  await until("the connect is in flight", () => defaultRing().inFlight > 0);
  controller.abort(new Error("enough"));
  await aborted;
  await assertDescriptors(before, sockets);
  const second = connect({ transport: "unix", path });
  await using _a = await listener.accept();
  await using _second = await second;
  await using _b = await listener.accept({ timeout: 5000 });
});

Deno.test("Unix: iterating ends when the listener is closed; an accept in flight is BadResource", async () => {
  const path = `\0ringscope ${Deno.pid} iterate`;
  const listener = await listen({ transport: "unix", path });
  const serving = (async () => {
    let served = 0;
    for await (const conn of listener) {
      served++;
      await conn.close();
    }
    return served;
  })();
  for (let i = 0; i < 5; i++) {
    await using client = await connect({ transport: "unix", path });
    assertEquals(await client.readAll(), new Uint8Array(0));
  }
  await listener.close();
  assertEquals(await serving, 5);
});

Deno.test("Unix: Deno's own client and server talk to ours", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.sock`;
    {
      await using listener = await listen({ transport: "unix", path });
      using theirs = await Deno.connect({ transport: "unix", path });
      await using ours = await listener.accept();
      await theirs.write(bytes("hello"));
      assertEquals(await ours.read(new Uint8Array(10)), 5);
    }
    using listener = Deno.listen({ transport: "unix", path });
    await using ours = await connect({ transport: "unix", path });
    using theirs = await listener.accept();
    await ours.writeAll(bytes("hello"));
    assertEquals(await theirs.read(new Uint8Array(10)), 5);
  }));

Deno.test("Unix: permissions are asked for as Deno's own connect and listen ask", () =>
  inDirectory(async (directory) => {
    const paths = [`${directory}/a.sock`, "relative.sock"];
    // Before Deno 2.9 other rules were for those, and not the same in each version.
    if (isDeno2(9)) paths.push("\0ringscope permissions");
    const [path] = paths;
    const source = `
      import { connect } from LIBRARY;
      const outcome = async (run) => {
        try {
          await (await run()).close();
          return "granted";
        } catch (error) {
          return error.name;
        }
      };
      for (const path of ${JSON.stringify(paths)}) {
        const options = { transport: "unix", path };
        console.log(await outcome(() => connect(options)), await outcome(() => Deno.connect(options)));
      }`;
    for (
      const flags of [
        [],
        ["--allow-read", "--allow-net"],
        ["--allow-read", "--allow-write"],
        ["--allow-net"],
        ["--allow-read", "--allow-write", "--allow-net"],
        ...(isDeno2(9) ? [[`--allow-read=${path}`, `--allow-write=${path}`, `--allow-net=unix:${path}`]] : []),
      ]
    ) {
      const { out, err } = await program(source, { flags: ["--allow-ffi", ...flags] });
      const lines = out.trim().split("\n");
      assertEquals(lines.length, paths.length, err);
      for (const line of lines) {
        const [ours, theirs] = line.split(" ");
        assertEquals(ours, theirs, `${flags}: ${out}`);
      }
    }
  }));
