/** Bad input costs its sender only: every case meets a server process from outside, and afterwards that server must be as it was. */
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess, assertRejects } from "@std/assert";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { eventsOf, Outside } from "./support/outside.ts";
import { SECRET } from "./support/process.ts";
import { type Heard, HttpRefusal, type RawClient, reset, TcpClient, UPGRADE, upgradeRequest } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

type Case = [what: string, run: (at: Outside) => Promise<void>];

/** Runs the cases one after another against one server; the last step looks whether it took harm. */
function against(subject: string, cases: readonly Case[], env: Record<string, string> = {}): void {
  Deno.test(`bad input: ${subject}`, async (t) => {
    await using at = await Outside.start(env);
    const before = await at.looks();
    for (const [what, run] of cases) await t.step(`bad input: ${what}`, () => run(at));
    await t.step(`bad input: ${subject} leave no error line, no token in the output, and a server that looks as before`, () => at.unharmed(before));
  });
}

let topics = 0;
const freshTopic = () => `case:bad_${++topics}`;

/** Sends a frame (or its text) and expects the error reply that carries `ref`. Returns the reply. */
async function refused(client: RawClient, frame: unknown, reason: string, ref: unknown): Promise<Heard> {
  client.send(frame);
  for (;;) {
    const heard = await client.next();
    if (heard[3] !== "phx_reply" || heard[1] !== ref) continue;
    assertEquals([heard[4].status, heard[4].response.reason], ["error", reason], JSON.stringify(heard).slice(0, 300));
    return heard;
  }
}

/** The session with join_ref "1" is alive and hears itself. */
async function works(client: RawClient, topic: string): Promise<void> {
  const reply = await client.ask(["1", "works", topic, "presence:update", { status: "still here" }]);
  assertEquals(reply, ["1", "works", topic, "phx_reply", { status: "ok", response: {} }]);
}

/** What others hear of an update of presence: the metas that joined. */
function metasOf(frames: readonly Heard[]): Record<string, unknown>[] {
  return eventsOf(frames, "presence_diff").flatMap((frame) => Object.values(frame[4].joins).flatMap((key) => (key as Heard).metas));
}

const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
const noise = crypto.getRandomValues(new Uint8Array(1024)).with(0, 0x5b);

// Frames.

const GARBAGE: [what: string, vsn: string, frame: string | Uint8Array][] = [
  ["text that is no JSON", "2.0.0", "hello"],
  ["an empty text", "2.0.0", ""],
  ["half a frame", "2.0.0", '["1","1","case:1","phx_join",{'],
  ["a JSON null", "2.0.0", "null"],
  ["a JSON number", "2.0.0", "17"],
  ["a JSON string", "2.0.0", '"phx_join"'],
  ["an empty array", "2.0.0", "[]"],
  ["an array of four", "2.0.0", '["1","1","case:1","phx_join"]'],
  ["a V1 object on a V2 socket", "2.0.0", '{"topic":"case:1","event":"phx_join","payload":{},"ref":"1"}'],
  ["an array-like object", "2.0.0", '{"0":"1","1":"1","2":"case:1","3":"phx_join","4":{},"length":5}'],
  ["10,000 nested arrays", "2.0.0", nested(10_000)],
  ["250,000 open brackets", "2.0.0", "[".repeat(250_000)],
  ["an empty binary frame", "2.0.0", new Uint8Array(0)],
  ["a binary frame of one byte", "2.0.0", Uint8Array.of(0)],
  ["a binary reply", "2.0.0", Uint8Array.of(1, 0, 0, 0, 0, 0)],
  ["a binary broadcast", "2.0.0", Uint8Array.of(2, 1, 1, 65, 65)],
  ["binary lengths past the end", "2.0.0", Uint8Array.of(0, 255, 255, 255, 255, 1)],
  ["binary names that are not UTF-8", "2.0.0", Uint8Array.of(0, 1, 1, 1, 1, 0xff, 0xfe, 0xfd, 0xfc)],
  ["JSON text in a binary frame", "2.0.0", new TextEncoder().encode('["1","1","case:1","phx_join",{}]')],
  ["1 KiB of noise", "2.0.0", noise],
  ["a V2 array on a V1 socket", "1.0.0", '["1","1","case:1","phx_join",{}]'],
  ["a V1 object without a ref", "1.0.0", '{"topic":"case:1","event":"phx_join","payload":{}}'],
  ["a V1 object without a payload", "1.0.0", '{"topic":"case:1","event":"phx_join","ref":"1"}'],
  ["a V1 object whose fields are inherited names", "1.0.0", '{"__proto__":{"topic":"case:1","event":"phx_join","payload":{},"ref":"1"}}'],
  ["noise on a V1 socket", "1.0.0", noise],
];

/** `ref`: where the error reply goes, null when none can be read. */
const MALFORMED: [what: string, frame: string, ref: unknown][] = [
  ["topic null", '["1","2",null,"phx_join",{}]', "2"],
  ["a topic that is an object", '["1","2",{"__proto__":1},"phx_join",{}]', "2"],
  ["a topic nested 10,000 deep", `["1","2",${nested(10_000)},"phx_join",{}]`, "2"],
  ["a numeric event", '["1","2","case:1",7,{}]', "2"],
  ["event null", '["1","2","case:1",null,{}]', "2"],
  ["an event that is an array", '["1","2","case:1",["phx_join"],{}]', "2"],
  ["a ref that is an object", '["1",{"a":1},"case:1","phx_join",{}]', null],
  ["a ref nested 10,000 deep", `["1",${nested(10_000)},"case:1","phx_join",{}]`, null],
  ["a ref of 256 characters", `["1","${"r".repeat(256)}","case:1","phx_join",{}]`, null],
  ["a ref of 256 bytes in 128 characters", `["1","${"é".repeat(128)}","case:1","phx_join",{}]`, null],
  ["a join_ref that is an array", '[["1"],"2","case:1","phx_join",{}]', "2"],
  ["a join_ref that is an object", '[{},"2","case:1","phx_join",{}]', "2"],
  ["a join_ref of 300 KB", `["${"j".repeat(300_000)}","2","case:1","phx_join",{}]`, "2"],
];

against("frames", [
  ...GARBAGE.map(([what, vsn, frame]): Case => [`${what} closes 1003 [16, 17, 33, 36]`, async (at) => {
    const client = await at.connect(undefined, vsn);
    client.send(frame);
    assertEquals((await client.closed).code, 1003);
  }]),
  ...MALFORMED.map(([what, frame, ref]): Case => [`${what} is answered invalid_frame and the socket stays [16, 18, 20]`, async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    assertEquals((await refused(client, frame, "invalid_frame", ref))[0], null);
    await works(client, topic);
  }]),
  ["a sixth element is ignored [16]", async (at) => {
    await using client = await at.connect();
    client.send('[null,"5","phoenix","heartbeat",null,{"__proto__":{}},7]');
    assertEquals(await client.next(), [null, "5", "phoenix", "phx_reply", { status: "ok", response: {} }]);
  }],
  ["refs that are numbers, booleans, empty, NUL or lone surrogates are echoed unchanged [18]", async (at) => {
    await using client = await at.connect();
    for (const ref of [0, -1, 1.5, 9_007_199_254_740_991, true, false, "", "\0", "\ud800", "__proto__", "r".repeat(255)]) {
      client.send([null, ref, "phoenix", "heartbeat", {}]);
      assertEquals((await client.next())[1], ref);
    }
  }],
  ["a join_ref 1 does not match the string: nobody answers [18, 63]", async (at) => {
    const topic = freshTopic();
    await using client = await at.connect();
    assertEquals((await client.ask([1, 1, topic, "phx_join", {}])).slice(0, 2), [1, 1]);
    client.send(["1", "2", topic, "presence:update", {}]);
    client.send([true, "3", topic, "phx_leave", {}]);
    assertEquals(eventsOf(await client.heard(), "phx_reply", "phx_close"), []);
    assertEquals((await client.ask([1, 4, topic, "presence:update", {}]))[4].status, "ok");
  }],
  ["frames up to 512 KiB are read: a payload of that size is refused and the socket stays [46]", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    const head = `["1","2","${topic}","presence:update",{"x":"`;
    for (const size of [511 * 1024, 512 * 1024]) {
      const reply = await refused(client, `${head}${"x".repeat(size - head.length - 3)}"}]`, "payload_too_large", "2");
      assertEquals(reply[4].response.limit, 65_536);
    }
    await works(client, topic);
  }],
  ...[512 * 1024 + 1, 513 * 1024].map((size): Case => [`a frame of ${size} bytes closes 1009 [46]`, async (at) => {
    const client = await at.connect();
    client.send(`[null,"1","phoenix","heartbeat","${"x".repeat(size - 35)}"]`);
    assertEquals((await client.closed).code, 1009);
  }]),
  ["fragments of 513 KiB together close 1009 [46]", async (at) => {
    const client = await at.connect();
    for (let index = 0; index < 513; index++) client.ws.send("x".repeat(1024), { fin: index === 512 });
    assertEquals((await client.closed).code, 1009);
  }],
  ...[
    ["a frame that says it has 2^62 bytes", 1009, Uint8Array.of(0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0)],
    ["an unmasked frame", 1002, Uint8Array.of(0x81, 2, 0x5b, 0x5d)],
    ["a reserved bit", 1002, Uint8Array.of(0xc1, 0x82, 0, 0, 0, 0, 0x5b, 0x5d)],
    ["an unknown opcode", 1002, Uint8Array.of(0x83, 0x80, 0, 0, 0, 0)],
    ["a continuation of nothing", 1002, Uint8Array.of(0x80, 0x80, 0, 0, 0, 0)],
    ["a fragmented ping", 1002, Uint8Array.of(0x09, 0x80, 0, 0, 0, 0)],
    ["a ping of 126 bytes", 1002, Uint8Array.of(0x89, 0xfe, 0, 126, 0, 0, 0, 0)],
    ["a text that is not UTF-8", 1007, Uint8Array.of(0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe)],
    ["a close frame of one byte", 1002, Uint8Array.of(0x88, 0x81, 0, 0, 0, 0, 3)],
    ["a close code that must not be sent", 1002, Uint8Array.of(0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed)],
  ].map(([what, code, bytes]): Case => [`${what} closes ${code} [17]`, async (at) => {
    const client = await TcpClient.open(at.server.port, `/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
    await client.write(bytes as Uint8Array);
    assertEquals(await client.closeCode(), code as number);
    client.close();
  }]),
]);

// Names: topics and events.

const UNMATCHED = [
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "",
  "case",
  "case:",
  "Case:case_1",
  " case:case_1",
  "cаse:case_1",
  "case.case_1",
  "*",
];
const UNFIT_TOPICS: [what: string, topic: string][] = [
  ["a lone high surrogate", "case:\ud800"],
  ["a lone low surrogate", "case:a\udc00b"],
  ["a NUL", "case:a\0b"],
  ["a line break", "case:a\nb"],
  ["256 bytes", `case:${"x".repeat(251)}`],
  ["256 bytes in 131 characters", `case:${"é".repeat(125)}x`],
  ["257 bytes of four-byte characters", `case:${"😀".repeat(63)}`],
  ["10 KB", `case:${"x".repeat(10_235)}`],
  ["10 KB of no kind", "x".repeat(10_240)],
];
const UNKNOWN_EVENTS = [
  "nope",
  "",
  "__proto__",
  "constructor",
  "hasOwnProperty",
  "phx_close",
  "phx_error",
  "phx_reply",
  "presence_state",
  "presence_diff",
  "user:joined",
  "document:uploaded",
  "presence:update\0",
  "presence:update\ud800",
  "e".repeat(10_240),
];

against("names", [
  ...UNMATCHED.map((topic): Case => [`joining ${JSON.stringify(topic)} is "unmatched topic" with join_ref null [54]`, async (at) => {
    await using client = await at.connect();
    assertEquals((await refused(client, ["1", "1", topic, "phx_join", {}], "unmatched topic", "1")).slice(0, 3), [null, "1", topic]);
    assertEquals((await refused(client, ["1", "2", topic, "presence:update", {}], "unmatched topic", "2")).slice(0, 3), [null, "2", topic]);
    assertEquals((await client.ask(["1", "3", topic, "phx_leave", {}]))[4], { status: "ok", response: {} });
  }]),
  ...UNFIT_TOPICS.map(([what, topic]): Case => [`a topic with ${what} is refused invalid_frame; pushing to it finds nothing`, async (at) => {
    await using client = await at.connect();
    assertEquals((await refused(client, ["1", "1", topic, "phx_join", {}], "invalid_frame", "1"))[2], topic);
    await refused(client, ["1", "2", topic, "presence:update", {}], "unmatched topic", "2");
    assertEquals((await client.ask(["1", "3", topic, "phx_leave", {}]))[4].status, "ok");
  }]),
  ...[
    ["255 bytes", `case:${"x".repeat(250)}`],
    ["255 bytes in 130 characters", `case:${"é".repeat(125)}`],
    ["255 bytes of four-byte characters", `case:${"😀".repeat(62)}ab`],
  ].map(([what, topic]): Case => [`a topic of ${what} is joined and heard on [34]`, async (at) => {
    await using client = await at.member(topic);
    await works(client, topic);
    assertEquals((await at.publish(topic, [{ event: "document:uploaded", payload: { document: { id: "d" } } }])).status, 200);
    assertEquals(eventsOf(await client.heard(), "document:uploaded").map((frame) => frame[2]), [topic]);
  }]),
  ["unknown events are refused unknown_event, nobody hears of them, and the channel lives [67]", async (at) => {
    const topic = freshTopic();
    await using watcher = await at.member(topic);
    await using client = await at.member(topic, at.fresh("service"));
    await watcher.heard();
    for (const event of UNKNOWN_EVENTS) await refused(client, ["1", `2 ${event.slice(0, 50)}`, topic, event, {}], "unknown_event", `2 ${event.slice(0, 50)}`);
    assertEquals(await watcher.heard(), []);
    await works(client, topic);
  }],
  ['other events on `phoenix` and `auth` are "unmatched topic" [44]', async (at) => {
    await using client = await at.connect();
    for (const topic of ["phoenix", "auth"]) {
      for (const event of ["phx_join", "phx_leave", "nope", "__proto__"]) await refused(client, ["1", "1", topic, event, {}], "unmatched topic", "1");
    }
  }],
  ["names of users such as __proto__ and constructor are keys of presence like any other [95]", async (at) => {
    const topic = freshTopic();
    const names = ["__proto__", "constructor", "toString"];
    const members = await Promise.all(names.map((id) => at.member(topic, someone(id))));
    await using watcher = await at.connect();
    watcher.send(["1", "1", topic, "phx_join", {}]);
    const state = (await watcher.take(2))[1];
    assertEquals(state[3], "presence_state");
    assertEquals(Object.keys(state[4]).filter((key) => !key.startsWith("user_")).sort(), names.toSorted());
    for (const name of names) assertEquals(Object.getOwnPropertyDescriptor(state[4], name)!.value.metas[0].name, `Name of ${name}`);
    await watcher.heard();
    await Promise.all(members.map((member) => member.close()));
    await watcher.heard();
  }],
]);

// Payloads.

const NO_OBJECTS = ["null", '"text"', "[]", '[{"status":"x"}]', "0", "true", "1e400"];

const characters = [["a", 1], ["é", 1], ["€", 1], ["😀", 2], ["\\u00e9", 1], ['\\"', 2], ["\\u0001", 6], ["\\ud800", 6]] as const;

/** A payload of `units` UTF-16 units once parsed and written again: `{"x":"…"}` with that many characters as filling. */
function filled(text: string, each: number, units: number): string {
  const room = units - 8;
  return `{"x":"${text.repeat(Math.floor(room / each))}${"a".repeat(room % each)}"}`;
}

against("payloads", [
  ...NO_OBJECTS.map((payload): Case => [`a payload ${payload} is refused invalid_frame, in a push and in a join [19]`, async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    await refused(client, `["1","2","${topic}","presence:update",${payload}]`, "invalid_frame", "2");
    await works(client, topic);
    await refused(client, `["3","3","${freshTopic()}","phx_join",${payload}]`, "invalid_frame", "3");
    await works(client, topic);
  }]),
  ...characters.map(([text, each]): Case => [`payloads of ${text}: 65,536 UTF-16 units are taken, 65,537 refused payload_too_large`, async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    assertEquals(JSON.stringify(JSON.parse(filled(text, each, 65_536))).length, 65_536);
    client.send(`["1","2","${topic}","presence:update",${filled(text, each, 65_536)}]`);
    assertEquals(eventsOf(await client.heard(), "phx_reply")[0]?.[4], { status: "ok", response: {} });
    const reply = await refused(client, `["1","3","${topic}","presence:update",${filled(text, each, 65_537)}]`, "payload_too_large", "3");
    assertEquals([reply[0], reply[4].response.limit], ["1", 65_536]);
    await refused(client, `["4","4","${freshTopic()}","phx_join",${filled(text, each, 65_537)}]`, "payload_too_large", "4");
    await works(client, topic);
  }]),
  ["numbers count as they are written again: 2,978 times 1e20 are taken, 2,979 refused", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    const push = (ref: string, count: number) => `["1","${ref}","${topic}","presence:update",{"x":[${Array(count).fill("1e20")}]}]`;
    client.send(push("2", 2978));
    assertEquals(eventsOf(await client.heard(), "phx_reply")[0]?.[4].status, "ok");
    await refused(client, push("3", 2979), "payload_too_large", "3");
  }],
  ["64 levels are taken, 65 and 10,000 and 250,000 refused invalid_payload, in a push and in a join", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    const deep = (levels: number) => `{"x":${nested(levels - 1)}}`;
    const objects = (levels: number) => '{"__proto__":'.repeat(levels - 1) + "{}" + "}".repeat(levels - 1);
    for (const payload of [deep(64), objects(64)]) {
      client.send(`["1","2","${topic}","presence:update",${payload}]`);
      assertEquals(eventsOf(await client.heard(), "phx_reply")[0]?.[4].status, "ok");
    }
    for (const payload of [deep(65), objects(65), deep(10_000), objects(10_000), deep(250_000)]) {
      const reply = await refused(client, `["1","3","${topic}","presence:update",${payload}]`, "invalid_payload", "3");
      assertEquals(reply[4].response.limit, 64);
      await refused(client, `["4","4","${freshTopic()}","phx_join",${payload}]`, "invalid_payload", "4");
    }
    await works(client, topic);
  }],
  ["__proto__ and constructor as fields of a push and of join params are dropped, and change nothing", async (at) => {
    const topic = freshTopic();
    await using watcher = await at.member(topic);
    await using client = await at.connect();
    const odd = '"__proto__":{"status":"polluted","polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":null,"hasOwnProperty":1';
    client.send(`["1","1","${topic}","phx_join",{${odd}}]`);
    assertEquals((await client.next())[4].status, "ok");
    await watcher.heard();
    client.send(`["1","2","${topic}","presence:update",{${odd},"location":"here"}]`);
    await client.heard();
    const metas = metasOf(await watcher.heard());
    assertEquals(metas.map((meta) => Object.keys(meta).sort()), [["activity", "location", "name", "online_at", "phx_ref", "phx_ref_prev", "status"]]);
    assertEquals([metas[0].status, metas[0].location], ["online", "here"]);
  }],
  ["NUL, lone surrogates, markup and bidi marks in a status are taken out, emoji stay", async (at) => {
    const topic = freshTopic();
    await using watcher = await at.member(topic);
    await using client = await at.member(topic);
    await watcher.heard();
    client.send(`["1","2","${topic}","presence:update",{"status":"a\\u0000b\\ud800c\\udc00<i>\\u202e😀","\\u0000":"\\udfff"}]`);
    assertEquals(eventsOf(await client.heard(), "phx_reply")[0][4].status, "ok");
    assertEquals(metasOf(await watcher.heard()).map((meta) => meta.status), ["abci😀"]);
  }],
  ["fields of the wrong type are refused invalid_payload with the place, and nobody hears", async (at) => {
    const topic = freshTopic();
    await using watcher = await at.member(topic);
    await using client = await at.member(topic);
    await watcher.heard();
    for (const value of ["null", "1", "{}", '["x"]', `"${"x".repeat(201)}"`]) {
      const reply = await refused(client, `["1","2","${topic}","presence:update",{"status":${value}}]`, "invalid_payload", "2");
      assert(reply[4].response.message.startsWith("status: "), reply[4].response.message);
    }
    assertEquals(await watcher.heard(), []);
    await works(client, topic);
  }],
  ["bytes where JSON is wanted are refused binary_not_supported, in a push and in a join [32]", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    const binary = (join_ref: string, ref: string, event: string, data: number[]) => {
      const names = [join_ref, ref, topic, event].map((name) => new TextEncoder().encode(name));
      return Uint8Array.of(0, ...names.map((name) => name.length), ...names.flatMap((name) => [...name]), ...data);
    };
    await refused(client, binary("1", "2", "presence:update", [1, 2, 3]), "binary_not_supported", "2");
    client.send(binary("", "3", "presence:update", []));
    await works(client, topic);
    await refused(client, binary("1", "4", "nope", []), "unknown_event", "4");
    await refused(client, binary("5", "5", "phx_join", [123, 125]), "binary_not_supported", "5");
    // A refused rejoin ends the old join. [62]
    await refused(client, ["1", "6", topic, "presence:update", {}], "unmatched topic", "6");
  }],
  ["user_id: somebody else's is user_mismatch, one that is no string invalid_payload, the own one fine", async (at) => {
    const user = at.fresh();
    await using client = await at.connect(user);
    for (const user_id of ["user_0", "", "__proto__", "constructor", user.id.toUpperCase(), ` ${user.id}`, `${user.id}\0`]) {
      await refused(client, ["1", "1", freshTopic(), "phx_join", { user_id }], "user_mismatch", "1");
    }
    for (const user_id of [1, null, [user.id], { id: user.id }]) {
      await refused(client, ["1", "1", freshTopic(), "phx_join", { user_id }], "invalid_payload", "1");
    }
    assertEquals((await client.ask(["1", "2", freshTopic(), "phx_join", { user_id: user.id }]))[4].status, "ok");
  }],
  ["published __proto__, constructor, NUL and lone surrogates reach the members as plain fields, and nothing else changes", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    await client.heard();
    const odd = '"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":"x"';
    const document = `{"id":"d","filename":"a\\u0000b\\ud800","title":"<b>","metadata":{${odd},"\\udc00":"\\u0000","deep":{${odd}}},${odd}}`;
    const body = `{"events":[{"event":"document:uploaded","payload":{"document":${document},${odd}},${odd}}],${odd}}`;
    const { status } = await at.post(`/api/topics/${topic}/events`, body, await at.token(at.fresh("service")));
    assertEquals(status, 200);
    const [heard] = eventsOf(await client.heard(), "document:uploaded");
    assertEquals(heard[4].document.filename, "a\0b\ud800");
    assertEquals(heard[4].document.constructor, { prototype: { polluted: 1 } });
    assertEquals(heard[4].document.metadata["\udc00"], "\0");
    assertEquals(heard[4].document.metadata.deep.toString, "x");
    assertEquals([({} as Record<string, unknown>).polluted, heard[4].polluted, heard[4].document.polluted], [undefined, undefined, undefined]);
    await works(client, topic);
  }],
]);

// Joins.

against("joins", [
  ["a duplicate join is answered, then the old one closed; its join_ref is dropped in silence [61, 63]", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    await client.heard();
    client.send(["2", "2", topic, "phx_join", {}]);
    assertEquals((await client.take(3)).map((frame) => [frame[0], frame[1], frame[3]]), [
      ["2", "2", "phx_reply"],
      ["1", "1", "phx_close"],
      ["2", null, "presence_state"],
    ]);
    client.send(["1", "3", topic, "presence:update", { status: "stale" }]);
    client.send(["1", "4", topic, "phx_leave", {}]);
    assertEquals(eventsOf(await client.heard(), "phx_reply", "phx_close"), []);
    assertEquals((await client.ask(["2", "5", topic, "presence:update", {}]))[0], "2");
    assertEquals((await client.ask([null, "6", topic, "presence:update", {}]))[0], "2");
  }],
  ...([
    ["somebody else's user_id", '{"user_id":"user_0"}', "user_mismatch"],
    ["payload null", "null", "invalid_frame"],
    ["a payload that is too large", filled("a", 1, 65_537), "payload_too_large"],
    ["a payload that is too deep", `{"x":${nested(100)}}`, "invalid_payload"],
  ] as const).map(([what, payload, reason]): Case => [`a rejoin with ${what} is refused and ends the old join [62]`, async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    await using watcher = await at.member(topic);
    await client.heard();
    client.send(`["2","2","${topic}","phx_join",${payload}]`);
    const told = eventsOf(await client.heard(), "phx_reply", "phx_close");
    assertEquals(told.map((frame) => [frame[0], frame[1], frame[3], frame[4].response?.reason]), [
      ["2", "2", "phx_reply", reason],
      ["1", "1", "phx_close", undefined],
    ]);
    for (const join_ref of ["1", "2"]) await refused(client, [join_ref, "3", topic, "presence:update", {}], "unmatched topic", "3");
    assertEquals(eventsOf(await watcher.heard(), "user:left").length, 1);
  }]),
  ["200 joins of one topic in one burst end with the last [61]", async (at) => {
    const topic = freshTopic();
    await using client = await at.connect();
    client.burst(Array.from({ length: 200 }, (_, index) => [`${index}`, `${index}`, topic, "phx_join", {}]));
    const frames = await client.heard();
    assertEquals(eventsOf(frames, "phx_reply").map((frame) => frame[4].status), Array(200).fill("ok"));
    assertEquals(eventsOf(frames, "phx_close").map((frame) => frame[0]), Array.from({ length: 199 }, (_, index) => `${index}`));
    assertEquals((await client.ask(["199", "x", topic, "presence:update", {}]))[4].status, "ok");
  }],
  ['the 101st join is "too many channels joined", the socket stays, a leave makes room [47]', async (at) => {
    await using client = await at.connect();
    const join = (index: number) => [`${index}`, `${index}`, `case:many_${index}`, "phx_join", {}];
    client.burst(Array.from({ length: 101 }, (_, index) => join(index)));
    const replies = eventsOf(await client.heard(), "phx_reply");
    assertEquals(replies.filter((frame) => frame[4].status === "ok").length, 100);
    assertEquals(replies.at(-1).slice(0, 4), ["100", "100", "case:many_100", "phx_reply"]);
    assertEquals(replies.at(-1)[4].response.reason, "too many channels joined");
    // Joining again what is joined is no 101st topic.
    assertEquals((await client.ask(["x", "x", "case:many_5", "phx_join", {}]))[4].status, "ok");
    assertEquals((await client.ask(["6", "y", "case:many_6", "phx_leave", {}]))[4].status, "ok");
    assertEquals((await client.ask(["z", "z", "case:many_100", "phx_join", {}]))[4].status, "ok");
  }],
  ["101 refused joins leave room for a good one [55]", async (at) => {
    await using client = await at.connect(at.fresh("attorney", ["mine"]));
    client.burst(Array.from({ length: 101 }, (_, index) => [`${index}`, `${index}`, `case:theirs_${index}`, "phx_join", {}]));
    assertEquals(eventsOf(await client.heard(), "phx_reply").map((frame) => frame[4].response.reason), Array(101).fill("forbidden"));
    assertEquals((await client.ask(["x", "x", "case:mine", "phx_join", {}]))[4].status, "ok");
  }],
  ["a stale leave changes nothing, a leave and a join in one burst end joined [80, 82]", async (at) => {
    const topic = freshTopic();
    await using client = await at.member(topic);
    client.send(["0", "2", topic, "phx_leave", {}]);
    await works(client, topic);
    client.burst([["1", "3", topic, "phx_leave", {}], ["4", "4", topic, "phx_join", {}]]);
    assertEquals(eventsOf(await client.heard(), "phx_close").map((frame) => frame[0]), ["1"]);
    assertEquals((await client.ask(["4", "5", topic, "presence:update", {}]))[4].status, "ok");
  }],
]);

// Rights.

/** What looks like `case_1` and is not. */
const LOOK_ALIKES = [
  "case_10",
  "case_",
  "case_01",
  "case_1 ",
  " case_1",
  "Case_1",
  "CASE_1",
  "сase_1",
  "case_١",
  "case_１",
  "case＿1",
  "case_1\u200b",
  "case_1\u0301",
  "case_1,case_10",
  "case_1/../case_10",
  "case_1:case_10",
  "%63ase_1",
  "case_%31",
  "*",
  "__proto__",
  "length",
  "0",
];

against("cases that a token does not name", [
  ["a token for case_1 opens no look-alike, and every answer is the same [C01]", async (at) => {
    await at.publish("case:case_10", [{ event: "document:uploaded", payload: { document: { id: "d" } } }]);
    await using client = await at.connect(at.fresh("attorney", ["case_1"]));
    const answers = [];
    for (const id of LOOK_ALIKES) answers.push((await refused(client, ["1", "1", `case:${id}`, "phx_join", {}], "forbidden", "1"))[4]);
    assertEquals(new Set(answers.map((answer) => JSON.stringify(answer))).size, 1);
    assertEquals((await client.ask(["1", "2", "case:case_1", "phx_join", {}]))[4].status, "ok");
  }],
  ["a token for a look-alike does not open case_1, and opens its own [C01]", async (at) => {
    for (const id of LOOK_ALIKES) {
      await using client = await at.connect(at.fresh("admin", [id]));
      await refused(client, ["1", "1", "case:case_1", "phx_join", {}], "forbidden", "1");
      assertEquals((await client.ask(["1", "2", `case:${id}`, "phx_join", {}]))[4].status, "ok", id);
    }
  }],
  ["composed and decomposed letters are two cases", async (at) => {
    await using composed = await at.connect(at.fresh("attorney", ["caf\u00e9"]));
    await using decomposed = await at.connect(at.fresh("attorney", ["cafe\u0301"]));
    await refused(composed, ["1", "1", "case:cafe\u0301", "phx_join", {}], "forbidden", "1");
    await refused(decomposed, ["1", "1", "case:caf\u00e9", "phx_join", {}], "forbidden", "1");
  }],
  ["case:* is a case like any other: it hears of no other case", async (at) => {
    await using all = await at.member("case:*");
    await using star = await at.member("case:*", at.fresh("attorney", ["*"]));
    await refused(star, ["2", "2", "case:case_1", "phx_join", {}], "forbidden", "2");
    await at.publish("case:case_1", [{ event: "document:uploaded", payload: { document: { id: "d" } } }]);
    for (const client of [all, star]) assertEquals(eventsOf(await client.heard(), "document:uploaded"), []);
  }],
  ["no role opens a case, and a token without cases opens none", async (at) => {
    for (const role of ["admin", "attorney", "paralegal", "client", "viewer", "service"] as const) {
      await using client = await at.connect(at.fresh(role, []));
      await refused(client, ["1", "1", "case:case_1", "phx_join", {}], "forbidden", "1");
      await refused(client, ["1", "2", "case:", "phx_join", {}], "unmatched topic", "2");
    }
  }],
  ["refusals without number do not fill the log", async (at) => {
    await using watcher = await at.member("case:case_10");
    const outsider = at.fresh("attorney", ["case_1"]);
    await using client = await at.connect(outsider);
    await at.publish("case:case_10", [{ event: "document:uploaded", payload: { document: { id: "d" } } }]);
    await watcher.heard();
    for (let index = 0; index < 50; index++) await refused(client, ["1", `${index}`, "case:case_10", "phx_join", {}], "forbidden", `${index}`);
    const { status, body } = await at.publish("case:case_10", [{ event: "document:uploaded", payload: { document: { id: "e" } } }]);
    assertEquals([status, eventsOf(await watcher.heard(), "document:uploaded").at(-1)[4].cursor], [200, body.events[0].cursor]);
    const record = await at.post("/api/cases/case_10/log?limit=1000", "", await at.token(at.fresh("attorney")), "GET");
    assertEquals(record.body.events.filter(({ event, user }: { event: string; user: string }) => event === "refused" && user === outsider.id).length, 10);
  }],
]);

// Tokens.

const base64url = (value: unknown) =>
  btoa(typeof value === "string" ? value : JSON.stringify(value)).replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_");
const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;
const CLAIMS: JWTPayload & Record<string, unknown> = { sub: "user_1", name: "User One", role: "admin", case_ids: "*", exp: inSeconds(600) };
const signed = (claims: Record<string, unknown>, secret = SECRET, header: Record<string, unknown> = {}) =>
  new SignJWT({ ...CLAIMS, ...claims }).setProtectedHeader({ alg: "HS256", ...header }).sign(new TextEncoder().encode(secret));
const [HEAD, BODY, SIGNATURE] = (await signed({})).split(".");
const RSA = await generateKeyPair("RS256", { extractable: true });
const RSA_TOKEN = await new SignJWT(CLAIMS).setProtectedHeader({ alg: "RS256" }).sign(RSA.privateKey);
const other = "another secret of at least 32 bytes!";

const FORGED: [what: string, token: string, reason: string][] = [
  ["no JWT", "let me in please, I am an admin", "token_invalid"],
  ["empty parts", "..", "token_invalid"],
  ["alg none without a signature", `${base64url({ alg: "none" })}.${BODY}.`, "token_invalid"],
  ["alg None with the signature", `${base64url({ alg: "None" })}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["no alg", `${base64url({})}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["alg as a number", `${base64url({ alg: 256 })}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["alg __proto__", `${base64url('{"alg":"__proto__"}')}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["an unknown crit", `${base64url({ alg: "HS256", crit: ["x"], x: 1 })}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["an unencoded payload", `${base64url({ alg: "HS256", b64: false, crit: ["b64"] })}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["a header that is null", `${base64url("null")}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["another body", `${HEAD}.${base64url({ ...CLAIMS, sub: "user_2" })}.${SIGNATURE}`, "token_invalid"],
  ["a cut signature", `${HEAD}.${BODY}.${SIGNATURE.slice(0, -6)}`, "token_invalid"],
  ["another secret", await signed({}, other), "token_invalid"],
  ["a secret that it brings along", await signed({}, other, { jwk: { kty: "oct", k: base64url(other) } }), "token_invalid"],
  ["RS256 and a key of its own", RSA_TOKEN, "token_invalid"],
  ["RS256 in the head, HS256 in truth", `${base64url({ alg: "RS256" })}.${BODY}.${SIGNATURE}`, "token_invalid"],
  ["HS512 with the right secret", await signed({}, SECRET, { alg: "HS512" }), "token_invalid"],
  ["five parts", "a.b.c.d.e", "token_invalid"],
  ["characters beyond ASCII", `${HEAD}.${BODY}.é😀`, "token_invalid"],
  ["an exp that passed", await signed({ exp: inSeconds(-60) }), "token_expired"],
  ["an exp in 1969", await signed({ exp: -1 }), "token_expired"],
  ["no exp", await signed({ exp: undefined }), "token_invalid"],
  ["an exp that is text", await signed({ exp: `${inSeconds(600)}` as never }), "token_invalid"],
  ["an nbf in the future", await signed({ nbf: inSeconds(600) }), "token_invalid"],
  ["no sub", await signed({ sub: undefined }), "token_invalid"],
  ["an empty sub", await signed({ sub: "" }), "token_invalid"],
  ["a numeric sub", await signed({ sub: 1 as never }), "token_invalid"],
  ["a sub with a NUL", await signed({ sub: "a\0b" }), "token_invalid"],
  ["a sub with a lone surrogate", await signed({ sub: "a\ud800" }), "token_invalid"],
  ["no role", await signed({ role: undefined }), "token_invalid"],
  ["role constructor", await signed({ role: "constructor" }), "token_invalid"],
  ["role __proto__", await signed({ role: "__proto__" }), "token_invalid"],
  ["two roles", await signed({ role: ["admin", "service"] }), "token_invalid"],
  ["a name that is an object", await signed({ name: { first: "A" } }), "token_invalid"],
  ["cases as one text", await signed({ case_ids: "case_1" }), "token_invalid"],
  ["cases as an object", await signed({ case_ids: { 0: "case_1", length: 1 } }), "token_invalid"],
  ["cases as numbers", await signed({ case_ids: [1] }), "token_invalid"],
  ["nested cases", await signed({ case_ids: [["*"]] }), "token_invalid"],
  ["8,193 bytes", "x".repeat(8193), "token_invalid"],
  ["8,193 bytes in truth", await signed({ filling: "x".repeat(8192) }), "token_invalid"],
];

async function forbidden(at: Outside, path: string, headers: Record<string, string>, reason: string): Promise<void> {
  const { status, body, headers: told } = await TcpClient.request(at.server.port, "GET", path, { ...UPGRADE, ...headers });
  assertEquals([status, body, told.get("caseroom-reason")?.trim()], [403, "", reason]);
}

against("tokens", [
  ...FORGED.flatMap(([what, token, reason]): Case[] => [
    [`a token with ${what} is 403 in the URL, before the upgrade, with an empty body [5]`, async (at) => {
      await forbidden(at, `/socket/websocket?vsn=2.0.0&token=${encodeURIComponent(at.secret(token))}`, {}, reason);
    }],
    ...(/^[\0-\xff]*$/.test(token)
      ? [
        [`a token with ${what} is 403 as authToken [5, 12]`, async (at) => {
          await forbidden(at, "/socket/websocket?vsn=2.0.0", { "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${base64url(token)}` }, reason);
        }] as Case,
      ]
      : []),
    [`a token with ${what} is refused ${reason} by authenticate, then 4002`, async (at) => {
      const client = await at.connect(null);
      assertEquals((await refused(client, [null, "1", "auth", "authenticate", { token: at.secret(token) }], reason, "1")).slice(0, 3), [null, "1", "auth"]);
      assertEquals((await client.closed).code, 4002);
    }],
    [`a token with ${what} is 401 for a back end`, async (at) => {
      if (!/^[\x21-\x7e]+$/.test(token)) return;
      const { status, body } = await at.post("/api/topics/case:case_1/events", '{"events":[]}', token);
      assertEquals([status, body.reason], [401, reason]);
    }],
  ]),
  ...[
    "null",
    '"text"',
    "[]",
    "{}",
    '{"token":null}',
    '{"token":1}',
    '{"token":["a"]}',
    '{"token":""}',
    '{"__proto__":{"token":"x"}}',
    '{"token":"\\ud800\\u0000"}',
  ]
    .map((payload): Case => [`authenticate with ${payload} is refused token_invalid, then 4002`, async (at) => {
      const client = await at.connect(null);
      await refused(client, `[null,"1","auth","authenticate",${payload}]`, "token_invalid", "1");
      assertEquals((await client.closed).code, 4002);
    }]),
  ["a token of 400 KB in authenticate is refused unread, then 4002; 1 MB closes 1009", async (at) => {
    const client = await at.connect(null);
    assertEquals((await refused(client, [null, "1", "auth", "authenticate", { token: "x".repeat(400_000) }], "token_invalid", "1"))[4].response.limit, 8192);
    assertEquals((await client.closed).code, 4002);
    const larger = await at.connect(null);
    larger.send([null, "1", "auth", "authenticate", { token: "x".repeat(1_000_000) }]);
    assertEquals((await larger.closed).code, 1009);
  }],
  ["a token of 1 MB in the URL or as authToken is turned away, not upgraded", async (at) => {
    const large = "x".repeat(1_000_000);
    for (
      const request of [
        upgradeRequest(`/socket/websocket?vsn=2.0.0&token=${large}`),
        upgradeRequest("/socket/websocket?vsn=2.0.0", { "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${large}` }),
      ]
    ) {
      const client = await TcpClient.connect(at.server.port);
      // The server may hang up before it has read all of it.
      const answer = client.write(request).then(() => client.answer()).catch(() => null);
      const status = (await answer)?.status ?? 400;
      client.close();
      assertGreaterOrEqual(status, 400);
      assertLess(status, 500);
    }
  }],
  ["a good token passes in either alphabet, padded or not; a bad authToken is not made good by the URL's [12]", async (at) => {
    const token = await at.token();
    for (const encoded of [base64url(token), btoa(token), btoa(token).replace(/=+$/, "")]) {
      const protocol = { "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${encoded}` };
      (await TcpClient.open(at.server.port, "/socket/websocket?vsn=2.0.0", protocol)).close();
    }
    await forbidden(
      at,
      `/socket/websocket?vsn=2.0.0&token=${token}`,
      { "sec-websocket-protocol": "phoenix, base64url.bearer.phx.bm9uc2Vuc2U" },
      "token_invalid",
    );
    await forbidden(at, `/socket/websocket?vsn=2.0.0&token=${token}&token=nonsense`, {}, "token_invalid");
  }],
]);

against("tokens for ever", [
  ["a token whose exp lies beyond all dates is answered all the same, and its socket works", async (at) => {
    await using client = await at.connect(null);
    const topic = freshTopic();
    const reply = await client.ask([null, "1", "auth", "authenticate", { token: at.secret(await signed({ exp: 1e15 })) }]);
    if (reply[4].status === "error") return assertEquals([reply[4].response.reason, (await client.closed).code], ["token_invalid", 4002]);
    assertEquals((await client.ask(["1", "2", topic, "phx_join", {}]))[4].status, "ok");
    await works(client, topic);
  }],
]);

Deno.test("bad input: key sets", async (t) => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-keys-" });
  const jwk = { ...await exportJWK(RSA.publicKey), alg: "RS256", use: "sig" };
  Deno.writeTextFileSync(`${dir}/keys.json`, JSON.stringify({ keys: [jwk] }));
  const at = await Outside.start({ AUTH_SECRET: "", AUTH_JWKS_FILE: `${dir}/keys.json` });
  const open = (token: string) => TcpClient.open(at.server.port, `/socket/websocket?vsn=2.0.0&token=${at.secret(token)}`);
  await t.step("bad input: a token that is HMAC-signed with the public key is 403, the key's own passes [§7]", async () => {
    const pem = await exportSPKI(RSA.publicKey);
    for (const secret of [pem, pem.trim(), JSON.stringify(jwk), JSON.stringify({ keys: [jwk] }), jwk.n!]) {
      for (const header of [{}, { alg: "HS384" }, { alg: "HS512" }]) {
        assertEquals((await assertRejects(() => signed({}, secret, header).then(open), HttpRefusal)).status, 403);
      }
      const body = `${base64url({ alg: "RS256" })}.${BODY}`;
      assertEquals((await assertRejects(() => open(`${body}.${base64url(secret)}`), HttpRefusal)).status, 403);
    }
    assertEquals((await assertRejects(() => open(`${base64url({ alg: "none" })}.${BODY}.`), HttpRefusal)).status, 403);
    (await open(RSA_TOKEN)).close();
  });
  await t.step("bad input: key sets leave no error line and no token in the output", async () => {
    assertEquals(await at.server.stop(), 0);
    assertEquals(at.server.output().includes('"level":"error"'), false, at.server.output());
    assertEquals(at.server.output().includes(RSA_TOKEN.slice(-20)), false);
  });
  await at[Symbol.asyncDispose]();
  Deno.removeSync(dir, { recursive: true });
});

// Origins.

const ALLOWED = "https://app.example.com,https://*.wild.example.org,http://dev.example.net:8080";
const ORIGINS: [origin: string, status: 101 | 403][] = [
  ["https://app.example.com", 101],
  ["http://app.example.com", 403],
  ["https://app.example.com:8443", 403],
  ["https://evil-app.example.com", 403],
  ["https://evilapp.example.com", 403],
  ["https://sub.app.example.com", 403],
  ["https://example.com", 403],
  ["https://app.example.com.evil.com", 403],
  ["https://app.example.com.", 403],
  ["https://app.example.com@evil.com", 403],
  ["https://evil.com#https://app.example.com", 403],
  ["https://evil.com\\@app.example.com", 403],
  ["https://evil.com, https://app.example.com", 403],
  ["https://app.example.com, https://evil.com", 403],
  ["https://app.exаmple.com", 403],
  ["https://a.wild.example.org", 101],
  ["https://a.b.wild.example.org", 101],
  ["https://wild.example.org", 101],
  ["http://a.wild.example.org", 403],
  ["https://a.wild.example.org:8443", 403],
  ["https://evil-wild.example.org", 403],
  ["https://evilwild.example.org", 403],
  ["https://wild.example.org.evil.com", 403],
  ["https://a.wild.example.org.evil.com", 403],
  ["https://*.wild.example.org.evil.com", 403],
  ["http://dev.example.net:8080", 101],
  ["http://dev.example.net", 403],
  ["null", 403],
  ["", 403],
  ["*", 403],
  ["file://", 403],
  ["https://", 403],
  ["data:text/html,x", 403],
  ["chrome-extension://abc", 403],
  ["ws://app.example.com", 403],
  ["constructor", 403],
];

const upgradeFrom = async (at: Outside, headers: Record<string, string>) => {
  const client = await TcpClient.connect(at.server.port);
  await client.ask("GET", `/socket/websocket?vsn=2.0.0&token=${await at.token()}`, { ...UPGRADE, ...headers });
  const { status, body } = await client.answer();
  client.close();
  assertEquals(body, "");
  return status;
};

against("origins", [
  ...ORIGINS.map(([origin, status]): Case => [`Origin ${JSON.stringify(origin)} is ${status} [10]`, async (at) => {
    assertEquals(await upgradeFrom(at, { origin: [...new TextEncoder().encode(origin)].map((byte) => String.fromCharCode(byte)).join("") }), status);
  }]),
  ["no Origin and the own host are 101, scheme and port aside; X-Forwarded-Host is nobody's word [10]", async (at) => {
    assertEquals(await upgradeFrom(at, {}), 101);
    assertEquals(await upgradeFrom(at, { origin: `http://127.0.0.1:${at.server.port}` }), 101);
    assertEquals(await upgradeFrom(at, { origin: "https://127.0.0.1" }), 101);
    assertEquals(await upgradeFrom(at, { origin: "https://evil.com", "x-forwarded-host": "evil.com" }), 403);
    assertEquals(await upgradeFrom(at, { origin: "https://127.0.0.1.evil.com" }), 403);
  }],
], { ALLOWED_ORIGINS: ALLOWED });

// Authentication over time.

against("sockets that authenticate late, twice, or as somebody else", [
  ["a socket of nobody is told unauthenticated, may beat its heart, and lives once it has a token", async (at) => {
    await using client = await at.connect(null);
    const topic = freshTopic();
    assertEquals((await refused(client, ["1", "1", topic, "phx_join", {}], "unauthenticated", "1"))[0], "1");
    await refused(client, ["1", "2", topic, "presence:update", {}], "unauthenticated", "2");
    await refused(client, ["1", "3", "__proto__", "phx_join", {}], "unauthenticated", "3");
    assertEquals((await client.ask([null, "4", "phoenix", "heartbeat", {}]))[4].status, "ok");
    const reply = await client.ask([null, "5", "auth", "authenticate", { token: await at.token(someone("late")) }]);
    assertEquals([reply[4].status, reply[4].response.user_id], ["ok", "late"]);
    assertEquals((await client.ask(["1", "6", topic, "phx_join", {}]))[4].status, "ok");
  }],
  ["frames behind authenticate are served after it, in order [57]", async (at) => {
    await using client = await at.connect(null);
    const topic = freshTopic();
    const token = await at.token();
    client.burst([[null, "1", "auth", "authenticate", { token }], ["2", "2", topic, "phx_join", {}], ["2", "3", topic, "presence:update", {}]]);
    const replies = eventsOf(await client.heard(), "phx_reply");
    assertEquals(replies.map((frame) => [frame[1], frame[4].status]), [["1", "ok"], ["2", "ok"], ["3", "ok"]]);
  }],
  ["a second token of the same user renews: the session lives past the first one's exp", async (at) => {
    const user = at.fresh();
    const topic = freshTopic();
    await using client = await at.connect(null);
    const exp = inSeconds(2) * 1000;
    assertEquals((await client.ask([null, "1", "auth", "authenticate", { token: await at.token(user, 2) }]))[4].status, "ok");
    assertEquals((await client.ask(["1", "2", topic, "phx_join", {}]))[4].status, "ok");
    assertEquals((await client.ask([null, "3", "auth", "authenticate", { token: await at.token(user) }]))[4].status, "ok");
    // The sweep runs once a second.
    await new Promise((resolve) => setTimeout(resolve, exp + 1200 - Date.now()));
    assertEquals(client.ws.readyState, 1);
    await works(client, topic);
  }],
  ["a renewal that names fewer cases closes the topics that are gone, and no others [102]", async (at) => {
    const user = at.fresh("attorney", ["kept", "gone"]);
    await using client = await at.connect(user);
    await using watcher = await at.member("case:gone");
    for (const [ref, topic] of [["1", "case:kept"], ["2", "case:gone"]]) await client.ask([ref, ref, topic, "phx_join", {}]);
    await client.heard();
    const token = await at.token({ ...user, cases: ["kept"] });
    client.send([null, "3", "auth", "authenticate", { token }]);
    const told = eventsOf(await client.heard(), "phx_reply", "phx_close");
    assertEquals(told.map((frame) => [frame[0], frame[1], frame[2], frame[3]]), [[null, "3", "auth", "phx_reply"], ["2", "2", "case:gone", "phx_close"]]);
    await works(client, "case:kept");
    await refused(client, ["2", "4", "case:gone", "presence:update", {}], "unmatched topic", "4");
    await refused(client, ["5", "5", "case:gone", "phx_join", {}], "forbidden", "5");
    assertEquals(eventsOf(await watcher.heard(), "user:left").map((frame) => frame[4].user.id), [user.id]);
  }],
  ["a token of somebody else is refused user_mismatch, then 4002; the topic hears that he left", async (at) => {
    const topic = freshTopic();
    const [user, intruder] = [at.fresh(), at.fresh()];
    await using watcher = await at.member(topic);
    const client = await at.member(topic, user);
    await refused(client, [null, "2", "auth", "authenticate", { token: await at.token(intruder) }], "user_mismatch", "2");
    assertEquals((await client.closed).code, 4002);
    const left = eventsOf(await watcher.heard(), "user:left", "user:joined").map((frame) => [frame[3], frame[4].user.id]);
    assertEquals(left, [["user:joined", user.id], ["user:left", user.id]]);
  }],
  ["a bad token on a joined socket is refused, then 4002: the good one before does not excuse it", async (at) => {
    const client = await at.member(freshTopic());
    await refused(client, [null, "2", "auth", "authenticate", { token: await signed({}, other) }], "token_invalid", "2");
    assertEquals((await client.closed).code, 4002);
  }],
  ["a token that ends while joined closes 4001, and nothing said after its exp is delivered", async (at) => {
    const topic = freshTopic();
    const service = await at.token(at.fresh("service"));
    const token = await at.token(at.fresh(), 2);
    const { exp } = JSON.parse(atob(token.split(".")[1]));
    const client = await at.connect(null);
    await client.ask([null, "0", "auth", "authenticate", { token }]);
    assertEquals((await client.ask(["1", "1", topic, "phx_join", {}]))[4].status, "ok");
    let over: number | undefined;
    client.closed.then(({ code }) => over = code);
    while (over === undefined && Date.now() < exp * 1000 + 5000) {
      await at.publish(
        topic,
        [{ event: "workflow:started", payload: { workflow_id: "w", case_id: topic.slice("case:".length), name: `${Date.now()}` } }],
        service,
      );
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assertEquals(over, 4001);
    const said: number[] = [];
    for (let frame; (frame = await client.next().catch(() => null));) if (frame[3] === "workflow:started") said.push(Number(frame[4].name));
    assertGreater(said.length, 5);
    assertEquals(said.filter((at) => at >= exp * 1000), []);
  }],
  ["a push after the exp closes 4001 at once, before the sweep comes by", async (at) => {
    const topic = freshTopic();
    const exp = inSeconds(2) * 1000;
    const client = await at.member(topic, at.fresh());
    const token = await signed({ sub: "short", exp: exp / 1000 });
    const short = await at.connect(null);
    await short.ask([null, "0", "auth", "authenticate", { token: at.secret(token) }]);
    await short.ask(["1", "1", topic, "phx_join", {}]);
    await client.heard();
    await new Promise((resolve) => setTimeout(resolve, exp + 5 - Date.now()));
    short.send(["1", "2", topic, "presence:update", { status: "too late" }]);
    assertEquals((await short.closed).code, 4001);
    assertEquals(metasOf(await client.heard()).filter((meta) => meta.status === "too late"), []);
    await client.close();
  }],
]);

against("sockets that never authenticate", [
  ["a socket that says nothing of itself is closed 4002 once its time is up", async (at) => {
    const since = performance.now();
    const silent = await at.connect(null);
    const busy = await at.connect(null);
    const beats = setInterval(() => busy.send([null, "1", "phoenix", "heartbeat", {}]), 50);
    assertEquals([(await silent.closed).code, (await busy.closed).code], [4002, 4002]);
    clearInterval(beats);
    assertGreaterOrEqual(performance.now() - since, 490);
    assertLess(performance.now() - since, 3000);
  }],
  ["one that authenticated in time stays", async (at) => {
    await using client = await at.connect(null);
    await client.ask([null, "0", "auth", "authenticate", { token: await at.token() }]);
    const topic = freshTopic();
    await client.ask(["1", "1", topic, "phx_join", {}]);
    await new Promise((resolve) => setTimeout(resolve, 700));
    await works(client, topic);
  }],
], { LIMIT_AUTHENTICATE_MS: "500" });

// Connections.

const text = (json: string) => Uint8Array.of(0x81, 0x80 | json.length, 0, 0, 0, 0, ...new TextEncoder().encode(json));

against("connections", [
  ["TCP resets at every point of an upgrade and of a frame cost nobody else anything", async (at) => {
    const topic = freshTopic();
    await using watcher = await at.member(topic);
    const request = upgradeRequest(`/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
    const join = text(`["1","1","${topic}","phx_join",{}]`);
    const points: [parts: (string | Uint8Array)[], heard: boolean][] = [
      [[], false],
      [["G"], false],
      [[request.slice(0, 40)], false],
      [[request.slice(0, -2)], false],
      [[request], false],
      [[request], true],
      [[request, join], false],
      [[request, join.subarray(0, 1)], true],
      [[request, join.subarray(0, 4)], true],
      [[request, join.subarray(0, 20)], true],
      [[request, join], true],
      [[request, join, join.subarray(0, 10)], true],
      [[request, Uint8Array.of(0x01, 0x82, 0, 0, 0, 0, 0x5b, 0x22), Uint8Array.of(0x88, 0x82, 0, 0, 0, 0, 3)], true],
      [[upgradeRequest("/socket/websocket?vsn=2.0.0&token=nonsense")], false],
      [[upgradeRequest("/nowhere")], false],
      [["POST /api/topics/case:x/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"], false],
    ];
    for (let round = 0; round < 5; round++) await Promise.all(points.map(([parts, heard]) => reset(at.server.port, parts, heard)));
    await watcher.heard();
    await works(watcher, topic);
  }],
  ["an upgrade that never ends, or ends with half a connection, keeps nobody waiting", async (at) => {
    const request = upgradeRequest(`/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
    const stalled = await TcpClient.connect(at.server.port);
    await stalled.write(request.slice(0, 60));
    const half = await TcpClient.connect(at.server.port);
    await half.write(request.slice(0, 60));
    await half.tcp.closeWrite();
    const whole = await TcpClient.connect(at.server.port);
    await whole.write(request);
    await whole.tcp.closeWrite();
    // Whether it is upgraded or hung up on is nobody's concern.
    assertEquals((await whole.answer().catch(() => null))?.status ?? 101, 101);
    await using client = await at.member(freshTopic());
    await client.heard();
    for (const connection of [stalled, half, whole]) connection.close();
  }],
  ["upgrade requests that are wrong otherwise are turned away without a word [1, 4, 8]", async (at) => {
    const token = await at.token();
    const good = `/socket/websocket?vsn=2.0.0&token=${token}`;
    const rows: [status: number, path: string, headers: Record<string, string>][] = [
      [403, `/socket/websocket?vsn=3.0.0&token=${token}`, {}],
      [403, `/socket/websocket?vsn[]=2.0.0&token=${token}`, {}],
      [403, `/socket/websocket?vsn=2.0.0%00&token=${token}`, {}],
      [403, `/socket/websocket?vsn=__proto__&token=${token}`, {}],
      [400, good, { "sec-websocket-version": "8" }],
      [400, good, { "sec-websocket-key": "short" }],
      [404, "/socket/foo", {}],
      [404, "/__proto__", {}],
    ];
    for (const [status, path, headers] of rows) {
      assertEquals((await TcpClient.request(at.server.port, "GET", path, { ...UPGRADE, ...headers })).status, status, `${path} ${JSON.stringify(headers)}`);
    }
    for (const path of ["//", "/%", "/%ff%fe", "/socket/websocket?vsn=2.0.0&token=%ff%fe", "*", "http://[", "/\\..\\"]) {
      const { status } = await TcpClient.request(at.server.port, "GET", path, UPGRADE);
      assert(status >= 400 && status < 500, `${path} is ${status}`);
    }
  }],
  ["200 sockets opened and reset at once leave the topic to those who stay [93]", async (at) => {
    const topic = freshTopic();
    await using watcher = await at.member(topic);
    const user = at.fresh();
    const request = upgradeRequest(`/socket/websocket?vsn=2.0.0&token=${await at.token(user)}`);
    const join = text(`["1","1","${topic}","phx_join",{}]`);
    await Promise.all(Array.from({ length: 200 }, (_, index) => reset(at.server.port, [request, join], index % 2 === 0)));
    await works(watcher, topic);
    // Held for PRESENCE_GRACE_MS, then gone.
    for (let left = 0; left === 0;) left = eventsOf([await watcher.next()], "user:left").filter((frame) => frame[4].user.id === user.id).length;
    await using late = await at.connect();
    late.send(["1", "1", topic, "phx_join", {}]);
    assertEquals(Object.hasOwn((await late.take(2))[1][4], user.id), false);
  }],
  ...([
    ["heartbeats", text(JSON.stringify([null, "r".repeat(60), "phoenix", "heartbeat", {}]))],
    ["pings", Uint8Array.of(0x89, 0x80 | 125, 0, 0, 0, 0, ...new Uint8Array(125))],
  ] as const).map((
    [what, frame],
  ): Case => [`a client that sends ${what} and never reads is held back or closed: its answers do not pile up [§1.6]`, async (at) => {
    const client = await TcpClient.open(at.server.port, `/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
    const chunk = new Uint8Array(frame.length * 500);
    for (let index = 0; index < 500; index++) chunk.set(frame, index * frame.length);
    // What the kernel holds for both sides is a few MB.
    let sent = 0;
    for (let stalled = false; !stalled && sent < 64_000_000;) {
      const timer = Promise.withResolvers<boolean>();
      const late = setTimeout(() => timer.resolve(true), 1500);
      stalled = await Promise.race([client.write(chunk).then(() => false, () => true), timer.promise]);
      clearTimeout(late);
      sent += chunk.length;
    }
    client.close();
    assertLess(sent, 64_000_000);
  }]),
  ["10,000 frames without waiting for an answer are answered in their order", async (at) => {
    await using client = await at.connect();
    for (let index = 0; index < 10_000; index++) client.send([null, index, "phoenix", "heartbeat", {}]);
    for (let index = 0; index < 10_000; index++) assertEquals((await client.next())[1], index);
  }],
], { PRESENCE_GRACE_MS: "200" });
