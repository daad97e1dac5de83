import { assert, assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { Refusal } from "../protocol/reason.ts";
import { checkPayload, DEFAULT_LIMITS, LIMITS, limitShape } from "../rooms/limits.ts";

const refusal = (payload: unknown, size?: number, limits = DEFAULT_LIMITS) => {
  try {
    checkPayload(payload, limits, size);
    return "ok";
  } catch (error) {
    assert(error instanceof Refusal);
    assertEquals(typeof error.detail.limit, "number");
    return error.reason;
  }
};

/** An array nested so deep. */
const nested = (levels: number, kind: "list" | "object" = "list"): unknown => {
  let value: unknown = 1;
  for (let level = 0; level < levels; level++) value = kind === "list" ? [value] : { a: value };
  return value;
};

Deno.test("limits: the defaults are those of the design (§8)", () => {
  const { payload_units, frame_bytes, json_depth, topic_bytes, topics_per_socket, idle_ms, authenticate_ms, passing_outbox_bytes, outbox_bytes, later_ms } =
    DEFAULT_LIMITS;
  assertEquals(
    [payload_units, frame_bytes, json_depth, topic_bytes, topics_per_socket, idle_ms, authenticate_ms, passing_outbox_bytes, outbox_bytes, later_ms],
    [65_536, 512 * 1024, 64, 255, 100, 60_000, 10_000, 256 * 1024, 1024 * 1024, 4000],
  );
  for (const { unit, what } of Object.values(LIMITS)) assert(unit && what);
});

Deno.test("limits: a payload of 65,536 UTF-16 units passes, one more does not", () => {
  for (const letter of ["x", "é", "\u2028"]) {
    assertEquals(refusal({ a: letter.repeat(65_528) }), "ok");
    assertEquals(refusal({ a: letter.repeat(65_529) }), "payload_too_large");
  }
  assertEquals(refusal({ a: "😀".repeat(32_764) }), "ok");
  assertEquals(refusal({ a: "😀".repeat(32_765) }), "payload_too_large");
  assertEquals([refusal("x".repeat(65_534)), refusal("x".repeat(65_535))], ["ok", "payload_too_large"]);
  assertEquals([refusal(new Uint8Array(65_536)), refusal(new Uint8Array(65_537))], ["ok", "payload_too_large"]);
  for (const scalar of [null, true, 1, "", {}, []]) assertEquals(refusal(scalar), "ok");
});

Deno.test("limits: what is short on the wire and long when written again is measured as it is written", () => {
  const limits = { ...DEFAULT_LIMITS, payload_units: 1000 };
  for (const piece of ["1e20", "9e20", "1e-6", '"\\ud800"', '"\\u0007"', "-1E20", "[]", '"/"', "0.1e21"]) {
    for (let times = 1; times < 400; times++) {
      const text = `[${Array(times).fill(piece).join(",")}]`;
      const payload = JSON.parse(text);
      const expected = JSON.stringify(payload).length > 1000 ? "payload_too_large" : "ok";
      assertEquals(refusal(payload, text.length, limits), expected, text.slice(0, 50));
    }
  }
});

Deno.test("limits: 64 levels pass, 65 do not, whatever they are made of and however small the frame", () => {
  for (const kind of ["list", "object"] as const) {
    const [fits, deep] = [nested(64, kind), nested(65, kind)];
    for (const [payload, expected] of [[fits, "ok"], [deep, "invalid_payload"]] as const) {
      assertEquals(refusal(payload), expected);
      assertEquals(refusal(payload, JSON.stringify(payload).length), expected);
    }
  }
  assertEquals(refusal([...Array(100).fill({ a: [1] }), nested(64)]), "invalid_payload");
  assertEquals(refusal(JSON.parse(`${'{"__proto__":'.repeat(65)}1${"}".repeat(65)}`)), "invalid_payload");
});

Deno.test("limits: what is very deep is refused before it is written again", () => {
  assertEquals(refusal(nested(5000)), "invalid_payload");
  assertEquals(refusal(JSON.parse("[".repeat(60_000) + "]".repeat(60_000))), "invalid_payload");
});

Deno.test("limits: each can be set by LIMIT_<NAME>, to a positive integer", () => {
  assertEquals(Object.keys(limitShape).sort(), Object.keys(LIMITS).map((name) => `LIMIT_${name.toUpperCase()}`).sort());
  const shape = z.object(limitShape);
  assertEquals(shape.parse({ LIMIT_IDLE_MS: "5" }).LIMIT_IDLE_MS, 5);
  for (const wrong of ["0", "-1", "1.5", "x", "Infinity", "2147483648", "NaN"]) {
    assertThrows(() => shape.parse({ LIMIT_IDLE_MS: wrong }), Error, undefined, wrong);
  }
});
