/**
 * The protocol notes, played against the fixture server: what is sent, and every frame that comes of it, in order.
 * After each scenario every socket must have nothing more to say. Bytes are written as in the notes: hex and 'text'.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Running, startServer } from "./support/process.ts";
import { type HttpAnswer, RawClient, TcpClient, UPGRADE } from "./support/raw.ts";

// Quiet: what a server writes during a test would count as a leak of that test.
const FIXTURE = ["run", "-A", "tests/fixture_server.ts", "--port", "0", "--quiet"];

let server: Running;
Deno.test.beforeAll(async () => {
  server = await startServer({}, FIXTURE);
});
Deno.test.afterAll(async () => {
  await server?.stop();
  await server?.[Symbol.asyncDispose]();
});

// The language of the scenarios.

/** A close frame with that code. */
class Closed {
  constructor(readonly code: number) {}
}
const closed = (code: number) => new Closed(code);

type Line = readonly [client: RawClient, way: ">>" | "<<", frame: unknown];

/** Sends and hears line by line. `>>` client to server, several in a row in one write; `<<` server to client. */
async function play(...lines: Line[]): Promise<void> {
  const refs = new Map<string, string>();
  const gone = new Set<RawClient>();
  let burst: unknown[] = [];
  for (const [index, [client, way, frame]] of lines.entries()) {
    const line = `line ${index + 1}: ${way} ${JSON.stringify(frame)}`;
    if (way === ">>") {
      burst.push(frame);
      const [next, then] = lines[index + 1] ?? [];
      if (next === client && then === ">>") continue;
      client.burst(burst);
      burst = [];
    } else if (frame instanceof Closed) {
      assertEquals((await client.closed).code, frame.code, line);
      await assertRejects(() => client.next(), Error, `closed with ${frame.code}`, line);
      gone.add(client);
    } else {
      const heard = await client.next().catch((error) => {
        throw new Error(`${line}: ${error.message}`);
      });
      assertEquals(named(heard, refs), frame, line);
    }
  }
  await quiet(...new Set(lines.map(([client]) => client).filter((client) => !gone.has(client))));
}

/** Nothing more comes: the next frame that each one hears is the answer to its heartbeat. */
async function quiet(...clients: RawClient[]): Promise<void> {
  for (const client of clients) {
    const array = client.ws.url.includes("vsn=2");
    client.send(array ? [null, "quiet", "phoenix", "heartbeat", {}] : v1(undefined, "quiet", "phoenix", "heartbeat", {}));
    const answer = array ? [null, "quiet", "phoenix", "phx_reply", ok()] : v1(null, "quiet", "phoenix", "phx_reply", ok());
    assertEquals(await client.next(), answer, "something more was heard");
  }
}

/** A phx_ref is opaque, 16 url-safe characters: they are named R1, R2 … in the order in which they appear. [88] */
function named(value: unknown, refs: Map<string, string>): unknown {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((item) => named(item, refs));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, isPhxRef(key, item) ? nameOf(item, refs) : named(item, refs)]));
}
function isPhxRef(key: string, value: unknown): value is string {
  return ["ref", "phx_ref", "phx_ref_prev"].includes(key) && typeof value === "string" && /^[A-Za-z0-9_-]{16}$/.test(value);
}
function nameOf(ref: string, refs: Map<string, string>): string {
  if (!refs.has(ref)) refs.set(ref, `R${refs.size + 1}`);
  return refs.get(ref)!;
}

const ok = (response: unknown = {}) => ({ status: "ok", response });
const error = (reason: string, more: object = {}) => ({ status: "error", response: { reason, ...more } });
const unmatched = error("unmatched topic");
const crashed = { reason: "channel_crash" };

/** A V1 frame; a client may leave join_ref out. */
const v1 = (join_ref: unknown, ref: unknown, topic: string, event: string, payload: unknown) => ({
  topic,
  event,
  payload,
  ref,
  ...(join_ref !== undefined && { join_ref }),
});

/** The metas of one key; a name stands for what the fixture tracks, with that phx_ref. */
const metas = (...list: (string | object)[]) => ({
  metas: list.map((meta) => typeof meta === "string" ? { online_at: "x", phx_ref: meta } : { online_at: "x", ...meta }),
});
const diff = (topic: string, joins: object, leaves: object) => [null, null, topic, "presence_diff", { joins, leaves }];

/** `00 01 'a'`: hex for bytes, quotes for text. */
function bytes(notation: string): Uint8Array {
  const tokens = notation.match(/'[^']*'|[0-9a-f]{2}/g) ?? [];
  return Uint8Array.from(tokens.flatMap((token) => token[0] === "'" ? [...new TextEncoder().encode(token.slice(1, -1))] : [parseInt(token, 16)]));
}

/** A join that is answered as most are. */
const joins = (client: RawClient, ref: string, topic: string): Line[] => [
  [client, ">>", [ref, ref, topic, "phx_join", {}]],
  [client, "<<", [ref, ref, topic, "phx_reply", ok()]],
];

type Open = (options?: { path?: string; vsn?: string; [parameter: string]: string | undefined }) => Promise<RawClient>;

/** A scenario; the sockets that it opens are closed when it ends. */
function wire(behaviour: string, scenario: (open: Open) => Promise<void>): void {
  Deno.test(`wire: ${behaviour}`, async () => {
    const clients: RawClient[] = [];
    const open: Open = async ({ path = "/socket/websocket", vsn = "2.0.0", ...parameters } = {}) => {
      const query = new URLSearchParams({ vsn, ...parameters as Record<string, string> });
      const client = await RawClient.open(`ws://127.0.0.1:${server.port}${path}?${query}`);
      clients.push(client);
      return client;
    };
    try {
      await scenario(open);
    } finally {
      await Promise.all(clients.map((client) => client.close()));
    }
  });
}

const request = (path: string, headers: Readonly<Record<string, string>> = UPGRADE, method = "GET"): Promise<HttpAnswer> =>
  TcpClient.request(server.port, method, path, headers);

const V2 = "/socket/websocket?vsn=2.0.0";

// A. HTTP, upgrade, version negotiation

wire("an upgrade is answered as RFC 6455 says, on every spelling of the path [1, 8, 9]", async () => {
  for (const path of ["/socket/websocket", "/socket/websocket/", "/socket", "/short/websocket", "/proto/websocket", "/auth/websocket"]) {
    const { status, headers } = await request(`${path}?vsn=2.0.0`, { ...UPGRADE, "sec-websocket-extensions": "permessage-deflate; client_max_window_bits" });
    assertEquals(status, 101, path);
    assertEquals(headers.get("upgrade")?.toLowerCase(), "websocket");
    assertEquals(headers.get("connection")?.toLowerCase(), "upgrade");
    assertEquals(headers.get("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assertEquals(headers.get("sec-websocket-extensions"), null);
    assertEquals(headers.get("sec-websocket-protocol"), null);
  }
});

wire("a vsn of 1.0.x or 2.0.x is served, none is V1, any other is refused with 403 before anybody is asked [2, 3, 4, 7]", async () => {
  const served = ["", "?vsn=1.0.0", "?vsn=1.0.5", "?vsn=2.0.0", "?vsn=2.0.9", "?vsn=2.0.0%2Bbuild"];
  const refused = ["3.0.0", "1.1.0", "2.1.0", "2", "abc", "", "2.0.0-rc.1", "02.0.0", "2.0.00", "2.0.0%20"].map((vsn) => `?vsn=${vsn}&refuse=raise`);
  for (const query of served) assertEquals((await request(`/socket/websocket${query}`)).status, 101, query);
  for (const query of [...refused, "?vsn[]=2.0.0", "?vsn%5B%5D=2.0.0"]) {
    const { status, body } = await request(`/socket/websocket${query}`);
    assertEquals({ status, body }, { status: 403, body: "" }, query);
  }
});

wire("a refused connect is an empty 403, one that raises a 500 [5]", async () => {
  for (const [how, expected] of [["error", 403], ["reason", 403], ["raise", 500]] as const) {
    const { status, body } = await request(`${V2}&refuse=${how}`);
    assertEquals({ status, body }, { status: expected, body: "" }, how);
  }
});

wire("the origin is checked before the version, and the version before the upgrade [7]", async () => {
  const stranger = { origin: "https://evil.test" };
  const checks: [path: string, headers: Record<string, string>, status: number, reason: string | null][] = [
    ["/socket/websocket?vsn=9", { ...UPGRADE, ...stranger }, 403, "origin"],
    ["/socket/websocket?vsn=9&refuse=raise", UPGRADE, 403, "vsn"],
    [`${V2}&refuse=error`, { connection: "close" }, 403, "forbidden"],
    ["/socket/websocket?vsn=9", { connection: "close" }, 403, "vsn"],
    [V2, { connection: "close" }, 400, null],
  ];
  for (const [path, sent, status, reason] of checks) {
    const answer = await request(path, sent);
    assertEquals([answer.status, answer.headers.get("caseroom-reason")], [status, reason], path);
  }
});

wire("what is no upgrade is a 400, what is no socket a 404 [8]", async () => {
  const plain = { connection: "close" };
  const { "sec-websocket-key": _, ...keyless } = UPGRADE;
  const { status, headers, body } = await request(V2, plain);
  assertEquals(status, 400);
  assert(headers.get("content-type")?.trim().startsWith("text/plain") && body.length > 0);
  for (const method of ["POST", "HEAD"]) {
    const { status, body } = await request(V2, plain, method);
    assertEquals({ status, body }, { status: 400, body: "" }, method);
  }
  assertEquals((await request(V2, keyless)).status, 400);
  assertEquals((await request(V2, { ...UPGRADE, "sec-websocket-version": "7" })).status, 400);
  for (const path of ["/socket/", "/socket/foo", "/nowhere", "/nowhere/websocket", "/"]) {
    assertEquals((await request(`${path}?vsn=2.0.0`)).status, 404, path);
    assertEquals((await request(`${path}?vsn=2.0.0`, plain)).status, 404, path);
  }
});

wire("version 8 of the WebSocket protocol is a 400 [8]", async () => {
  assertEquals((await request(V2, { ...UPGRADE, "sec-websocket-version": "8" })).status, 400);
});

wire("an origin is the own host or an allowed one, or there is none [10]", async () => {
  const origins: [origin: string, status: number][] = [
    ["http://127.0.0.1", 101],
    ["https://127.0.0.1:9999", 101],
    ["http://localhost", 101],
    ["https://example.com", 101],
    ["https://a.example.com", 101],
    ["http://a.b.example.com", 101],
    ["https://notexample.com", 403],
    ["https://example.com.evil.test", 403],
    ["https://evil.test", 403],
    ["https://evil.test/127.0.0.1", 403],
    ["null", 403],
    ["file://", 403],
    ["", 403],
  ];
  for (const [origin, expected] of origins) {
    const { status, body } = await request(V2, { ...UPGRADE, origin });
    assertEquals({ status, body }, { status: expected, body: "" }, origin);
  }
});

wire("the only subprotocol is phoenix, others are not echoed [11]", async () => {
  const asked: [path: string, asked: string, chosen: string | null][] = [
    [V2, "phoenix", "phoenix"],
    [V2, "bar, phoenix", "phoenix"],
    [V2, "bar", null],
    ["/proto/websocket?vsn=2.0.0", "bar, foo", null],
  ];
  for (const [path, protocols, chosen] of asked) {
    const { status, headers } = await request(path, { ...UPGRADE, "sec-websocket-protocol": protocols });
    assertEquals([status, headers.get("sec-websocket-protocol")?.trim() ?? null], [101, chosen], protocols);
  }
});

/** Connects with each of the tokens as a subprotocol; that it arrived shows when the user of that name is disconnected. */
async function connectByToken(open: Open, tokens: [encoded: string, token: string][]): Promise<void> {
  const admin = await open();
  await play(...joins(admin, "1", "test:auth"));
  for (const [encoded, token] of tokens) {
    const protocols = { "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${encoded}` };
    const { status, headers } = await request("/auth/websocket?vsn=2.0.0", { ...UPGRADE, ...protocols });
    assertEquals([status, headers.get("sec-websocket-protocol")?.trim()], [101, "phoenix"], encoded);
    const holder = await TcpClient.open(server.port, "/auth/websocket?vsn=2.0.0", protocols);
    await play(
      [admin, ">>", ["1", "2", "test:auth", "disconnect", { id: `users:${token}` }]],
      [admin, "<<", ["1", "2", "test:auth", "phx_reply", ok()]],
    );
    assertEquals(await holder.closeCode(), 1001, encoded);
    holder.close();
  }
}

wire("a token arrives as a subprotocol, in either alphabet [12]", async (open) => {
  await connectByToken(open, [["dG9rZW4", "token"], ["dG9rZW4x", "token1"], ["fn5-", "~~~"], ["fn5+", "~~~"], ["Pj4-Pz8_", ">>>???"]]);
});

wire("a token arrives as a subprotocol, with a slash or padded [12]", async (open) => {
  await connectByToken(open, [["Pj4+Pz8/", ">>>???"], ["dG9rZW4=", "token"]]);
});

// B. V2 text codec

wire("a join, an echo of any JSON, a reply for every ref [15, 18, 19, 23]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", ["1", "1", "room:x", "phx_join", {}]],
    [a, "<<", ["1", "1", "room:x", "phx_reply", ok()]],
    // A sixth element is ignored. [16]
    [a, ">>", ["1", "2", "room:x", "echo", { n: 1 }, "sixth"]],
    [a, "<<", ["1", "2", "room:x", "phx_reply", ok({ n: 1 })]],
    [a, ">>", ["1", "3", "room:x", "echo", "str"]],
    [a, "<<", ["1", "3", "room:x", "phx_reply", ok("str")]],
    [a, ">>", ["1", "4", "room:x", "echo", [1]]],
    [a, "<<", ["1", "4", "room:x", "phx_reply", ok([1])]],
    [a, ">>", ["1", "5", "room:x", "echo", false]],
    [a, "<<", ["1", "5", "room:x", "phx_reply", ok(false)]],
    // The channel's join_ref, whatever the message had. [23]
    [a, ">>", [null, "6", "room:x", "echo", 0]],
    [a, "<<", ["1", "6", "room:x", "phx_reply", ok(0)]],
    [a, ">>", ["1", true, "room:x", "echo", {}]],
    [a, "<<", ["1", true, "room:x", "phx_reply", ok()]],
  );
});

wire("null is echoed as null [19]", async (open) => {
  const a = await open();
  await play(
    ...joins(a, "1", "room:null"),
    [a, ">>", ["1", "2", "room:null", "echo", null]],
    [a, "<<", ["1", "2", "room:null", "phx_reply", ok(null)]],
  );
});

wire("refs keep their type and are compared strictly [18]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", [1, 1, "room:refs", "phx_join", {}]],
    [a, "<<", [1, 1, "room:refs", "phx_reply", ok()]],
    [a, ">>", ["1", 2, "room:refs", "echo", {}]],
    [a, ">>", [1, 3.5, "room:refs", "echo", {}]],
    [a, "<<", [1, 3.5, "room:refs", "phx_reply", ok()]],
    [a, ">>", [1, null, "room:refs", "echo", {}]],
    [a, "<<", [1, null, "room:refs", "phx_reply", ok()]],
  );
});

wire("a topic, an event or a ref of the wrong type is answered invalid_frame, the socket stays [16, 18, 20, 34]", async (open) => {
  const a = await open();
  const long = "x".repeat(256);
  const refused: [sent: unknown[], ref: unknown, topic: string, message: string][] = [
    [["1", "1", null, "phx_join", {}], "1", "", "topic is not a string"],
    [["1", "2", 7, "phx_join", {}], "2", "", "topic is not a string"],
    [["1", "3", "room:x", null, {}], "3", "room:x", "event is not a string"],
    [["1", {}, "room:x", "echo", {}], null, "room:x", "ref is not a short JSON scalar"],
    [[[1], "5", "room:x", "echo", {}], "5", "room:x", "join_ref is not a short JSON scalar"],
    [["1", long, "room:x", "echo", {}], null, "room:x", "ref is not a short JSON scalar"],
  ];
  for (const [sent, ref, topic, message] of refused) {
    await play([a, ">>", sent], [a, "<<", [null, ref, topic, "phx_reply", error("invalid_frame", { message })]]);
  }
  const topic = `room:${"x".repeat(251)}`;
  await play(
    [a, ">>", ["6", "6", topic, "phx_join", {}]],
    [a, "<<", ["6", "6", topic, "phx_reply", error("invalid_frame", { message: "the topic is too long", limit: 255 })]],
  );
});

wire("what is no frame closes 1003, and nobody else notices [16, 17, 33, 36]", async (open) => {
  const witness = await open();
  await play(...joins(witness, "1", "room:w"));
  const garbage: [vsn: string, sent: string | Uint8Array][] = [
    ["2.0.0", ""],
    ["2.0.0", "not json"],
    ["2.0.0", '{"topic":"room:w","event":"phx_join","payload":{},"ref":"1"}'],
    ["2.0.0", '["1","1","room:w","phx_join"]'],
    ["2.0.0", "null"],
    ["2.0.0", bytes("")],
    ["2.0.0", bytes("01 01 01 06 04 '1' '1' 'room:w' 'echo'")],
    ["2.0.0", bytes("02 06 04 'room:w' 'echo'")],
    ["2.0.0", bytes("00 01 01 06")],
    ["2.0.0", bytes("00 01 01 06 05 '1' '1' 'room:w' 'echo'")],
    ["2.0.0", bytes("00 01 01 02 04 '1' '1' c3 28 'echo'")],
    ["1.0.0", ""],
    ["1.0.0", "42"],
    ["1.0.0", '["1","1","room:w","phx_join",{}]'],
    ["1.0.0", '{"event":"phx_join","payload":{},"ref":"1"}'],
    ["1.0.0", '{"topic":"room:w","payload":{},"ref":"1"}'],
    ["1.0.0", '{"topic":"room:w","event":"phx_join","ref":"1"}'],
    ["1.0.0", '{"topic":"room:w","event":"phx_join","payload":{}}'],
  ];
  await Promise.all(garbage.map(async ([vsn, sent]) => {
    const client = await open({ vsn });
    await play([client, ">>", sent], [client, "<<", closed(1003)]);
  }));
  await quiet(witness);
});

wire("text survives: NUL, U+2028, surrogate pairs, the last of two keys [24]", async (open) => {
  const a = await open();
  await play(
    ...joins(a, "1", "room:text"),
    [a, ">>", String.raw`["1","2","room:text","echo",{"a":1,"a":2,"text":"\u0000 \u2028 \ud83d\ude00 é","__proto__":{"x":1}}]`],
    [a, "<<", ["1", "2", "room:text", "phx_reply", ok(JSON.parse('{"a":2,"text":"\\u0000 \u2028 😀 é","__proto__":{"x":1}}'))]],
  );
});

wire("invalid UTF-8 closes 1007; no mask, a reserved bit, an unknown opcode 1002 [17]", async () => {
  const heartbeat = '[null,"1","phoenix","heartbeat",{}]';
  const broken: [code: number, send: (tcp: TcpClient) => Promise<void>][] = [
    [1007, (tcp) => tcp.frame(1, bytes("'[\"' c3 28 '\"]'"))],
    [1002, (tcp) => tcp.frame(1, heartbeat, { masked: false })],
    [1002, (tcp) => tcp.frame(1, heartbeat, { rsv: 4 })],
    [1002, (tcp) => tcp.frame(3, heartbeat)],
    [1002, (tcp) => tcp.frame(0, heartbeat)],
    [1002, (tcp) => tcp.frame(9, "ping", { fin: false })],
  ];
  for (const [code, send] of broken) {
    const tcp = await TcpClient.open(server.port);
    await send(tcp);
    assertEquals(await tcp.closeCode(), code, String(send));
    tcp.close();
  }
});

wire("a fragmented message is put together, a ping in between is answered at once [17]", async () => {
  const tcp = await TcpClient.open(server.port);
  await tcp.frame(1, '[null,"1","phoe', { fin: false });
  await tcp.frame(9, "are you there");
  const pong = await tcp.next();
  assertEquals({ opcode: pong.opcode, data: new TextDecoder().decode(pong.data) }, { opcode: 10, data: "are you there" });
  await tcp.frame(0, 'nix","heartb', { fin: false });
  await tcp.frame(0, 'eat",{}]');
  const reply = await tcp.next();
  assertEquals([reply.fin, reply.opcode], [true, 1]);
  assertEquals(JSON.parse(new TextDecoder().decode(reply.data)), [null, "1", "phoenix", "phx_reply", ok()]);
  tcp.close();
});

// C. V2 binary codec

wire("bytes both ways: push, reply, broadcast, each by its payload alone [25 to 30]", async (open) => {
  const a = await open();
  await play(
    ...joins(a, "1", "test:a"),
    [a, ">>", bytes("00 01 01 06 07 '1' '4' 'test:a' 'binecho' de ad")],
    [a, "<<", bytes("01 01 01 06 02 '1' '4' 'test:a' 'ok' de ad")],
    [a, ">>", ["1", "2", "test:a", "pushbin", {}]],
    [a, "<<", bytes("00 01 06 06 '1' 'test:a' 'pushed' 01 02 03")],
    [a, "<<", bytes("01 01 01 06 02 '1' '2' 'test:a' 'ok' 04 05 06")],
    [a, ">>", ["1", "3", "test:a", "bcastbin", {}]],
    [a, "<<", bytes("02 06 03 'test:a' 'bin' 07 08 09")],
    [a, "<<", ["1", "3", "test:a", "phx_reply", ok()]],
    [a, ">>", bytes("00 01 01 06 07 '1' '5' 'test:a' 'bininfo' 00 ff 80")],
    [a, "<<", ["1", "5", "test:a", "phx_reply", ok({ size: 3 })]],
    [a, ">>", bytes("00 01 01 06 07 '1' '6' 'test:a' 'binecho'")],
    [a, "<<", bytes("01 01 01 06 02 '1' '6' 'test:a' 'ok'")],
  );
});

wire("an empty ref is an empty string; an empty join_ref is one too, and matches nothing [31]", async (open) => {
  const a = await open();
  await play(
    ...joins(a, "1", "test:a"),
    [a, ">>", bytes("00 00 01 06 07 '5' 'test:a' 'binecho' de ad")],
    [a, ">>", bytes("00 01 00 06 07 '1' 'test:a' 'binecho' de ad")],
    [a, "<<", bytes("01 01 00 06 02 '1' 'test:a' 'ok' de ad")],
    [a, ">>", bytes("00 01 00 06 07 '1' 'test:a' 'bininfo' de ad")],
    [a, "<<", ["1", "", "test:a", "phx_reply", ok({ size: 2 })]],
  );
});

wire("a binary frame can carry a heartbeat and a join [32]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", bytes("00 00 01 07 09 '5' 'phoenix' 'heartbeat'")],
    [a, "<<", [null, "5", "phoenix", "phx_reply", ok()]],
    [a, ">>", bytes("00 01 01 06 04 '1' '6' 'room:u' 'echo' 01")],
    [a, "<<", [null, "6", "room:u", "phx_reply", unmatched]],
    [a, ">>", bytes("00 01 01 0c 08 '1' '1' 'test:payload' 'phx_join' ca fe")],
    [a, "<<", bytes("01 01 01 0c 02 '1' '1' 'test:payload' 'ok' ca fe")],
    [a, ">>", ["1", "2", "test:payload", "echo", { a: 1 }]],
    [a, "<<", ["1", "2", "test:payload", "phx_reply", ok({ a: 1 })]],
  );
});

wire("names of 255 bytes fit a binary frame, counted in UTF-8; a null join_ref is of length 0 [34, 35]", async (open) => {
  const a = await open();
  const topic = `test:${"é".repeat(125)}`;
  await play(
    [a, ">>", [null, null, topic, "phx_join", {}]],
    [a, "<<", [null, null, topic, "phx_reply", ok()]],
    [a, ">>", [null, null, topic, "pushbin", {}]],
    [a, "<<", bytes(`00 00 ff 06 '${topic}' 'pushed' 01 02 03`)],
    [a, "<<", bytes(`01 00 00 ff 02 '${topic}' 'ok' 04 05 06`)],
  );
});

// D. V1

wire("V1 speaks objects of five keys; join_ref may be left out [36, 37]", async (open) => {
  const a = await open({ vsn: "1.0.0" });
  await play(
    [a, ">>", { topic: "test:v1", event: "phx_join", payload: {}, ref: "1", join_ref: "1" }],
    [a, "<<", { topic: "test:v1", event: "phx_reply", payload: { status: "ok", response: {} }, ref: "1", join_ref: "1" }],
    [a, ">>", { topic: "test:v1", event: "push", payload: { x: 1 }, ref: "2" }],
    [a, "<<", { topic: "test:v1", event: "pushed", payload: { x: 1 }, ref: null, join_ref: "1" }],
    [a, "<<", { topic: "test:v1", event: "phx_reply", payload: { status: "ok", response: {} }, ref: "2", join_ref: "1" }],
    [a, ">>", { topic: "test:v1", event: "bcast_then_push", payload: {}, ref: "3" }],
    [a, "<<", { topic: "test:v1", event: "b1", payload: {}, ref: null, join_ref: null }],
    [a, "<<", { topic: "test:v1", event: "p1", payload: {}, ref: null, join_ref: "1" }],
    [a, "<<", { topic: "test:v1", event: "b2", payload: {}, ref: null, join_ref: null }],
    [a, "<<", { topic: "test:v1", event: "phx_reply", payload: { status: "ok", response: {} }, ref: "3", join_ref: "1" }],
    // Stale: dropped. [38, 63]
    [a, ">>", { topic: "test:v1", event: "echo", payload: {}, ref: "4", join_ref: "9" }],
    [a, ">>", { topic: "test:v1", event: "crash", payload: {}, ref: "5" }],
    [a, "<<", { topic: "test:v1", event: "phx_error", payload: crashed, ref: "1", join_ref: "1" }],
    // JSON text in a binary frame works. [39]
    [a, ">>", new TextEncoder().encode('{"topic":"nomatch","event":"phx_join","payload":{},"ref":"6","join_ref":"6"}')],
    [a, "<<", { topic: "nomatch", event: "phx_reply", payload: unmatched, ref: "6", join_ref: null }],
  );
});

wire("a V1 join without join_ref: phx_close and phx_error carry ref null [38]", async (open) => {
  const a = await open({ vsn: "1.0.0" });
  await play(
    [a, ">>", v1(undefined, "1", "test:v1n", "phx_join", {})],
    [a, "<<", v1(null, "1", "test:v1n", "phx_reply", ok())],
    [a, ">>", v1("7", "2", "test:v1n", "echo", {})],
    [a, ">>", v1(undefined, "3", "test:v1n", "phx_leave", {})],
    [a, "<<", v1("1", "3", "test:v1n", "phx_reply", ok())],
    [a, "<<", v1(null, null, "test:v1n", "phx_close", {})],
    [a, ">>", v1(undefined, "4", "test:v1n", "phx_join", {})],
    [a, "<<", v1(null, "4", "test:v1n", "phx_reply", ok())],
    [a, ">>", v1(undefined, "5", "test:v1n", "crash", {})],
    [a, "<<", v1(null, null, "test:v1n", "phx_error", crashed)],
  );
});

wire("V1 and V2 share topics; a binary broadcast passes V1 by, a binary reply is refused there [40, 41]", async (open) => {
  const [one, two] = [await open({ vsn: "1.0.0" }), await open()];
  await play(
    [one, ">>", v1("1", "1", "test:mixed", "phx_join", {})],
    [one, "<<", v1("1", "1", "test:mixed", "phx_reply", ok())],
    ...joins(two, "1", "test:mixed"),
    [two, ">>", ["1", "2", "test:mixed", "bcast_then_push", {}]],
    [two, "<<", [null, null, "test:mixed", "b1", {}]],
    [two, "<<", ["1", null, "test:mixed", "p1", {}]],
    [two, "<<", [null, null, "test:mixed", "b2", {}]],
    [two, "<<", ["1", "2", "test:mixed", "phx_reply", ok()]],
    [one, "<<", v1(null, null, "test:mixed", "b1", {})],
    [one, "<<", v1(null, null, "test:mixed", "b2", {})],
    [two, ">>", ["1", "3", "test:mixed", "bcastbin", {}]],
    [two, "<<", bytes("02 0a 03 'test:mixed' 'bin' 07 08 09")],
    [two, "<<", ["1", "3", "test:mixed", "phx_reply", ok()]],
    [one, ">>", v1("1", "4", "test:mixed", "pushbin", {})],
    [one, "<<", v1("1", "4", "test:mixed", "phx_reply", error("binary_not_supported"))],
  );
});

// E. Heartbeat and socket level

wire("a heartbeat needs no channel and ignores its join_ref; nothing else lives on phoenix [43, 44]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", [null, "5", "phoenix", "heartbeat", {}]],
    [a, "<<", [null, "5", "phoenix", "phx_reply", ok()]],
    [a, ">>", ["1", 6, "phoenix", "heartbeat", "ignored"]],
    [a, "<<", [null, 6, "phoenix", "phx_reply", ok()]],
    [a, ">>", ["7", "7", "phoenix", "phx_join", {}]],
    [a, "<<", [null, "7", "phoenix", "phx_reply", unmatched]],
    [a, ">>", [null, "8", "phoenix", "other", {}]],
    [a, "<<", [null, "8", "phoenix", "phx_reply", unmatched]],
  );
});

wire("a socket that sends nothing is closed 1001, whatever it hears; a ping keeps it [45]", async (open) => {
  const short = { path: "/short/websocket" };
  const [silent, pinging, speaker] = [await open(short), await open(short), await open()];
  const opened = Date.now();
  await play(...joins(silent, "1", "room:idle"));
  await play(...joins(speaker, "1", "room:idle"));
  const beat = setInterval(() => {
    pinging.ws.ping();
    speaker.send(["1", null, "room:idle", "shout", {}]);
  }, 250);
  const { code } = await silent.closed;
  clearInterval(beat);
  const after = Date.now() - opened;
  assertEquals(code, 1001);
  assert(after >= 1500 && after < 4000, `closed after ${after} ms`);
  await quiet(pinging);
});

wire("a message above the cap is closed 1009, in one frame or in pieces; one payload above its own is refused [46]", async (open) => {
  const short = { path: "/short/websocket" };
  const heartbeat = (length: number) => `[null,"1","phoenix","heartbeat","${"x".repeat(length - 35)}"]`;
  assertEquals(heartbeat(2000).length, 2000);
  const fits = await open(short);
  await play([fits, ">>", heartbeat(2000)], [fits, "<<", [null, "1", "phoenix", "phx_reply", ok()]]);
  await play([fits, ">>", heartbeat(2001)], [fits, "<<", closed(1009)]);
  const pieces = await TcpClient.open(server.port, "/short/websocket?vsn=2.0.0");
  await pieces.frame(1, "x".repeat(1500), { fin: false });
  await pieces.frame(0, "x".repeat(1500), { fin: false });
  assertEquals(await pieces.closeCode(), 1009);
  pieces.close();
  const large = await open();
  await play(
    ...joins(large, "1", "room:large"),
    [large, ">>", ["1", "2", "room:large", "echo", "é".repeat(65_534)]],
    [large, "<<", ["1", "2", "room:large", "phx_reply", ok("é".repeat(65_534))]],
    [large, ">>", ["1", "3", "room:large", "echo", "é".repeat(65_535)]],
    [large, "<<", ["1", "3", "room:large", "phx_reply", error("payload_too_large", { limit: 65_536 })]],
    [large, ">>", heartbeat(524_289)],
    [large, "<<", closed(1009)],
  );
});

wire("the 101st topic is refused, a rejoin and a place that was left are not [47, 106]", async (open) => {
  const a = await open();
  const join = (index: number, ref = String(index)) => [ref, ref, `room:${index}`, "phx_join", {}];
  const joined = (index: number, ref = String(index)) => [ref, ref, `room:${index}`, "phx_reply", ok()];
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
  await play(
    ...hundred.map((index): Line => [a, ">>", join(index)]),
    [a, ">>", join(101)],
    ...hundred.map((index): Line => [a, "<<", joined(index)]),
    [a, "<<", ["101", "101", "room:101", "phx_reply", error("too many channels joined", { limit: 100 })]],
    [a, ">>", join(7, "102")],
    [a, "<<", joined(7, "102")],
    [a, "<<", ["7", "7", "room:7", "phx_close", {}]],
    [a, ">>", ["1", "103", "room:1", "phx_leave", {}]],
    [a, "<<", ["1", "103", "room:1", "phx_reply", ok()]],
    [a, "<<", ["1", "1", "room:1", "phx_close", {}]],
    [a, ">>", join(101)],
    [a, "<<", joined(101)],
  );
});

wire("joins that are refused in the same burst take nobody's place [47]", async (open) => {
  const a = await open();
  const hundred = Array.from({ length: 100 }, (_, index) => String(index + 1));
  await play(
    ...hundred.map((ref): Line => [a, ">>", [ref, ref, `test:${ref}`, "phx_join", { refuse: true }]]),
    [a, ">>", ["101", "101", "test:101", "phx_join", {}]],
    ...hundred.map((ref): Line => [a, "<<", [ref, ref, `test:${ref}`, "phx_reply", error("unauthorized")]]),
    [a, "<<", ["101", "101", "test:101", "phx_reply", ok()]],
  );
});

wire("a client's close is answered with its own code [48, 112]", async (open) => {
  for (const code of [1000, 1001, 3000, 4999]) {
    const client = await open();
    client.ws.close(code);
    assertEquals((await client.closed).code, code);
  }
  const silent = await open();
  silent.ws.close();
  assertEquals((await silent.closed).code, 1005);
});

wire("disconnect closes every socket of that user 1001, without a frame on any channel [49]", async (open) => {
  const [watcher, admin, other] = [await open(), await open(), await open({ user_id: "43" })];
  const [joined, unjoined, old] = [await open({ user_id: "42" }), await open({ user_id: "42" }), await open({ user_id: "42", vsn: "1.0.0" })];
  const topic = "presence:users";
  await play(
    [watcher, ">>", ["1", "1", topic, "phx_join", { key: "w" }]],
    [watcher, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [watcher, "<<", ["1", null, topic, "presence_state", { w: metas("R1") }]],
    [watcher, "<<", diff(topic, { w: metas("R1") }, {})],
    [joined, ">>", ["1", "1", topic, "phx_join", { key: "u" }]],
    [joined, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [joined, "<<", ["1", null, topic, "presence_state", { w: metas("R1"), u: metas("R2") }]],
    [joined, "<<", diff(topic, { u: metas("R2") }, {})],
    [watcher, "<<", diff(topic, { u: metas("R2") }, {})],
    ...joins(admin, "1", "test:admin"),
    ...joins(other, "1", "test:admin"),
    [old, ">>", v1("1", "1", "test:admin", "phx_join", {})],
    [old, "<<", v1("1", "1", "test:admin", "phx_reply", ok())],
    [admin, ">>", ["1", "2", "test:admin", "disconnect", { id: "users:42" }]],
    [admin, "<<", ["1", "2", "test:admin", "phx_reply", ok()]],
    [joined, "<<", closed(1001)],
    [unjoined, "<<", closed(1001)],
    [old, "<<", closed(1001)],
    [watcher, "<<", diff(topic, {}, { u: metas("R2") })],
    [other, ">>", ["1", "2", "test:admin", "echo", {}]],
    [other, "<<", ["1", "2", "test:admin", "phx_reply", ok()]],
  );
});

// F. Join

wire("a pattern matches from its start: room:* takes room: and room:x, exact itself only [53, 54]", async (open) => {
  const a = await open();
  for (const topic of ["room:", "room:x", "room:x:y", "room:{*}", "exact"]) {
    await play([a, ">>", ["1", "1", topic, "phx_join", {}]], [a, "<<", ["1", "1", topic, "phx_reply", ok()]]);
  }
  for (const topic of ["nomatch", "room", "exact:", "exactly", "Room:x", "xroom:x", "", "constructor", "__proto__:x"]) {
    await play([a, ">>", ["1", "1", topic, "phx_join", {}]], [a, "<<", [null, "1", topic, "phx_reply", unmatched]]);
  }
});

wire("a join replies what it returns, is refused, or crashes; the socket survives [52, 55, 56]", async (open) => {
  const a = await open();
  const answers: [topic: string, payload: unknown, answer: unknown][] = [
    ["test:payload", { deep: [1, { x: null }] }, ok({ deep: [1, { x: null }] })],
    ["test:err", {}, error("unauthorized")],
    ["test:joincrash", {}, error("join crashed")],
    ["test:badjoin", {}, error("join crashed")],
    ["test:exit", {}, error("join crashed")],
  ];
  for (const [topic, payload, answer] of answers) {
    await play([a, ">>", ["1", "1", topic, "phx_join", payload]], [a, "<<", ["1", "1", topic, "phx_reply", answer]]);
  }
  await play([a, ">>", ["1", "2", "test:err", "echo", {}]], [a, "<<", [null, "2", "test:err", "phx_reply", unmatched]]);
});

wire("a join without join_ref: pushes and replies take its ref, phx_close null [52]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", [null, "1", "test:n", "phx_join", {}]],
    [a, "<<", [null, "1", "test:n", "phx_reply", ok()]],
    [a, ">>", [null, "2", "test:n", "push", { x: 1 }]],
    [a, "<<", ["1", null, "test:n", "pushed", { x: 1 }]],
    [a, "<<", ["1", "2", "test:n", "phx_reply", ok()]],
    [a, ">>", [null, "3", "test:n", "phx_leave", {}]],
    [a, "<<", ["1", "3", "test:n", "phx_reply", ok()]],
    [a, "<<", [null, null, "test:n", "phx_close", {}]],
  );
});

wire("a slow join holds back what its socket sent behind it, and nobody else [57, 58, 103]", async (open) => {
  const [a, b] = [await open(), await open()];
  await play(
    [a, ">>", ["1", "1", "test:slow", "phx_join", {}]],
    [a, ">>", [null, "2", "phoenix", "heartbeat", {}]],
    [a, ">>", ["3", "3", "room:z", "phx_join", {}]],
    [a, ">>", ["1", "4", "test:slow", "echo", { x: 1 }]],
    [a, ">>", ["3", "5", "room:z", "echo", {}]],
    [a, ">>", ["1", "6", "test:slow", "phx_leave", {}]],
    [b, ">>", [null, "1", "phoenix", "heartbeat", {}]],
    [b, "<<", [null, "1", "phoenix", "phx_reply", ok()]],
    [a, "<<", ["1", "1", "test:slow", "phx_reply", ok()]],
    [a, "<<", [null, "2", "phoenix", "phx_reply", ok()]],
    [a, "<<", ["3", "3", "room:z", "phx_reply", ok()]],
    [a, "<<", ["1", "4", "test:slow", "phx_reply", ok({ x: 1 })]],
    [a, "<<", ["3", "5", "room:z", "phx_reply", ok()]],
    [a, "<<", ["1", "6", "test:slow", "phx_reply", ok()]],
    [a, "<<", ["1", "1", "test:slow", "phx_close", {}]],
  );
});

wire("join and push in one burst: the push comes after the join, or meets no channel [58]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", ["1", "1", "room:b", "phx_join", {}]],
    [a, ">>", ["1", "2", "room:b", "echo", { x: 1 }]],
    [a, "<<", ["1", "1", "room:b", "phx_reply", ok()]],
    [a, "<<", ["1", "2", "room:b", "phx_reply", ok({ x: 1 })]],
    [a, ">>", ["3", "3", "test:err", "phx_join", {}]],
    [a, ">>", ["3", "4", "test:err", "echo", {}]],
    [a, "<<", ["3", "3", "test:err", "phx_reply", error("unauthorized")]],
    [a, "<<", [null, "4", "test:err", "phx_reply", unmatched]],
  );
});

wire("what a join broadcasts misses the joiner, what it pushes follows its reply [59, 60]", async (open) => {
  const [a, b] = [await open(), await open()];
  await play(
    [a, ">>", ["1", "1", "test:bcastjoin", "phx_join", {}]],
    [a, "<<", ["1", "1", "test:bcastjoin", "phx_reply", ok()]],
    [b, ">>", ["2", "2", "test:bcastjoin", "phx_join", {}]],
    [b, "<<", ["2", "2", "test:bcastjoin", "phx_reply", ok()]],
    [a, "<<", [null, null, "test:bcastjoin", "injoin", {}]],
    [a, ">>", ["3", "3", "test:pushafter", "phx_join", {}]],
    [a, "<<", ["3", "3", "test:pushafter", "phx_reply", ok()]],
    [a, "<<", ["3", null, "test:pushafter", "hello", { a: 1 }]],
  );
});

wire("a second join replaces the first: reply, phx_close of the old, pushes of the new; the old join_ref is dead [61, 63]", async (open) => {
  const a = await open();
  const topic = "test:pushafter";
  await play(
    [a, ">>", ["1", "1", topic, "phx_join", {}]],
    [a, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [a, "<<", ["1", null, topic, "hello", { a: 1 }]],
    [a, ">>", ["2", "2", topic, "phx_join", {}]],
    [a, "<<", ["2", "2", topic, "phx_reply", ok()]],
    [a, "<<", ["1", "1", topic, "phx_close", {}]],
    [a, "<<", ["2", null, topic, "hello", { a: 1 }]],
    [a, ">>", ["1", "3", topic, "echo", {}]],
    [a, ">>", ["2", "4", topic, "echo", {}]],
    [a, "<<", ["2", "4", topic, "phx_reply", ok()]],
    [a, ">>", [null, "5", topic, "echo", {}]],
    [a, "<<", ["2", "5", topic, "phx_reply", ok()]],
    // One broadcast, heard once.
    [a, ">>", ["2", "6", topic, "bcastbin", {}]],
    [a, "<<", bytes("02 0e 03 'test:pushafter' 'bin' 07 08 09")],
    [a, "<<", ["2", "6", topic, "phx_reply", ok()]],
    // In one burst.
    [a, ">>", ["7", "7", topic, "phx_join", {}]],
    [a, ">>", ["8", "8", topic, "phx_join", {}]],
    [a, "<<", ["7", "7", topic, "phx_reply", ok()]],
    [a, "<<", ["2", "2", topic, "phx_close", {}]],
    [a, "<<", ["7", null, topic, "hello", { a: 1 }]],
    [a, "<<", ["8", "8", topic, "phx_reply", ok()]],
    [a, "<<", ["7", "7", topic, "phx_close", {}]],
    [a, "<<", ["8", null, topic, "hello", { a: 1 }]],
  );
});

wire("a refused rejoin ends the old join too [62]", async (open) => {
  const [a, b] = [await open(), await open()];
  await play(
    [a, ">>", ["1", "1", "test:again", "phx_join", {}]],
    [a, "<<", ["1", "1", "test:again", "phx_reply", ok()]],
    [a, ">>", ["2", "2", "test:again", "phx_join", { refuse: true }]],
    [a, "<<", ["2", "2", "test:again", "phx_reply", error("unauthorized")]],
    [a, "<<", ["1", "1", "test:again", "phx_close", {}]],
    [a, ">>", [null, "3", "test:again", "echo", {}]],
    [a, "<<", [null, "3", "test:again", "phx_reply", unmatched]],
    [b, ">>", ["1", "1", "test:again", "phx_join", {}]],
    [b, "<<", ["1", "1", "test:again", "phx_reply", ok()]],
    [b, ">>", ["1", "2", "test:again", "bcastbin", {}]],
    [b, "<<", bytes("02 0a 03 'test:again' 'bin' 07 08 09")],
    [b, "<<", ["1", "2", "test:again", "phx_reply", ok()]],
    [a, ">>", ["4", "4", "test:again", "phx_join", {}]],
    [a, "<<", ["4", "4", "test:again", "phx_reply", ok()]],
  );
});

wire("a rejoin that is refused for its form ends the old join too [62]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", ["1", "1", "room:form", "phx_join", {}]],
    [a, "<<", ["1", "1", "room:form", "phx_reply", ok()]],
    [a, ">>", ["2", "2", "room:form", "phx_join", { x: "x".repeat(65_536) }]],
    [a, "<<", ["2", "2", "room:form", "phx_reply", error("payload_too_large", { limit: 65_536 })]],
    [a, "<<", ["1", "1", "room:form", "phx_close", {}]],
    [a, ">>", [null, "3", "room:form", "echo", {}]],
    [a, "<<", [null, "3", "room:form", "phx_reply", unmatched]],
  );
});

wire("one topic on two sockets is two channels [64]", async (open) => {
  const [a, b] = [await open({ user_id: "same" }), await open({ user_id: "same" })];
  await play(
    [a, ">>", ["1", "1", "room:two", "phx_join", {}]],
    [a, "<<", ["1", "1", "room:two", "phx_reply", ok()]],
    [b, ">>", ["1", "1", "room:two", "phx_join", {}]],
    [b, "<<", ["1", "1", "room:two", "phx_reply", ok()]],
    [a, ">>", ["1", "2", "room:two", "phx_leave", {}]],
    [a, "<<", ["1", "2", "room:two", "phx_reply", ok()]],
    [a, "<<", ["1", "1", "room:two", "phx_close", {}]],
    [b, ">>", ["1", "2", "room:two", "echo", {}]],
    [b, "<<", ["1", "2", "room:two", "phx_reply", ok()]],
  );
});

// G. Push and reply

wire("replies: unmatched, ref null, none, late, error, a list [65, 66, 68, 69]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", ["1", "2", "test:g", "echo", {}]],
    [a, "<<", [null, "2", "test:g", "phx_reply", unmatched]],
    ...joins(a, "1", "test:g"),
    [a, ">>", ["1", null, "test:g", "echo", { x: 1 }]],
    [a, "<<", ["1", null, "test:g", "phx_reply", ok({ x: 1 })]],
    [a, ">>", ["1", "3", "test:g", "noreply", {}]],
    [a, ">>", ["1", "4", "test:g", "async", {}]],
    [a, ">>", ["1", "5", "test:g", "listreply", {}]],
    [a, "<<", ["1", "5", "test:g", "phx_reply", ok([1, 2])]],
    [a, "<<", ["1", "4", "test:g", "phx_reply", ok({ later: true })]],
    [a, ">>", ["1", "6", "test:g", "err", {}]],
    [a, "<<", ["1", "6", "test:g", "phx_reply", { status: "error", response: {} }]],
    [a, ">>", ["1", "7", "test:g", "errp", {}]],
    [a, "<<", ["1", "7", "test:g", "phx_reply", error("bad")]],
    [a, ">>", ["1", "8", "test:g", "push", { x: 1 }]],
    [a, "<<", ["1", null, "test:g", "pushed", { x: 1 }]],
    [a, "<<", ["1", "8", "test:g", "phx_reply", ok()]],
  );
});

// H. Broadcast and ordering

wire("a broadcast precedes the reply to what caused it; others hear the broadcasts only [71]", async (open) => {
  const [a, b] = [await open(), await open()];
  await play(
    ...joins(a, "1", "test:h"),
    ...joins(b, "9", "test:h"),
    [a, ">>", ["1", "2", "test:h", "bcast_then_push", {}]],
    [a, "<<", [null, null, "test:h", "b1", {}]],
    [a, "<<", ["1", null, "test:h", "p1", {}]],
    [a, "<<", [null, null, "test:h", "b2", {}]],
    [a, "<<", ["1", "2", "test:h", "phx_reply", ok()]],
    [b, "<<", [null, null, "test:h", "b1", {}]],
    [b, "<<", [null, null, "test:h", "b2", {}]],
  );
});

wire("broadcast reaches the sender, broadcast_from skips that session only [22, 72]", async (open) => {
  const [a, twin, b] = [await open({ user_id: "twin" }), await open({ user_id: "twin" }), await open()];
  for (const client of [a, twin, b]) {
    await play(...joins(client, "1", "room:h"));
  }
  const heard = [null, null, "room:h", "shout", { x: 1 }];
  await play(
    [a, ">>", ["1", "2", "room:h", "shout", { x: 1 }]],
    [a, "<<", heard],
    [a, "<<", ["1", "2", "room:h", "phx_reply", ok()]],
    [twin, "<<", heard],
    [b, "<<", heard],
    [a, ">>", ["1", "3", "room:h", "shout_from", { x: 1 }]],
    [a, "<<", ["1", "3", "room:h", "phx_reply", ok()]],
    [twin, "<<", heard],
    [b, "<<", heard],
  );
});

wire("one sender's broadcasts arrive in order, each once [74]", async (open) => {
  const [a, b] = [await open(), await open()];
  for (const client of [a, b]) {
    await play(...joins(client, "1", "room:fifo"));
  }
  const numbers = Array.from({ length: 300 }, (_, n) => n);
  await play(
    ...numbers.map((n): Line => [a, ">>", ["1", n, "room:fifo", "shout", { n }]]),
    ...numbers.map((n): Line => [b, "<<", [null, null, "room:fifo", "shout", { n }]]),
    ...numbers.flatMap((n): Line[] => [[a, "<<", [null, null, "room:fifo", "shout", { n }]], [a, "<<", ["1", n, "room:fifo", "phx_reply", ok()]]]),
  );
});

// I. Crash, stop, leave

wire("a crash is phx_error for that session alone, and a rejoin works at once [19, 67, 70, 76]", async (open) => {
  const [a, b] = [await open(), await open()];
  for (const client of [a, b]) {
    await play(...joins(client, "1", "test:i"));
  }
  await play(
    ...joins(a, "2", "room:i"),
    [a, ">>", ["1", "3", "test:i", "crash", {}]],
    [a, "<<", ["1", "1", "test:i", "phx_error", crashed]],
    [a, ">>", ["1", "4", "test:i", "echo", {}]],
    [a, "<<", [null, "4", "test:i", "phx_reply", unmatched]],
    [a, ">>", ["2", "5", "room:i", "echo", {}]],
    [a, "<<", ["2", "5", "room:i", "phx_reply", ok()]],
    [b, ">>", ["1", "2", "test:i", "echo", {}]],
    [b, "<<", ["1", "2", "test:i", "phx_reply", ok()]],
  );
  const crashes: [event: string, payload: unknown][] = [["stop_err", {}], ["unknown", {}], ["constructor", {}], ["__proto__", {}], ["push", "str"], ["push", [
    1,
  ]]];
  for (const [event, payload] of crashes) {
    await play(
      ...joins(a, "6", "test:i"),
      [a, ">>", ["6", "7", "test:i", event, payload]],
      [a, "<<", ["6", "6", "test:i", "phx_error", crashed]],
    );
  }
  // What was queued behind it finds no channel; Phoenix says nothing there, its clients take either. [70]
  await play(
    [a, ">>", ["8", "8", "test:i", "phx_join", {}]],
    [a, ">>", ["8", "9", "test:i", "crash", {}]],
    [a, ">>", ["8", "10", "test:i", "echo", {}]],
    [a, ">>", ["11", "11", "test:i", "phx_join", {}]],
    [a, "<<", ["8", "8", "test:i", "phx_reply", ok()]],
    [a, "<<", ["8", "8", "test:i", "phx_error", crashed]],
    [a, "<<", [null, "10", "test:i", "phx_reply", unmatched]],
    [a, "<<", ["11", "11", "test:i", "phx_reply", ok()]],
  );
});

wire("a stop is phx_close, after the reply where there is one [77, 78]", async (open) => {
  const a = await open();
  const stops: [event: string, reply: unknown][] = [
    ["stop_normal", null],
    ["stop_shutdown", null],
    ["stop_shutdown_t", null],
    ["stop_reply", ok({ bye: 1 })],
    ["delay_stop", ok()],
  ];
  for (const [event, reply] of stops) {
    await play(
      ...joins(a, "1", "test:stop"),
      [a, ">>", ["1", "2", "test:stop", event, {}]],
      ...(reply ? [[a, "<<", ["1", "2", "test:stop", "phx_reply", reply]]] as Line[] : []),
      [a, "<<", ["1", "1", "test:stop", "phx_close", {}]],
      [a, ">>", ["1", "3", "test:stop", "echo", {}]],
      [a, "<<", [null, "3", "test:stop", "phx_reply", unmatched]],
    );
  }
});

wire("leave: reply, then phx_close; stale is ignored, unjoined is fine [79, 80, 81]", async (open) => {
  const a = await open();
  await play(
    ...joins(a, "1", "room:l"),
    [a, ">>", ["0", "2", "room:l", "phx_leave", {}]],
    [a, ">>", ["1", "3", "room:l", "echo", {}]],
    [a, "<<", ["1", "3", "room:l", "phx_reply", ok()]],
    [a, ">>", ["1", "4", "room:l", "phx_leave", {}]],
    [a, "<<", ["1", "4", "room:l", "phx_reply", ok()]],
    [a, "<<", ["1", "1", "room:l", "phx_close", {}]],
    [a, ">>", ["1", "5", "room:l", "phx_leave", {}]],
    [a, "<<", ["1", "5", "room:l", "phx_reply", ok()]],
    [a, ">>", ["6", "6", "nomatch", "phx_leave", {}]],
    [a, "<<", ["6", "6", "nomatch", "phx_reply", ok()]],
    ...joins(a, "7", "room:l"),
    [a, ">>", [null, "8", "room:l", "phx_leave", {}]],
    [a, "<<", ["7", "8", "room:l", "phx_reply", ok()]],
    [a, "<<", ["7", "7", "room:l", "phx_close", {}]],
  );
});

wire("a leave behind a refused join, in one burst, is answered as for any topic that is not joined [58, 81]", async (open) => {
  const a = await open();
  await play(
    [a, ">>", ["1", "1", "test:err", "phx_join", {}]],
    [a, ">>", ["1", "2", "test:err", "phx_leave", {}]],
    [a, "<<", ["1", "1", "test:err", "phx_reply", error("unauthorized")]],
    [a, "<<", ["1", "2", "test:err", "phx_reply", ok()]],
  );
});

wire("leave, join and push in one burst end joined by the newest [82, 83, 104]", async (open) => {
  const a = await open();
  await play(
    ...joins(a, "1", "room:burst"),
    [a, ">>", ["1", "2", "room:burst", "phx_leave", {}]],
    [a, ">>", ["3", "3", "room:burst", "phx_join", {}]],
    [a, ">>", ["1", "4", "room:burst", "echo", "stale"]],
    [a, ">>", ["3", "5", "room:burst", "echo", {}]],
    [a, "<<", ["1", "2", "room:burst", "phx_reply", ok()]],
    [a, "<<", ["1", "1", "room:burst", "phx_close", {}]],
    [a, "<<", ["3", "3", "room:burst", "phx_reply", ok()]],
    [a, "<<", ["3", "5", "room:burst", "phx_reply", ok()]],
    [a, ">>", ["3", "6", "room:burst", "shout", { x: 1 }]],
    [a, "<<", [null, null, "room:burst", "shout", { x: 1 }]],
    [a, "<<", ["3", "6", "room:burst", "phx_reply", ok()]],
    // Leave and push: the push finds no channel.
    [a, ">>", ["3", "7", "room:burst", "phx_leave", {}]],
    [a, ">>", ["3", "8", "room:burst", "echo", {}]],
    [a, "<<", ["3", "7", "room:burst", "phx_reply", ok()]],
    [a, "<<", ["3", "3", "room:burst", "phx_close", {}]],
    [a, "<<", [null, "8", "room:burst", "phx_reply", unmatched]],
    // Join and leave before anything was answered.
    [a, ">>", ["9", "9", "room:burst", "phx_join", {}]],
    [a, ">>", ["9", "10", "room:burst", "phx_leave", {}]],
    [a, ">>", ["11", "11", "room:burst", "phx_join", {}]],
    [a, "<<", ["9", "9", "room:burst", "phx_reply", ok()]],
    [a, "<<", ["9", "10", "room:burst", "phx_reply", ok()]],
    [a, "<<", ["9", "9", "room:burst", "phx_close", {}]],
    [a, "<<", ["11", "11", "room:burst", "phx_reply", ok()]],
  );
});

// J. Presence

wire("presence: the joiner gets state and diff, the others the diff; two sockets under one key are two metas [85 to 89, 93]", async (open) => {
  const [a, b] = [await open(), await open()];
  const topic = "presence:two";
  await play(
    [a, ">>", ["1", "1", topic, "phx_join", { key: "u1" }]],
    [a, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [a, "<<", ["1", null, topic, "presence_state", { u1: metas("R1") }]],
    [a, "<<", diff(topic, { u1: metas("R1") }, {})],
    [b, ">>", ["5", "5", topic, "phx_join", { key: "u1" }]],
    [b, "<<", ["5", "5", topic, "phx_reply", ok()]],
    [b, "<<", ["5", null, topic, "presence_state", { u1: metas("R1", "R2") }]],
    [b, "<<", diff(topic, { u1: metas("R2") }, {})],
    [a, "<<", diff(topic, { u1: metas("R2") }, {})],
    [a, ">>", ["1", "2", topic, "list", {}]],
    [a, "<<", ["1", "2", topic, "phx_reply", ok({ u1: metas("R1", "R2") })]],
    // The leaver gets reply and phx_close, and not the diff. [93]
    [b, ">>", ["5", "6", topic, "phx_leave", {}]],
    [b, "<<", ["5", "6", topic, "phx_reply", ok()]],
    [b, "<<", ["5", "5", topic, "phx_close", {}]],
    [a, "<<", diff(topic, {}, { u1: metas("R2") })],
  );
});

wire("presence: an update is one diff that links what it replaced, untrack leaves the channel joined [90, 91, 92]", async (open) => {
  const [a, b] = [await open(), await open({ vsn: "1.0.0" })];
  const topic = "presence:update";
  const both = (joins: object, leaves: object): Line[] => [
    [a, "<<", diff(topic, joins, leaves)],
    [b, "<<", v1(null, null, topic, "presence_diff", { joins, leaves })],
  ];
  const second = { s: 1, phx_ref: "R3", phx_ref_prev: "R1" };
  const third = { s: 2, phx_ref: "R4", phx_ref_prev: "R3" };
  await play(
    [a, ">>", ["1", "1", topic, "phx_join", { key: "u1" }]],
    [a, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [a, "<<", ["1", null, topic, "presence_state", { u1: metas("R1") }]],
    [a, "<<", diff(topic, { u1: metas("R1") }, {})],
    // V1: the same payloads. [96]
    [b, ">>", v1("1", "1", topic, "phx_join", {})],
    [b, "<<", v1("1", "1", topic, "phx_reply", ok())],
    [b, "<<", v1("1", null, topic, "presence_state", { u1: metas("R1"), anon: metas("R2") })],
    [b, "<<", v1(null, null, topic, "presence_diff", { joins: { anon: metas("R2") }, leaves: {} })],
    [a, "<<", diff(topic, { anon: metas("R2") }, {})],
    [a, ">>", ["1", "2", topic, "update", { s: 1 }]],
    [a, "<<", ["1", "2", topic, "phx_reply", ok({ ref: "R3" })]],
    ...both({ u1: metas(second) }, { u1: metas("R1") }),
    [a, ">>", ["1", "3", topic, "update", { s: 2 }]],
    [a, "<<", ["1", "3", topic, "phx_reply", ok({ ref: "R4" })]],
    ...both({ u1: metas(third) }, { u1: metas(second) }),
    [a, ">>", ["1", "4", topic, "track2", { key: "u1" }]],
    [a, "<<", ["1", "4", topic, "phx_reply", error("already_tracked")]],
    [a, ">>", ["1", "5", topic, "track2", { key: "other" }]],
    [a, "<<", ["1", "5", topic, "phx_reply", ok({ ref: "R5" })]],
    ...both({ other: metas("R5") }, {}),
    [a, ">>", ["1", "6", topic, "untrack", {}]],
    [a, "<<", ["1", "6", topic, "phx_reply", ok()]],
    ...both({}, { u1: metas(third) }),
    [a, ">>", ["1", "7", topic, "update", {}]],
    [a, "<<", ["1", "7", topic, "phx_reply", error("nopresence")]],
    [a, ">>", ["1", "8", topic, "list", {}]],
    [a, "<<", ["1", "8", topic, "phx_reply", ok({ other: metas("R5"), anon: metas("R2") })]],
  );
});

wire("presence: a rejoin tells the state again, and its leave and join in one diff [61, 87, 94]", async (open) => {
  const [a, b] = [await open(), await open()];
  const topic = "presence:again";
  await play(
    [b, ">>", ["1", "1", topic, "phx_join", { key: "w" }]],
    [b, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [b, "<<", ["1", null, topic, "presence_state", { w: metas("R1") }]],
    [b, "<<", diff(topic, { w: metas("R1") }, {})],
    [a, ">>", ["1", "1", topic, "phx_join", { key: "u" }]],
    [a, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [a, "<<", ["1", null, topic, "presence_state", { w: metas("R1"), u: metas("R2") }]],
    [a, "<<", diff(topic, { u: metas("R2") }, {})],
    [b, "<<", diff(topic, { u: metas("R2") }, {})],
    [a, ">>", ["2", "2", topic, "phx_join", { key: "u" }]],
    [a, "<<", ["2", "2", topic, "phx_reply", ok()]],
    [a, "<<", ["1", "1", topic, "phx_close", {}]],
    [a, "<<", ["2", null, topic, "presence_state", { w: metas("R1"), u: metas("R3") }]],
    [a, "<<", diff(topic, { u: metas("R3") }, { u: metas("R2") })],
    [b, "<<", diff(topic, { u: metas("R3") }, { u: metas("R2") })],
  );
});

wire("presence: a crash and a lost connection are a leave of all keys at once [84, 93]", async (open) => {
  const [watcher, a, b] = [await open(), await open(), await open()];
  const topic = "presence:gone";
  await play(
    [watcher, ">>", ["1", "1", topic, "phx_join", { key: "w" }]],
    [watcher, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [watcher, "<<", ["1", null, topic, "presence_state", { w: metas("R1") }]],
    [watcher, "<<", diff(topic, { w: metas("R1") }, {})],
    [a, ">>", ["1", "1", topic, "phx_join", { key: "a" }]],
    [a, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [a, "<<", ["1", null, topic, "presence_state", { w: metas("R1"), a: metas("R2") }]],
    [a, "<<", diff(topic, { a: metas("R2") }, {})],
    [watcher, "<<", diff(topic, { a: metas("R2") }, {})],
    [a, ">>", ["1", "2", topic, "track2", { key: "a2" }]],
    [a, "<<", ["1", "2", topic, "phx_reply", ok({ ref: "R3" })]],
    [a, "<<", diff(topic, { a2: metas("R3") }, {})],
    [watcher, "<<", diff(topic, { a2: metas("R3") }, {})],
    [a, ">>", ["1", "3", topic, "crash", {}]],
    [a, "<<", ["1", "1", topic, "phx_error", crashed]],
    [watcher, "<<", diff(topic, {}, { a: metas("R2"), a2: metas("R3") })],
    [b, ">>", ["1", "1", topic, "phx_join", { key: "b" }]],
    [b, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [b, "<<", ["1", null, topic, "presence_state", { w: metas("R1"), b: metas("R4") }]],
    [b, "<<", diff(topic, { b: metas("R4") }, {})],
    [watcher, "<<", diff(topic, { b: metas("R4") }, {})],
  );
  b.ws.terminate();
  await play([watcher, "<<", diff(topic, {}, { b: metas("R1") })]);
  // A close with unread bytes is a TCP reset.
  const reset = await TcpClient.open(server.port);
  await reset.frame(1, JSON.stringify(["1", "1", topic, "phx_join", { key: "r" }]));
  await play([watcher, "<<", diff(topic, { r: metas("R1") }, {})]);
  reset.close();
  await play([watcher, "<<", diff(topic, {}, { r: metas("R1") })]);
});

wire("presence: __proto__ and constructor are keys like any other [95]", async (open) => {
  const a = await open();
  const topic = "presence:names";
  const proto = (key: string) => Object.fromEntries([["__proto__", metas(key)]]);
  await play(
    [a, ">>", ["1", "1", topic, "phx_join", { key: "__proto__" }]],
    [a, "<<", ["1", "1", topic, "phx_reply", ok()]],
    [a, "<<", ["1", null, topic, "presence_state", proto("R1")]],
    [a, "<<", diff(topic, proto("R1"), {})],
    [a, ">>", ["1", "2", topic, "track2", { key: "constructor" }]],
    [a, "<<", ["1", "2", topic, "phx_reply", ok({ ref: "R2" })]],
    [a, "<<", diff(topic, { constructor: metas("R2") }, {})],
    [a, ">>", ["1", "3", topic, "list", {}]],
    [a, "<<", ["1", "3", topic, "phx_reply", ok({ ...proto("R1"), constructor: metas("R2") })]],
  );
});

// The end: a server of its own, so that the order of the tests does not matter.

Deno.test("wire: SIGTERM closes every socket 1012 without a frame, refuses upgrades with 503 and ends with 0 [50]", async () => {
  await using draining = await startServer({}, FIXTURE);
  const open = (vsn: string) => RawClient.open(`${draining.ws}/websocket?vsn=${vsn}`);
  const [joined, unjoined, old] = [await open("2.0.0"), await open("2.0.0"), await open("1.0.0")];
  await play(
    ...joins(joined, "1", "room:x"),
    [old, ">>", v1("1", "1", "room:x", "phx_join", {})],
    [old, "<<", v1("1", "1", "room:x", "phx_reply", ok())],
  );
  // A request that was on its way when the signal came.
  const late = await TcpClient.connect(draining.port);
  await late.write("GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: 127.0.0.1\r\n");
  await quiet(joined);
  const code = draining.stop("SIGTERM");
  await play([joined, "<<", closed(1012)], [unjoined, "<<", closed(1012)], [old, "<<", closed(1012)]);
  await late.write(`${Object.entries(UPGRADE).map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`);
  const { status, body } = await late.answer();
  assertEquals({ status, body }, { status: 503, body: "" });
  late.close();
  assertEquals(await code, 0);
  await assertRejects(() => open("2.0.0"), Error);
});
