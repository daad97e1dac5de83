/** The real npm client over a line that breaks, and a server that is killed: what it collected is the record, once and in order. [promise 4] */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { createServer, type Server, Socket as Tcp } from "node:net";
import { once } from "node:events";
// @ts-types="./support/phoenix.d.ts"
import { Socket } from "phoenix";
import type { Channel } from "./support/phoenix.d.ts";
import type { User } from "../rooms/host.ts";
import { Outside, type Published } from "./support/outside.ts";
import { random } from "./support/random.ts";
import { someone } from "./support/stage.ts";

const CASE = "case_1";
const TOPIC = `case:${CASE}`;
const EVENTS = ["document:uploaded", "document:processed", "workflow:started", "workflow:completed"];

interface Told {
  readonly event: string;
  readonly payload: { readonly cursor: string };
}

/** The network between the clients and a server. While it is cut nobody gets through. */
class Line {
  readonly #server: Server;
  readonly #ends = new Set<Tcp>();
  #cut = false;
  target = 0;

  private constructor() {
    this.#server = createServer((near) => {
      if (this.#cut) return void near.destroy();
      const far = new Tcp();
      for (const [end, other] of [[near, far], [far, near]]) {
        this.#ends.add(end);
        end.on("error", () => {});
        end.on("close", () => {
          this.#ends.delete(end);
          other.destroy();
        });
        end.pipe(other);
      }
      far.connect(this.target, "127.0.0.1");
    });
  }
  static async open(target: number): Promise<Line> {
    const line = new Line();
    line.target = target;
    line.#server.listen(0, "127.0.0.1");
    await once(line.#server, "listening");
    return line;
  }
  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }
  cut(): void {
    this.#cut = true;
    for (const end of this.#ends) end.resetAndDestroy();
  }
  mend(): void {
    this.#cut = false;
  }
  async close(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.cut();
    await closed;
  }
}

/** A client as an application has one: all it remembers is its list and the cursor that it saw last. */
class Reader {
  readonly socket: Socket;
  readonly channel: Channel;
  list: Told[] = [];
  since: string | null = null;
  /** The replies to its joins, and the events of its last one, in order. */
  // deno-lint-ignore no-explicit-any
  readonly joins: any[] = [];
  readonly refusals: string[] = [];
  frames: string[] = [];
  /** The cursors of what `update` told. */
  readonly mirrored: string[] = [];
  closes = 0;
  #wake: () => void = () => {};

  constructor(line: Line, token: () => string) {
    const options = { params: () => ({ token: token() }), reconnectAfterMs: () => 30, rejoinAfterMs: () => 30 };
    this.socket = new Socket(`ws://127.0.0.1:${line.port}/socket`, options);
    this.socket.onMessage(({ event, payload }) => {
      if (event === "phx_reply" && payload.response.cursor !== undefined) this.frames = [];
      this.frames.push(event);
    });
    this.socket.onClose(() => this.#note(() => this.closes++));
    this.channel = this.socket.channel(TOPIC, () => ({ since: this.since }));
    for (const event of EVENTS) {
      this.channel.on(event, (payload) =>
        this.#note(() => {
          this.list.push({ event, payload });
          this.since = payload.cursor;
        }));
    }
    this.channel.on("update", ({ payload }) => this.#note(() => this.mirrored.push(payload.cursor)));
    this.socket.connect();
    this.channel.join()
      // Called again by every rejoin.
      .receive("ok", (response) =>
        this.#note(() => {
          this.joins.push(response);
          if (response.recovered) return;
          this.list = [];
          this.since = response.cursor;
        }))
      .receive("error", ({ reason }) => this.#note(() => this.refusals.push(reason)));
  }
  #note(what: () => void): void {
    what();
    this.#wake();
  }
  /** Resolves once that is so. */
  async until(what: string, done: () => boolean, ms = 15_000): Promise<void> {
    const end = Date.now() + ms;
    while (!done()) {
      assert(Date.now() < end, `waited ${ms} ms for ${what}: ${this.list.length} events, ${JSON.stringify(this.joins)} ${this.refusals}`);
      let timer;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, end - Date.now());
      });
      clearTimeout(timer!);
    }
  }
  async reach(cursor: string): Promise<void> {
    await this.until(`the cursor ${cursor}`, () => this.since === cursor);
  }
  async hangUp(): Promise<void> {
    this.channel.rejoinTimer.reset();
    const { conn } = this.socket;
    const closed = conn && conn.readyState !== WebSocket.CLOSED && new Promise((resolve) => conn.addEventListener("close", resolve, { once: true }));
    await new Promise<void>((resolve) => this.socket.disconnect(resolve));
    await closed;
  }
}

/** A server that may die, a line to it that may break, and readers behind that. */
class Scene {
  readonly #readers: Reader[] = [];
  #published = 0;
  readonly #service: string[] = [];

  private constructor(public at: Outside, readonly line: Line, readonly dirs: string[], private readonly env: Record<string, string>) {}

  static async open(env: Record<string, string> = {}): Promise<Scene> {
    const dir = Deno.makeTempDirSync({ prefix: "caseroom-recovery-" });
    const at = await Outside.start({ ...env, DATA_DIR: dir });
    return new Scene(at, await Line.open(at.server.port), [dir], env);
  }
  /** `token`: what it says who it is with, at each attempt. */
  async reader(user: User = someone("alice"), token?: () => string): Promise<Reader> {
    const own = await this.at.token(user);
    const reader = new Reader(this.line, token ?? (() => own));
    this.#readers.push(reader);
    await reader.until("its first join", () => reader.joins.length > 0);
    return reader;
  }
  /** Publishes as many events in one request; returns their cursors. */
  async publish(count: number): Promise<string[]> {
    const { status, body } = await this.at.publish(TOPIC, this.#next(count), await this.#token());
    assertEquals(status, 200, JSON.stringify(body));
    return body.events.map(({ cursor }: { cursor: string }) => cursor);
  }
  /** Publishes until it is answered, as a back end does whose server dies. Returns the cursor. */
  async insist(): Promise<string> {
    const events = this.#next(1);
    for (const end = Date.now() + 20_000; Date.now() < end;) {
      const answer = await this.at.publish(TOPIC, events, await this.#token()).catch(() => null);
      if (answer?.status === 200) return answer.body.events[0].cursor;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error("nothing could be published for 20 s");
  }
  async #token(): Promise<string> {
    return this.#service[0] ??= await this.at.token(someone("back end", "service", []));
  }
  #next(count: number): Published[] {
    return Array.from({ length: count }, () => {
      const n = ++this.#published;
      const id = `event ${n}`;
      return [
        { event: "document:uploaded", payload: { document: { id: `d${n}`, title: `Müller & "Söhne" ${n}` } }, id },
        { event: "document:processed", payload: { document_id: `d${n - 1}`, status: "completed", results: { confidence: 0.1 * n } }, id },
        { event: "workflow:started", payload: { workflow_id: `w${n}`, case_id: CASE }, id },
      ][n % 3];
    });
  }
  /** What the record of the case has, by its own pages. */
  async record(): Promise<Told[]> {
    const told: Told[] = [];
    const token = await this.at.token(someone("auditor"));
    for (let after = "";;) {
      const { body } = await this.at.post(`/api/cases/${CASE}/log?limit=50&after=${after}`, "", token, "GET");
      for (const { event, payload, cursor } of body.events) if (event !== "refused") told.push({ event, payload: { ...payload, cursor } });
      if (body.next === null) return told;
      after = body.next;
    }
  }
  async kill(): Promise<void> {
    assertEquals(await this.at.server.stop("SIGKILL"), 137);
  }
  async start(dir = this.dirs.at(-1)!): Promise<void> {
    if (!this.dirs.includes(dir)) this.dirs.push(dir);
    this.at = await Outside.start({ ...this.env, DATA_DIR: dir });
    this.line.target = this.at.server.port;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#readers.map((reader) => reader.hangUp()));
    await this.line.close();
    await this.at[Symbol.asyncDispose]();
    for (const dir of this.dirs) Deno.removeSync(dir, { recursive: true });
  }
}

Deno.test("recovery with phoenix 1.8.16: after its line broke it has what was said meanwhile, and then what is newer, once", async () => {
  await using scene = await Scene.open();
  const early = await scene.reader();
  assertEquals([early.joins[0].recovered, early.joins[0].cursor, early.joins[0].documents], [false, "0", []]);
  const live = await scene.publish(4);
  await early.reach(live[3]);
  const late = await scene.reader(someone("bob"));
  assertEquals(late.joins[0].cursor, live[3]);
  await early.until("the mirrors", () => early.mirrored.length === 4);

  scene.line.cut();
  for (const reader of [early, late]) await reader.until("the cut", () => reader.closes > 0);
  const missed = [...await scene.publish(3), ...await scene.publish(2)];
  scene.line.mend();
  for (const reader of [early, late]) {
    await reader.reach(missed[4]);
    assertEquals([reader.joins.length, reader.joins[1].recovered, reader.joins[1].documents], [2, true, undefined]);
    const order = reader.frames.filter((event) => event !== "presence_diff" && !event.startsWith("user:"));
    assertEquals([order.slice(0, 2), order.slice(2).filter((event) => !EVENTS.includes(event))], [["phx_reply", "presence_state"], []]);
  }
  const [newer] = await scene.publish(1);
  for (const reader of [early, late]) await reader.reach(newer);
  const record = await scene.record();
  assertEquals(record.map(({ payload }) => payload.cursor), [...live, ...missed, newer]);
  assertEquals([early.list, late.list], [record, record.slice(4)]);
  // What was told again has no mirror.
  for (const reader of [early, late]) await reader.until("the last mirror", () => reader.mirrored.at(-1) === newer);
  assertEquals([early.mirrored, late.mirrored], [[...live, newer], [newer]]);

  // Cut once more with nothing said: nothing comes.
  scene.line.cut();
  await early.until("the cut", () => early.closes > 1);
  scene.line.mend();
  await early.until("its third join", () => early.joins.length > 2);
  const [last] = await scene.publish(1);
  await early.reach(last);
  assertEquals([early.joins[2].recovered, early.list], [true, await scene.record()]);
});

Deno.test("recovery with phoenix 1.8.16: the server is killed, and has kept what was said before it was back; a new one knows nothing", async () => {
  await using scene = await Scene.open();
  const [a, b] = [await scene.reader(), await scene.reader(someone("bob"))];
  const [first] = await scene.publish(1);
  for (const reader of [a, b]) await reader.reach(first);
  scene.line.cut();
  const missed = await scene.publish(2);
  await scene.kill();
  await scene.start();
  missed.push(...await scene.publish(2));
  scene.line.mend();
  for (const reader of [a, b]) await reader.reach(missed[3]);
  const record = await scene.record();
  assertEquals([a.list, b.list, record.map(({ payload }) => payload.cursor)], [record, record, [first, ...missed]]);
  assertEquals([a, b].map(({ joins }) => joins.map(({ recovered }) => recovered)), [[false, true], [false, true]]);

  // As many entries, and more, on another disk: its cursor is not known there.
  await scene.kill();
  await scene.start(Deno.makeTempDirSync({ prefix: "caseroom-recovery-" }));
  const foreign = await scene.publish(7);
  await a.until("its join there", () => a.joins.length === 3);
  const { recovered, documents, cursor } = a.joins[2];
  assertEquals(recovered, false);
  assertGreater(documents.length, 0);
  assert(cursor === "0" || foreign.includes(cursor), cursor);
  await scene.publish(1);
  const other = await scene.record();
  await a.reach(other.at(-1)!.payload.cursor);
  assertEquals(a.list, cursor === "0" ? other : other.slice(foreign.indexOf(cursor) + 1));
});

Deno.test("recovery with phoenix 1.8.16: who missed more than LIMIT_RECOVERY_EVENTS is told the state, and goes on from there", async () => {
  await using scene = await Scene.open({ LIMIT_RECOVERY_EVENTS: "5" });
  const reader = await scene.reader();
  const away = async (count: number) => {
    const joins = reader.joins.length;
    scene.line.cut();
    await reader.until("the cut", () => reader.closes >= joins);
    const missed = await scene.publish(count);
    scene.line.mend();
    await reader.reach(missed.at(-1)!);
    await reader.until("the join", () => reader.joins.length > joins);
    return reader.joins[joins];
  };
  assertEquals((await away(5)).recovered, true);
  assertEquals(reader.list, await scene.record());
  const state = await away(6);
  assertEquals([state.recovered, reader.list], [false, []]);
  const uploads = (await scene.record()).filter(({ event }) => event === "document:uploaded").map(({ payload }) =>
    (payload as unknown as { document: { id: string } }).document.id
  );
  assertEquals(state.documents.map(({ id }: { id: string }) => id).toSorted(), uploads.toSorted());
  assertEquals((await away(4)).recovered, true);
  assertEquals(reader.list, (await scene.record()).slice(11));
});

Deno.test("recovery with phoenix 1.8.16: who comes back with a token that does not name the case any more is told nothing", async () => {
  await using scene = await Scene.open();
  const tokens = [await scene.at.token(someone("alice", "attorney", [CASE])), await scene.at.token(someone("alice", "attorney", ["case_2"]))];
  let today = 0;
  const reader = await scene.reader(undefined, () => tokens[today]);
  const [first] = await scene.publish(1);
  await reader.reach(first);
  scene.line.cut();
  today++;
  await scene.publish(2);
  scene.line.mend();
  await reader.until("its refusals", () => reader.refusals.length > 1);
  await scene.publish(1);
  await reader.until("one more", () => reader.refusals.length > 3);
  // It would try again for ever. [100]
  reader.channel.leave();
  assertEquals([reader.list.length, reader.joins.length, new Set(reader.refusals)], [1, 1, new Set(["forbidden"])]);
});

for (const seed of [Math.trunc(Math.random() * 2 ** 31)]) {
  Deno.test(`recovery with phoenix 1.8.16: a line that breaks and a server that is killed while back ends publish, seed ${seed}`, async () => {
    await using scene = await Scene.open();
    const pick = random(seed);
    const readers = [await scene.reader(), await scene.reader(someone("bob"))];
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    let cursor = "";
    const publishing = (async () => {
      for (let n = 0; n < 60; n++) {
        cursor = await scene.insist();
        await pause(pick(15));
      }
    })();
    let over = false;
    publishing.finally(() => over = true).catch(() => {});
    for (let kills = 0, breaks = 0; !over;) {
      await pause(40 + pick(80));
      if (pick(4) === 0 && kills < 2) {
        kills++;
        await scene.kill();
        await scene.start();
      } else if (breaks++ < 12) {
        scene.line.cut();
        await pause(pick(60));
        scene.line.mend();
      }
    }
    await publishing;
    const third = await scene.reader(someone("carol"));
    for (const reader of [...readers, third]) await reader.until("the end", () => reader.since === cursor);
    const record = await scene.record();
    // Each event once, though some were published twice because the answer was lost.
    assertEquals([record.length, record.at(-1)!.payload.cursor], [60, cursor]);
    for (const reader of readers) {
      assertEquals(reader.list, record);
      assertGreater(reader.joins.length, 1);
      assertEquals(reader.joins.filter(({ recovered }) => !recovered).length, 1);
    }
  });
}
