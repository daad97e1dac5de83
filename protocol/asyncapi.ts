/** Contracts as an AsyncAPI 3 page: what a client may send and what it hears, with JSON Schemas. */
import { z } from "zod";
import { Batch, BatchReply, type Channel, CommonJoin, CommonReply, Sealed } from "./contract.ts";

type Json = Record<string, unknown>;

/** What goes in, on both sides: what a client may send, what a room gives away. More fields may stand beside those named. */
function schema(type: z.ZodType): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(type, { io: "input", unrepresentable: "any" });
  return rest;
}

/** A lasting event shows where it stands in the log. */
function withCursor(payload: Json): Json {
  const { properties, required } = payload as { properties?: Json; required?: string[] };
  return { ...payload, properties: { ...properties, cursor: { type: "string" } }, required: [...(required ?? []), "cursor"] };
}

const PRESENCES: Json = {
  type: "object",
  description: "by key",
  additionalProperties: {
    type: "object",
    properties: { metas: { type: "array", items: { type: "object", properties: { phx_ref: { type: "string" } }, required: ["phx_ref"] } } },
  },
};

/** A channel's own fields and those that all channels have. */
function merged(own: Json, common: Json): Json {
  const required = [...(own.required as string[] ?? []), ...(common.required as string[] ?? [])];
  return { ...own, properties: { ...common.properties as Json, ...own.properties as Json }, ...(required.length > 0 && { required }) };
}

/** A name as a JSON pointer and an AsyncAPI key allow it. */
const key = (name: string) => name.replaceAll(/[^A-Za-z0-9_-]/g, ".");

/** The page of these channels, as plain JSON. */
export function asyncapi(channels: readonly Channel[]): Json {
  const pages: Record<string, Json> = {};
  const operations: Record<string, Json> = {};
  for (const channel of channels) {
    const parameter = /\{(\w+)\}/.exec(channel.topic)?.[1];
    const messages: Record<string, Json> = {};
    const refer = (group: string) => ({ $ref: `#/channels/${channel.name}/messages/${group}` });
    const add = (name: string, title: string, payload: Json, more: Json = {}) => {
      messages[key(name)] = { name: title, contentType: "application/json", payload, ...more };
      return refer(key(name));
    };
    const operate = (action: "send" | "receive", event: string, message: Json, reply?: Json) => {
      operations[`${channel.name}_${action}_${key(event)}`] = {
        action,
        channel: { $ref: `#/channels/${channel.name}` },
        messages: [message],
        ...(reply && { reply: { messages: [reply] } }),
      };
    };
    // AsyncAPI speaks from the server's side: it receives pushes and sends events.
    const join = add("phx_join", "phx_join", merged(schema(channel.join.payload), schema(CommonJoin)));
    const state = schema(channel.join.reply);
    operate("receive", "phx_join", join, add("phx_join.reply", "phx_reply", channel.keeps ? merged(state, schema(CommonReply)) : state));
    for (const [event, spec] of Object.entries(channel.pushes)) {
      const push = add(event, event, spec.encrypted ? { anyOf: [schema(spec.payload), schema(Sealed)] } : schema(spec.payload));
      operate(
        "receive",
        event,
        push,
        spec.silent ? undefined : add(`${event}.reply`, "phx_reply", spec.reply ? schema(spec.reply) : { type: "object" }),
      );
    }
    operate("receive", "batch", add("batch", "batch", schema(Batch)), add("batch.reply", "phx_reply", schema(BatchReply)));
    for (const [event, spec] of Object.entries(channel.events)) {
      if (spec.kind === "recorded") continue;
      const durable = { "x-durability": spec.kind, ...(spec.published && { "x-published": true }), ...(spec.alias && { "x-alias": spec.alias }) };
      const payload = schema(spec.payload);
      operate("send", event, add(`${event}.event`, event, spec.kind === "lasting" ? withCursor(payload) : payload, durable));
    }
    if (channel.keeps) {
      const mirror = { type: "object", properties: { event: { type: "string" }, payload: { type: "object" } }, required: ["event", "payload"] };
      operate("send", "update", add("update", "update", mirror, { summary: "the mirror of every lasting event, unless the join said `aliases: false`" }));
    }
    if (channel.presence) {
      const diff = { type: "object", properties: { joins: PRESENCES, leaves: PRESENCES }, required: ["joins", "leaves"] };
      operate("send", "presence_state", add("presence_state", "presence_state", PRESENCES, { "x-meta": schema(channel.presence) }));
      operate("send", "presence_diff", add("presence_diff", "presence_diff", diff, { "x-durability": "exact" }));
    }
    pages[channel.name] = {
      address: channel.topic,
      messages,
      ...(parameter && { parameters: { [parameter]: { description: "the id after the first colon, verbatim" } } }),
    };
  }
  return {
    asyncapi: "3.0.0",
    info: { title: "Caseroom", version: "1.0.0", description: "Live rooms for legal document review, over the Phoenix Channels protocol." },
    defaultContentType: "application/json",
    channels: pages,
    operations,
  };
}
