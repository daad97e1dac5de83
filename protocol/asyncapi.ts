/** Contracts as an AsyncAPI 3 page: what a client may send and what it hears, with JSON Schemas. */
import { z } from "zod";
import type { Channel } from "./contract.ts";

type Json = Record<string, unknown>;

function schema(type: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(type, { io, unrepresentable: "any" });
  return rest;
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
    const join = add("phx_join", "phx_join", schema(channel.join.payload, "input"));
    operate("receive", "phx_join", join, add("phx_join.reply", "phx_reply", schema(channel.join.reply, "output")));
    for (const [event, spec] of Object.entries(channel.pushes)) {
      const push = add(event, event, schema(spec.payload, "input"));
      operate(
        "receive",
        event,
        push,
        spec.silent ? undefined : add(`${event}.reply`, "phx_reply", spec.reply ? schema(spec.reply, "output") : { type: "object" }),
      );
    }
    for (const [event, spec] of Object.entries(channel.events)) {
      const durable = { "x-durability": spec.kind, ...(spec.published && { "x-published": true }) };
      operate("send", event, add(`${event}.event`, event, schema(spec.payload, "output"), durable));
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
