/**
 * Killed at any moment and started again, over and over, while back ends publish, members push batches and listen, and
 * readers read. They go on by themselves over all lives of the server: what had no answer is sent again with the same ids,
 * who was listening joins again with his last cursor. In the end everybody has seen exactly what is on disk. [promise 2]
 */
import { assert, assertEquals, assertGreater, AssertionError } from "@std/assert";
import { withCursor } from "../rooms/seam.ts";
import { enter, LAB, publish, readDisk, tempDir, uploaded } from "./support/lives.ts";
import type { Published } from "./support/outside.ts";
import { type Running, SECRET, startServer } from "./support/process.ts";
import { random } from "./support/random.ts";
import { type Heard, RawClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const CASES = ["case:one", "case:two"];
const LABS = ["lab:one", "lab:two"];
/** Budgets have their own tests, and nobody may fall too far behind. A secret of its own: a dead server's port may soon be another's. */
const SETTINGS = {
  ...Object.fromEntries(["REQUESTS", "JOINS", "BATCHES", "BATCHED_MESSAGES", "FRAMES", "RECOVERY_EVENTS"].map((name) => [`LIMIT_${name}`, "1000000"])),
  AUTH_SECRET: `${SECRET}: killed`,
  DRAIN_MS: "100",
};

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));
const sum = (numbers: readonly number[]) => numbers.reduce((sum, number) => sum + number, 0);

/** The server of the moment, and those who talk to it through all of its lives. */
class World {
  server: Running | null = null;
  /** Nobody begins anything new. */
  ending = false;
  readonly #dir = tempDir();
  readonly env: Record<string, string> = { DATA_DIR: this.#dir.path, ...SETTINGS };
  readonly next: (below: number) => number;
  readonly publishers = ["1", "2", "3"].map((name) => new Publisher(this, `publisher_${name}`));
  readonly batchers = LABS.flatMap((topic) => [1, 2].map((number) => new Batcher(this, `batcher_${topic}_${number}`, topic)));
  readonly members = [...CASES, ...LABS].flatMap((topic) => [new Member(this, topic, Infinity), new Member(this, topic, 50)]);
  readonly reader = new Reader("one");
  readonly newcomer = new Newcomer(this);
  /** What is wrong, as far as is known. */
  readonly wrong: unknown[] = [];
  /** Servers that are meant to go away. */
  readonly #stopping = new WeakSet<Running>();

  constructor(seed: number) {
    this.next = random(seed);
  }

  async start(): Promise<void> {
    this.server = await startServer(this.env, LAB);
  }
  async stop(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const { server } = this;
    this.#stopping.add(server!);
    assertEquals(await server!.stop(signal), signal === "SIGKILL" ? 137 : 0, server!.output());
  }

  /** Everybody goes on until he is done, whatever becomes of connections: only a server that is meant to stay must keep them. */
  live(lives: readonly { done: boolean; life(server: Running): Promise<void> }[]): Promise<unknown> {
    const latest = Date.now() + 120_000;
    return Promise.all(lives.map(async (one) => {
      while (!one.done && this.wrong.length === 0) {
        const { server } = this;
        try {
          if (Date.now() > latest) throw new AssertionError(`a ${one.constructor.name} does not come to an end`);
          if (server) await one.life(server);
        } catch (error) {
          if (error instanceof AssertionError || !this.#stopping.has(server!)) this.wrong.push(error);
        }
        await pause(5);
      }
    }));
  }

  /** How much was answered so far. */
  get acknowledged(): number {
    return sum(this.publishers.map(({ cursors }) => cursors.size)) + sum(this.batchers.map(({ acknowledged }) => acknowledged.length));
  }

  /** Looks at what is on disk, as it is this very moment: nobody is told anything in between. */
  check(): Disk {
    if (this.wrong.length > 0) throw this.wrong[0];
    const disk = new Disk(this.#dir.path);
    for (const { topic, seen } of [...this.members, this.reader]) disk.beginsWith(topic, seen);
    for (const { requests, cursors } of this.publishers) {
      for (const [id, cursor] of cursors) assertEquals(disk.cursorById.get(id), cursor, `${id} was acknowledged with this cursor`);
      disk.wholeOrNot(requests);
    }
    for (const { batches, acknowledged, refused } of this.batchers) {
      for (const id of acknowledged) assert(disk.seqOf.has(id), `${id} was acknowledged`);
      for (const id of refused) assert(!disk.seqOf.has(id), `${id} was refused`);
      disk.wholeOrNot(batches);
    }
    for (const id of this.newcomer.documents) assert(disk.seqOf.has(id), `${id} was shown`);
    for (const id of this.newcomer.registered) assert(disk.registered.has(id), `collaboration:${id} was open`);
    return disk;
  }

  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}

/** What is on disk. Throws when it is not whole. */
class Disk {
  /** What the members of a topic should have seen so far, as they see it. */
  readonly told = new Map<string, string[]>();
  /** Of documents, statuses and rows of the lab, by their ids. */
  readonly seqOf = new Map<string, number>();
  readonly cursorById = new Map<string, string>();
  readonly registered: ReadonlySet<string>;
  /** Calls to documents that are still to be made. */
  readonly waiting: readonly string[];

  constructor(dataDir: string) {
    const documents = new Map<string, object>();
    const items: string[] = [];
    const { log, tables } = readDisk(dataDir, (log, all) => ({
      log,
      tables: {
        items: all("select room, id from lab_item").map(({ room, id }) => `${room} ${id}`),
        documents: all("select id, body from case_document").map(({ id, body }): [string, unknown] => [String(id), JSON.parse(String(body))]),
        registered: all("select room from document_registered").map(({ room }) => String(room).slice("document/".length)),
        waiting: all("select target from outbox where failed is null").map(({ target }) => String(target).slice("document/".length)),
        failed: all("select * from outbox where failed is not null"),
      },
    }));
    for (const { topic, event, payload, seq, room, dedupe, cursor } of log) {
      const said = JSON.parse(String(payload));
      const told = this.told.get(String(topic)) ?? [];
      this.told.set(String(topic), told);
      told.push(`${event} ${withCursor(String(payload), cursor)}`);
      const id: string = said.id ?? said.document?.id ?? `${said.document_id} processed`;
      assert(!this.seqOf.has(id), `${id} is there twice`);
      this.seqOf.set(id, Number(seq));
      if (dedupe !== null) this.cursorById.set(String(dedupe), cursor);
      if (event === "kept") items.push(`${room} ${id}`);
      else if (event === "document:uploaded") documents.set(id, said.document);
      else documents.set(said.document_id, { ...documents.get(said.document_id), status: said.status });
    }
    // The rooms' own tables say what the log says, and each document has been told whose it is, or will be.
    assertEquals(tables.items.toSorted(), items.toSorted());
    assertEquals(Object.fromEntries(tables.documents), Object.fromEntries(documents));
    this.registered = new Set(tables.registered);
    this.waiting = tables.waiting;
    assertEquals([...new Set([...tables.registered, ...tables.waiting])].toSorted(), [...documents.keys()].toSorted());
    assertEquals(tables.failed, []);
  }

  /** One order, no gap, nothing twice, and nothing that is not here. */
  beginsWith(topic: string, seen: readonly string[]): void {
    const told = this.told.get(topic) ?? [];
    const wrong = seen.findIndex((event, index) => event !== told[index]);
    if (wrong >= 0) throw new AssertionError(`${topic}: number ${wrong} was seen as\n${seen[wrong]}\nand is on disk\n${told[wrong]}`);
  }

  /** What was sent together is here together, in its order and with nothing in between, or not at all. */
  wholeOrNot(together: readonly (readonly string[])[]): void {
    for (const ids of together) {
      const [first, ...rest] = ids.map((id) => this.seqOf.get(id));
      assertEquals(rest, rest.map((_, index) => first === undefined ? undefined : first + index + 1), ids.join());
    }
  }
}

const processed = (id: string): Published => ({ event: "document:processed", payload: { document_id: id, status: "completed" }, id: `${id} processed` });

/** A back end: a request without an answer is sent again, ids and all, until it has one. */
class Publisher {
  readonly requests: string[][] = [];
  readonly cursors = new Map<string, string>();
  #waiting: { topic: string; events: Published[] } | null = null;

  constructor(readonly world: World, readonly name: string) {}

  get done(): boolean {
    return this.world.ending && this.#waiting === null;
  }
  async life(server: Running): Promise<void> {
    const token = await server.token(someone(this.name, "service", []));
    while (!this.done) {
      const { topic, events } = this.#waiting ??= this.#make();
      const { status, body } = await publish(server, topic, events, token);
      if (body.reason === "draining") return;
      assertEquals(status, 200, JSON.stringify(body));
      events.forEach(({ id }, index) => {
        const { cursor } = body.events[index];
        assertEquals(cursor, this.cursors.get(id!) ?? cursor, `${id} was answered before`);
        this.cursors.set(id!, cursor);
      });
      // Sometimes sent again although it was answered.
      if (this.world.next(10) > 0) this.#waiting = null;
    }
  }
  #make(): { topic: string; events: Published[] } {
    const { next } = this.world;
    const documents = Array.from({ length: 1 + next(3) }, (_, index) => `${this.name}.${this.requests.length}.${index}`);
    const events = documents.flatMap((id) => next(2) === 0 ? [uploaded(id)] : [uploaded(id, { filename: `${id}.pdf` }), processed(id)]);
    this.requests.push(events.map(({ id }) => id!));
    return { topic: CASES[next(CASES.length)], events };
  }
}

/** As `enter`; null when the server is draining. */
async function join(server: Running, user: string, topic: string, params: object): Promise<{ client: RawClient; response: Heard } | null> {
  const { client, status, response } = await enter(server, user, topic, params);
  if (status === "ok") return { client, response };
  client.ws.terminate();
  assertEquals(response.reason, "draining");
  return null;
}

/** A member who pushes batches, some of which are refused at their last message. */
class Batcher {
  readonly batches: string[][] = [];
  readonly acknowledged: string[] = [];
  readonly refused: string[] = [];
  #waiting: { ids: string[]; refuse: boolean } | null = null;

  constructor(readonly world: World, readonly name: string, readonly topic: string) {}

  get done(): boolean {
    return this.world.ending && this.#waiting === null;
  }
  async life(server: Running): Promise<void> {
    const entered = await join(server, this.name, this.topic, { aliases: false });
    if (!entered) return;
    const { client } = entered;
    try {
      for (let ref = 2; !this.done; ref++) {
        const { ids, refuse } = this.#waiting ??= this.#make();
        const messages = ids.map((id, index) => ({ event: "do", payload: { id, refuse: refuse && index === ids.length - 1 } }));
        const [, , , , { status, response }] = await client.ask(["1", String(ref), this.topic, "batch", { messages }]);
        if (refuse) {
          assertEquals([status, response.reason, response.index], ["error", "batch_rejected", ids.length - 1]);
          this.refused.push(...ids);
        } else {
          assertEquals([status, response], ["ok", { results: ids.map((id) => ({ status: "ok", response: { id } })) }]);
          this.acknowledged.push(...ids);
        }
        this.#waiting = null;
      }
    } finally {
      client.ws.terminate();
    }
  }
  #make(): { ids: string[]; refuse: boolean } {
    const { next } = this.world;
    const ids = Array.from({ length: 2 + next(6) }, (_, index) => `${this.name}.${this.batches.length}.${index}`);
    this.batches.push(ids);
    return { ids, refuse: next(8) === 0 };
  }
}

/** Listens, and joins again with his last cursor when the connection breaks; breaks it himself after some events, when he has no patience. */
class Member {
  done = false;
  readonly seen: string[] = [];
  #since = "0";

  constructor(readonly world: World, readonly topic: string, readonly patience: number) {}

  async life(server: Running): Promise<void> {
    const entered = await join(server, `member_${this.topic}`, this.topic, { since: this.#since, aliases: false });
    if (!entered) return;
    const { client, response } = entered;
    try {
      assertEquals(response.recovered, true, `since ${this.#since}`);
      for (let patience = this.world.next(this.patience); patience > 0 && !this.done;) {
        const [, , , event, payload] = await client.next(20_000);
        if (payload.cursor === undefined) continue;
        patience--;
        this.seen.push(`${event} ${JSON.stringify(payload)}`);
        this.#since = payload.cursor;
        this.done = isEnd(payload);
      }
    } finally {
      client.ws.terminate();
    }
  }
}

const isEnd = ({ id, document }: Heard) => (id ?? document?.id)?.startsWith("the end of");

/** Follows the record of a case over HTTP. */
class Reader {
  done = false;
  readonly seen: string[] = [];
  #after = "";
  readonly topic: string;

  constructor(readonly caseId: string) {
    this.topic = `case:${caseId}`;
  }
  async life(server: Running): Promise<void> {
    const headers = { authorization: `Bearer ${await server.token(someone("reader"))}` };
    while (!this.done) {
      const response = await fetch(`${server.url}/api/cases/${this.caseId}/log?limit=50&after=${this.#after}`, { headers });
      const body = await response.json();
      assertEquals(response.status, 200, JSON.stringify(body));
      for (const { event, payload, cursor } of body.events) {
        this.seen.push(`${event} ${withCursor(JSON.stringify(payload), cursor)}`);
        this.#after = cursor;
        this.done = isEnd(payload);
      }
      if (body.next === null) await pause(5);
    }
  }
}

/** Comes without a cursor: is told what there is, and looks into one of the documents. */
class Newcomer {
  readonly documents = new Set<string>();
  readonly registered = new Set<string>();

  constructor(readonly world: World) {}

  get done(): boolean {
    return this.world.ending && this.registered.size > 0;
  }
  async life(server: Running): Promise<void> {
    const entered = await join(server, "newcomer", CASES[this.world.next(CASES.length)], {});
    if (!entered) return;
    const { client, response } = entered;
    try {
      const documents: string[] = response.documents.map(({ id }: { id: string }) => id);
      for (const id of documents) this.documents.add(id);
      if (documents.length === 0) return;
      const id = documents[this.world.next(documents.length)];
      const [, , , , { status }] = await client.ask(["2", "2", `collaboration:${id}`, "phx_join", {}]);
      if (status === "ok") this.registered.add(id);
    } finally {
      client.ws.terminate();
    }
  }
}

/** Kills a server while it is starting. */
async function killedEarly(env: Record<string, string>, ms: number): Promise<void> {
  const cwd = new URL("..", import.meta.url);
  const child = new Deno.Command(Deno.execPath(), { args: [...LAB], cwd, env: { PORT: "0", ...env }, stdin: "null", stdout: "null", stderr: "null" }).spawn();
  await pause(ms);
  child.kill("SIGKILL");
  await child.status;
}

/** The last life: whoever waits for an answer gets it, everybody sees everything, and then there is nothing more on disk than they saw. */
async function ending(world: World, asking: Promise<unknown>, listening: Promise<unknown>): Promise<void> {
  await world.start();
  world.ending = true;
  await asking;
  for (const topic of CASES) assertEquals((await publish(world.server!, topic, [uploaded(`the end of ${topic}`)])).status, 200);
  for (const topic of LABS) {
    const { client } = await enter(world.server!, "last", topic, {});
    await client.ask(["1", "2", topic, "do", { id: `the end of ${topic}` }]);
    await client.close();
  }
  await listening;
  await world.stop("SIGTERM");
  const disk = world.check();
  for (const { topic, seen } of [...world.members, world.reader]) assertEquals(seen.length, disk.told.get(topic)!.length, topic);
  assertEquals(disk.waiting, []);
  const answered = [...world.publishers.flatMap(({ requests }) => requests.flat()), ...world.batchers.flatMap(({ acknowledged }) => acknowledged)];
  assertEquals(disk.seqOf.size, answered.length + CASES.length + LABS.length);
}

const ROUNDS = { SIGKILL: 22, SIGTERM: 4 };

for (const [signal, seed] of [["SIGKILL", Date.now() % 100_000], ["SIGTERM", Date.now() % 100_000]] as const) {
  const how = signal === "SIGKILL" ? "killed at any moment, also while it starts" : "restarted while everybody is there and comes back at once";
  Deno.test(`kill: ${how}: acknowledged and seen is kept, once, whole and in one order, seed ${seed} [promise 2, 4]`, async () => {
    using world = new World(seed);
    const asking = world.live([...world.publishers, ...world.batchers, world.newcomer]);
    const listening = world.live([...world.members, world.reader]);
    try {
      for (let round = 0; round < ROUNDS[signal]; round++) {
        if (signal === "SIGKILL" && round % 5 === 4) await killedEarly(world.env, world.next(700));
        await world.start();
        // At any moment; in every other life something was answered before.
        const enough = world.acknowledged + 50 * (round % 2);
        await pause(world.next(500));
        while (world.acknowledged < enough && world.wrong.length === 0) await pause(1);
        await world.stop(signal);
        world.check();
      }
      assertGreater(world.acknowledged, 20 * ROUNDS[signal]);
      await ending(world, asking, listening);
    } finally {
      await world.server?.stop("SIGKILL");
      world.wrong.push(new Error("it is over"));
      await Promise.all([asking, listening]);
    }
  });
}
