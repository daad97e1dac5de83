/** RFC 6455, broken in every way that a client can: the right code for each, and nobody else notices. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { eventsOf, Outside } from "./support/outside.ts";
import { BINARY, CLOSE, frameBytes, joined, memoryOf, paceOf, Peer, PING, PONG, repeated, said, TEXT } from "./support/peer.ts";
import { type RawClient, TcpClient, UPGRADE } from "./support/raw.ts";

const bytes = (...values: number[]) => Uint8Array.from(values);
const text = (data: Uint8Array | string, fin = true) => frameBytes(TEXT, data, { fin });
const more = (data: Uint8Array | string, fin = false) => frameBytes(0, data, { fin });
const close = (code: number, reason: Uint8Array | string = "") =>
  frameBytes(CLOSE, joined([bytes(code >> 8, code & 255), typeof reason === "string" ? new TextEncoder().encode(reason) : reason]));

/** A message whose answer carries the ref. */
const beat = (ref: string) => JSON.stringify([null, ref, "phoenix", "heartbeat", {}]);
const answerTo = (ref: string) => [null, ref, "phoenix", "phx_reply", { status: "ok", response: {} }];

type Row = readonly [what: string, code: number, ...writes: Uint8Array[]];

const NAMES: Record<number, string> = { 0: "continuation", [TEXT]: "text", [BINARY]: "binary", [CLOSE]: "close", [PING]: "ping", [PONG]: "pong" };

// What is not well-formed. [17]

const MASKS: Row[] = [TEXT, BINARY, CLOSE, PING, PONG].flatMap((opcode): Row[] => [
  [`an unmasked ${NAMES[opcode]}`, 1002, frameBytes(opcode, "", { masked: false })],
  [`an unmasked ${NAMES[opcode]} with data`, 1002, frameBytes(opcode, opcode === CLOSE ? bytes(3, 232) : beat("1"), { masked: false })],
]);
const RESERVED: Row[] = [
  ...[TEXT, BINARY, CLOSE, PING, PONG].flatMap((opcode) =>
    [1, 2, 4, 7].map((rsv): Row => [`reserved bits ${rsv} on a ${NAMES[opcode]}`, 1002, frameBytes(opcode, "", { rsv })])
  ),
  ...[1, 2, 4].map((rsv): Row => [`reserved bits ${rsv} on a continuation`, 1002, text("[", false), frameBytes(0, "]", { rsv })]),
];
const OPCODES: Row[] = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].flatMap((opcode): Row[] => [
  [`opcode ${opcode}`, 1002, frameBytes(opcode)],
  [`opcode ${opcode} inside a fragmented message`, 1002, text("[", false), frameBytes(opcode, "x")],
]);
const CONTROL: Row[] = [CLOSE, PING, PONG].flatMap((opcode): Row[] => [
  [`a fragmented ${NAMES[opcode]}`, 1002, frameBytes(opcode, "", { fin: false })],
  [`a ${NAMES[opcode]} of 126 bytes`, 1002, frameBytes(opcode, "x".repeat(126))],
  [`a ${NAMES[opcode]} of 65,536 bytes`, 1002, frameBytes(opcode, "x".repeat(65_536))],
  [`a ${NAMES[opcode]} whose short length takes 16 bits`, 1002, frameBytes(opcode, bytes(3, 232), { bits: 16 })],
  [`a ${NAMES[opcode]} whose short length takes 64 bits`, 1002, frameBytes(opcode, bytes(3, 232), { bits: 64 })],
]);
const FRAGMENTS: Row[] = [
  ["a continuation of nothing", 1002, more("x", true)],
  ["a continuation of nothing that is to be continued", 1002, more("x")],
  ["an empty continuation of nothing", 1002, more("", true)],
  ["a continuation after the message has ended", 1002, text("[", false), more("]", true), more("", true)],
  ["a continuation of a ping", 1002, frameBytes(PING, "x"), more("x", true)],
  ["a text inside a fragmented text", 1002, text("[", false), text("[]")],
  ["a binary inside a fragmented text", 1002, text("[", false), frameBytes(BINARY, "x")],
  ["a text inside a fragmented binary", 1002, frameBytes(BINARY, "x", { fin: false }), text("[]")],
  ["a second beginning", 1002, text("[", false), text("[", false)],
  ["a second beginning after a ping", 1002, text("[", false), frameBytes(PING), text("[", false)],
];

const ILL_FORMED: [what: string, data: Uint8Array][] = [
  ["a byte that never occurs", bytes(0xff)],
  ["a continuation byte alone", bytes(0x80)],
  ["two bytes for a slash", bytes(0xc0, 0xaf)],
  ["three bytes for a slash", bytes(0xe0, 0x80, 0xaf)],
  ["four bytes for a slash", bytes(0xf0, 0x80, 0x80, 0xaf)],
  ["half a surrogate pair", bytes(0xed, 0xa0, 0x80)],
  ["a surrogate pair", bytes(0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80)],
  ["a character beyond U+10FFFF", bytes(0xf4, 0x90, 0x80, 0x80)],
  ["five bytes for a character", bytes(0xf8, 0x88, 0x80, 0x80, 0x80)],
  ["half a character", bytes(0xe2, 0x82)],
  ["half a character and a letter", bytes(0xe2, 0x82, 0x61)],
];
const quoted = (data: Uint8Array) => joined([bytes(0x22), data, bytes(0x22)]);
const UTF8: Row[] = [
  ...ILL_FORMED.flatMap(([what, data]): Row[] => [
    [`${what} as a text`, 1007, text(data)],
    [`${what} in a text`, 1007, text(quoted(data))],
    [`${what} in the second of three fragments`, 1007, text('"', false), more(data), more('"', true)],
    [`${what} in a close reason`, 1007, close(1000, data)],
  ]),
  ["half a character at the end of a fragment, and a letter", 1007, text(bytes(0x22, 0xe2, 0x82), false), more(bytes(0x61, 0x22), true)],
  ["half a character at the end of the last fragment", 1007, text('"', false), more(bytes(0xe2, 0x82), true)],
  ["half a character, a ping, and an empty end", 1007, text(bytes(0x22, 0xe2, 0x82), false), frameBytes(PING), more("", true)],
  ["a surrogate pair over two fragments", 1007, text(bytes(0xed, 0xa0, 0xbd), false), more(bytes(0xed, 0xb8, 0x80), true)],
];

const CLOSES: Row[] = [
  ["a close of one byte", 1002, frameBytes(CLOSE, bytes(3))],
  ...[0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 32_768, 65_535]
    .map((code): Row => [`close code ${code}, which nobody may send`, 1002, close(code)]),
  ...[1000, 1001, 1003, 1011, 3000, 4999].map((code): Row => [`close code ${code}, which anybody may`, code, close(code, "bye €")]),
  ["a close without a code", 1005, frameBytes(CLOSE)],
  ["a close with a reason of 123 bytes", 1000, close(1000, "x".repeat(123))],
  ["a close inside a fragmented message", 1000, text("[", false), close(1000)],
];

const LENGTHS: Row[] = [
  ["512 KiB and a byte, only promised", 1009, frameBytes(TEXT, "", { says: 524_289 })],
  ["512 KiB and a byte of binary, only promised", 1009, frameBytes(BINARY, "", { says: 524_289 })],
  ["fragments that promise 512 KiB and a byte together", 1009, text("x".repeat(1000), false), frameBytes(0, "", { says: 523_289 })],
  ...[32, 52, 53, 62].map((power): Row => [`2^${power} bytes, only promised`, 1009, frameBytes(TEXT, "", { says: 2 ** power })]),
  ["a length whose highest bit is set", 1009, bytes(0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
  ["a length of all ones", 1009, bytes(0x81, 0xff, ...Array(8).fill(0xff), 0, 0, 0, 0)],
  ["a binary of the longest length", 1009, bytes(0x82, 0xff, 0x7f, ...Array(7).fill(0xff), 0, 0, 0, 0)],
  ["an empty text, which is no frame of the protocol", 1003, text("")],
  ["an empty binary", 1003, frameBytes(BINARY)],
  ["an empty text of two fragments", 1003, text("", false), more("", true)],
  ["20,000 empty fragments", 1008, text("[", false), repeated(more(""), 20_000 * 6)],
];

// What comes after the end is nobody's business.

const AFTER: Row[] = [
  ["frames after a close", 1000, joined([close(1000), said(beat("1")), said(["1", "1", "case:by", "phx_join", {}])])],
  ["garbage after a close", 1000, joined([close(1000), bytes(0xff, 0xff, 0xff, 0xff), repeated(said("x"), 10_000)])],
  ["a second close", 1001, joined([close(1001), close(4000)])],
  ["frames after an unmasked one", 1002, joined([bytes(0x81, 1, 0x20), said(["1", "1", "case:by", "phx_join", {}])])],
  ["frames after garbage", 1003, joined([said("garbage"), said(["1", "1", "case:by", "phx_join", {}])])],
  ["garbage after frames", 1003, joined([said(beat("1")), said(beat("2")), said("garbage")])],
];

const TABLES: Record<string, readonly Row[]> = { MASKS, RESERVED, OPCODES, CONTROL, FRAGMENTS, UTF8, CLOSES, LENGTHS, AFTER };

/** Somebody in a room of which nobody here knows: he hears nothing, and is answered. */
async function undisturbed(bystander: RawClient): Promise<void> {
  assertEquals(await bystander.heard(), []);
}

Deno.test("rfc6455: whatever is broken is closed with its code, and the connection ends [16, 17]", async (t) => {
  await using at = await Outside.start();
  const before = await at.looks();
  await using bystander = await at.member("case:by");
  await bystander.heard();
  const user = at.fresh();
  const memory = memoryOf(at.server.pid);
  for (const [table, rows] of Object.entries(TABLES)) {
    await t.step(`rfc6455: ${table.toLowerCase()}`, async () => {
      for (const [what, code, ...writes] of rows) {
        using peer = await Peer.open(at, user);
        for (const write of writes) await peer.write(write);
        const heard = await peer.code().catch((error) => error.message);
        assertEquals(heard, code, what);
        await peer.write(close(1000));
        // Nothing is said after a close.
        assertEquals(await peer.next().catch((error) => error.message), null, what);
      }
      await undisturbed(bystander);
    });
  }
  await t.step("rfc6455: 200 connections broken in some way leave less than 64 MB behind", () => {
    assertLess(memoryOf(at.server.pid) - memory, 64);
  });
  await bystander.close();
  await at.unharmed(before);
});

// What looks odd and is allowed.

const letters = new TextEncoder().encode(beat("é€😀"));
const ODD: [what: string, writes: Uint8Array[], answers: readonly (readonly [opcode: number, data: unknown])[]][] = [
  ["a text in fragments of one byte, through its characters", [
    text(letters.subarray(0, 1), false),
    ...[...letters.subarray(1, -1)].map((byte) => more(bytes(byte))),
    more(letters.subarray(-1), true),
  ], [[TEXT, answerTo("é€😀")]]],
  ["bytes that come one by one", [...said(beat("1"))].map((byte) => bytes(byte)), [[TEXT, answerTo("1")]]],
  ["empty fragments before, between and behind", [text("", false), more(""), more(beat("2")), more(""), more("", true)], [[TEXT, answerTo("2")]]],
  ["pings between fragments: answered at once, with their data", [
    text(beat("3").slice(0, 5), false),
    frameBytes(PING, "one"),
    more(beat("3").slice(5, 9)),
    frameBytes(PING),
    more(beat("3").slice(9), true),
  ], [[PONG, "one"], [PONG, ""], [TEXT, answerTo("3")]]],
  ["a ping of 125 bytes", [frameBytes(PING, "x".repeat(125))], [[PONG, "x".repeat(125)]]],
  ["pongs that nobody asked for", [frameBytes(PONG), frameBytes(PONG, "x".repeat(125)), said(beat("4"))], [[TEXT, answerTo("4")]]],
  // RFC 6455 forbids them (5.2), and nobody is harmed by them.
  ["a length in 16 bits where 7 are enough", [frameBytes(TEXT, beat("5"), { bits: 16 })], [[TEXT, answerTo("5")]]],
  ["a length in 64 bits where 7 are enough", [frameBytes(TEXT, beat("6"), { bits: 64 })], [[TEXT, answerTo("6")]]],
  ["a length in 64 bits where 16 are enough", [frameBytes(TEXT, beat("7").padEnd(200), { bits: 64 })], [[TEXT, answerTo("7")]]],
  ["100 frames in one write", [joined(Array(100).fill(said(beat("8"))))], Array(100).fill([TEXT, answerTo("8")])],
  ["500 pings in one write", [joined(Array.from({ length: 500 }, (_, n) => frameBytes(PING, `${n}`)))], Array.from({ length: 500 }, (_, n) => [PONG, `${n}`])],
];

Deno.test("rfc6455: what is odd and allowed is answered, in order [17]", async (t) => {
  await using at = await Outside.start();
  using peer = await Peer.open(at);
  peer.tcp.setNoDelay(true);
  for (const [what, writes, answers] of ODD) {
    await t.step(`rfc6455: ${what}`, async () => {
      for (const write of writes) await peer.write(write);
      for (const answer of answers) {
        const { opcode, data } = (await peer.next())!;
        const heard = new TextDecoder().decode(data);
        assertEquals([opcode, opcode === TEXT ? JSON.parse(heard) : heard], [...answer], what);
      }
    });
  }
  await t.step("rfc6455: a mask is undone, whatever it is and wherever the frame is cut", async () => {
    const mask = bytes(0x37, 0xfa, 0x21, 0x3d);
    for (const cut of [1, 3, 5, 6, 7, 11]) {
      const frame = said(beat(`cut ${cut}`));
      for (let index = 0; index < frame.length - 6; index++) frame[6 + index] ^= mask[index % 4];
      frame.set(mask, 2);
      await peer.write(frame.subarray(0, cut));
      await peer.write(frame.subarray(cut));
      assertEquals(await peer.heard(), answerTo(`cut ${cut}`));
    }
  });
  await t.step("rfc6455: compression is offered in vain, and using it all the same closes 1002", async () => {
    const extensions = "permessage-deflate; client_max_window_bits, permessage-bzip2";
    const path = `/socket/websocket?vsn=2.0.0&token=${await at.token()}`;
    const offered = await TcpClient.connect(at.server.port);
    await offered.ask("GET", path, { ...UPGRADE, "sec-websocket-extensions": extensions });
    const { status, headers } = await offered.answer();
    assertEquals([status, headers.get("sec-websocket-extensions")], [101, null]);
    await offered.write(frameBytes(TEXT, bytes(0x8a, 0x8e, 0x05, 0x00), { rsv: 4 }));
    assertEquals(await offered.closeCode(), 1002);
    offered.close();
  });
});

// Half an end.

Deno.test("rfc6455: who breaks the protocol, or says goodbye, and does not hang up has left all the same", async (t) => {
  await using at = await Outside.start({ PRESENCE_GRACE_MS: "200" });
  await using watcher = await at.member("case:door");
  const ends: [what: string, code: number, bytes: Uint8Array][] = [
    ["garbage", 1003, said("garbage")],
    ["an unmasked frame", 1002, bytes(0x81, 1, 0x20)],
    ["bad UTF-8", 1007, text(bytes(0xff))],
    ["a frame that is too large", 1009, frameBytes(TEXT, "", { says: 524_289 })],
    ["a close", 1000, close(1000)],
  ];
  for (const [what, code, bytes] of ends) {
    await t.step(`rfc6455: after ${what} he is gone within the grace, though the connection stands`, async () => {
      const user = at.fresh();
      using peer = await Peer.member(at, "case:door", user);
      await watcher.heard();
      await peer.write(bytes);
      assertEquals(await peer.code(), code);
      for (const end = performance.now() + 3000;;) {
        const left = eventsOf([await watcher.next(Math.max(1, end - performance.now()))], "user:left");
        if (left.some((frame) => frame[4].user.id === user.id)) break;
      }
    });
  }
});

const GOODBYE = close(1000);

Deno.test("rfc6455: a client that goes on after it was closed is not listened to: it keeps nobody waiting", async (t) => {
  await using at = await Outside.start();
  await using other = await at.connect();
  const quiet = await paceOf(() => other.heard(), 300);
  const rows: [what: string, end: Uint8Array, flood: Uint8Array][] = [
    ["garbage, then heartbeats", said("garbage"), repeated(said(beat("1")))],
    ["garbage, then pongs", said("garbage"), repeated(frameBytes(PONG))],
    ["an unmasked frame, then heartbeats", bytes(0x81, 1, 0x20), repeated(said(beat("1")))],
    ["a close, then heartbeats", GOODBYE, repeated(said(beat("1")))],
  ];
  for (const [what, end, flood] of rows) {
    await t.step(`rfc6455: ${what}`, async () => {
      using peer = await Peer.open(at);
      await peer.write(end);
      assert(await peer.code() !== 1006);
      let goesOn = true;
      const pouring = peer.pour(flood, () => goesOn);
      const flooded = await paceOf(() => other.heard(), 700).finally(async () => {
        goesOn = false;
        peer.close();
        await pouring;
      });
      // Two busy cores: generous, and far from the seconds that it takes when every frame is read.
      assertLess(flooded.median, 100 + 10 * quiet.median, `${JSON.stringify({ quiet, flooded })}`);
      // Reading it only to throw it away makes garbage faster than it is collected: some hundred MB.
      if (end !== GOODBYE) assertLess(peer.sent / 1e6, 64, "MB taken after the close");
    });
  }
});
