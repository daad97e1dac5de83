/** What a client missed comes after its join, once, as it was told live; or it is told to start from the state. [promise 4] */
import { assert, assertEquals, assertGreater, assertLessOrEqual, assertNotEquals, assertRejects } from "@std/assert";
import { z } from "zod";
import { channel, exact, lasting } from "../protocol/contract.ts";
import { V1, V2 } from "../protocol/frame.ts";
import { Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { numbered } from "./support/lives.ts";
import type { Publication } from "../rooms/publication.ts";
import { behave, Later, room } from "../rooms/room.ts";
import { withCursor } from "../rooms/seam.ts";
import { BreakableSql, lab, labContract, someone, Stage, type StageClient } from "./support/stage.ts";
import { random } from "./support/random.ts";

const TOPIC = "lab:1";
const CASE = "case:case_1";
const SERVICE = someone("back end", "service");

type Frame = unknown[];
type Told = [event: string, payload: { n: number; cursor: string }];

/** Publishes in the tick to come. Resolves to the cursors; a rejection is for those who wait for it. */
function publish(stage: Stage, topic: string, ...events: Publication[]): Promise<string[]> {
  const answer = stage.registry.publish(topic, SERVICE, events);
  answer.catch(() => {});
  return answer;
}
const posted = (n: number, more: object = {}): Publication => ({ event: "posted", payload: { n, ...more } });
const uploaded = (id: string): Publication => ({ event: "document:uploaded", payload: { document: { id } } });

/** Publishes, runs, and returns the cursors. */
function kept(stage: Stage, topic: string, ...events: Publication[]): Promise<string[]> {
  const answer = publish(stage, topic, ...events);
  stage.run();
  return answer;
}
/** One `posted` for each number. */
const post = (stage: Stage, ...numbers: number[]) => kept(stage, TOPIC, ...numbers.map((n) => posted(n)));

/** All that a client hears from now on, as it goes over the wire. */
function texts(client: StageClient): string[] {
  const heard: string[] = [];
  const { wire } = client;
  const send = wire.send.bind(wire);
  wire.send = (packet) => {
    heard.push(...(packet as unknown as { frames: string[] }).frames);
    send(packet);
  };
  return heard;
}
const LASTING = /"(kept|posted|document:\w+|workflow:\w+|thing:\w+)"/;
/** The texts of lasting events. */
const lastingOf = (heard: readonly string[]) => heard.filter((text) => LASTING.test(text));
const toldIn = (frames: readonly Frame[]) => frames.filter((frame) => LASTING.test(`"${frame[3]}"`)).map((frame): Told => [frame[3], frame[4]] as Told);
const numbers = (told: readonly Told[]) => told.map(([, { n }]) => n);
const eventsIn = (frames: readonly Frame[]) => frames.map((frame) => frame[3]);

/** Joins without second names, unless `params` say otherwise. */
function join(client: StageClient, params: object, topic = TOPIC) {
  const { ref, heard } = client.join(topic, { aliases: false, ...params });
  const { status, response } = heard.find((frame) => frame[3] === "phx_reply" && frame[1] === ref)[4];
  return { heard, status, response, recovered: response.recovered, replayed: toldIn(heard) };
}
/** What somebody is replayed who comes only for that; null when he must start from the state. */
function replay(stage: Stage, since: string | null, topic = TOPIC, user = someone("a")): Told[] | null {
  const client = stage.client(user);
  const { status, recovered, replayed } = join(client, { since }, topic);
  assertEquals(status, "ok");
  client.drop(true);
  assert(recovered || replayed.length === 0);
  return recovered ? replayed : null;
}
/** The documents that a case's state names. */
const idsIn = ({ documents }: { documents: { id: string }[] }) => documents.map(({ id }) => id).toSorted();
/** What the log holds of a topic: every lasting event, in order, as text with its cursor. */
function inLog(stage: Stage, topic = TOPIC): { event: string; body: string; cursor: string }[] {
  const rows = stage.host.sql.run("select seq, room, topic, hash, event, payload from log where room = ? order by seq", [topic.replace(":", "/")], false);
  const [key] = stage.host.sql.run("select key from log_key", [], false);
  return numbered(key, rows).filter((row) => row.event !== "refused" && row.topic === topic).map(({ event, payload, cursor }) => (
    { event: String(event), body: withCursor(String(payload), cursor), cursor }
  ));
}

/** Who joins is shown and greeted; `do` keeps what it is sent, `also` is refused. */
const labRoom = lab({
  join(ctx) {
    ctx.presence.track({ name: ctx.user.name });
    ctx.push("hello", {});
    return {};
  },
  on: {
    do: (ctx, payload) => ctx.broadcast("kept", payload),
    also() {
      throw new Refusal("forbidden");
    },
  },
});

/** One room of two topics, `lab:{id}` and `side:{id}`. */
const twoTopics = room("lab/{id}", {
  migrations: [],
  topics: ["lab", "side"].map((name) => {
    const nothing = () => ({});
    return behave(labContract(name), { admit() {}, join: nothing, on: { do: nothing, also: nothing, bytes: nothing, hush() {} } });
  }),
});

Deno.test("recovery: the reply, presence_state, what was missed, and only then what is newer, all of it in one tick", async () => {
  const stage = new Stage([labRoom]);
  const witness = stage.client(someone("witness"));
  join(witness, {});
  const live = texts(witness);
  const [, since] = await post(stage, 1, 2, 3);
  const a = stage.client(someone("a"));
  const heard = texts(a);
  publish(stage, TOPIC, posted(4));
  a.queue(["j1", "j1", TOPIC, "phx_join", { since, aliases: false }]);
  witness.queue([null, "9", TOPIC, "do", { n: 5 }]);
  publish(stage, TOPIC, posted(6));
  stage.tick();
  const frames: Frame[] = heard.map((text) => JSON.parse(text));
  const want = ["phx_reply", "presence_state", "posted", "posted", "hello", "kept", "posted", "presence_diff"];
  assertEquals([eventsIn(frames), numbers(toldIn(frames))], [want, [3, 4, 5, 6]]);
  // Where the log stood when it joined: what comes later carries its own.
  assertEquals((frames[0][4] as { response: unknown }).response, { cursor: inLog(stage)[3].cursor, recovered: true });
  assertEquals(lastingOf(heard), lastingOf(live).slice(2));
  stage.close();
});

for (const [name, serializer, vsn] of [["V1", V1, "1"], ["V2", V2, "2"]] as const) {
  Deno.test(`recovery: ${name} is told again, byte for byte, what ${name} was told live, and what stands in the log`, () => {
    const stage = new Stage([labRoom]);
    const enter = (user: string, since?: string) => {
      const client = stage.client(someone(user), vsn);
      const heard = texts(client);
      const payload = { since, aliases: false };
      client.send(vsn === "1" ? { topic: TOPIC, event: "phx_join", payload, ref: "1" } : ["1", "1", TOPIC, "phx_join", payload]);
      return { client, heard };
    };
    const witness = enter("witness");
    const payloads = [
      {},
      { n: 1e21, m: -0.5, o: 1e-7, p: 12345678901234567890 },
      { text: 'Müller & "Söhne" \u2028 \ud83d\ude00 \0 \ud800 </script>', deep: [{ a: [[], {}, null, true] }] },
      { z: 1, a: 2, 10: 3, 9: 4, "": 5 },
      { cursor: "the sender's own", event: "kept", payload: {} },
      JSON.parse('{"__proto__":{"x":1},"constructor":2}'),
    ];
    for (const payload of payloads) {
      publish(stage, TOPIC, { event: "posted", payload });
      witness.client.queue(vsn === "1" ? { topic: TOPIC, event: "do", payload, ref: "2" } : ["1", "2", TOPIC, "do", payload]);
      stage.tick();
    }
    const { heard } = enter("a", "0");
    const want = inLog(stage).map(({ event, body }) => serializer.broadcast(TOPIC, event, body) as string);
    assertEquals(want.length, 2 * payloads.length);
    assertEquals([lastingOf(witness.heard), lastingOf(heard)], [want, want]);
    stage.close();
  });
}

Deno.test("recovery: from wherever somebody left off he gets the rest, and who left off at the end gets nothing", async () => {
  const stage = new Stage([labRoom]);
  // An empty log has a cursor, too.
  assertEquals(join(stage.client(), {}).response, { cursor: "0", recovered: false });
  assertEquals(join(stage.client(), { since: "0" }).response, { cursor: "0", recovered: true });
  const cursors = ["0", ...await post(stage, 1, 2, 3, 4, 5)];
  for (const [missed, since] of cursors.toReversed().entries()) {
    const { response, replayed, heard } = join(stage.client(), { since });
    assertEquals(response, { cursor: cursors[5], recovered: true });
    assertEquals(replayed, [1, 2, 3, 4, 5].slice(5 - missed).map((n): Told => ["posted", { n, cursor: cursors[n] }]));
    assertEquals(eventsIn(heard).filter((event) => event !== "presence_diff"), ["phx_reply", "presence_state", ...replayed.map(([event]) => event), "hello"]);
  }
  stage.close();
});

Deno.test("recovery: many come back in one tick, with one cursor and with several, V1 and V2, each to what he missed", async () => {
  const stage = new Stage([labRoom]);
  const cursors = ["0", ...await post(stage, 1, 2, 3, 4, 5)];
  const back = Array.from({ length: 40 }, (_, n) => {
    const vsn = n % 4 === 0 ? "1" : "2";
    const client = stage.client(someone(`user_${n}`), vsn);
    const since = n % 3 === 0 ? n % 6 : 2;
    const payload = { since: cursors[since], aliases: false };
    client.queue(vsn === "1" ? { topic: TOPIC, event: "phx_join", payload, ref: "1" } : ["1", "1", TOPIC, "phx_join", payload]);
    return { client, vsn, since };
  });
  publish(stage, TOPIC, posted(6));
  stage.tick();
  for (const { client, vsn, since } of back) {
    const heard = client.take();
    const frames = vsn === "2" ? heard : heard.map(({ join_ref, ref, topic, event, payload }) => [join_ref, ref, topic, event, payload]);
    assertEquals(numbers(toldIn(frames)), [1, 2, 3, 4, 5, 6].slice(since));
    assertEquals(toldIn(frames).at(-1)![1].cursor, inLog(stage)[5].cursor);
  }
  assertEquals(stage.metrics.counts.events_replayed, back.reduce((sum, { since }) => sum + 5 - since, 0));
  stage.close();
});

/** How often the log was walked. */
class Walks extends DenoSql {
  count = 0;
  override run(...query: Parameters<DenoSql["run"]>) {
    if (query[0].startsWith("with recursive")) this.count++;
    return super.run(...query);
  }
}

Deno.test("recovery: what many missed alike is read once and encoded once for each version of the wire, and forgotten after a second", async () => {
  const sql = new Walks(":memory:");
  const stage = new Stage([lab()], { sql });
  const [since] = await post(stage, 1, 2, 3);
  const cost = (...clients: StageClient[]) => {
    const before = [sql.count, stage.packed];
    for (const client of clients) assertEquals(numbers(join(client, { since }).replayed), [2, 3]);
    return [sql.count - before[0], stage.packed - before[1]];
  };
  const clients = (count: number) => Array.from({ length: count }, () => stage.client());
  // A packet for each reply and presence_state, and one for all that is told again.
  const nobody = stage.client();
  const before = stage.packed;
  join(nobody, {});
  const bare = stage.packed - before;
  // Where the cursor stands, and what follows it.
  assertEquals(cost(...clients(5)), [2, 5 * bare + 1]);
  const old = stage.client(someone("old"), "1");
  old.send({ topic: TOPIC, event: "phx_join", payload: { since, aliases: false }, ref: "1" });
  assertEquals(sql.count, 2);
  assertEquals(cost(...clients(3)), [0, 3 * bare]);
  stage.advance(1000);
  assertEquals(cost(...clients(2)), [2, 2 * bare + 1]);
  stage.close();
});

Deno.test("recovery: what is remembered for one is never older than the log for the next", async () => {
  const stage = new Stage([labRoom]);
  const [since] = await post(stage, 1);
  const told = () => numbers(replay(stage, since)!);
  assertEquals([told(), told()], [[], []]);
  await post(stage, 2);
  assertEquals([told(), told()], [[2], [2]]);
  // Read, and added to, in one tick.
  const [a, b, c] = ["a", "b", "c"].map((id) => stage.client(someone(id)));
  for (const [client, n] of [[a, 3], [b, 4], [c, 5]] as const) {
    client.queue(["1", "1", TOPIC, "phx_join", { since, aliases: false }]);
    publish(stage, TOPIC, posted(n));
  }
  stage.tick();
  for (const client of [a, b, c]) assertEquals(numbers(toldIn(client.take())), [2, 3, 4, 5]);
  stage.close();
});

Deno.test("recovery: 1,000 missed are told again, for 1,001 it starts from the state", async () => {
  const stage = new Stage([labRoom]);
  const cursors = ["0", ...await post(stage, ...Array.from({ length: 1001 }, (_, n) => n + 1))];
  assertEquals(numbers(replay(stage, cursors[1])!), Array.from({ length: 1000 }, (_, n) => n + 2));
  assertEquals(replay(stage, cursors[0]), null);
  await post(stage, 1002);
  assertEquals([replay(stage, cursors[1]), replay(stage, cursors[2])!.length], [null, 1000]);
  stage.close();
});

Deno.test("recovery: LIMIT_RECOVERY_EVENTS counts the room's entries, LIMIT_RECOVERY_BYTES their payloads as UTF-8; both are exact", async () => {
  const few = new Stage([twoTopics], { limits: { recovery_events: 3 } });
  const [first] = await kept(few, TOPIC, posted(1), posted(2), posted(3), posted(4));
  assertEquals([numbers(replay(few, first)!), replay(few, "0")], [[2, 3, 4], null]);
  await kept(few, "side:1", posted(5));
  assertEquals(replay(few, first), null);
  few.close();
  const payload = { text: "\u20ac".repeat(100) };
  const bytes = new TextEncoder().encode(JSON.stringify(payload)).length;
  for (const [recovery_bytes, told] of [[3 * bytes, 3], [3 * bytes - 1, undefined]]) {
    const stage = new Stage([labRoom], { limits: { recovery_bytes } });
    await kept(stage, TOPIC, ...[1, 2, 3].map(() => ({ event: "posted", payload })));
    assertEquals(replay(stage, "0")?.length, told);
    stage.close();
  }
});

Deno.test("recovery: a cursor that this log does not know is no error: recovered is false, and the state is told", async () => {
  const stage = new Stage(rooms);
  const foreign = new Stage(rooms);
  const [first, second] = await kept(stage, CASE, uploaded("d1"), uploaded("d2"));
  const [other] = await kept(stage, "case:case_2", uploaded("d3"));
  // Another server: the same numbers, another content.
  const elsewhere = await kept(foreign, CASE, uploaded("x1"), uploaded("x2"), uploaded("x3"), uploaded("x4"));
  const unknown = {
    "another room's": other,
    "another server's": elsewhere[1],
    "another server's, of a number to come": elsewhere[3],
    "the hash of another entry": `${second.split("-")[0]}-${first.split("-")[1]}`,
    "a later number": `zz-${second.split("-")[1]}`,
    "cut": second.slice(0, -1),
    "longer": `${second}0`,
    "upper case": second.toUpperCase(),
    "a blank before": ` ${second}`,
    "a NUL after": `${second}\0`,
    "words": "yesterday",
    "a number": "2",
    "negative": "-1",
    "a statement": "1' or 1=1 --",
    "a name of JavaScript's": "__proto__",
    "a lone surrogate": "\ud800",
    "255 characters": "9".repeat(255),
    "empty": "",
  };
  const witness = stage.client(someone("witness"));
  join(witness, {}, CASE);
  const state = join(stage.client(), {}, CASE).response;
  assertEquals([state.recovered, state.cursor, idsIn(state)], [false, second, ["d1", "d2"]]);
  for (const [what, since] of Object.entries(unknown)) {
    const { status, response, replayed } = join(stage.client(), { since }, CASE);
    assertEquals([status, response, replayed], ["ok", state, []], what);
  }
  // And what it knows it answers without the state.
  const { response, replayed } = join(stage.client(), { since: first }, CASE);
  const { documents: _, more_documents: __, ...rest } = state;
  assertEquals([response, replayed.map(([, { cursor }]) => cursor)], [{ ...rest, recovered: true }, [second]]);
  witness.take();
  // Whatever was asked for, the others go on hearing, once, what is new.
  const [third] = await kept(stage, CASE, uploaded("d4"));
  assertEquals([toldIn(witness.take()).map(([, { cursor }]) => cursor), stage.reported], [[third], []]);
  stage.close();
  foreign.close();
});

Deno.test("recovery: after a backup was put back, cursors of what is gone lead to the state, older ones to what came instead", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-recovery-" });
  const open = (name: string) => new Stage(rooms, { sql: new DenoSql(`${dir}/${name}`) });
  let stage = open("a.db");
  const [, second] = await kept(stage, CASE, uploaded("d1"), uploaded("d2"));
  stage.close();
  Deno.copyFileSync(`${dir}/a.db`, `${dir}/b.db`);
  stage = open("a.db");
  const [third] = await kept(stage, CASE, uploaded("d3"));
  // A restart alone loses nothing.
  assertEquals([replay(stage, second, CASE)!.length, replay(stage, third, CASE)!.length], [1, 0]);
  stage.close();
  stage = open("b.db");
  assertEquals([replay(stage, third, CASE), replay(stage, second, CASE)], [null, []]);
  const [instead] = await kept(stage, CASE, uploaded("e3"));
  // In the same place, at the same time, of the same sender.
  assertNotEquals(instead, third);
  const { response, replayed } = join(stage.client(), { since: third }, CASE);
  assertEquals([response.recovered, idsIn(response), replayed], [false, ["d1", "d2", "e3"], []]);
  assertEquals(replay(stage, second, CASE)!.map(([, { cursor }]) => cursor), [instead]);
  stage.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("recovery: since may be left out or null; of a wrong type it is refused, and nobody has entered", async () => {
  const stage = new Stage(rooms);
  await kept(stage, CASE, uploaded("d1"));
  for (const params of [{}, { since: null }]) {
    const { status, response, replayed } = join(stage.client(), params, CASE);
    assertEquals([status, response.recovered, response.documents, replayed], ["ok", false, [{ id: "d1" }], []]);
  }
  const witness = stage.client(someone("witness"));
  join(witness, {}, CASE);
  for (const since of [0, 1, true, false, [], ["0"], {}, { cursor: "0" }, "9".repeat(256)]) {
    const { status, response, heard } = join(stage.client(someone("wrong")), { since }, CASE);
    assertEquals([status, response.reason, heard.length], ["error", "invalid_payload", 1], JSON.stringify(since));
    assert(response.message.startsWith("since: "), response.message);
  }
  assertEquals([witness.take(), stage.reported], [[], []]);
  stage.close();
});

Deno.test("recovery: where nothing lasts there is nothing to ask for: collaboration takes since and answers as without it", async () => {
  const stage = new Stage(rooms);
  const [cursor] = await kept(stage, CASE, uploaded("d1"));
  for (const since of [undefined, null, "0", cursor, "garbage"]) {
    const { status, response, heard } = join(stage.client(), { since }, "collaboration:d1");
    assertEquals([status, response], ["ok", { document_id: "d1" }]);
    assertEquals(eventsIn(heard).filter((event) => event !== "presence_diff"), ["phx_reply", "presence_state"]);
  }
  assertEquals(join(stage.client(), { since: 1 }, "collaboration:d1").response.reason, "invalid_payload");
  stage.close();
});

Deno.test("recovery: the room's other topics, and refusals in its record, are not told; their cursors are places like any other", async () => {
  const stage = new Stage([twoTopics]);
  await kept(stage, TOPIC, posted(1));
  const [side] = await kept(stage, "side:1", posted(2));
  await kept(stage, TOPIC, posted(3));
  await kept(stage, "side:1", posted(4));
  assertEquals([numbers(replay(stage, "0")!), numbers(replay(stage, "0", "side:1")!), numbers(replay(stage, side)!)], [[1, 3], [2, 4], [3]]);
  stage.close();
  const withRefusals = new Stage([labRoom]);
  const a = withRefusals.client(someone("a"));
  join(a, {});
  await post(withRefusals, 1);
  a.send([null, "9", TOPIC, "also", {}]);
  await post(withRefusals, 2);
  a.send([null, "9", TOPIC, "also", {}]);
  assertEquals(withRefusals.host.sql.run("select count(*) as n from log where event = 'refused'", [], false)[0].n, 2);
  const b = withRefusals.client(someone("b"));
  const { heard, replayed, response } = join(b, { since: "0" });
  assertEquals([numbers(replayed), eventsIn(heard).includes("refused")], [[1, 2], false]);
  // The head is a refusal now: from there on, nothing was missed.
  assertNotEquals(response.cursor, inLog(withRefusals).at(-1)!.cursor);
  assertEquals(replay(withRefusals, response.cursor), []);
  withRefusals.close();
});

Deno.test("recovery: an event that the contract does not keep any more is not told", async () => {
  const sql = new DenoSql(":memory:");
  const stage = new Stage([labRoom], { sql });
  const a = stage.client(someone("a"));
  join(a, {});
  await post(stage, 1);
  a.send([null, "9", TOPIC, "do", { n: 2 }]);
  assertEquals(numbers(replay(stage, "0")!), [1, 2]);
  // Other versions of the program, over the same data: one knows the event no more, one tells it without keeping it.
  const { events: { kept: _, ...events }, ...contract } = labContract("lab");
  const nothing = () => ({});
  for (const changed of [events, { ...events, kept: exact(z.looseObject({})) }]) {
    const topics = [
      behave(channel({ ...contract, events: changed }), { admit() {}, join: nothing, on: { do: nothing, also: nothing, bytes: nothing, hush() {} } }),
    ];
    assertEquals(numbers(replay(new Stage([{ ...labRoom, topics }], { sql }), "0")!), [1]);
  }
  stage.close();
});

Deno.test("recovery: what a user may not see today is not told again, whatever others were told from the same cursor", async () => {
  const asked: unknown[] = [];
  const stage = new Stage([lab({
    sees(ctx, role, event, payload) {
      asked.push([role, event, payload]);
      const [hidden] = ctx.sql`select id from lab_item where room = ${ctx.room} and id = ${String(payload.n)}`;
      return hidden === undefined && (payload.secret !== true || role === "attorney");
    },
    on: {
      do: (ctx, { n }) => void ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(n)}, '')`,
    },
  })]);
  const cursors = await kept(stage, TOPIC, posted(1, { secret: true }), posted(2), posted(3, { secret: true }), posted(4));
  const seen = (role: "attorney" | "viewer", since = "0", id = "a") => numbers(replay(stage, since, TOPIC, someone(id, role))!);
  // When they are told, for each role; what is replayed is asked about once more.
  assertEquals(asked.splice(0).length, 4 * 6);
  assertEquals([seen("attorney"), seen("viewer"), seen("viewer", "0", "b"), seen("attorney", "0", "b")], [[1, 2, 3, 4], [2, 4], [2, 4], [1, 2, 3, 4]]);
  assertEquals(asked[0], ["attorney", "posted", { n: 1, secret: true }]);
  assertEquals(asked.length, 16);
  // Everything that came is hidden from him, and yet nothing is missing: gaps tell nothing.
  const { response, replayed } = join(stage.client(someone("c", "viewer")), { since: cursors[1] });
  assertEquals([response, numbers(replayed)], [{ cursor: cursors[3], recovered: true }, [4]]);
  // Rights that stand on disk are today's as well, for the same user and cursor.
  const attorney = stage.client(someone("d"));
  join(attorney, {});
  attorney.send([null, "9", TOPIC, "do", { n: 2 }]);
  assertEquals([seen("attorney"), seen("viewer")], [[1, 3, 4], [4]]);
  // What is told now is heard by those who may.
  const viewer = stage.client(someone("e", "viewer"));
  join(viewer, {});
  attorney.take();
  await kept(stage, TOPIC, posted(5, { secret: true }), posted(6));
  assertEquals([numbers(toldIn(viewer.take())), numbers(toldIn(attorney.take()))], [[6], [5, 6]]);
  stage.close();
});

Deno.test("recovery: a cursor opens nothing: whose token does not name the case any more is refused, and told nothing", async () => {
  const stage = new Stage(rooms);
  const a = stage.client(someone("a", "attorney", ["case_1"]));
  join(a, {}, CASE);
  const [since] = await kept(stage, CASE, uploaded("d1"), uploaded("d2"));
  a.drop();
  const outside = [since, "0", "garbage", undefined].map((since) => {
    const client = stage.client(someone("a", "attorney", ["case_2"]));
    const { heard, response } = join(client, { since }, CASE);
    assertEquals([heard.length, response], [1, { reason: "forbidden", message: "the token does not name this case" }]);
    return client;
  });
  await kept(stage, CASE, uploaded("d3"));
  for (const client of outside) assertEquals(client.take(), []);
  // With his right he has his cursor back; the refusals in between are nobody's to hear.
  assertEquals(replay(stage, since, CASE, someone("a", "attorney", ["case_1"]))!.length, 2);
  stage.close();
});

Deno.test("recovery: what is told again is told once, without its second name and update; what is newer has them", async () => {
  const things = channel({
    topic: "lab:{id}",
    join: { payload: z.object({}), reply: z.unknown() },
    pushes: {},
    events: { "thing:done": lasting(z.looseObject({}), { published: true, alias: "thing:finished" }) },
  });
  const stage = new Stage([room("lab/{id}", { migrations: [], topics: [behave(things, { admit() {}, join: () => ({}), on: {} })] })]);
  const done = (n: number) => ({ event: "thing:done", payload: { n } });
  const [since] = await kept(stage, TOPIC, done(1), done(2), done(3));
  const a = stage.client(someone("a"));
  assertEquals(eventsIn(join(a, { since, aliases: true }).heard), ["phx_reply", "thing:done", "thing:done"]);
  const b = stage.client(someone("b"));
  assertEquals(eventsIn(join(b, { since, aliases: undefined }).heard), ["phx_reply", "thing:done", "thing:done"]);
  await kept(stage, TOPIC, done(4));
  for (const client of [a, b]) assertEquals(eventsIn(client.take()), ["thing:done", "thing:finished", "update"]);
  stage.close();
});

Deno.test("recovery: what was lost with its tick is never told, neither from the disk nor from what was read in that tick", async () => {
  const sql = new BreakableSql();
  const stage = new Stage([labRoom], { sql });
  const [since] = await post(stage, 1);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  assertEquals(numbers(join(stage.client(someone("before")), { since }).replayed), []);
  const lost = publish(stage, TOPIC, posted(2), posted(3));
  for (const client of [a, b]) client.queue(["1", "1", TOPIC, "phx_join", { since, aliases: false }]);
  sql.failCommits = 1;
  stage.tick();
  // It may have been told what was not kept: so it is told nothing.
  for (const client of [a, b]) assertEquals(client.take(), [["1", "1", TOPIC, "phx_reply", { status: "error", response: { reason: "unavailable" } }]]);
  await assertRejects(() => lost, Refusal);
  await stage.settle();
  assertEquals(numbers(join(a, { since }).replayed), []);
  const [fourth] = await post(stage, 4);
  assertEquals(join(b, { since }).replayed, [["posted", { n: 4, cursor: fourth }]]);
  assertEquals(numbers(toldIn(a.take())), [4]);
  // Another tick is lost while somebody has just read: the next one reads the disk.
  publish(stage, TOPIC, posted(5));
  const c = stage.client(someone("c"));
  c.queue(["1", "1", TOPIC, "phx_join", { since, aliases: false }]);
  sql.failCommits = 1;
  stage.tick();
  c.take();
  await stage.settle();
  assertEquals(numbers(join(c, { since }).replayed), [4]);
  // Said again, it is an entry like any other, and told once.
  await post(stage, 5);
  assertEquals([numbers(toldIn(c.take())), numbers(replay(stage, since)!)], [[5], [4, 5]]);
  stage.close();
});

Deno.test("recovery: the cursor of an event that was lost is unknown, also once its number is another's", async () => {
  const sql = new BreakableSql();
  const stage = new Stage([labRoom], { sql });
  await post(stage, 1);
  // The number and time of what is lost, on a server where it was not.
  const twin = new Stage([labRoom]);
  const [, lost] = [await post(twin, 1), ...await post(twin, 2)];
  assertEquals(replay(twin, lost), []);
  publish(stage, TOPIC, posted(2));
  sql.failCommits = 1;
  stage.tick();
  assertEquals(replay(stage, lost), null);
  await post(stage, 3);
  assertEquals(replay(stage, lost), null);
  stage.close();
  twin.close();
});

/** Ends once the test says so. */
function slowly() {
  let go: () => void = () => {};
  const waiting = new Promise<void>((resolve) => go = resolve);
  return { waiting, go };
}
/** Lets promises settle, without a tick. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

Deno.test("recovery: a join that takes its time is told what came while it took it, once, and then what is newer", async () => {
  const { waiting, go } = slowly();
  const recovered: boolean[] = [];
  const stage = new Stage([lab({
    join(ctx) {
      recovered.push(ctx.recovered);
      if (ctx.user.id !== "slow") return {};
      return new Later(() => waiting, (ctx) => {
        recovered.push(ctx.recovered);
        ctx.presence.track({ name: "slow" });
        return { slow: true };
      });
    },
  })]);
  const [since] = await post(stage, 1, 2);
  const a = stage.client(someone("slow"));
  assertEquals(a.send(["1", "1", TOPIC, "phx_join", { since, aliases: false }]), []);
  await post(stage, 3);
  assertEquals(a.take(), []);
  publish(stage, TOPIC, posted(4));
  go();
  await settled();
  publish(stage, TOPIC, posted(5));
  stage.tick();
  const heard = a.take();
  assertEquals(eventsIn(heard), ["phx_reply", "presence_state", "posted", "posted", "posted", "posted", "presence_diff"]);
  assertEquals([heard[0][4].response, numbers(toldIn(heard))], [{ slow: true, cursor: inLog(stage)[3].cursor, recovered: true }, [2, 3, 4, 5]]);
  assertEquals(recovered, [true, true]);
  await post(stage, 6);
  assertEquals(numbers(toldIn(a.take())), [6]);
  stage.close();
});

Deno.test("recovery: a join that takes so long that too much came meanwhile starts from the state", async () => {
  const { waiting, go } = slowly();
  const stage = new Stage([lab({ join: () => new Later(() => waiting, (ctx) => ({ state: !ctx.recovered })) })], { limits: { recovery_events: 2 } });
  const [since] = await post(stage, 1, 2);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", { since, aliases: false }]);
  await post(stage, 3, 4);
  go();
  await stage.settle();
  const heard = a.take();
  assertEquals([eventsIn(heard), heard[0][4].response], [["phx_reply", "presence_state"], { state: true, cursor: inLog(stage)[3].cursor, recovered: false }]);
  stage.close();
});

Deno.test("recovery: whose right is gone by the end of his slow join is told nothing of what he missed", async () => {
  const { waiting, go } = slowly();
  const stage = new Stage([lab({
    admit(ctx) {
      if (ctx.sql`select id from lab_item where room = ${ctx.room} and id = 'shut'`[0]) throw new Refusal("forbidden");
    },
    join: () => new Later(() => waiting),
    published: {
      posted(ctx, { shut }) {
        if (shut) ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, 'shut', '')`;
      },
    },
  })]);
  await post(stage, 1);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", { since: "0", aliases: false }]);
  await kept(stage, TOPIC, posted(2, { shut: true }));
  go();
  await stage.settle();
  assertEquals(a.take(), [["1", "1", TOPIC, "phx_reply", { status: "error", response: { reason: "forbidden" } }]]);
  stage.close();
});

Deno.test("recovery: a slow join whose last tick is lost is told nothing of what it missed", async () => {
  const { waiting, go } = slowly();
  const sql = new BreakableSql();
  const stage = new Stage([lab({ join: () => new Later(() => waiting) })], { sql });
  const [since] = await post(stage, 1, 2);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", { since, aliases: false }]);
  publish(stage, TOPIC, posted(3));
  go();
  await settled();
  sql.failCommits = 1;
  stage.tick();
  assertEquals(a.take(), [["1", "1", TOPIC, "phx_reply", { status: "error", response: { reason: "unavailable" } }]]);
  await stage.settle();
  a.send(["2", "2", TOPIC, "phx_join", { since, aliases: false }]);
  await stage.settle();
  assertEquals(numbers(toldIn(a.take())), [2]);
  stage.close();
});

Deno.test("recovery: who waits to be let in is told all that he missed until then, with the rights that let him in", async () => {
  const asked: number[] = [];
  const stage = new Stage([lab({
    patienceMs: 1000,
    admit(ctx) {
      if (!ctx.sql`select id from lab_item where room = ${ctx.room} and id = 'open'`[0]) throw new Refusal("not_found");
    },
    sees: (_, __, ___, { n }) => asked.push(n) > 0,
    published: {
      posted(ctx, { open }) {
        if (!open) return;
        ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, 'open', '')`;
        ctx.admitAgain();
      },
    },
  })]);
  await post(stage, 1);
  const a = stage.client();
  assertEquals(a.send(["1", "1", TOPIC, "phx_join", { since: "0", aliases: false }]), []);
  await post(stage, 2);
  assertEquals(a.take(), []);
  await kept(stage, TOPIC, posted(3, { open: true }));
  await stage.settle();
  const heard = a.take();
  assertEquals([eventsIn(heard)[0], heard[0][4].response.recovered, numbers(toldIn(heard)), asked.slice(-3)], ["phx_reply", true, [1, 2, 3], [1, 2, 3]]);
  stage.close();
});

Deno.test("recovery: a rejoin on the same socket is told from its own cursor on; what came before the reply was the old join's [61, 62]", async () => {
  const stage = new Stage([labRoom]);
  const cursors = ["0", ...await post(stage, 1, 2)];
  const a = stage.client(someone("a"));
  const first = join(a, { since: cursors[1] });
  assertEquals(numbers(first.replayed), [2]);
  await stage.settle();
  await post(stage, 3);
  assertEquals(numbers(toldIn(a.take())), [3]);
  const since = inLog(stage)[2].cursor;
  publish(stage, TOPIC, posted(4));
  a.queue(["r", "r", TOPIC, "phx_join", { since, aliases: false }]);
  publish(stage, TOPIC, posted(5));
  stage.tick();
  const heard = a.take();
  const at = heard.findIndex((frame) => frame[1] === "r");
  assertEquals(eventsIn(heard.slice(at)).slice(0, 4), ["phx_reply", "phx_close", "presence_state", "posted"]);
  // The old join hears what was said before the new one; the new one is told all that came after its cursor.
  assertEquals([numbers(toldIn(heard.slice(0, at))), numbers(toldIn(heard.slice(at)))], [[4], [4, 5]]);
  await stage.settle();
  await post(stage, 6);
  assertEquals(numbers(toldIn(a.take())), [6]);
  // A refused rejoin is told nothing, and ends what was joined.
  assertEquals(join(a, { since: 5 }).heard.filter((frame) => frame[3] !== "presence_diff").map((frame) => frame[3]), ["phx_reply", "phx_close"]);
  await post(stage, 7);
  assertEquals(toldIn(a.take()), []);
  stage.close();
});

Deno.test("recovery: a rejoin that takes its time is told once what came meanwhile: the old join ended before it began [61]", async () => {
  const { waiting, go } = slowly();
  let slow = false;
  const stage = new Stage([lab({ join: () => slow ? new Later(() => waiting) : {} })]);
  const [since] = await post(stage, 1);
  const a = stage.client(someone("a"));
  join(a, { since });
  await stage.settle();
  slow = true;
  a.send(["r", "r", TOPIC, "phx_join", { since, aliases: false }]);
  await post(stage, 2);
  go();
  await stage.settle();
  await post(stage, 3);
  assertEquals(numbers(toldIn(a.take())), [2, 3]);
  stage.close();
});

Deno.test("recovery: a room that nobody was in comes back from the disk, and knows what was missed", async () => {
  const stage = new Stage([labRoom]);
  const a = stage.client(someone("a"));
  join(a, {});
  const [since] = await post(stage, 1, 2);
  a.drop(true);
  for (let n = 0; n < 1001; n++) publish(stage, `lab:other_${n}`, posted(n));
  stage.run();
  // The thousand that rested last are kept warm: this one is not among them.
  assertEquals(stage.registry.size, 1000);
  assertEquals(numbers(replay(stage, since)!), [2]);
  await post(stage, 3);
  assertEquals(numbers(replay(stage, since)!), [2, 3]);
  stage.close();
});

Deno.test("recovery: a socket whose token ended while its join took its time is told nothing that it missed", async () => {
  const { waiting, go } = slowly();
  const stage = new Stage([lab({ join: () => new Later(() => waiting) })]);
  await post(stage, 1);
  const expires = stage.clock.now() + 500;
  const [a, b] = [stage.client(someone("a"), "2", expires), stage.client(someone("b"))];
  for (const client of [a, b]) client.send(["1", "1", TOPIC, "phx_join", { since: "0", aliases: false }]);
  // Before anybody has looked after it.
  stage.clock.jump(500);
  go();
  await stage.settle();
  await post(stage, 2);
  assertEquals([numbers(toldIn(a.take())), numbers(toldIn(b.take()))], [[], [1, 2]]);
  stage.advance(1000);
  assertEquals([a.wire.code, b.wire.code], [4001, null]);
  stage.close();
});

Deno.test("recovery: what is told again was asked for: it does not make a slow reader of anybody", async () => {
  const stage = new Stage([labRoom], { limits: { outbox_bytes: 2000, passing_outbox_bytes: 1000 } });
  await kept(stage, TOPIC, ...[1, 2, 3, 4].map((n) => posted(n, { text: "x".repeat(1000) })));
  const a = stage.client(someone("a"));
  assertEquals(numbers(join(a, { since: "0" }).replayed), [1, 2, 3, 4]);
  // Nothing of it has gone out yet.
  a.wire.backlog = 4200;
  await post(stage, 5);
  assertEquals([numbers(toldIn(a.take())), a.wire.code], [[5], null]);
  stage.close();
});

Deno.test("recovery: who asks again and again and does not read is not given more and more of it: a socket's memory is bounded", async () => {
  const limits = { outbox_bytes: 100_000, recovery_bytes: 400_000 };
  const stage = new Stage([labRoom], { limits });
  await kept(stage, TOPIC, ...[1, 2, 3, 4, 5].map((n) => posted(n, { text: "x".repeat(60_000) })));
  const a = stage.client(someone("a"));
  const { wire } = a;
  // Nothing of what is flushed ever goes out.
  const send = wire.send.bind(wire);
  const flush = wire.flush.bind(wire);
  let waiting = 0;
  wire.send = (packet) => {
    waiting += packet.length;
    send(packet);
  };
  wire.flush = () => {
    wire.backlog = waiting;
    flush();
  };
  for (let n = 0; n < 100; n++) a.queue([`${n}`, `${n}`, TOPIC, "phx_join", { since: "0" }]);
  stage.run();
  // What was too much is one answer, not a hundred.
  assertLessOrEqual(waiting, limits.outbox_bytes + 2 * limits.recovery_bytes);
  stage.close();
});

Deno.test("recovery: a join that is refused, or crashes, is told nothing of what it missed", async () => {
  for (const [error, reason, reports] of [[new Refusal("forbidden"), "forbidden", 0], [new Error("ours"), "join crashed", 1]] as const) {
    const stage = new Stage([lab({
      join() {
        throw error;
      },
    })]);
    await post(stage, 1);
    const { heard } = join(stage.client(), { since: "0" });
    assertEquals([heard.map((frame) => [frame[3], frame[4].response.reason]), stage.reported.length], [[["phx_reply", reason]], reports]);
    stage.close();
  }
});

/** A client as it should be written: it knows its list and the cursor that it saw last. */
class Follower {
  list: number[] = [];
  since: string | null = null;
  client: StageClient | null = null;
  joined = false;
  /** It has asked, and waits for the answer. */
  joining = false;
  resets = 0;
  recoveries = 0;
  #texts: string[] = [];
  #ref = 0;

  constructor(private readonly stage: Stage, readonly name: string, private readonly vsn: "1" | "2", private readonly problems: string[]) {}

  /** Connects if need be, and asks to join in the tick to come. */
  come(): void {
    if (!this.client) {
      this.client = this.stage.client(someone(this.name), this.vsn);
      this.#texts = texts(this.client);
    }
    this.joining = true;
    this.say("phx_join", { since: this.since, aliases: false });
  }
  say(event: string, payload: object): void {
    const ref = `${++this.#ref}`;
    this.client!.queue(this.vsn === "1" ? { topic: TOPIC, event, payload, ref } : [event === "phx_join" ? ref : null, ref, TOPIC, event, payload]);
  }
  /** Reads what came, or only the first of it. */
  read(most = Infinity): void {
    for (const text of this.#texts.splice(0).slice(0, most)) {
      const frame = JSON.parse(text);
      const { event, payload } = this.vsn === "1" ? frame : { event: frame[3], payload: frame[4] };
      // Nothing else is answered before the join is.
      if (event === "phx_reply") this.joining = false;
      if (event === "phx_reply" && payload.response.recovered !== undefined) {
        this.joined = true;
        if (payload.response.recovered) this.recoveries++;
        else [this.list, this.since, this.resets] = [payload.response.state, payload.response.cursor, this.resets + 1];
      } else if (event === "posted" || event === "kept") {
        if (!this.joined) this.problems.push(`${this.name} heard ${text} before its reply`);
        this.list.push(payload.n);
        this.since = payload.cursor;
        // In the log's very words; what is not there was told and not kept.
        const known = inLog(this.stage).find(({ cursor }) => cursor === payload.cursor);
        const serializer = this.vsn === "1" ? V1 : V2;
        if (!known || serializer.broadcast(TOPIC, known.event, known.body) !== text) this.problems.push(`${this.name} heard ${text}`);
      }
    }
  }
  /** The connection ends, and with it what was under way. */
  lose(most: number, clean: boolean): void {
    this.read(most);
    this.client?.drop(clean);
    this.client = null;
    this.joined = this.joining = false;
  }
}

/** The state is the list of all numbers; those of `side` are none of it. */
const listing = room("lab/{id}", {
  migrations: ["create table lab_item (room text not null, id text not null, primary key (room, id)) strict"],
  topics: ["lab", "side"].map((name) => {
    const nothing = () => ({});
    return behave(labContract(name), {
      admit() {},
      join(ctx) {
        ctx.presence.track({});
        if (ctx.recovered) return {};
        return { state: ctx.sql`select id from lab_item where room = ${ctx.room} order by rowid`.map(({ id }) => Number(id)) };
      },
      on: {
        do(ctx, { n }) {
          ctx.sql`insert into lab_item (room, id) values (${ctx.room}, ${String(n)})`;
          ctx.broadcast("kept", { n });
        },
        also() {
          throw new Refusal("forbidden");
        },
        bytes: nothing,
        hush() {},
      },
      published: {
        posted(ctx, { n }) {
          if (name === "lab") ctx.sql`insert into lab_item (room, id) values (${ctx.room}, ${String(n)})`;
        },
      },
    });
  }),
});

for (const seed of [Math.trunc(Math.random() * 2 ** 31), 1, 2]) {
  Deno.test(`recovery: whoever drops, whatever is lost, all end with the log, in its order, once, seed ${seed}`, async () => {
    const pick = random(seed);
    const sql = new BreakableSql();
    const stage = new Stage([listing], { sql, graceMs: pick(2) * 5000, limits: { recovery_events: 25, refusals_logged: 100 } });
    const problems: string[] = [];
    const followers = Array.from({ length: 6 }, (_, n) => new Follower(stage, `user_${n}`, n % 3 === 0 ? "1" : "2", problems));
    let n = 0;
    for (let step = 0; step < 400; step++) {
      for (let acts = pick(6); acts > 0; acts--) {
        const follower = followers[pick(6)];
        switch (pick(8)) {
          case 0:
          case 1:
            publish(stage, TOPIC, ...Array.from({ length: 1 + pick(3) }, () => posted(++n)));
            break;
          case 2:
            publish(stage, "side:1", posted(-step));
            break;
          case 3:
            if (follower.joined) follower.say("do", { n: ++n });
            break;
          case 4:
            if (follower.joined) follower.say("also", {});
            break;
          case 5:
            // What it had not read yet is lost with the connection.
            if (follower.client) follower.lose(pick(6), pick(2) === 0);
            break;
          default:
            if (!follower.joined && !follower.joining) follower.come();
        }
      }
      if (pick(6) === 0) sql.failCommits = 1;
      stage.tick();
      sql.failCommits = 0;
      // What waits for a promise is served in the next tick.
      for (let turn = 0; turn < 5; turn++) await null;
      for (const follower of followers) if (pick(3) > 0) follower.read();
      stage.clock.advance(pick(100));
    }
    stage.advance(1000);
    for (const follower of followers) {
      if (pick(2) === 0) follower.lose(pick(6), true);
      follower.read();
      if (!follower.joined) follower.come();
      await stage.settle();
      follower.read();
    }
    assertEquals(problems, []);
    const want = inLog(stage).map(({ body }) => JSON.parse(body).n);
    for (const { name, list, since } of followers) {
      assertEquals(list, want, name);
      assert(since !== null);
    }
    // Both ways were gone, and the log has gaps where ticks were lost.
    for (const { resets, recoveries } of followers) assert(resets > 0 && recoveries > 0);
    assertGreater(stage.metrics.counts.ticks_lost, 10);
    assert(want.length > 100 && want.length < n, `${want.length} of ${n}`);
    stage.close();
  });
}
