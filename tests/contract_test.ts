import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { channels } from "../protocol/channels/mod.ts";
import { Document } from "../protocol/channels/case.ts";
import { channel, check, CommonJoin, exact, lasting, own, passing } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";

const any = { join: { payload: z.object({}), reply: z.unknown() }, pushes: {}, events: {} } as const;
const of = (topic: string) => channel({ topic, ...any });

Deno.test("contract: a topic pattern gives the name and the id after the first colon, verbatim [53]", () => {
  const table: [string, string, Record<string, string | undefined>][] = [
    ["case:{caseId}", "case", {
      "case:1": "1",
      "case:a:b": "a:b",
      "case: ": " ",
      "case:": undefined,
      "case": undefined,
      "Case:1": undefined,
      "cases:1": undefined,
      "xcase:1": undefined,
    }],
    ["room:{*}", "room", { "room:": "", "room:x": "x", "room": undefined }],
    ["exact", "exact", { "exact": "", "exact:": undefined, "exactly": undefined, "": undefined }],
    ["ot_x:{id}", "ot_x", { "ot_x:__proto__": "__proto__", "constructor": undefined }],
  ];
  for (const [pattern, name, ids] of table) {
    assertEquals(of(pattern).name, name);
    for (const [topic, id] of Object.entries(ids)) assertStrictEquals(of(pattern).idOf(topic), id, `${pattern} ${topic}`);
  }
});

Deno.test("contract: a pattern that cannot be matched is our error, at once", () => {
  for (const pattern of ["", ":", "a:", "a:b", "a:{}", "a:{b}c", "A:{b}", "a:{b}:{c}", "a b", "*", "a:*", "a:{b", "a:{1}", "__proto__:{x}y"]) {
    assertThrows(() => of(pattern), TypeError, "Cannot match", pattern);
  }
});

Deno.test("contract: the three kinds of events", () => {
  const payload = z.object({});
  assertEquals([lasting(payload).kind, exact(payload).kind, passing(payload).kind], ["lasting", "exact", "passing"]);
  assertEquals([lasting(payload, { published: true }).published, passing(payload, { per: "user" }).per], [true, "user"]);
});

Deno.test("contract: check returns what the schema makes of it; a refusal names the first wrong field, shortly", () => {
  const schema = z.object({ a: z.object({ b: z.array(z.number()) }), c: z.string().optional() });
  assertEquals(check(schema, { a: { b: [1] }, more: 1 }), { a: { b: [1] } });
  const error = assertThrows(() => check(schema, { a: { b: [1, "x"] } }), Refusal);
  assertEquals([error.reason, error.message.startsWith("a.b.1: ")], ["invalid_payload", true]);
  assertEquals(assertThrows(() => check(z.string(), 1), Refusal).message.includes(": undefined"), false);
  const long = z.strictObject({});
  assertEquals(assertThrows(() => check(long, { ["x".repeat(10_000)]: 1 }), Refusal).message.length <= 200, true);
});

Deno.test("contract: own keys only", () => {
  const table: Record<string, number> = JSON.parse('{"a":1,"__proto__":2}');
  assertEquals([own(table, "a"), own(table, "__proto__")], [1, 2]);
  for (const key of ["constructor", "toString", "hasOwnProperty", "valueOf", "b", ""]) assertStrictEquals(own(table, key), undefined);
  assertStrictEquals(own({}, "__proto__"), undefined);
  for (const contract of channels) {
    for (const key of ["constructor", "__proto__", "toString"]) {
      assertStrictEquals(own(contract.pushes, key), undefined);
      assertStrictEquals(own(contract.events, key), undefined);
    }
  }
});

Deno.test("contract: `__proto__` as a field goes through no schema into a prototype", () => {
  const before = Object.getOwnPropertyNames(Object.prototype).join();
  const evil = JSON.parse('{"id":"1","__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"metadata":{"__proto__":{"polluted":1},"x":1}}');
  const schemas: Record<string, z.ZodType> = {
    object: z.object({ id: z.string() }),
    loose: z.looseObject({ id: z.string() }),
    record: z.record(z.string(), z.unknown()),
    document: Document,
    "the common parameters": CommonJoin,
    "an intersection": z.intersection(z.looseObject({ id: z.string() }), CommonJoin),
    "a catchall": z.object({ id: z.string() }).catchall(z.unknown()),
  };
  for (const [what, schema] of Object.entries(schemas)) {
    const parsed = check(schema, evil) as Record<string, unknown>;
    assertEquals((parsed as { polluted?: number }).polluted, undefined, what);
    assertEquals([Object.prototype, null].includes(Object.getPrototypeOf(parsed)), true, what);
    const metadata = parsed.metadata as { polluted?: number } | undefined;
    assertEquals(metadata?.polluted, undefined, what);
    JSON.stringify(parsed);
  }
  assertEquals([Object.getOwnPropertyNames(Object.prototype).join(), ({} as { polluted?: number }).polluted], [before, undefined]);
});

Deno.test("contract: every channel has one room, and every push of it a behaviour", () => {
  const served = rooms.flatMap((room) => room.topics);
  assertEquals(served.map(({ contract }) => contract.topic).sort(), channels.map((contract) => contract.topic).sort());
  for (const { contract, behaviour } of served) assertEquals(Object.keys(behaviour.on).sort(), Object.keys(contract.pushes).sort(), contract.topic);
});

Deno.test("contract: shown texts of the case lose markup, control and bidirectional characters, and have a bound", () => {
  const { payload } = channels.find(({ name }) => name === "case")!.pushes["presence:update"];
  assertEquals(check(payload, { status: " <b>\u202ebusy\u0000</b>\ud800 " }), { status: "bbusy/b" });
  assertThrows(() => check(payload, { status: "x".repeat(201) }), Refusal);
  assertEquals(check(payload, { other: 1 }), {});
});
