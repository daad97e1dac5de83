/** Second names, and the mirror `update` of what lasts: told unless the join said `aliases: false`. [X01, X02, X21, B06, B07] */
import { assertEquals } from "@std/assert";
import { z } from "zod";
import { channel, exact, lasting, passing } from "../protocol/contract.ts";
import { behave, room } from "../rooms/room.ts";
import { Notes, Phone, subscriptionManager } from "./support/page.ts";
import { Outside } from "./support/outside.ts";
import { someone, Stage, type StageClient } from "./support/stage.ts";

const Any = z.looseObject({});
const TOPIC = "lab:1";

const contract = channel({
  topic: "lab:{id}",
  join: { payload: z.object({}), reply: z.object({}) },
  pushes: { tell: { payload: z.looseObject({ event: z.string() }) }, from: { payload: z.looseObject({ event: z.string() }) }, push: { payload: Any } },
  events: {
    kept: lasting(Any, { published: true }),
    filed: lasting(Any, { alias: "document:filed", published: true }),
    result: exact(Any, { alias: "search:result" }),
    told: exact(Any),
    progress: passing(Any, { alias: "processing:progress" }),
    seen: passing(Any),
    moved: passing(Any, { per: "user", alias: "cursor:moved" }),
  },
});

type Event = keyof typeof contract.events;

const lab = room("lab/{id}", {
  migrations: [],
  topics: [behave(contract, {
    admit() {},
    join: () => ({}),
    on: {
      tell: (ctx, { event, ...payload }) => ctx.broadcast(event as Event, payload),
      from: (ctx, { event, ...payload }) => ctx.broadcastFrom(event as Event, payload),
      push: (ctx, payload) => ctx.push("kept", payload),
    },
  })],
});

const update = (event: string, payload: object) => ["update", { event, payload }];

/** What each kind of event is told as, in its order; `c` stands for the cursor. */
const TOLD: Readonly<Record<Event, (payload: object, c: object) => unknown[]>> = {
  kept: (payload, c) => [["kept", { ...payload, ...c }], update("kept", { ...payload, ...c })],
  filed: (payload, c) => [["filed", { ...payload, ...c }], ["document:filed", { ...payload, ...c }], update("filed", { ...payload, ...c })],
  result: (payload) => [["result", payload], ["search:result", payload]],
  told: (payload) => [["told", payload]],
  progress: (payload) => [["progress", payload], ["processing:progress", payload]],
  seen: (payload) => [["seen", payload]],
  moved: (payload) => [["moved", payload], ["cursor:moved", payload]],
};
const EVENTS = Object.keys(TOLD) as Event[];

/** Event and payload of the frames that are no replies; every such frame carries no ref at all. [W16, W19] */
function told(client: StageClient): [string, Record<string, unknown>][] {
  return client.take().map((frame) => Array.isArray(frame) ? frame : [frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload])
    .filter((frame) => frame[3] !== "phx_reply")
    .map(([join_ref, ref, topic, event, payload]) => {
      assertEquals([join_ref, ref, topic], [null, null, TOPIC]);
      return [event, payload];
    });
}

/** A member; `aliases` as its join says it, undefined when it says nothing. */
function member(stage: Stage, user: string, aliases?: boolean, vsn: "1" | "2" = "2"): StageClient {
  const client = stage.client(someone(user), vsn);
  const payload = aliases === undefined ? {} : { aliases };
  client.send(vsn === "2" ? ["1", "1", TOPIC, "phx_join", payload] : { topic: TOPIC, event: "phx_join", payload, ref: "1", join_ref: "1" });
  return client;
}

const say = (client: StageClient, push: string, event: string, payload: object) => client.queue([null, "9", TOPIC, push, { event, ...payload }]);
const cursorOf = (heard: [string, Record<string, unknown>][]) => "cursor" in (heard[0]?.[1] ?? {}) ? { cursor: heard[0][1].cursor } : {};

for (const event of EVENTS) {
  const [, second] = TOLD[event]({}, {}).map((told) => (told as string[])[0]);
  Deno.test(`aliases: ${event} is told as ${second ? "itself, then as its other names" : "itself only"}; with \`aliases: false\` as itself only [X01, X02, X21]`, () => {
    const stage = new Stage([lab]);
    const clients = [undefined, true, false].flatMap((aliases) =>
      (["1", "2"] as const).map((vsn) => ({ aliases, client: member(stage, `${aliases} ${vsn}`, aliases, vsn) }))
    );
    clients.forEach(({ client }) => client.take());
    say(clients[1].client, "tell", event, { n: 1, text: "“x”" });
    stage.run();
    const payload = { n: 1, text: "“x”" };
    for (const { aliases, client } of clients) {
      const heard = told(client);
      const all = TOLD[event](payload, cursorOf(heard));
      assertEquals(heard, (aliases === false ? all.slice(0, 1) : all) as typeof heard, client.socket.user!.id);
    }
    stage.close();
  });
}

Deno.test("aliases: an event's names stand together; events keep their order", () => {
  const stage = new Stage([lab]);
  const [a, b] = [member(stage, "a"), member(stage, "b")];
  a.take();
  b.take();
  for (const [n, event] of ["result", "filed", "seen", "kept", "told"].entries()) say(a, "tell", event, { n });
  stage.run();
  assertEquals(told(b).map(([event, payload]) => [event, payload.n ?? (payload.payload as { n: number }).n]), [
    ["result", 0],
    ["search:result", 0],
    ["filed", 1],
    ["document:filed", 1],
    ["update", 1],
    ["seen", 2],
    ["kept", 3],
    ["update", 3],
    ["told", 4],
  ]);
  stage.close();
});

Deno.test("aliases: what goes to the others misses its sender under every name; his other sockets hear it", () => {
  const stage = new Stage([lab]);
  const [a, again, b] = [member(stage, "a"), member(stage, "a"), member(stage, "b")];
  for (const client of [a, again, b]) client.take();
  for (const event of EVENTS) {
    say(a, "from", event, { event });
    stage.run();
    assertEquals(told(a), [], event);
    const heard = told(b);
    assertEquals(heard, TOLD[event]({}, cursorOf(heard)) as typeof heard, event);
    assertEquals(told(again), heard, event);
    stage.advance(1000);
  }
  stage.close();
});

Deno.test("aliases: what a back end publishes is told under all its names too [B06]", async () => {
  const stage = new Stage([lab]);
  const [a, b] = [member(stage, "a"), member(stage, "b", false)];
  a.take();
  b.take();
  for (const event of ["kept", "filed"] as const) {
    const published = stage.registry.publish(TOPIC, someone("backend", "service"), [{ event, payload: { n: 1 } }]);
    await stage.settle();
    const all = TOLD[event]({ n: 1 }, { cursor: (await published)[0] });
    assertEquals([told(a), told(b)] as unknown[], [all, all.slice(0, 1)]);
  }
  stage.close();
});

Deno.test("aliases: what is coalesced is coalesced under every name: the last one wins under both", () => {
  const stage = new Stage([lab]);
  const [a, b] = [member(stage, "a"), member(stage, "b")];
  a.take();
  b.take();
  for (let n = 0; n < 10; n++) say(a, "from", "moved", { n });
  stage.run();
  stage.advance(1000);
  assertEquals(told(b), [["moved", { n: 0 }], ["cursor:moved", { n: 0 }], ["moved", { n: 9 }], ["cursor:moved", { n: 9 }]]);
  stage.close();
});

Deno.test("aliases: a reader too slow for passing events gets the newest under both names later, and one that does not want them under one", () => {
  const stage = new Stage([lab], { limits: { passing_outbox_bytes: 50_000 } });
  const [a, b, c] = [member(stage, "a"), member(stage, "b"), member(stage, "c", false)];
  for (const client of [a, b, c]) client.take();
  // What they did not ask for, and have not read when the next tick comes.
  for (let n = 0; n < 6; n++) say(a, "from", "told", { text: "x".repeat(60_000) });
  stage.run();
  for (const client of [b, c]) {
    told(client);
    client.wire.backlog = 300_000;
  }
  for (let n = 0; n < 3; n++) {
    say(a, "from", "moved", { n });
    stage.advance(1000);
  }
  assertEquals([told(b), told(c)], [[], []]);
  for (const client of [b, c]) client.wire.backlog = 0;
  stage.advance(2000);
  assertEquals([told(b), told(c)], [[["moved", { n: 2 }], ["cursor:moved", { n: 2 }]], [["moved", { n: 2 }]]]);
  stage.close();
});

Deno.test("aliases: only what lasts is mirrored; what is said to one session, and presence, is not [B06]", () => {
  const stage = new Stage([lab]);
  const a = member(stage, "a");
  a.take();
  assertEquals(a.send([null, "9", TOPIC, "push", { n: 1 }]).map((frame) => frame[3]), ["kept", "phx_reply"]);
  stage.close();
});

Deno.test("aliases: what was missed is told once, under its first name, also to those who want the others", () => {
  const stage = new Stage([lab]);
  const a = member(stage, "a");
  for (const event of ["kept", "filed"]) say(a, "tell", event, { event });
  stage.run();
  const b = stage.client(someone("b"));
  const { heard } = b.join(TOPIC, { since: "0", aliases: true });
  assertEquals(heard.map((frame) => frame[3]), ["phx_reply", "kept", "filed"]);
  say(a, "tell", "kept", {});
  stage.run();
  assertEquals(told(b).map(([event]) => event), ["kept", "update"]);
  stage.close();
});

Deno.test("aliases: each join says it anew; what is neither true nor false is refused", () => {
  const stage = new Stage([lab]);
  const [a, b] = [member(stage, "a"), stage.client(someone("b"))];
  for (const [params, names] of [[{}, 3], [{ aliases: false }, 1], [{ aliases: true }, 3], [JSON.parse('{"__proto__":{"aliases":false}}'), 3]]) {
    assertEquals(b.join(TOPIC, params).heard[0][4].status, "ok");
    say(a, "tell", "filed", {});
    stage.run();
    assertEquals(told(b).filter(([event]) => event !== "phx_close").length, names, JSON.stringify(params));
  }
  for (const aliases of ["false", 0, null, []]) assertEquals(b.join(TOPIC, { aliases }).heard[0][4].response.reason, "invalid_payload");
  stage.close();
});

Deno.test("aliases: each name is encoded once per version of the wire, however many hear it, and never for a version that nobody speaks", () => {
  const stage = new Stage([lab]);
  // Without a ref, so that no reply is counted.
  const tell = (event: Event) => {
    const before = stage.packed;
    a.send([null, null, TOPIC, "from", { event, n: 1 }]);
    stage.advance(1000);
    return stage.packed - before;
  };
  const a = member(stage, "a");
  const replies = tell("told");
  const names = { kept: 2, filed: 3, result: 2, told: 1, progress: 2, seen: 1, moved: 2 };
  const packed = () => EVENTS.map((event) => [event, tell(event) - replies]);
  for (let n = 0; n < 20; n++) member(stage, `b${n}`);
  assertEquals(packed(), EVENTS.map((event) => [event, names[event]]));
  for (let n = 0; n < 20; n++) member(stage, `c${n}`, false);
  assertEquals(packed(), EVENTS.map((event) => [event, names[event]]));
  for (let n = 0; n < 20; n++) member(stage, `d${n}`, n % 2 === 0, "1");
  assertEquals(packed(), EVENTS.map((event) => [event, 2 * names[event]]));
  stage.close();
});

Deno.test("aliases: the page's SubscriptionManager over the real client: several handlers share a channel, and the last one to go leaves it [B06, B07, L548]", async () => {
  await using at = await Outside.start();
  const user = at.fresh();
  await using phone = await Phone.dial(at.server, user);
  await using watcher = await at.member("case:case_1");
  const { socket } = phone;
  const sent: string[] = [];
  const { send } = socket.conn!;
  socket.conn!.send = function (data) {
    sent.push(JSON.parse(String(data))[3]);
    return send.call(this, data);
  };
  const published = async (workflow_id: string) => {
    const payload = { workflow_id, case_id: "case_1" };
    const { body } = await at.publish("case:case_1", [{ event: "workflow:started", payload }]);
    return { event: "workflow:started", payload: { ...payload, cursor: body.events[0].cursor } };
  };

  const printed = new Notes<string>();
  const manager = new (subscriptionManager({ log: (text) => printed.add(text), error() {} }))(socket);
  const [one, two] = [new Notes<unknown>(), new Notes<unknown>()];
  const stop = [manager.subscribe("case:case_1", (update) => one.add(update)), manager.subscribe("case:case_1", (update) => two.add(update))];
  assertEquals(await printed.first(1), ["Subscribed to case:case_1"]);
  const first = await published("w1");
  assertEquals([await one.first(1), await two.first(1)], [[first], [first]]);

  // One of two goes: the other hears on.
  stop[0]();
  const second = await published("w2");
  assertEquals((await two.first(2))[1], second);
  assertEquals(sent, ["phx_join"]);
  stop[1]();
  assertEquals(await printed.first(2), ["Subscribed to case:case_1", "Unsubscribed from case:case_1"]);
  // The others see the user go, and nothing more arrives for him.
  for (;;) {
    const [, , , event, payload] = await watcher.next();
    if (event === "user:left") {
      assertEquals(payload.user.id, user.id);
      break;
    }
  }
  await published("w3");
  const beat = new Promise<void>((resolve) => socket.onMessage(({ topic }) => topic === "case:case_2" && resolve()));
  const again = new Notes<unknown>();
  manager.subscribe("case:case_2", (update) => again.add(update));
  await beat;
  assertEquals([two.all.length, sent, socket.channels.map(({ topic }) => topic)], [2, ["phx_join", "phx_leave", "phx_join"], ["case:case_2"]]);
});
