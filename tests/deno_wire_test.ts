import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { DenoWire, packFrame } from "../rooms/hosts/deno_wire.ts";

/** What `ws` and its raw socket show of themselves to the wire. */
class Fake {
  readyState = 1;
  written: Uint8Array[] = [];
  log: string[] = [];
  writableLength = 7;
  bytesRead = 9;
  readonly wire: DenoWire;
  constructor() {
    // deno-lint-ignore no-this-alias
    const fake = this;
    const ws = {
      get readyState() {
        return fake.readyState;
      },
      close: (code: number, reason: string) => void this.log.push(`close ${code} ${reason}`),
      pause: () => void this.log.push("pause"),
      resume: () => void this.log.push("resume"),
    };
    const raw = {
      write: (bytes: Uint8Array) => {
        this.written.push(bytes);
        this.log.push("write");
      },
      get writableLength() {
        return fake.writableLength;
      },
      get bytesRead() {
        return fake.bytesRead;
      },
    };
    this.wire = new DenoWire(ws as never, raw as never);
  }
}

const utf8 = new TextEncoder();
const joined = (...frames: string[]) => frames.flatMap((frame) => [...packFrame(frame)]);

/** Reads one unmasked frame, as RFC 6455 section 5.2 has it. */
function read(bytes: Uint8Array): { opcode: number; fin: boolean; payload: Uint8Array } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  assertEquals([bytes[0] & 0x70, bytes[1] & 0x80], [0, 0], "no extension, no mask");
  const short = bytes[1];
  const [length, head] = short < 126 ? [short, 2] : short === 126 ? [view.getUint16(2), 4] : [Number(view.getBigUint64(2)), 10];
  // The shortest form only.
  assert(short < 126 || (short === 126 ? length > 125 : length > 65_535));
  assertEquals(bytes.length, head + length);
  return { opcode: bytes[0] & 15, fin: bytes[0] >= 128, payload: bytes.subarray(head) };
}

Deno.test("deno_wire: a frame is made by the letter, at every length where its head changes", () => {
  assertEquals([...packFrame("é")], [0x81, 2, 0xc3, 0xa9]);
  assertEquals([...packFrame(new Uint8Array([1, 2]))], [0x82, 2, 1, 2]);
  assertEquals([...packFrame("")], [0x81, 0]);
  for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1_000_000]) {
    const text = read(packFrame("x".repeat(length)));
    assertEquals([text.opcode, text.fin, text.payload.length], [1, true, length]);
    const data = new Uint8Array(length).fill(7);
    const binary = read(packFrame(data));
    assertEquals([binary.opcode, binary.payload.length, binary.payload.every((byte) => byte === 7)], [2, length, true]);
  }
  assertEquals(read(packFrame("😀".repeat(40))).payload.length, 160);
});

Deno.test("deno_wire: all that a tick has goes out in one write, in order; an empty flush writes nothing", () => {
  const { wire, written } = new Fake();
  wire.flush();
  for (const frame of ["a", "b", "c"]) wire.send(packFrame(frame));
  assertEquals(written, []);
  wire.flush();
  wire.flush();
  assertEquals(written.map((bytes) => [...bytes]), [joined("a", "b", "c")]);
  wire.send(packFrame("d"));
  wire.flush();
  assertEquals([...written[1]], joined("d"));
});

Deno.test("deno_wire: sockets that hear the same share the same bytes, those that hear other things do not mix", () => {
  const [a, b, c, d] = [new Fake(), new Fake(), new Fake(), new Fake()];
  const [one, two, own] = [packFrame("one"), packFrame("two"), packFrame("own")];
  a.wire.send(one);
  b.wire.send(one);
  c.wire.send(own);
  c.wire.send(one);
  a.wire.send(two);
  d.wire.send(two);
  b.wire.send(two);
  c.wire.send(two);
  b.wire.send(own);
  for (const { wire } of [a, b, c, d]) wire.flush();
  assertEquals([a, b, c, d].map(({ written }) => written.length), [1, 1, 1, 1]);
  assertEquals([...a.written[0]], joined("one", "two"));
  assertEquals([...b.written[0]], joined("one", "two", "own"));
  assertEquals([...c.written[0]], joined("own", "one", "two"));
  assertEquals([...d.written[0]], joined("two"));
  for (const { wire } of [a, b]) for (const packet of [one, two]) wire.send(packet);
  for (const { wire } of [a, b]) wire.flush();
  // They wait, and are so small a part of what they were framed in that each waits by itself.
  assertEquals([...a.written[1]], [...b.written[1]]);
});

Deno.test("deno_wire: what goes out at once is not copied for each; what has to wait holds little more memory than its own", () => {
  const [quick, slow] = [new Fake(), new Fake()];
  quick.writableLength = 0;
  for (let n = 0; n < 100; n++) {
    for (const { wire } of [quick, slow]) {
      wire.say(`[null,"${n}","phoenix","phx_reply",{"status":"ok","response":{}}]`);
      wire.flush();
    }
  }
  assertEquals(slow.written.map((bytes) => [...bytes]), quick.written.map((bytes) => [...bytes]));
  // An answer's own bytes, not the slab of 16 KB in which it was framed.
  for (const bytes of slow.written) assertEquals(bytes.buffer.byteLength, bytes.length);
  assertEquals(new Set(quick.written.map(({ buffer }) => buffer)).size <= 2, true);
  const packet = slow.wire.own(packFrame("late")) as Uint8Array;
  assertEquals([packet.length, packet.buffer.byteLength], [6, 6]);
  // Large ones are shared: a hundred readers who stand still hold them once.
  const shared = packFrame("x".repeat(5000));
  const others = [new Fake(), new Fake()];
  for (const { wire } of others) {
    wire.send(shared);
    wire.flush();
  }
  assertStrictEquals(others[0].written[0], others[1].written[0]);
});

Deno.test("deno_wire: whatever is sent to whomever in whatever order arrives, seed 1", () => {
  let seed = 1;
  const next = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  const packets = Array.from({ length: 4 }, (_, n) => packFrame(`p${n}`));
  const fakes = Array.from({ length: 4 }, () => ({ fake: new Fake(), sent: [] as number[] }));
  for (let step = 0; step < 5000; step++) {
    const { fake, sent } = fakes[next(4)];
    if (next(4) === 0) fake.wire.flush();
    else {
      const packet = packets[next(4)];
      fake.wire.send(packet);
      sent.push(...packet);
    }
  }
  for (const { fake, sent } of fakes) {
    fake.wire.flush();
    assertEquals(fake.written.flatMap((bytes) => [...bytes]), sent);
  }
});

Deno.test("deno_wire: close flushes first, and its reason fits a close frame", () => {
  const fake = new Fake();
  fake.wire.send(packFrame("last"));
  fake.wire.close(1012, "x".repeat(500));
  assertEquals(fake.log.map((line) => line.slice(0, 10)), ["write", "close 1012"]);
  assert(utf8.encode(fake.log[1].slice("close 1012 ".length)).length <= 123);
});

Deno.test("deno_wire: nothing is written to a socket that is not open", () => {
  const fake = new Fake();
  for (fake.readyState of [0, 2, 3]) {
    fake.wire.send(packFrame("x"));
    fake.wire.flush();
  }
  assertEquals(fake.written, []);
  fake.readyState = 1;
  fake.wire.flush();
  assertEquals(fake.written, []);
});

Deno.test("deno_wire: backlog and received are the raw socket's counters; pause and resume are ws's", () => {
  const fake = new Fake();
  assertEquals([fake.wire.backlog, fake.wire.received], [7, 9]);
  fake.wire.pause();
  fake.wire.resume();
  assertEquals(fake.log, ["pause", "resume"]);
});
