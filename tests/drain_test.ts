/** SIGTERM: sockets are told 1012, some at a time; what was acknowledged is kept; the process is gone soon after the last. */
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess, assertLessOrEqual, assertMatch, assertNotEquals } from "@std/assert";
import type { Opening } from "../rooms/gateway.ts";
import { NOTHING_LENT, sha256 } from "../rooms/hosts/deno.ts";
import { makeApp } from "../rooms/http/app.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import { Later } from "../rooms/room.ts";
import type { Identity } from "../rooms/token.ts";
import { eventsOf, Outside } from "./support/outside.ts";
import { RawClient, TcpClient, UPGRADE, upgradeRequest } from "./support/raw.ts";
import { lab, MemoryWire, someone, Stage, type StageClient } from "./support/stage.ts";

const SERVICE = someone("back end", "service", []);
const uploaded = (id: string) => ({ event: "document:uploaded", payload: { document: { id } }, id });

/** Sends the signal; expects exit code 0 within three seconds (the default DRAIN_MS, a second for what hangs, and one for a busy machine) and no error line. */
async function ends(at: Outside, signal: Deno.Signal = "SIGTERM"): Promise<void> {
  const since = performance.now();
  assertEquals(await at.server.stop(signal), 0, at.server.output());
  assertLess(performance.now() - since, 3000);
  assertEquals(at.server.output().split("\n").filter((line) => line.includes('"level":"error"') || /^\s+at |Error:/.test(line)), []);
}

/** Every frame that came before the close, and its code. */
async function last(client: RawClient): Promise<{ code: number; events: string[] }> {
  const { code } = await client.closed;
  const events = [];
  for (let frame; (frame = await client.next().catch(() => null));) events.push(Array.isArray(frame) ? frame[3] : frame.event);
  return { code, events };
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`drain: ${signal} closes every socket with 1012, joined or not, V1 or V2, without phx_close or phx_error, and exits with 0 [50]`, async () => {
    await using at = await Outside.start();
    const joined = await at.member("case:case_1");
    const several = await at.member("case:case_1");
    await several.ask(["2", "2", "case:case_2", "phx_join", {}]);
    const idle = await at.connect();
    const nobody = await at.connect(null);
    const old = await at.connect(undefined, "1.0.0");
    old.send({ topic: "case:case_1", event: "phx_join", payload: {}, ref: "1" });
    await old.next();
    const unfinished = await at.connect();
    unfinished.ws.send('["1","1","case:', { fin: false });
    const clients = [joined, several, idle, nobody, old, unfinished];
    for (const client of [joined, several, idle, nobody]) await client.heard();
    const lasts = Promise.all(clients.map(last));
    await ends(at, signal);
    for (const { code, events } of await lasts) {
      assertEquals(code, 1012);
      assertEquals(eventsOf(events.map((event) => [, , , event]), "phx_close", "phx_error"), []);
    }
  });
}

Deno.test("drain: 300 sockets are all told 1012", async () => {
  await using at = await Outside.start();
  const token = await at.token();
  const clients = await Promise.all(Array.from({ length: 300 }, () => RawClient.open(at.url(token))));
  await Promise.all(clients.map((client, index) => index % 2 === 0 && client.ask(["1", "1", `case:${index % 5}`, "phx_join", {}])));
  const codes = Promise.all(clients.map((client) => client.closed));
  await ends(at);
  assertEquals((await codes).filter(({ code }) => code !== 1012), []);
});

Deno.test("drain: a second SIGTERM, and a third, and a SIGINT change nothing", async () => {
  await using at = await Outside.start();
  const client = await at.member("case:case_1");
  // It never answers the close, so that the drain takes its time.
  const stuck = await TcpClient.open(at.server.port, `/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
  const since = performance.now();
  const codes = [at.server.stop("SIGTERM"), at.server.stop("SIGTERM")];
  await client.closed;
  codes.push(at.server.stop("SIGTERM"), at.server.stop("SIGINT"));
  assertEquals(await Promise.all(codes), [0, 0, 0, 0]);
  assertLess(performance.now() - since, 3000);
  assertEquals(await stuck.closeCode(), 1012);
  stuck.close();
  assertEquals(at.server.output().includes('"level":"error"'), false, at.server.output());
});

Deno.test("drain: clients that do not read, do not answer, or never finished their request hold nothing up", async () => {
  await using at = await Outside.start();
  const path = `/socket/websocket?vsn=2.0.0&token=${await at.token()}`;
  const deaf = await TcpClient.open(at.server.port, path);
  const join = '["1","1","case:case_1","phx_join",{}]';
  await deaf.frame(1, join);
  const token = await at.token(SERVICE);
  const summary = "x".repeat(60_000);
  for (let index = 0; index < 20; index++) {
    await at.publish("case:case_1", Array.from({ length: 20 }, () => ({ event: "document:uploaded", payload: { document: { id: "d", summary } } })), token);
  }
  const half = await TcpClient.connect(at.server.port);
  await half.write(upgradeRequest(path).slice(0, 50));
  const silent = await TcpClient.connect(at.server.port);
  const posting = await TcpClient.connect(at.server.port);
  await posting.write(`POST /api/topics/case:case_1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\ncontent-length: 1000\r\n\r\n{"events":`);
  await ends(at);
  for (const client of [deaf, half, silent, posting]) client.close();
});

Deno.test("drain: an upgrade or a publication meanwhile gets 503 or finds nobody, on new connections and on old ones", async () => {
  await using at = await Outside.start();
  const path = `/socket/websocket?vsn=2.0.0&token=${await at.token()}`;
  const stuck = await TcpClient.open(at.server.port, path);
  const client = await at.member("case:case_1");
  const service = await at.token(SERVICE);
  const body = JSON.stringify({ events: [uploaded("late")] });
  // Connections that are there, with half a request each: the rest of it comes during the drain.
  const early = await Promise.all(Array.from({ length: 3 }, async () => {
    const connection = await TcpClient.connect(at.server.port);
    await connection.write("GET ");
    return connection;
  }));
  const publishing = await TcpClient.connect(at.server.port);
  await publishing.write("POST ");
  const ended = ends(at);
  await client.closed;
  const answers: (number | null)[] = [];
  for (const connection of early) {
    const answer = connection.write(upgradeRequest(path).slice("GET ".length)).then(() => connection.answer());
    answers.push(await answer.then(({ status }) => status, () => null));
    connection.close();
  }
  const headers = `host: x\r\nconnection: close\r\nauthorization: Bearer ${service}\r\ncontent-length: ${body.length}\r\n`;
  const published = publishing.write(`/api/topics/case:case_1/events HTTP/1.1\r\n${headers}\r\n${body}`).then(() => publishing.answer());
  answers.push(await published.then(({ status }) => status, () => null));
  publishing.close();
  const fresh = TcpClient.request(at.server.port, "GET", path, UPGRADE);
  answers.push(await fresh.then(({ status }) => status, () => null));
  assertEquals(answers.filter((status) => status !== null && status !== 503), []);
  await ended;
  stuck.close();
});

Deno.test("drain: a draining server says 503 on a connection that is kept alive, or ends it", async () => {
  await using at = await Outside.start();
  const stuck = await TcpClient.open(at.server.port, `/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
  const client = await at.connect();
  const kept = Deno.createHttpClient({ poolMaxIdlePerHost: 1 });
  assertEquals(await (await fetch(`${at.server.url}/ready`, { client: kept })).json(), { status: "ready" });
  const ended = ends(at);
  await client.closed;
  const status = await fetch(`${at.server.url}/ready`, { client: kept }).then(async (response) => (await response.text(), response.status), () => null);
  assert(status === null || status === 503, `/ready is ${status}`);
  kept.close();
  await ended;
  stuck.close();
});

Deno.test("drain: what was acknowledged before is kept, what was not is refused or not answered, and nothing stands twice", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-drain-" });
  const acknowledged = new Map<string, string>();
  const statuses = new Set<number | null>();
  {
    await using at = await Outside.start({ DATA_DIR: dir });
    const token = await at.token(SERVICE);
    const member = await at.member("case:case_1");
    let ending = false;
    const publishers = Array.from({ length: 8 }, async (_, publisher) => {
      for (let count = 0; !ending; count++) {
        const document = `${publisher}.${count}`;
        const answer = await at.publish("case:case_1", [uploaded(document)], token).catch(() => null);
        statuses.add(answer?.status ?? null);
        if (answer?.status === 200) acknowledged.set(document, answer.body.events[0].cursor);
      }
    });
    while (acknowledged.size < 50) await new Promise((resolve) => setTimeout(resolve, 1));
    const ended = ends(at);
    const heard: [string, string][] = [];
    for (let frame; (frame = await member.next().catch(() => null));) if (frame[3] === "document:uploaded") heard.push([frame[4].document.id, frame[4].cursor]);
    assertEquals((await member.closed).code, 1012);
    await ended;
    ending = true;
    await Promise.all(publishers);
    // What a member was shown was acknowledged with that cursor, or its answer was lost on the way.
    for (const [document, cursor] of heard) assertEquals(acknowledged.get(document) ?? cursor, cursor);
  }
  assertEquals([...statuses].filter((status) => ![200, 503, null].includes(status)), []);
  {
    await using at = await Outside.start({ DATA_DIR: dir });
    const token = await at.token(SERVICE);
    const before = (await at.publish("case:case_1", [uploaded("before")], token)).body.events[0].cursor;
    const documents = [...acknowledged.keys()];
    for (let index = 0; index < documents.length; index += 100) {
      const some = documents.slice(index, index + 100);
      const { body } = await at.publish("case:case_1", some.map(uploaded), token);
      assertEquals(body.events.map((event: { cursor: string }) => event.cursor), some.map((document) => acknowledged.get(document)));
    }
    // Repeated ids are no new events: the next one follows the first one of this life.
    const after = (await at.publish("case:case_1", [uploaded("after")], token)).body.events[0].cursor;
    const page = await at.post(`/api/cases/case_1/log?after=${before}`, "", await at.token(at.fresh("attorney")), "GET");
    assertEquals(page.body.events.map(({ cursor }: { cursor: string }) => cursor), [after]);
    assertNotEquals(after, before);
    await ends(at);
  }
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "log", "verify"],
    cwd: new URL("..", import.meta.url),
    env: { DATA_DIR: dir, NO_COLOR: "1" },
  }).output();
  assertMatch(new TextDecoder().decode(stdout), /every chain holds/);
  assertEquals(code, 0);
  assertGreater(acknowledged.size, 49);
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("drain: a server that was drained starts again on the same data at once", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-drain-" });
  for (let life = 0; life < 3; life++) {
    await using at = await Outside.start({ DATA_DIR: dir });
    const client = await at.member("case:case_1");
    const closed = client.closed;
    await ends(at);
    assertEquals((await closed).code, 1012);
  }
  Deno.removeSync(dir, { recursive: true });
});

// The window, over a cranked clock.

/** Moves on by one step of a drain, and lets it go on. */
async function step(stage: Stage): Promise<void> {
  stage.advance(25);
  await new Promise((resolve) => setTimeout(resolve, 0));
  stage.run();
}
const isClosed = ({ wire }: StageClient) => wire.code !== null;

for (const [sockets, ms] of [[40, 800], [1000, 1000], [500, 100], [33, 800], [7, 800], [1, 600_000], [3, 10], [50, 0], [0, 1000]] as const) {
  Deno.test(`drain: ${sockets} sockets over ${ms} ms are closed a share at a time: some at once, none later than that, never more than a share`, async () => {
    const stage = new Stage([lab()]);
    const clients = Array.from({ length: sockets }, (_, n) => stage.client(someone(`u${n % 9}`)));
    clients.forEach((client, n) => n % 2 && client.join(`lab:${n % 5}`));
    let over = false;
    const drained = stage.gateway.drain(ms).then(() => over = true);
    const steps = Math.floor(ms / 25);
    // How many were closed at once, and by each step.
    const closed = [clients.filter(isClosed).length];
    for (let n = 1; n <= steps && closed.at(-1)! < sockets; n++) {
      await step(stage);
      closed.push(clients.filter(isClosed).length);
    }
    await drained;
    assert(over);
    assertEquals(clients.filter(({ wire }) => wire.code !== 1012), []);
    const share = Math.ceil(sockets / (steps + 1));
    closed.forEach((count, n) => assertLessOrEqual(count - (closed[n - 1] ?? 0), share));
    if (sockets > 0) assertGreaterOrEqual(closed[0], 1);
    if (sockets > steps) {
      // Evenly: half of them in half of the time, the last at its end.
      assertEquals(closed.length, steps + 1);
      assertLessOrEqual(Math.abs(closed[steps >> 1] - sockets / 2), sockets / 8 + share);
    }
    assertEquals([stage.gateway.size, stage.gateway.draining, stage.reported], [0, true, []]);
    stage.close();
  });
}

/** The reply to a frame. */
const reply = (client: StageClient, frame: [unknown, string, string, string, unknown]) =>
  client.send(frame).find(([, ref, , event]) => event === "phx_reply" && ref === frame[1])?.[4];

Deno.test("drain: until its turn comes a socket is served: pushes are answered and kept, leaves and heartbeats too; joins are refused `draining`", async () => {
  const stage = new Stage([lab({ on: { do: (ctx, { n }) => (ctx.broadcast("kept", { n }), { n }) } })], { graceMs: 5000 });
  const clients = Array.from({ length: 40 }, (_, n) => stage.client(someone(`u${n}`)));
  for (const client of clients) client.join("lab:1");
  const last = clients.at(-1)!;
  last.join("lab:2");
  last.take();
  void stage.gateway.drain(800);
  const kept = [];
  for (let n = 1; !isClosed(last); n++) {
    await step(stage);
    if (isClosed(last)) break;
    const refused = { status: "error", response: { reason: "draining" } };
    assertEquals(reply(last, ["9", "new", "lab:3", "phx_join", {}]), refused);
    // A rejoin as well: the session that is there goes on.
    assertEquals(reply(last, ["9", "again", "lab:1", "phx_join", {}]), refused);
    assertEquals(reply(last, ["j1", `p${n}`, "lab:1", "do", { n }]), { status: "ok", response: { n } });
    assertEquals(reply(last, [null, "beat", "phoenix", "heartbeat", {}]).status, "ok");
    kept.push(n);
  }
  assertGreater(kept.length, 25);
  const events = stage.host.sql.run("select payload from log where room = 'lab/1' order by seq", [], false).map(({ payload }) => JSON.parse(String(payload)).n);
  assertEquals(events, kept);
  assertEquals([stage.metrics.refusals.get("draining"), stage.metrics.closes.get("1012"), stage.reported], [2 * kept.length, 40, []]);
  stage.close();
});

Deno.test("drain: whoever is closed is held as after an accident: those who are still there see nobody leave", async () => {
  const room = lab({ join: (ctx) => void ctx.presence.track({}), depart: (ctx) => ctx.broadcast("told", { left: ctx.user.id }) });
  const stage = new Stage([room], { graceMs: 5000 });
  const clients = Array.from({ length: 10 }, (_, n) => stage.client(someone(`u${n}`)));
  for (const client of clients) client.join("lab:1");
  const last = clients.at(-1)!;
  last.take();
  void stage.gateway.drain(1000);
  for (let n = 0; n < 8; n++) await step(stage);
  assertEquals([clients.filter(isClosed).length, last.take()], [9, []]);
  stage.close();
});

Deno.test("drain: a slow join that is under way ends with its socket, or is answered before; nothing comes of it later", async () => {
  const waiting: { resolve: (value: unknown) => void; signal: AbortSignal }[] = [];
  const join = () => new Later((signal) => new Promise((resolve) => waiting.push({ resolve, signal })));
  const stage = new Stage([lab({ join })]);
  const [first, second, third] = [stage.client(someone("a")), stage.client(someone("b")), stage.client(someone("c"))];
  for (const client of [first, second, third]) {
    client.send(["1", "1", "lab:1", "phx_join", {}]);
    client.queue([null, "after", "phoenix", "heartbeat", {}]);
  }
  void stage.gateway.drain(1000);
  stage.run();
  assertEquals([isClosed(first), isClosed(second)], [true, false]);
  waiting[2].resolve({});
  await stage.settle();
  assertEquals(eventsOf(third.take(), "phx_reply").map(([, ref, , , payload]) => [ref, payload.status]), [["1", "ok"], ["after", "ok"]]);
  await step(stage);
  await step(stage);
  assertEquals([first, second, third].map(({ wire }) => wire.code), [1012, 1012, 1012]);
  await stage.settle();
  assertEquals(waiting.map(({ signal }) => signal.aborted), [true, true, false]);
  for (const { resolve } of waiting) resolve({});
  await stage.settle();
  stage.advance(10_000);
  assertEquals([first.take(), second.take(), third.take(), stage.reported, stage.gateway.size], [[], [], [], [], 0]);
  stage.close();
});

Deno.test("drain: what was read of a socket before its turn came is answered before it is closed", () => {
  const stage = new Stage([lab({ on: { do: (ctx, { n }) => (ctx.broadcast("kept", { n }), { n }) } })]);
  const client = stage.client();
  client.join("lab:1");
  client.queue(["j1", "1", "lab:1", "do", { n: 1 }]);
  void stage.gateway.drain(0);
  stage.run();
  assertEquals(client.take().map(([, ref, , event]) => [ref, event]), [[null, "kept"], ["1", "phx_reply"]]);
  assertEquals(client.wire.code, 1012);
  stage.close();
});

for (const others of [0, 20]) {
  Deno.test(`drain: an upgrade whose token was being checked when it began, with ${others} other sockets, is refused or closed with 1012`, async () => {
    const stage = new Stage([lab()]);
    const { registry, gateway, metrics, host } = stage;
    const checked = Promise.withResolvers<Identity>();
    const rest = { channels: [], allowedOrigins: [], trustProxy: false, report: host.report, note: () => {} };
    const app = makeApp({ registry, gateway, verify: () => checked.promise, limits: DEFAULT_LIMITS, metrics, sha256, ...NOTHING_LENT, ...rest });
    for (let n = 0; n < others; n++) stage.client();
    const wire = new MemoryWire();
    const accept = (opening: Opening) => {
      gateway.open(wire, opening);
      return new Response(null);
    };
    const answer = Promise.resolve(app.request("/socket/websocket?vsn=2.0.0&token=x", {}, { accept }));
    await stage.settle();
    let over = false;
    void gateway.drain(500).then(() => over = true);
    await step(stage);
    checked.resolve({ user: someone("late"), expires: Infinity });
    await stage.settle();
    const { status } = await answer;
    for (let n = 0; n < 30 && !over; n++) await step(stage);
    stage.run();
    assert(over);
    assert(status === 503 || wire.code === 1012, `${status}, ${wire.code}`);
    assertEquals(gateway.size, 0);
    stage.close();
  });
}

// The window, of a process.

Deno.test("drain: DRAIN_MS is how long it takes: 40 sockets go one after another, and the process with the last", async () => {
  await using at = await Outside.start({ DRAIN_MS: "800" });
  const token = await at.token();
  const clients = await Promise.all(Array.from({ length: 40 }, () => RawClient.open(at.url(token))));
  const since = performance.now();
  const closes = Promise.all(clients.map((client) => client.closed.then(({ code }) => ({ code, at: performance.now() - since }))));
  await ends(at);
  const ended = performance.now() - since;
  const closed = (await closes).sort((a, b) => a.at - b.at);
  assertEquals(closed.filter(({ code }) => code !== 1012), []);
  // The process gave it that long; what a busy machine adds can only shorten what is seen between two of them.
  assertGreater(ended, 775);
  assertLess(closed[0].at, closed.at(-1)!.at - 300);
  assertLess(closed.filter(({ at }) => at < closed[0].at + 100).length, 20);
  assertGreaterOrEqual(ended, closed.at(-1)!.at);
});

Deno.test("drain: with DRAIN_MS=0 all are closed at once; without sockets it ends at once, whatever DRAIN_MS is", async () => {
  {
    await using at = await Outside.start({ DRAIN_MS: "0" });
    const token = await at.token();
    const clients = await Promise.all(Array.from({ length: 50 }, () => RawClient.open(at.url(token))));
    const codes = Promise.all(clients.map((client) => client.closed));
    await ends(at);
    assertEquals((await codes).filter(({ code }) => code !== 1012), []);
  }
  {
    await using at = await Outside.start({ DRAIN_MS: "600000" });
    await (await at.member("case:1")).close();
    await ends(at);
  }
});

Deno.test("drain: meanwhile the others are served; upgrades and publications get 503, joins `draining`; a second SIGTERM changes nothing; it ends when all have gone", async () => {
  // One is closed every 25 ms: some seconds for 200, if nobody goes by himself.
  await using at = await Outside.start({ DRAIN_MS: "600000" });
  const token = await at.token();
  const backEnd = await at.token(SERVICE);
  assertEquals((await at.publish("case:1", [uploaded("before")], backEnd)).status, 200);
  const clients: RawClient[] = [];
  for (let n = 0; n < 200; n++) clients.push(await RawClient.open(at.url(token)));
  const last = clients.at(-1)!;
  await last.ask(["1", "1", "case:1", "phx_join", {}]);
  let exited = false;
  const code = at.server.stop("SIGTERM").finally(() => exited = true);
  await clients[0].closed;
  const told = async (frame: [unknown, string, string, string, unknown]) => {
    const { status, response } = (await last.ask(frame))[4];
    return response.reason ?? status;
  };
  for (let round = 0; round < 2; round++) {
    assertEquals(await told(["9", `join${round}`, "case:2", "phx_join", {}]), "draining");
    assertEquals(await told(["9", `rejoin${round}`, "case:1", "phx_join", {}]), "draining");
    assertEquals(await told(["1", `push${round}`, "case:1", "presence:update", { status: `s${round}` }]), "ok");
    const refused = await RawClient.open(at.url(token)).then(() => null, (error) => [error.status, error.reason]);
    assertEquals(refused, [503, "draining"]);
    const publication = await at.publish("case:1", [uploaded("late")], backEnd);
    assertEquals([publication.status, publication.body.reason], [503, "draining"]);
    const get = async (path: string, bearer: string | null = null) => (await at.post(path, "", bearer, "GET")).status;
    assertEquals([await get("/ready"), await get("/health"), await get("/metrics"), await get("/api/cases/1/log", token)], [503, 200, 200, 200]);
    // Nothing changes by it.
    void at.server.stop("SIGTERM");
    void at.server.stop("SIGINT");
  }
  assert(!exited && last.ws.readyState === 1);
  // Those who are left go by themselves: there is nothing to wait for.
  const since = performance.now();
  await Promise.all(clients.map((client) => client.close()));
  assertEquals(await code, 0);
  assertLess(performance.now() - since, 2000);
  const codes = await Promise.all(clients.map(({ closed }) => closed));
  assertEquals(codes[0].code, 1012);
  assertEquals(at.server.output().includes('"level":"error"'), false, at.server.output());
  assertEquals(at.server.output().match(/"event":"draining"/g)?.length, 1);
});

Deno.test("drain: a join that waits for its document when the signal comes holds nothing up", async () => {
  await using at = await Outside.start({ DRAIN_MS: "200" });
  const client = await at.connect();
  client.send(["1", "1", "collaboration:unknown", "phx_join", {}]);
  client.send([null, "2", "phoenix", "heartbeat", {}]);
  const other = await at.connect();
  await other.heard();
  await ends(at);
  const { code, events } = await last(client);
  assertEquals([code, events], [1012, []]);
});
