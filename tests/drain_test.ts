/** SIGTERM: sockets are told 1012, what was acknowledged is kept, and the process is gone within two seconds. */
import { assert, assertEquals, assertGreater, assertLess, assertMatch, assertNotEquals } from "@std/assert";
import { eventsOf, Outside } from "./support/outside.ts";
import { RawClient, TcpClient, UPGRADE, upgradeRequest } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const SERVICE = someone("back end", "service", []);
const uploaded = (id: string) => ({ event: "document:uploaded", payload: { document: { id } }, id });

/** Sends the signal; expects exit code 0 within two seconds and no error line. */
async function ends(at: Outside, signal: Deno.Signal = "SIGTERM"): Promise<void> {
  const since = performance.now();
  assertEquals(await at.server.stop(signal), 0, at.server.output());
  assertLess(performance.now() - since, 2000);
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
  assertLess(performance.now() - since, 2000);
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
    assertEquals(parseInt(after, 36), parseInt(before, 36) + 1);
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
