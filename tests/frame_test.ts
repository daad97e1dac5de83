import { assert, assertEquals, assertThrows } from "@std/assert";
import { FrameError, isName, MAX_NAME_BYTES, type Message, negotiate, type Ref, type Serializer, V1, V2 } from "../protocol/frame.ts";
import { random } from "./support/random.ts";

const utf8 = new TextEncoder();
const decoder = new TextDecoder();
const bytes = (...parts: (number | string)[]) => new Uint8Array(parts.flatMap((part) => typeof part === "number" ? [part] : [...utf8.encode(part)]));
const text = (serializer: Serializer, frame: unknown) => serializer.decode(typeof frame === "string" ? frame : JSON.stringify(frame));

Deno.test("frame: the vsn decides, as Phoenix's `~> 1.0.0` and `~> 2.0.0` do [2, 3, 4]", () => {
  const table: [string | undefined, Serializer | undefined][] = [
    [undefined, V1],
    ...["1.0.0", "1.0.5", "1.0.10", "1.0.0+build"].map((vsn): [string, Serializer] => [vsn, V1]),
    ...["2.0.0", "2.0.9", "2.0.0+build.1-x"].map((vsn): [string, Serializer] => [vsn, V2]),
    ...[
      "3.0.0",
      "1.1.0",
      "2.1.0",
      "2",
      "2.0",
      "abc",
      "",
      "2.0.0-rc.1",
      "2.0.0-rc.1+x",
      "2.0.01",
      "02.0.0",
      " 2.0.0",
      "2.0.0 ",
      "2.0.0\n",
      "2.0.0+",
      "2.0.x",
      "-2.0.0",
      "2.0.0.0",
      "1.0.0,2.0.0",
      "__proto__",
    ]
      .map((vsn): [string, undefined] => [vsn, undefined]),
  ];
  for (const [vsn, serializer] of table) assert(negotiate(vsn) === serializer, String(vsn));
});

Deno.test("frame: V2 text in [15, 16, 18, 19]", () => {
  const message = (join_ref: Ref, ref: Ref, topic: string, event: string, payload: unknown) => ({ join_ref, ref, topic, event, payload });
  const table: [string, Omit<Message, "size">][] = [
    [`["1","1","room:x","phx_join",{}]`, message("1", "1", "room:x", "phx_join", {})],
    [`[1,2,"t","e",{"a":1}]`, message(1, 2, "t", "e", { a: 1 })],
    [`[null,null,"t","e",null]`, message(null, null, "t", "e", null)],
    [`[true,1.5,"","",[1]]`, message(true, 1.5, "", "", [1])],
    [`["1","1","t","e","text",6,7]`, message("1", "1", "t", "e", "text")],
    [` ["1","1","t","e",{"a":1,"a":2}] `, message("1", "1", "t", "e", { a: 2 })],
    [`["1","1","t\\u0000","\\u2028😀",{}]`, message("1", "1", "t\u0000", "\u2028😀", {})],
  ];
  for (const [frame, expected] of table) assertEquals(text(V2, frame), { ...expected, size: frame.length });
});

Deno.test("frame: V1 text in, whatever the opcode [36, 39]", () => {
  const frame = `{"topic":"t","event":"e","payload":{"a":1},"ref":"2","join_ref":"1","more":1}`;
  const expected = { join_ref: "1", ref: "2", topic: "t", event: "e", payload: { a: 1 }, size: frame.length };
  for (const data of [frame, utf8.encode(frame)]) assertEquals(V1.decode(data), expected);
  assertEquals(text(V1, { topic: "t", event: "e", payload: 1, ref: null }).join_ref, null);
});

Deno.test("frame: V2 binary in [25, 30, 31, 32]", () => {
  assertEquals(V2.decode(bytes(0, 1, 1, 6, 7, "14test:abinecho", 0xde, 0xad)), {
    join_ref: "1",
    ref: "4",
    topic: "test:a",
    event: "binecho",
    payload: new Uint8Array([0xde, 0xad]),
    size: 22,
  });
  assertEquals(V2.decode(bytes(0, 0, 0, 0, 0)), { join_ref: "", ref: "", topic: "", event: "", payload: new Uint8Array(), size: 5 });
  assertEquals(V2.decode(bytes(0, 0, 1, 7, 9, "5phoenixheartbeat")).event, "heartbeat");
  const long = "é".repeat(127);
  assertEquals(V2.decode(bytes(0, 0, 0, 254, 0, long)).topic, long);
});

Deno.test("frame: binary data is a copy, not a view of what was read", () => {
  const data = bytes(0, 0, 0, 1, 1, "te", 1, 2);
  const { payload } = V2.decode(data);
  data.fill(9);
  assertEquals(payload, new Uint8Array([1, 2]));
  assertEquals((payload as Uint8Array).buffer.byteLength, 2);
});

Deno.test("frame: a byte order mark at the head of a binary name is part of it, as it is in text [18]", () => {
  const { join_ref, topic } = V2.decode(bytes(0, 4, 0, 4, 1, "\ufeff1", "\ufefft", "e"));
  assertEquals([join_ref, topic], ["\ufeff1", "\ufefft"]);
});

Deno.test("frame: what is no frame is fatal [16, 17, 33, 36]", () => {
  const v2 = [
    "",
    " ",
    "x",
    "{}",
    "[]",
    "[1]",
    '["1","1","t","e"]',
    '"text"',
    "null",
    "1",
    "[",
    '["1","1","t","e",{}',
    '["1","1","t","e",{}]x',
    '{"topic":"t","event":"e","payload":{},"ref":"1"}',
  ];
  const v1 = [
    "",
    "x",
    "[]",
    "null",
    "1",
    '["1","1","t","e",{}]',
    "{}",
    '{"topic":"t","event":"e","payload":{}}',
    '{"topic":"t","event":"e","ref":"1"}',
    '{"__proto__":{"topic":"t","event":"e","payload":{},"ref":"1"}}',
  ];
  const fatal = (act: () => unknown, what: string) => assert(assertThrows(act, FrameError, undefined, what).fatal, what);
  for (const frame of v2) fatal(() => text(V2, frame), frame);
  for (const frame of v1) fatal(() => text(V1, frame), frame);
  for (const serializer of [V1, V2]) fatal(() => serializer.decode(new Uint8Array([0x22, 0xff, 0x22])), "bad UTF-8");
  const binary = [
    bytes(),
    bytes(0),
    bytes(0, 0, 0, 0),
    ...[1, 2, 3, 0x5b, 255].map((kind) => bytes(kind, 0, 0, 1, 1, "te")),
    bytes(0, 1, 0, 0, 0),
    bytes(0, 0, 0, 2, 0, "t"),
    bytes(0, 0, 0, 1, 255, "te"),
    bytes(0, 255, 255, 255, 255, "x"),
    bytes(0, 0, 0, 1, 1, 0xff, "e"),
    bytes(0, 1, 0, 1, 1, 0xc3, "te"),
  ];
  for (const data of binary) fatal(() => V2.decode(data), String(data));
});

Deno.test("frame: a frame of the right form and wrong types is answered where a ref can be read, the socket stays [20]", () => {
  const refused = (frame: unknown[]) => {
    const error = assertThrows(() => text(V2, frame), FrameError);
    assertEquals(error.fatal, false, JSON.stringify(frame));
    return error.ref;
  };
  for (const topic of [null, 1, {}, [], true]) {
    assertEquals(refused(["1", "2", topic, "e", {}]), "2");
    assertEquals(refused(["1", "2", "t", topic, {}]), "2");
  }
  for (const ref of [{}, [], "x".repeat(256), "é".repeat(128), ["1"]]) {
    assertEquals(refused(["1", ref, "t", "e", {}]), null);
    assertEquals(refused([ref, "2", "t", "e", {}]), "2");
  }
  // The longest that can be said.
  for (const ref of ["x".repeat(255), "é".repeat(127), "\u{1f600}".repeat(63), 12345678901234567890, -0.5, false]) {
    assertEquals(text(V2, [ref, ref, "t", "e", {}]).ref, ref);
  }
  assertThrows(() => text(V1, { topic: 1, event: "e", payload: {}, ref: "7" }), FrameError, "topic");
});

Deno.test("frame: V2 text out: reply, push, broadcast [21, 22, 23]", () => {
  assertEquals(V2.reply("1", "2", "room:x", "ok", "{}"), '["1","2","room:x","phx_reply",{"status":"ok","response":{}}]');
  assertEquals(V2.reply(null, 2, 'q"\u2028', "error", '{"reason":"x"}'), `[null,2,"q\\"\u2028","phx_reply",{"status":"error","response":{"reason":"x"}}]`);
  assertEquals(V2.push("1", null, "test:a", "pushed", '{"x":1}'), '["1",null,"test:a","pushed",{"x":1}]');
  assertEquals(V2.push("1", "1", "test:a", "phx_close", "{}"), '["1","1","test:a","phx_close",{}]');
  assertEquals(V2.broadcast("room:x", "shout", '{"x":1}'), '[null,null,"room:x","shout",{"x":1}]');
});

Deno.test("frame: V1 out carries five keys, join_ref included [36, 37]", () => {
  assertEquals(V1.reply("1", "2", "t", "ok", "{}"), '{"topic":"t","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2","join_ref":"1"}');
  assertEquals(V1.push("1", "1", "t", "phx_close", "{}"), '{"topic":"t","event":"phx_close","payload":{},"ref":"1","join_ref":"1"}');
  assertEquals(V1.broadcast("t", "e", '{"a":1}'), '{"topic":"t","event":"e","payload":{"a":1},"ref":null,"join_ref":null}');
});

Deno.test("frame: V2 binary out, byte for byte [26, 27, 28, 30, 35]", () => {
  assertEquals(V2.push("1", null, "test:a", "pushed", bytes(1, 2, 3)), bytes(0, 1, 6, 6, 0x31, "test:a", "pushed", 1, 2, 3));
  assertEquals(V2.reply("1", "2", "test:a", "ok", bytes(4, 5, 6)), bytes(1, 1, 1, 6, 2, "12test:aok", 4, 5, 6));
  assertEquals(V2.broadcast("test:a", "bin", bytes(7, 8, 9)), bytes(2, 6, 3, "test:abin", 7, 8, 9));
  assertEquals(V2.reply("1", "16", "test:a", "ok", bytes()), bytes(1, 1, 2, 6, 2, "116test:aok"));
  assertEquals(V2.reply(null, null, "t", "error", bytes()), bytes(1, 0, 0, 1, 5, "terror"));
  assertEquals(V2.reply(1, 2.5, "t", "ok", bytes()), bytes(1, 1, 3, 1, 2, "12.5tok"));
  assertEquals(V2.broadcast("é", "e", bytes()), bytes(2, 2, 1, "ée"));
});

Deno.test("frame: a name of 255 bytes fits a binary frame, one more throws [34]", () => {
  assertEquals((V2.broadcast("x".repeat(MAX_NAME_BYTES), "e", bytes()) as Uint8Array).length, 3 + 256);
  for (const name of ["x".repeat(256), "é".repeat(128)]) assertThrows(() => V2.broadcast(name, "e", bytes()), TypeError);
});

Deno.test("frame: bytes to V1: a broadcast and a push are skipped, a reply says so [40]", () => {
  assertEquals([V1.broadcast("t", "e", bytes(1)), V1.push("1", null, "t", "e", bytes(1))], [null, null]);
  assertEquals(JSON.parse(V1.reply("1", "2", "t", "ok", bytes(1)) as string).payload, { status: "error", response: { reason: "binary_not_supported" } });
});

Deno.test("frame: what goes out comes in again", () => {
  const odd = ["", "\u0000", '"\\', "\u2028\u2029", "😀", "\ud800", "__proto__"];
  for (const value of odd) {
    const [join_ref, ref, topic, event, payload] = JSON.parse(V2.push(value, value, value, value, JSON.stringify({ [value]: value })) as string);
    assertEquals([join_ref, ref, topic, event], [value, value, value, value]);
    assertEquals(Object.entries(payload), [[value, value]]);
    if (value.isWellFormed()) assertEquals(text(V2, V2.push(value, value, value, value, "{}") as string).topic, value);
  }
});

Deno.test("frame: a name is printable, well-formed Unicode", () => {
  for (const name of ["", "case:1", "é😀", "\u00a0", "\ufeff"]) assert(isName(name), name);
  for (const name of ["\u0000", "a\n", "\u007f", "\ud800", "a\udc00", 1, null, undefined, {}]) assert(!isName(name), String(name));
});

for (const seed of [1, 2, 3, Date.now() % 100_000]) {
  Deno.test(`frame: whatever comes is a message or a FrameError, and can be answered, seed ${seed}`, () => {
    const next = random(seed);
    const good = [
      utf8.encode('["1","1","room:x","phx_join",{"a":[1,{"__proto__":1}]}]'),
      utf8.encode('{"topic":"t","event":"e","payload":{},"ref":"1","join_ref":null}'),
      bytes(0, 1, 1, 6, 7, "14test:abinecho", 0xde, 0xad),
    ];
    const scraps = ["[", "]", "{", "}", ",", '"', "null", "1e999", "\\ud800", "-", "\u0000", "true", "__proto__", "😀"].map((scrap) => utf8.encode(scrap));
    for (let round = 0; round < 5000; round++) {
      const data = [...good[next(3)]];
      for (let change = next(5); change > 0; change--) {
        const at = next(data.length + 1);
        [
          () => data.splice(at, 1),
          () => data.splice(at, next(4), next(256)),
          () => data.splice(at, 0, ...scraps[next(scraps.length)]),
          () => data.splice(at),
          () => data.splice(at, 0, ...data.slice(0, next(20))),
        ][next(5)]();
        if (data.length === 0) break;
      }
      const asBytes = new Uint8Array(data);
      for (const [serializer, frame] of [[V1, asBytes], [V2, asBytes], [V1, decoder.decode(asBytes)], [V2, decoder.decode(asBytes)]] as const) {
        try {
          const message = serializer.decode(frame);
          assertEquals([typeof message.topic, typeof message.event], ["string", "string"]);
          assert(["string", "number", "boolean"].includes(typeof message.ref) || message.ref === null);
          JSON.parse(V2.reply(message.join_ref, message.ref, message.topic, "error", "{}") as string);
          V2.reply(message.join_ref, message.ref, "t", "ok", bytes(1));
        } catch (error) {
          if (!(error instanceof FrameError)) throw error;
        }
      }
    }
  });
}

Deno.test("frame: text of half a megabyte of brackets is refused or read, never a broken stack", () => {
  for (const open of ["[", '{"a":', "[[1],"]) {
    const frame = `["1","1","t","e",${open.repeat(524_000 / open.length)}`;
    assertThrows(() => text(V2, frame), FrameError);
  }
  const deep = `["1","1","t","e",${"[".repeat(200_000)}${"]".repeat(200_000)}]`;
  try {
    assertEquals(text(V2, deep).topic, "t");
  } catch (error) {
    assert(error instanceof FrameError);
  }
});
