/** Where the process meets the machine: its own output, file descriptors, connections that never become anything. */
import { assert, assertEquals } from "@std/assert";
import { Journal } from "../rooms/hosts/deno.ts";
import { START, startServer } from "./support/process.ts";
import { RawClient, TcpClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

Deno.test("journal: a sink that throws or never takes anything loses lines, and nobody hears of it", async () => {
  const broken = new Journal(() => Promise.reject(new Error("No space left on device")));
  broken.note("one", {});
  await broken.flush();
  broken.report(new Error("two"), "a test");
  await broken.flush();
  const { promise, resolve } = Promise.withResolvers<number>();
  const stuck = new Journal(() => promise);
  stuck.note("first", {});
  const flushing = stuck.flush();
  for (let n = 0; n < 5000; n++) stuck.note("more", { text: "x".repeat(1000) });
  resolve(1_000_000);
  await flushing;
  await stuck.flush();
});

Deno.test("journal: a report carries its causes, and the same one is told once a second", async () => {
  let said = "";
  const journal = new Journal((bytes) => {
    said += new TextDecoder().decode(bytes);
    return Promise.resolve(bytes.length);
  });
  for (let n = 0; n < 10; n++) journal.report(new Error("Cannot commit", { cause: new Error("database or disk is full") }), "a commit");
  await journal.flush();
  const lines = said.trim().split("\n").map((line) => JSON.parse(line));
  assert(lines.length <= 2, said);
  assertEquals(lines[0].causes, ["Cannot commit", "database or disk is full"]);
});

/** Sends text over a bare connection and resolves to what comes until it ends, or null when it is still open after `ms`. */
async function say(port: number, text: string, ms: number): Promise<string | null> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(text));
  let heard = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const reading = (async () => {
    const buffer = new Uint8Array(4096);
    for (;;) {
      const count = await connection.read(buffer).catch(() => null);
      if (count === null) return heard;
      heard += new TextDecoder().decode(buffer.subarray(0, count));
    }
  })();
  const result = await Promise.race([reading, new Promise<null>((resolve) => timer = setTimeout(() => resolve(null), ms))]);
  clearTimeout(timer);
  connection.close();
  await reading;
  return result;
}

Deno.test("server: what does not become a WebSocket has its time, what does keeps its own [§1.6]", async () => {
  await using server = await startServer({ LIMIT_REQUEST_MS: "500" });
  const client = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${await server.token()}`);
  const unfinished = [
    "GET /health HTTP/1.1\r\nHost: x\r\n",
    `POST /api/topics/case:x/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await server.token()}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`,
    "",
  ];
  for (const text of unfinished) assert(await say(server.port, text, 5000) !== null, text);
  // An answered upgrade is over, whatever the client does with its side.
  const upgrade = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
  for (const [line, status] of [["GET /socket?vsn=9", "403"], ["TRACE /socket", "400"], ["POST /socket", "400"], ["CONNECT x:1", ""]]) {
    const heard = await say(server.port, `${line} HTTP/1.1\r\n${upgrade}`, 5000);
    assert(heard !== null && (status === "" || heard.startsWith(`HTTP/1.1 ${status} `)), `${line}: ${heard}`);
  }
  // The socket has outlived the time of a request many times over.
  assertEquals((await client.ask([null, "1", "phoenix", "heartbeat", {}]))[4].status, "ok");
  await client.close();
  assert(!server.output().includes('"level":"error"'), server.output());
});

Deno.test("server: a hundred odd upgrades leave no file descriptor behind", async () => {
  await using server = await startServer();
  const descriptors = () => [...Deno.readDirSync(`/proc/${server.pid}/fd`)].length;
  await say(server.port, "TRACE /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1000);
  const before = descriptors();
  for (let n = 0; n < 100; n++) await say(server.port, "TRACE /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1000);
  assert(descriptors() <= before + 5, `${before} before, ${descriptors()} after`);
});

Deno.test("server: connections above the limit are cut, and those below it are served", async () => {
  await using server = await startServer({ LIMIT_CONNECTIONS: "3" });
  const token = await server.token();
  const clients = [];
  for (let n = 0; n < 3; n++) clients.push(await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${token}`));
  assertEquals(await say(server.port, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 2000), "");
  await clients.pop()!.close();
  let status = 0;
  while (status !== 200) {
    status = await fetch(`${server.url}/health`, { headers: { connection: "close" } }).then((answer) => (answer.body?.cancel(), answer.status), () => 0);
  }
  for (const client of clients) await client.close();
});

Deno.test("server: a connection counts until it is closed: who was sent away and stays holds his place, and no more come in", async () => {
  await using server = await startServer({ LIMIT_CONNECTIONS: "3" });
  const stubborn = await Promise.all([1, 2, 3].map(() => TcpClient.open(server.port)));
  // What no client may say: the server closes, and waits for the other side.
  for (const client of stubborn) await client.frame(1, "not JSON");
  for (const client of stubborn) assertEquals(await client.closeCode(), 1003);
  for (let n = 0; n < 5; n++) assertEquals(await say(server.port, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 1000), "");
  stubborn.pop()!.close();
  let status = 0;
  for (const end = Date.now() + 5000; status !== 200 && Date.now() < end;) {
    status = await fetch(`${server.url}/health`, { headers: { connection: "close" } }).then((answer) => (answer.body?.cancel(), answer.status), () => 0);
  }
  assertEquals(status, 200);
  for (const client of stubborn) client.close();
});

Deno.test("server: whoever goes while his join takes its time is not joined afterwards: nobody sees him", async () => {
  await using server = await startServer();
  const open = async (id: string) => await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${await server.token(someone(id))}`);
  const [ghost, guest] = [await open("ghost"), await open("guest")];
  ghost.send(["1", "1", "collaboration:late", "phx_join", {}]);
  // Waits as well, so that both are let in by the same event.
  guest.send(["1", "1", "collaboration:late", "phx_join", {}]);
  await new Promise((resolve) => setTimeout(resolve, 100));
  ghost.ws.terminate();
  await new Promise((resolve) => setTimeout(resolve, 100));
  const published = await fetch(`${server.url}/api/topics/case:case_1/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${await server.token(someone("back end", "service"))}`, "content-type": "application/json" },
    body: JSON.stringify({ events: [{ event: "document:uploaded", payload: { document: { id: "late" } } }] }),
  });
  assertEquals([published.status, (await published.json()).events.length], [200, 1]);
  const frames = await guest.take(2);
  assertEquals(frames.map((frame) => frame[3]), ["phx_reply", "presence_state"]);
  assertEquals((await guest.heard()).filter((frame) => JSON.stringify(frame).includes("ghost")), []);
  assertEquals(Object.keys(frames[1][4]).filter((key) => key === "ghost"), []);
  await guest.close();
});

Deno.test("server: an output that cannot be written costs lines, not the service", async () => {
  await using server = await startServer({}, ["-c", `exec "$0" "$@" 2>/dev/full`, Deno.execPath(), ...START], "/bin/bash");
  const client = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${await server.token()}`);
  for (let n = 0; n < 5; n++) {
    await fetch(`${server.url}/socket?token=x`).then((answer) => answer.body?.cancel());
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  assertEquals((await client.ask([null, "1", "phoenix", "heartbeat", {}]))[4].status, "ok");
  await client.close();
});
