/** Sizes and shapes at their limits, over real sockets: what fits arrives whole, what does not is refused, and neither costs others anything. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { eventsOf, Outside } from "./support/outside.ts";
import { BINARY, CLOSE, frameBytes, joined, memoryOf, paceOf, Peer, PING, PONG, TEXT } from "./support/peer.ts";
import { type Heard, RawClient } from "./support/raw.ts";

const KIB = 1024;
const TOPIC = "collaboration:sizes";

/** A document that is registered, a speaker, and two who hear him: one on either version of the wire. */
async function scene(at: Outside) {
  await at.publish("case:case_1", [{ event: "document:uploaded", payload: { document: { id: "sizes" } } }]);
  const speaker = await at.member(TOPIC);
  const young = await at.member(TOPIC);
  const old = await RawClient.open(at.url(await at.token(), "1.0.0"));
  old.send({ topic: TOPIC, event: "phx_join", payload: {}, ref: "1" });
  let refs = 0;
  /** The reply to a push whose payload is that text. */
  const push = async (payload: string, event = "selection:share"): Promise<Heard> => {
    const ref = `p${++refs}`;
    speaker.send(`["1","${ref}","${TOPIC}","${event}",${payload}]`);
    for (;;) {
      const heard = await speaker.next();
      if (heard[1] === ref) return heard[4];
    }
  };
  /** What both were told next, in the words of the one with the newer wire. */
  const told = async (event = "selection:shared"): Promise<Heard> => {
    let [v2, v1]: Heard[] = [null, null];
    while (v2?.[3] !== event) v2 = await young.next();
    while (v1?.event !== event) v1 = await old.next();
    assertEquals(v1.payload, v2[4]);
    return v2[4];
  };
  const close = () => Promise.all([speaker, young, old].map((client) => client.close()));
  return { speaker, young, push, told, close };
}

const OK = { status: "ok", response: {} };

/** How a character may be written: on the wire, and in UTF-16 units as JSON writes it again. */
const WRITTEN: [what: string, text: string, units: number][] = [
  ["characters of one byte", "a", 1],
  ["characters of two bytes", "é", 1],
  ["characters of three bytes", "€", 1],
  ["characters of four bytes", "😀", 2],
  ["letters written as escapes", "\\u0061", 1],
  ["accents written as escapes", "\\u00e9", 1],
  ["pairs written as escapes", "\\ud83d\\ude00", 2],
  ["escaped slashes", "\\/", 1],
  ["escaped quotes", '\\"', 2],
  ["line breaks", "\\n", 2],
  ["control characters", "\\u0001", 6],
  ["half pairs", "\\udc00", 6],
];

Deno.test("sizes: 65,535 and 65,536 UTF-16 units arrive as they were said, 65,537 are refused payload_too_large, whatever they are written as [46, V02]", async (t) => {
  await using at = await Outside.start();
  const { speaker, young, push, told, close } = await scene(at);
  const shell = (filling: string) => `{"text":"","range":"${filling}"}`;
  for (const [what, text, each] of WRITTEN) {
    await t.step(`sizes: ${what}`, async () => {
      for (const units of [65_535, 65_536, 65_537]) {
        const room = units - shell("").length;
        const payload = shell(text.repeat(Math.floor(room / each)) + "a".repeat(room % each));
        assertEquals(JSON.stringify(JSON.parse(payload)).length, units);
        const reply = await push(payload);
        if (units <= 65_536) {
          assertEquals(reply, OK);
          const { range } = await told();
          assert(range === JSON.parse(payload).range, `${range.length} units arrived`);
        } else assertEquals(reply, { status: "error", response: { reason: "payload_too_large", limit: 65_536 } });
      }
      // The socket is as it was, and nobody heard of what was refused.
      assertEquals(await push('{"x":1,"y":2}', "cursor:move"), OK);
      assertEquals((await told("cursor:position")).x, 1);
    });
  }
  await t.step("sizes: a join, and a batch as a whole, are measured alike", async () => {
    const filling = (units: number) => "x".repeat(units);
    for (const [units, reason] of [[65_536, undefined], [65_537, "payload_too_large"]] as const) {
      const topic = `case:join_${units}`;
      const join = await speaker.ask(["9", "9", topic, "phx_join", { x: filling(units - 8) }]);
      assertEquals(join[4].response.reason, reason);
      const message = (text: string) => ({ event: "selection:share", payload: { text: "t", range: text } });
      const half = Math.floor((units - JSON.stringify({ messages: [message(""), message("")] }).length) / 2);
      const rest = units - JSON.stringify({ messages: [message(filling(half)), message("")] }).length;
      const batch = JSON.stringify({ messages: [message(filling(half)), message(filling(rest))] });
      assertEquals(batch.length, units);
      assertEquals((await push(batch, "batch")).response.reason, reason);
    }
  });
  await young.heard();
  await close();
});

// Frames.

/** A push that is as many bytes long as its frame; its payload is refused, for frames that large are read and payloads are not taken. */
function pushOf(size: number, character = "x", vsn: "1" | "2" = "2"): Uint8Array {
  const each = new TextEncoder().encode(character).length;
  const [head, tail] = vsn === "2"
    ? [`["1","big","${TOPIC}","selection:share",{"text":"`, '"}]']
    : [`{"topic":"${TOPIC}","ref":"big","join_ref":"1","event":"selection:share","payload":{"text":"`, '"}}'];
  const room = size - head.length - tail.length;
  return new TextEncoder().encode(head + character.repeat(Math.floor(room / each)) + "x".repeat(room % each) + tail);
}
/** A binary push. */
function binaryOf(size: number): Uint8Array {
  const names = ["1", "big", TOPIC, "selection:share"].map((name) => new TextEncoder().encode(name));
  const head = joined([Uint8Array.of(0, ...names.map(({ length }) => length)), ...names]);
  return joined([head, new Uint8Array(size - head.length)]);
}

type Cut = (opcode: number, data: Uint8Array) => Uint8Array;
const inPieces = (size: number, between: Uint8Array = new Uint8Array()): Cut => (opcode, data) => {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += size) {
    parts.push(frameBytes(at === 0 ? opcode : 0, data.subarray(at, at + size), { fin: at + size >= data.length }), between);
  }
  return joined(parts);
};

const CUTS: [what: string, cut: Cut][] = [
  ["one frame", (opcode, data) => frameBytes(opcode, data)],
  ["two fragments", inPieces(256 * KIB)],
  ["fragments of 1,021 bytes", inPieces(1021)],
  ["fragments with pings between", inPieces(64 * KIB, frameBytes(PING, "still here"))],
];
const MADE_OF: [what: string, vsn: "1" | "2", opcode: number, data: (size: number) => Uint8Array][] = [
  ["letters", "2", TEXT, (size) => pushOf(size)],
  ["characters of three bytes", "2", TEXT, (size) => pushOf(size, "€")],
  ["characters of four bytes", "2", TEXT, (size) => pushOf(size, "😀")],
  ["letters of the older wire", "1", TEXT, (size) => pushOf(size, "x", "1")],
  ["bytes", "2", BINARY, binaryOf],
];

Deno.test("sizes: messages of 511 and 512 KiB are read and refused payload_too_large, a byte more and 513 KiB close 1009, in whatever pieces they come [46]", async (t) => {
  await using at = await Outside.start();
  await at.publish("case:case_1", [{ event: "document:uploaded", payload: { document: { id: "sizes" } } }]);
  const before = await at.looks();
  const memory = memoryOf(at.server.pid);
  const users = [at.fresh(), at.fresh()];
  for (const [what, vsn, opcode, make] of MADE_OF) {
    await t.step(`sizes: ${what}`, async () => {
      for (const [pieces, cut] of CUTS) {
        // What comes of it: a reply, then what is said when it goes on; or a close.
        using peer = await Peer.open(at, users[0], `${vsn}.0.0`);
        await peer.write(
          frameBytes(
            TEXT,
            vsn === "2" ? `["1","1","${TOPIC}","phx_join",{}]` : `{"topic":"${TOPIC}","event":"phx_join","payload":{},"ref":"1","join_ref":"1"}`,
          ),
        );
        for (const size of [511 * KIB, 512 * KIB]) {
          await peer.write(cut(opcode, make(size)));
          const reply = await replyTo(peer, "big");
          assertEquals([reply.status, reply.response], ["error", { reason: "payload_too_large", limit: 65_536 }], `${size} bytes in ${pieces}`);
        }
        for (const size of [512 * KIB + 1, 513 * KIB]) {
          using large = await Peer.open(at, users[1], `${vsn}.0.0`);
          await large.write(cut(opcode, make(size)));
          assertEquals(await large.code(), 1009, `${size} bytes in ${pieces}`);
        }
      }
    });
  }
  await t.step("sizes: 40 MB of such messages leave less than 128 MB behind", () => assertLess(memoryOf(at.server.pid) - memory, 128));
  await at.unharmed(before);
});

/** The reply with that ref, on either wire. Pongs stand before it, for pings are answered at once. */
async function replyTo(peer: Peer, ref: string): Promise<Heard> {
  for (;;) {
    const frame = await peer.next();
    assert(frame !== null && frame.opcode !== CLOSE, "closed");
    if (frame.opcode === PONG) assertEquals(new TextDecoder().decode(frame.data), "still here");
    if (frame.opcode !== TEXT) continue;
    const heard = JSON.parse(new TextDecoder().decode(frame.data));
    if (Array.isArray(heard) && heard[1] === ref && heard[3] === "phx_reply") return heard[4];
    if (heard.ref === ref && heard.event === "phx_reply") return heard.payload;
  }
}

// Shapes.

const arrays = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
const objects = (levels: number, key = "a") => `{"${key}":`.repeat(levels - 1) + "{}" + "}".repeat(levels - 1);
const keys = (count: number, name: (index: number) => string) => `{${Array.from({ length: count }, (_, index) => `"${name(index)}":0`).join(",")}}`;
const range = (text: string) => `{"text":"","range":${text}}`;

/** What is said, and the reason with which it is refused; null when it is taken, and told as it was said. */
const SHAPES: [what: string, payload: string, reason: string | null, event?: string][] = [
  ["a range 63 levels deep", range(arrays(63)), null],
  ["a range of objects 63 levels deep", range(objects(63)), null],
  ["a range 64 levels deep", range(arrays(64)), "invalid_payload"],
  ["a range of arrays 10,000 deep", range(arrays(10_000)), "invalid_payload"],
  ["a range of objects 10,000 deep", range(objects(10_000)), "invalid_payload"],
  ["a range of objects 10,000 deep, by a name of every object", range(objects(10_000, "__proto__")), "invalid_payload"],
  ["arrays 250,000 deep", range(arrays(250_000)), "invalid_payload"],
  ["an encrypted payload 10,000 deep", `{"encrypted":{"iv":[1],"data":[],"x":${arrays(10_000)}}}`, "invalid_payload"],
  ["a batch whose message is 10,000 deep", `{"messages":[{"event":"selection:share","payload":${range(arrays(10_000))}}]}`, "invalid_payload", "batch"],
  ["markup 10,000 deep", `{"text":"","range":${objects(10_000, "html")}}`, "invalid_payload"],
  ["a range of 7,000 keys", range(keys(7000, (index) => `${index.toString(36)}`)), null],
  ["a range of 40,000 keys", range(keys(40_000, (index) => `k${index}`)), "payload_too_large"],
  ["a range of 40,000 keys that are numbers", range(keys(40_000, (index) => `${index * 107}`)), "payload_too_large"],
  ["100,000 times the same key", range(keys(100_000, () => "")), null],
  ["a key of 65,000 characters", range(`{"${"k".repeat(65_000)}":1}`), null],
  ["150,000 times nothing", range(`[${"[],".repeat(150_000)}[]]`), "payload_too_large"],
  ["35,000 keys beside those that are known", keys(35_000, () => "__proto__").replace("{", '{"text":"",'), null],
];

/** Numbers: how they are written, and how they are told. JSON has no others than those of IEEE 754. */
const NUMBERS: [written: string, told: string | null][] = [
  ["9007199254740991", "9007199254740991"],
  ["9007199254740993", "9007199254740992"],
  ["-0", "0"],
  ["1e308", "1e+308"],
  ["5e-324", "5e-324"],
  ["1e-400", "0"],
  ["0.1", "0.1"],
  [`1${"0".repeat(300)}`, "1e+300"],
  [`0.${"3".repeat(60_000)}`, "0.3333333333333333"],
  [`1${"0".repeat(400)}`, null],
  ["1e400", null],
  ["-1e400", null],
  [`1${"0".repeat(500_000)}`, null],
];

Deno.test("sizes: depth, keys and numbers without end are refused or taken, at once, and nobody waits for them [V02, promise 6]", async (t) => {
  await using at = await Outside.start();
  const before = await at.looks();
  const { push, told, close } = await scene(at);
  await using other = await at.connect();
  const memory = memoryOf(at.server.pid);
  for (const [what, payload, reason, event] of SHAPES) {
    await t.step(`sizes: ${what}`, async () => {
      const answer = push(payload, event);
      const [reply, pace] = await Promise.all([answer, paceOf(() => other.heard(), 50)]);
      assertEquals(reply.response.reason ?? null, reason, JSON.stringify(reply).slice(0, 300));
      if (reason === null) assertEquals(JSON.stringify((await told()).range), JSON.stringify(JSON.parse(payload).range));
      // The slowest of them takes some ten milliseconds.
      assertLess(pace.p99, 1000);
    });
  }
  for (const [written, expected] of NUMBERS) {
    await t.step(`sizes: the number ${written.length > 40 ? `${written.slice(0, 10)}… of ${written.length} digits` : written}`, async () => {
      const reply = await push(`{"x":${written},"y":0}`, "cursor:move");
      if (expected === null) return assertEquals(reply.response.reason, "invalid_payload");
      assertEquals([reply, JSON.stringify((await told("cursor:position")).x)], [OK, expected]);
    });
  }
  await t.step("sizes: numbers beyond all measure are no refs, topics or events", async () => {
    using peer = await Peer.open(at);
    for (const frame of [`["1",1e400,"${TOPIC}","x",{}]`, `[1e400,"1","${TOPIC}","x",{}]`, '["1","1",1e400,"x",{}]', `["1","1","${TOPIC}",1e400,{}]`]) {
      await peer.write(frameBytes(TEXT, frame));
      assertEquals((await peer.heard())[4].response.reason, "invalid_frame", frame);
    }
  });
  await t.step("sizes: all of it leaves less than 128 MB behind", () => assertLess(memoryOf(at.server.pid) - memory, 128));
  await close();
  await other.close();
  await at.unharmed(before);
});

Deno.test("sizes: 100 frames of 512 KiB in a row are answered one by one, in order, and the socket stays [46]", async () => {
  await using at = await Outside.start();
  await using client = await at.member("case:row");
  await client.heard();
  const memory = memoryOf(at.server.pid);
  const head = (index: number) => `["1","${index}","case:row","presence:update",{"status":"`;
  for (let index = 0; index < 100; index++) client.send(`${head(index)}${"x".repeat(512 * KIB - head(index).length - 3)}"}]`);
  for (let index = 0; index < 100; index++) {
    const [, ref, , , { response }] = await client.next();
    assertEquals([ref, response.reason], [`${index}`, "payload_too_large"]);
  }
  assertEquals(eventsOf(await client.heard(), "phx_reply"), []);
  assertLess(memoryOf(at.server.pid) - memory, 200);
});
