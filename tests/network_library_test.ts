/**
 * A library of npm's that takes a stream (`pg`) talks to a real PostgreSQL over our connections. Where there is none, or
 * npm can't be reached, it says so and is passed over.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type ConnDuplex, connect, defaultRing, listen, scope, timeout, toDuplex } from "../mod.ts";
import { certificate, key } from "./support/certificate.ts";
import { assertDescriptors, sockets } from "./support/descriptors.ts";
import { needsDuplex, needsTlsOverStreams } from "./support/runtime.ts";
import { within } from "./support/until.ts";

/** In a variable, so that nothing is fetched for a type check. */
const PG = "npm:pg@8.16.3";

/** The folder of PostgreSQL's programs: Debian's, or the one on `PATH`. */
function findPostgres(): string | undefined {
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  try {
    for (const { name } of Deno.readDirSync("/usr/lib/postgresql")) folders.push(`/usr/lib/postgresql/${name}/bin`);
  } catch {
    // not Debian's
  }
  return folders.find((folder) => exists(`${folder}/initdb`) && exists(`${folder}/postgres`));
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Who runs the server, which refuses to be root's. */
function serverUser(): { uid?: number; gid?: number } {
  if (Deno.uid() !== 0) return {};
  const entry = /^postgres:[^:]*:(\d+):(\d+):/m.exec(Deno.readTextFileSync("/etc/passwd"));
  return entry === null ? { uid: 65534, gid: 65534 } : { uid: Number(entry[1]), gid: Number(entry[2]) };
}

async function freePort(): Promise<number> {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** A server of its own, with TLS, on a Unix socket in a directory of its own and on a port of 127.0.0.1. */
class Postgres implements AsyncDisposable {
  private constructor(
    readonly directory: string,
    readonly port: number,
    readonly server: Deno.ChildProcess,
    readonly log: Promise<string>,
  ) {}

  get path(): string {
    return `${this.directory}/.s.PGSQL.${this.port}`;
  }

  static async start(programs: string): Promise<Postgres> {
    const directory = await Deno.makeTempDir({ prefix: "ringscope-pg-" });
    const user = serverUser();
    const own = async (path: string) => {
      if (user.uid !== undefined) await Deno.chown(path, user.uid, user.gid!);
    };
    await own(directory);
    const data = `${directory}/data`;
    const env = { LC_ALL: "C", TZ: "UTC" };
    const initdb = await new Deno.Command(`${programs}/initdb`, {
      args: ["-D", data, "-U", "ringscope", "-A", "trust", "--no-sync", "--no-instructions"],
      cwd: directory,
      env,
      ...user,
    }).output();
    assert(initdb.success, new TextDecoder().decode(initdb.stderr));
    for (const [name, text] of [["server.key", key], ["server.crt", certificate]]) {
      await Deno.writeTextFile(`${data}/${name}`, text, { mode: 0o600 });
      await own(`${data}/${name}`);
    }
    const port = await freePort();
    const settings = { listen_addresses: "127.0.0.1", ssl: "on", fsync: "off", client_connection_check_interval: "20" };
    const server = new Deno.Command(`${programs}/postgres`, {
      args: [
        ...["-D", data, "-k", directory, "-p", `${port}`],
        ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      cwd: directory,
      env,
      stdout: "null",
      stderr: "piped",
      ...user,
    }).spawn();
    const ready = Promise.withResolvers<void>();
    const log = (async () => {
      let text = "";
      for await (const chunk of server.stderr.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        if (text.includes("ready to accept connections")) ready.resolve();
      }
      ready.reject(new Error(text));
      return text;
    })();
    const postgres = new Postgres(directory, port, server, log);
    try {
      await within("PostgreSQL is ready", ready.promise);
      return postgres;
    } catch (error) {
      await postgres[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.kill("SIGQUIT");
    await this.server.status;
    await this.log;
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** What is used of `pg`. */
interface Client {
  connect(): Promise<void>;
  query(
    query: string | { text: string; values?: unknown[]; name?: string },
  ): Promise<{ rows: Record<string, unknown>[] }>;
  end(): Promise<void>;
  on(event: string, listener: (value: { payload: string }) => void): void;
  connection: { stream: unknown };
}
type ClientClass = new (options: Record<string, unknown>) => Client;

/** `pg` connects its stream itself; ours is connected already. */
function connectedStream(duplex: ConnDuplex): ConnDuplex {
  return Object.assign(duplex, { connect: () => queueMicrotask(() => duplex.emit("connect")) });
}

Deno.test("pg over our connections to PostgreSQL", needsDuplex, async (t) => {
  const programs = findPostgres();
  if (programs === undefined) return console.log("Passed over: PostgreSQL is not installed (Debian: postgresql)");
  let Client: ClientClass;
  try {
    ({ default: { Client } } = await import(PG));
  } catch (error) {
    return console.log(`Passed over: ${PG} can't be had: ${(error as Error).message}`);
  }
  await using server = await Postgres.start(programs);
  const { path, port } = server;

  const open = async (transport: "unix" | "tcp", options: Record<string, unknown> = {}): Promise<Client> => {
    const conn = transport === "unix" ? await connect({ transport, path }) : await connect({ port });
    const stream = connectedStream(toDuplex(conn));
    const client = new Client({ user: "ringscope", database: "postgres", stream, ...options });
    client.on("error", () => {});
    await client.connect();
    return client;
  };

  for (const transport of ["unix", "tcp"] as const) {
    await t.step(
      `${transport}: queries, parameters, prepared statements, errors, transactions, megabytes`,
      async () => {
        const before = sockets();
        const client = await open(transport);
        const one = async (text: string, values?: unknown[]) => (await client.query({ text, values })).rows[0];
        assertEquals({ ...await one("select $1::int + 1 as n, $2::text as t", [41, "ä"]) }, { n: 42, t: "ä" });
        for (let i = 0; i < 50; i++) {
          const { rows: [row] } = await client.query({ name: "twice", text: "select 2 * $1::int as n", values: [i] });
          assertEquals(row.n, 2 * i);
        }
        await assertRejects(() => client.query("select nothing"), Error, "nothing");
        await client.query("begin; create table t (i int primary key, s text)");
        await client.query("insert into t select i, repeat('x', 100) from generate_series(1, 20000) i");
        const { rows } = await client.query("select * from t order by i");
        assertEquals([rows.length, rows[19_999].i, rows[0].s], [20_000, 20_000, "x".repeat(100)]);
        const long = "y".repeat(3_000_000);
        assertEquals((await one("select length($1::text) as n, $1::text as s", [long])).s, long);
        await client.query("rollback");
        await client.end();
        await assertDescriptors(before, sockets);
      },
    );
  }

  await t.step({
    name: "tcp: TLS, with the server's certificate verified",
    ...needsTlsOverStreams,
    fn: async () => {
      const client = await open("tcp", { ssl: { ca: certificate, servername: "localhost" } });
      const { rows: [row] } = await client.query("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()");
      assertEquals(row.ssl, true);
      await client.end();
    },
  });

  await t.step("unix: ten clients at a time, and a notification from one to another", async () => {
    const clients = await Promise.all(Array.from({ length: 10 }, () => open("unix")));
    const notified = new Promise<string>((resolve) => clients[0].on("notification", ({ payload }) => resolve(payload)));
    await clients[0].query("listen news");
    const sums = await Promise.all(
      clients.map((client, i) => client.query(`select sum(n * ${i})::int as s from generate_series(1, 1000) n`)),
    );
    assertEquals(sums.map(({ rows: [{ s }] }) => s), Array.from({ length: 10 }, (_, i) => 500_500 * i));
    await clients[1].query("notify news, 'hello'");
    assertEquals(await notified, "hello");
    await Promise.all(clients.map((client) => client.end()));
  });

  await t.step(
    "a deadline around a query that takes too long closes the connection, and the server stops it",
    async () => {
      const before = sockets();
      const watcher = await open("unix");
      const error = await assertRejects(() =>
        timeout(100, async () => {
          const client = await open("unix", { application_name: "slow" });
          await client.query("select pg_sleep(60)");
        }), DOMException);
      assertEquals([error.name, defaultRing().inFlight], ["TimeoutError", 1]); // the watcher's read
      const running = "select 1 from pg_stat_activity where application_name = 'slow'";
      while ((await watcher.query(running)).rows.length > 0); // until the server has seen it
      const enough = new Error("enough");
      const cancelled = await assertRejects(() =>
        scope(async (s) => {
          const client = await open("unix");
          setTimeout(() => s.cancel(enough), 10);
          await client.query("select pg_sleep(60)");
        })
      );
      assert(cancelled === enough);
      await watcher.end();
      await assertDescriptors(before, sockets);
    },
  );
});
