/** What somebody meets who starts this for the first time, without any configuration: from the ready URL to a verified log. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { type Running, startServer } from "./support/process.ts";
import { RawClient } from "./support/raw.ts";

const HERE = new URL("..", import.meta.url);

/** No setting but where the data is, and a free port. */
const NOTHING = { AUTH_SECRET: "", AUTH_JWKS_URL: "", AUTH_JWKS_FILE: "", HOST: "", NO_COLOR: "1" };

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `deno task <args>` to its end. */
async function task(args: string[], env: Record<string, string>): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["task", "--quiet", ...args], cwd: HERE, env: { ...NOTHING, ...env } })
    .output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

/** Reads what the server prints, as a program of the user's would; resolves to the match. */
async function printed(server: Running, pattern: RegExp): Promise<string> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const found = pattern.exec(server.output())?.[1];
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`${pattern} is not in ${server.output()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function publish(server: Running, token: string, topic: string, events: { event: string; payload: object; id?: string }[]): Promise<Response> {
  return await fetch(`${server.url}/api/topics/${topic}/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ events }),
  });
}

function tempDir(): { path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempDirSync({ prefix: "caseroom-first-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

const processed = (document_id: string) => ({ event: "document:processed", payload: { document_id, status: "completed", results: { summary: "secret" } } });

Deno.test("first use: `deno task start` prints a URL and a token, and either is all that a program needs; SIGTERM ends it with 0", async () => {
  using dir = tempDir();
  const data = `${dir.path}/not/there/yet`;
  await using server = await startServer({ ...NOTHING, DATA_DIR: data });
  const url = await printed(server, /^(ws:\/\/127\.0\.0\.1:\d+\/socket\/websocket\?\S+)$/m);
  const byUrl = await RawClient.open(url);
  const [, , , , joined] = await byUrl.ask(["1", "1", "case:case_1", "phx_join", {}]);
  assertEquals([joined.status, joined.response.case_id], ["ok", "case_1"]);

  const token = await printed(server, /^(eyJ[\w-]+\.[\w-]+\.[\w-]+)$/m);
  const ready = await printed(server, /ready on (ws:\S+)$/m);
  const byToken = await RawClient.open(`${ready}?vsn=2.0.0&token=${token}`);
  assertEquals((await byToken.ask(["1", "1", "case:another", "phx_join", {}]))[4].status, "ok");
  // Nobody else gets in: the secret is this server's own, and nobody may read it.
  const forged = await RawClient.open(`${ready}?vsn=2.0.0&token=${token.slice(0, -4)}AAAA`).catch((error) => error);
  assertEquals(forged.status, 403);
  assertEquals(Deno.statSync(`${data}/development.secret`).mode! & 0o777, 0o600);

  const closing = Promise.all([byUrl.closed, byToken.closed]);
  assertEquals(await server.stop("SIGTERM"), 0);
  assertEquals((await closing).map(({ code }) => code), [1012, 1012]);
});

Deno.test("first use: `deno task token` makes a token that works, with the rights it names", async () => {
  using dir = tempDir();
  const env = { DATA_DIR: dir.path };
  // Before the first start, too: the secret is made by whoever needs it first.
  const first = await task(["token", "--sub", "user_1", "--name", "User One", "--role", "attorney", "--cases", "case_1,case_2", "--ttl", "30m"], env);
  assertEquals(first.code, 0);
  // Said beside the token, so that `$(deno task token …)` holds the token alone.
  assertMatch(first.stderr, /^Signed with the secret of \S+: good for a server on that folder only\.\n$/);
  assertMatch(first.stdout, /^eyJ[\w-]+\.[\w-]+\.[\w-]+\n$/);
  await using server = await startServer({ ...NOTHING, ...env });
  const claims = JSON.parse(atob(first.stdout.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  assertEquals(claims, { sub: "user_1", name: "User One", role: "attorney", case_ids: ["case_1", "case_2"], iat: claims.iat, exp: claims.iat + 1800 });

  const client = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${first.stdout.trim()}`);
  const join = async (topic: string, ref: string) => (await client.ask([ref, ref, topic, "phx_join", {}]))[4];
  assertEquals((await join("case:case_1", "1")).status, "ok");
  assertEquals((await join("case:case_2", "2")).status, "ok");
  assertEquals((await join("case:case_3", "3")).response.reason, "forbidden");
  // An attorney does not publish.
  const refused = await publish(server, first.stdout.trim(), "case:case_1", [processed("doc_1")]);
  assertEquals([refused.status, (await refused.json()).reason], [403, "forbidden"]);
  await client.close();

  for (const wrong of [["--sub", "u", "--role", "king"], ["--role", "viewer"], ["--sub", "u", "--ttl", "soon"], ["--sub", "u", "--rôle", "viewer"]]) {
    const { code, stdout, stderr } = await task(["token", ...wrong], env);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, "deno task token --sub user_1");
    assert(!/ at .*\.ts:\d+/.test(stderr), stderr);
  }
});

Deno.test("first use: `deno task token` says in a line what is wrong with an option", async () => {
  using dir = tempDir();
  for (const [option, ...args] of [["role", "--sub", "u", "--role", "king"], ["sub", "--role", "viewer"], ["ttl", "--sub", "u", "--ttl", "soon"]]) {
    const { stderr } = await task(["token", ...args], { DATA_DIR: dir.path });
    const [line, usage] = stderr.split("\n");
    assertStringIncludes(line, option);
    assertMatch(usage, /^deno task token/);
  }
});

Deno.test("first use: what a service published survives kill -9, `deno task log verify` proves it, and names the entry that was changed", async () => {
  using dir = tempDir();
  const env = { DATA_DIR: dir.path };
  await using server = await startServer({ ...NOTHING, ...env });
  const made = await task(["token", "--sub", "backend", "--role", "service"], env);
  assertEquals(made.code, 0, made.stderr);
  const service = made.stdout.trim();
  const client = await RawClient.open(await printed(server, /^(ws:\S+token=\S+)$/m));
  await client.ask(["1", "1", "case:case_1", "phx_join", {}]);

  const cursors: string[] = [];
  for (const topic of ["case:case_1", "case:case_2", "case:case_1"]) {
    const response = await publish(server, service, topic, [processed(`doc_${cursors.length}`), processed(`doc_${cursors.length + 1}`)]);
    assertEquals(response.status, 200);
    cursors.push(...(await response.json()).events.map(({ cursor }: { cursor: string }) => cursor));
  }
  const heard: string[] = [];
  while (heard.length < 4) {
    const [, , , event, payload] = await client.next();
    if (event === "document:processed") heard.push(payload.cursor);
  }
  assertEquals(heard, [cursors[0], cursors[1], cursors[4], cursors[5]]);
  // While it runs, too.
  const running = await task(["log", "verify"], env);
  assertEquals([running.code, running.stdout], [0, "6 entries in 2 rooms: every chain holds\n"], running.stderr);

  assertEquals(await server.stop("SIGKILL"), 137);
  await client.closed;
  const after = await task(["log", "verify"], env);
  assertEquals([after.code, after.stdout], [0, "6 entries in 2 rooms: every chain holds\n"], after.stderr);

  const file = `${dir.path}/caseroom.db`;
  const db = new DatabaseSync(file);
  const rows = db.prepare("select seq, room, event, payload from log order by seq").all() as { seq: number; room: string; event: string; payload: string }[];
  assertEquals(rows.map(({ room }) => room), ["case/case_1", "case/case_1", "case/case_2", "case/case_2", "case/case_1", "case/case_1"]);
  assertEquals(rows.map(({ payload }) => JSON.parse(payload).document_id), ["doc_0", "doc_1", "doc_2", "doc_3", "doc_4", "doc_5"]);
  // One byte of one row.
  db.prepare("update log set payload = ? where seq = ?").run(rows[4].payload.replace("secret", "sacret"), rows[4].seq);
  const tampered = await task(["log", "verify"], env);
  assertEquals(tampered.code, 1);
  assertMatch(tampered.stdout, new RegExp(`entry ${rows[4].seq} of case/case_1: its content does not match its hash`));
  db.prepare("update log set payload = ? where seq = ?").run(rows[4].payload, rows[4].seq);
  assertEquals((await task(["log", "verify"], env)).code, 0);
  // An entry taken away.
  db.prepare("delete from log where seq = ?").run(rows[3].seq);
  const missing = await task(["log", "verify"], env);
  assertEquals(missing.code, 1);
  assertMatch(missing.stdout, new RegExp(`entry ${rows[3].seq} of case/case_2`));
  db.close();
  // Nothing to verify is no proof.
  const nowhere = await task(["log", "verify"], { DATA_DIR: `${dir.path}/nowhere` });
  assertEquals(nowhere.code, 2);
  assertStringIncludes(nowhere.stderr, `${dir.path}/nowhere/caseroom.db`);
});

Deno.test("first use: a second server on the same DATA_DIR is refused in words, the first goes on, and after kill -9 the way is free", async () => {
  using dir = tempDir();
  const env = { ...NOTHING, DATA_DIR: dir.path };
  await using first = await startServer(env);
  const second = await task(["start"], { ...env, PORT: "0" });
  assertEquals([second.code, second.stdout], [1, ""]);
  assertStringIncludes(second.stderr, "another process");
  assertStringIncludes(second.stderr, dir.path);
  assertEquals(second.stderr.trim().split("\n").length, 1);
  assertEquals((await (await fetch(`${first.url}/health`)).json()).status, "ok");
  await first.stop("SIGKILL");
  await using third = await startServer(env);
  assertEquals(await third.stop("SIGTERM"), 0);
});

Deno.test("first use: a port that is taken is said in a line, and DATA_DIR is free again", async () => {
  using dir = tempDir();
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const refused = await task(["start"], { DATA_DIR: dir.path, PORT: String(taken.addr.port) });
  taken.close();
  assertEquals([refused.code, refused.stdout], [1, ""]);
  assertStringIncludes(refused.stderr, String(taken.addr.port));
  assertEquals(refused.stderr.trim().split("\n").length, 1, refused.stderr);
});

async function refusedConfiguration(env: Record<string, string>, errors: RegExp[]): Promise<void> {
  using dir = tempDir();
  const { code, stdout, stderr } = await task(["start"], { DATA_DIR: `${dir.path}/data`, PORT: "0", ...env });
  assertEquals([code, stdout], [1, ""], stderr);
  for (const error of errors) assertMatch(stderr, error);
  assertEquals(stderr.trim().split("\n").length, 1 + errors.length, stderr);
  // Values are not repeated: one may be a secret.
  assert(!stderr.includes("xxxx") && !stderr.includes("tooshort"));
  // Nothing was made on the way.
  assertEquals([...Deno.readDirSync(dir.path)], []);
}

const TWO_WAYS = { AUTH_SECRET: "x".repeat(32), AUTH_JWKS_URL: "https://id.example.com/keys" };

Deno.test("first use: a wrong configuration is refused in words, and nothing is started", async () => {
  await refusedConfiguration({ HOST: "0.0.0.0" }, [/^ +HOST: .*AUTH_SECRET/m]);
  await refusedConfiguration({ AUTH_SECRET: "tooshort" }, [/^ +AUTH_SECRET: .*32 bytes/m]);
  await refusedConfiguration(TWO_WAYS, [/^ +AUTH_JWKS_URL: .*AUTH_SECRET and AUTH_JWKS_URL/m]);
  await refusedConfiguration({ PORT: "abc", LIMIT_PAYLOAD_UNIT: "1", LIMIT_FRAME_BYTES: "-1" }, [
    /^ +PORT: /m,
    /^ +LIMIT_PAYLOAD_UNIT: there is no such setting/m,
    /^ +LIMIT_FRAME_BYTES: /m,
  ]);
});

Deno.test("first use: all that is wrong with a configuration is said at once: settings that are wrong together beside those that are wrong alone", async () => {
  await refusedConfiguration({ PORT: "abc", LIMIT_PAYLOAD_UNIT: "1", ...TWO_WAYS }, [
    /^ +PORT: /m,
    /^ +LIMIT_PAYLOAD_UNIT: there is no such setting/m,
    /^ +AUTH_JWKS_URL: .*AUTH_SECRET and AUTH_JWKS_URL/m,
  ]);
  await refusedConfiguration({ PORT: "abc", HOST: "0.0.0.0", ALLOWED_ORIGINS: "example.com" }, [
    /^ +PORT: /m,
    /^ +ALLOWED_ORIGINS: /m,
    /^ +HOST: .*AUTH_SECRET/m,
  ]);
});
