import { assertEquals, assertThrows } from "@std/assert";
import { frame, FRAME_LIMIT, Frames, unframe } from "../rooms/documents/framing.ts";

const VALUES: Record<string, unknown> = {
  "null": null,
  "a number": 0,
  "an empty text": "",
  "ASCII": { text: "plain" },
  "what takes more bytes than units": ["ü", "→", "😀", "\ud800", "\0", "\u2028"],
  "what takes more than a chunk": "x".repeat(100_000),
};

for (const [name, value] of Object.entries(VALUES)) {
  Deno.test(`framing: ${name} is read as it was written, wherever the stream is cut`, () => {
    const bytes = frame(value);
    assertEquals(new DataView(bytes.buffer).getUint32(0), bytes.length - 4);
    for (const size of [1, 3, 4, 5, 4096, Infinity]) {
      const frames = new Frames();
      const read: unknown[] = [];
      const stream = new Uint8Array([...bytes, ...bytes, ...bytes]);
      for (let at = 0; at < stream.length; at += size) for (const body of frames.push(stream.slice(at, at + size))) read.push(unframe(body));
      assertEquals(read, [value, value, value]);
    }
  });
}

Deno.test("framing: the bytes are a length of four bytes, big-endian, and JSON", () => {
  assertEquals([...frame({ ü: 1 })], [0, 0, 0, 8, 0x7b, 0x22, 0xc3, 0xbc, 0x22, 0x3a, 0x31, 0x7d]);
});

Deno.test("framing: a body is of its own: what is done to it leaves the rest of the stream alone", () => {
  const frames = new Frames();
  const stream = new Uint8Array([...frame(1), ...frame(2), ...frame(3).subarray(0, 3)]);
  const [one, two] = frames.push(stream);
  structuredClone(one, { transfer: [one.buffer] });
  assertEquals([unframe(two), frames.push(frame(3).subarray(3)).map(unframe)], [2, [3]]);
});

Deno.test("framing: what is too large is refused on either side, as soon as it is announced", () => {
  assertThrows(() => frame("x".repeat(FRAME_LIMIT)), RangeError);
  assertThrows(() => frame("ü".repeat(FRAME_LIMIT / 2)), RangeError);
  const head = (length: number) => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, length);
    return bytes;
  };
  assertEquals(new Frames().push(head(FRAME_LIMIT)), []);
  assertThrows(() => new Frames().push(head(FRAME_LIMIT + 1)), RangeError);
  assertThrows(() => new Frames().push(head(0xffffffff)), RangeError);
});

Deno.test("framing: what is no JSON is said so", () => {
  assertThrows(() => frame(undefined), TypeError);
  assertThrows(() => frame(() => {}), TypeError);
  const circle: unknown[] = [];
  circle.push(circle);
  assertThrows(() => frame(circle), TypeError);
  for (const bytes of [[], [0x7b], [0xff], [0x22, 0xc3, 0x22], [0xef, 0xbb, 0xbf, 0x31]]) assertThrows(() => unframe(new Uint8Array(bytes)));
});
