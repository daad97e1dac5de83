import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { z } from "zod";
import { asyncapi } from "../protocol/asyncapi.ts";
import { channel, exact, lasting, passing } from "../protocol/contract.ts";
import { channels } from "../protocol/channels/mod.ts";

// deno-lint-ignore no-explicit-any
type Page = any;

/** What a JSON pointer of the page points at. */
function at(page: Page, pointer: string): Page {
  return pointer.slice(2).split("/").reduce((value, part) => value?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], page);
}

/** Every $ref of the page. */
function refs(value: Page): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => key === "$ref" ? [String(inner)] : refs(inner));
}

const example = channel({
  topic: "thing:{thingId}",
  join: { payload: z.object({ since: z.string().optional() }), reply: z.object({ n: z.number() }) },
  pushes: {
    "do:it": { payload: z.object({ n: z.string().transform(Number) }), reply: z.object({ ok: z.boolean() }) },
    hush: { payload: z.object({}), silent: true },
    plain: { payload: z.object({}) },
  },
  events: {
    "thing:made": lasting(z.object({ at: z.iso.datetime() }), { published: true }),
    "thing:moved": exact(z.object({})),
    "thing:seen": passing(z.object({}), { per: "user" }),
  },
});

Deno.test("asyncapi: every channel, push and event of the contracts stands on the page", () => {
  const page: Page = asyncapi(channels);
  assertEquals(page.asyncapi, "3.0.0");
  for (const contract of channels) {
    assertEquals(page.channels[contract.name].address, contract.topic);
    const names = Object.values(page.channels[contract.name].messages).map((message) => (message as Page).name);
    for (
      const name of [
        "phx_join",
        ...Object.keys(contract.pushes),
        ...Object.entries(contract.events).filter(([, { kind }]) => kind !== "recorded").map(([event]) => event),
      ]
    ) assert(names.includes(name), name);
  }
  JSON.stringify(page);
});

Deno.test("asyncapi: every reference points at something, operations among the messages of their own channel", () => {
  for (const list of [channels, [example], [example, ...channels]]) {
    const page: Page = asyncapi(list);
    for (const ref of refs(page)) assert(at(page, ref) !== undefined, ref);
    for (const [name, operation] of Object.entries<Page>(page.operations)) {
      const own = operation.channel.$ref + "/messages/";
      for (const { $ref } of [...operation.messages, ...operation.reply?.messages ?? []]) assertStringIncludes($ref, own, name);
    }
  }
});

Deno.test("asyncapi: the server receives pushes and sends events; a silent push has no reply", () => {
  const page: Page = asyncapi([example]);
  assertEquals(Object.entries<Page>(page.operations).map(([name, { action, reply }]) => [name, action, reply !== undefined]), [
    ["thing_receive_phx_join", "receive", true],
    ["thing_receive_do.it", "receive", true],
    ["thing_receive_hush", "receive", false],
    ["thing_receive_plain", "receive", true],
    ["thing_receive_batch", "receive", true],
    ["thing_send_thing.made", "send", false],
    ["thing_send_thing.moved", "send", false],
    ["thing_send_thing.seen", "send", false],
    ["thing_send_update", "send", false],
  ]);
  assertEquals(page.channels.thing.parameters, { thingId: { description: "the id after the first colon, verbatim" } });
});

Deno.test("asyncapi: payloads are schemas of what is sent, durability is said, what JSON Schema cannot say is left open", () => {
  const { messages } = (asyncapi([example]) as Page).channels.thing;
  assertEquals(messages["do.it"].payload, { type: "object", properties: { n: { type: "string" } }, required: ["n"] });
  assertEquals(messages["thing.made.event"]["x-durability"], "lasting");
  assertEquals([messages["thing.made.event"]["x-published"], messages["thing.moved.event"]["x-published"]], [true, undefined]);
  assertEquals([messages["thing.moved.event"]["x-durability"], messages["thing.seen.event"]["x-durability"]], ["exact", "passing"]);
  assertEquals(messages["plain.reply"].payload, { type: "object" });
  assert(!JSON.stringify(messages).includes("$schema"));
});

Deno.test("asyncapi: two names that look alike as keys are two messages, or our error at once", () => {
  const alike = channel({
    topic: "alike:{id}",
    join: { payload: z.object({}), reply: z.object({}) },
    pushes: { "a:b": { payload: z.object({ one: z.string() }) }, "a_b": { payload: z.object({ two: z.string() }) } },
    events: { "a:b": exact(z.object({ three: z.string() })) },
  });
  let text: string;
  try {
    text = JSON.stringify(asyncapi([alike]));
  } catch (error) {
    assert(error instanceof TypeError);
    return;
  }
  for (const field of ["one", "two", "three"]) assertStringIncludes(text, `"${field}"`);
});
