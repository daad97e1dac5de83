/** Rooms and a gateway in this process, over a cranked clock and wires in memory: nothing here waits for real time. */
import { z } from "zod";
import { channel, exact, lasting, passing } from "../../protocol/contract.ts";
import type { Encoded } from "../../protocol/frame.ts";
import { V1, V2 } from "../../protocol/frame.ts";
import { Gateway } from "../../rooms/gateway.ts";
import { type Clock, type Host, type SqlHost, type SqlRow, type SqlValue, StoreLost, type User } from "../../rooms/host.ts";
import { denoHost, MemoryMembers } from "../../rooms/hosts/deno.ts";
import { DenoSql } from "../../rooms/hosts/deno_sql.ts";
import { DEFAULT_LIMITS, type Limits } from "../../rooms/limits.ts";
import { Metrics } from "../../rooms/metrics.ts";
import { Registry } from "../../rooms/registry.ts";
import { behave, type Behaviour, type Room, room, type RoomDefinition } from "../../rooms/room.ts";
import type { Packet, Socket, Wire } from "../../rooms/socket.ts";
import type { Verify } from "../../rooms/token.ts";
import { Refusal } from "../../protocol/reason.ts";

/** Time that moves only when told to. */
export class CrankedClock implements Clock {
  time = Date.parse("2026-01-01T00:00:00Z");
  /** How far the machine's idea of the time has jumped. */
  #jumped = 0;
  #waiting: { at: number; callback: () => void }[] = [];

  now(): number {
    return this.time + this.#jumped;
  }
  elapsed(): number {
    return this.time;
  }
  /** Somebody sets the machine's clock: no time passes. */
  jump(ms: number): void {
    this.#jumped += ms;
  }
  after(ms: number, callback: () => void): () => void {
    const entry = { at: this.time + ms, callback };
    this.#waiting.push(entry);
    return () => {
      this.#waiting = this.#waiting.filter((other) => other !== entry);
    };
  }
  /** Moves on, calling back what comes due in its order; `between` runs after each. */
  advance(ms: number, between: () => void = () => {}): void {
    const end = this.time + ms;
    for (;;) {
      const due = this.#waiting.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#waiting = this.#waiting.filter((other) => other !== due);
      this.time = Math.max(this.time, due.at);
      due.callback();
      between();
    }
    this.time = end;
  }
}

interface MemoryPacket extends Packet {
  readonly frames: readonly Encoded[];
}

/** What a client sees: frames parsed, and the code with which it was closed. */
export class MemoryWire implements Wire {
  // deno-lint-ignore no-explicit-any
  frames: any[] = [];
  #queued: MemoryPacket[] = [];
  /** How often something was flushed: one write each. */
  writes = 0;
  code: number | null = null;
  paused = false;
  backlog = 0;
  received = 0;

  send(packet: Packet): void {
    this.#queued.push(packet as MemoryPacket);
  }
  say(frame: Encoded): void {
    this.send({ frames: [frame], length: frame.length } as MemoryPacket);
  }
  own(packet: Packet): Packet {
    return packet;
  }
  flush(): void {
    if (this.#queued.length > 0) this.writes++;
    for (const { frames } of this.#queued) this.frames.push(...frames.map((frame) => typeof frame === "string" ? JSON.parse(frame) : frame));
    this.#queued = [];
  }
  close(code: number): void {
    this.flush();
    this.code ??= code;
  }
  cut(): void {
    this.code ??= 1006;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  #drained: () => void = () => {};
  drained(): Promise<void> {
    return new Promise((resolve) => this.#drained = resolve);
  }
  /** The client has read everything. */
  drain(): void {
    this.backlog = 0;
    this.#drained();
  }
}

export class StageClient {
  readonly wire = new MemoryWire();
  readonly socket: Socket;
  #refs = 0;

  constructor(private readonly stage: Stage, user: User | null, vsn: "1" | "2", expires: number) {
    const identity = user && { user, expires };
    this.socket = stage.gateway.open(this.wire, { serializer: vsn === "1" ? V1 : V2, identity });
  }

  /** Queues a frame (JSON value, text or bytes) without running a tick. */
  queue(frame: unknown): void {
    const data = frame instanceof Uint8Array || typeof frame === "string" ? frame : JSON.stringify(frame);
    this.wire.received += data.length;
    this.stage.gateway.receive(this.socket, data);
  }
  /** Sends a frame, runs what follows, and returns all that this client has heard since the last time. */
  // deno-lint-ignore no-explicit-any
  send(...frames: unknown[]): any[] {
    for (const frame of frames) this.queue(frame);
    this.stage.run();
    return this.take();
  }
  // deno-lint-ignore no-explicit-any
  take(): any[] {
    return this.wire.frames.splice(0);
  }
  /** Joins with a fresh ref, without second names unless the payload says otherwise; returns that ref and what was heard. */
  // deno-lint-ignore no-explicit-any
  join(topic: string, payload: unknown = { aliases: false }): { ref: string; heard: any[] } {
    const ref = `j${++this.#refs}`;
    return { ref, heard: this.send([ref, ref, topic, "phx_join", payload]) };
  }
  /** The connection breaks (1006), or ends cleanly. */
  drop(clean = false): void {
    this.stage.gateway.closed(this.socket, clean ? 1000 : 1006);
    this.stage.run();
  }
}

export interface StageOptions {
  readonly limits?: Partial<Limits>;
  readonly graceMs?: number;
  readonly host?: Partial<Host>;
  readonly sql?: SqlHost;
  readonly verify?: Verify;
}

export class Stage {
  readonly clock = new CrankedClock();
  readonly metrics = new Metrics();
  /** The lines that an operator reads. */
  readonly notes: ({ event: string } & Record<string, unknown>)[] = [];
  readonly host: Host;
  readonly registry: Registry;
  readonly gateway: Gateway;
  /** What was reported as an error of ours. */
  readonly reported: { error: unknown; where: string }[] = [];
  /** How many packets were made: a broadcast that nobody subscribes to makes none. */
  packed = 0;

  constructor(rooms: readonly Room[], options: StageOptions = {}) {
    // The mechanism is what is tested here: budgets are set by the tests that are about them.
    const much = 2 ** 31 - 1;
    const limits: Limits = { ...DEFAULT_LIMITS, requests: much, joins: much, batches: much, batched_messages: much, ...options.limits };
    let ids = 0;
    this.host = denoHost(":memory:", {
      sql: options.sql ?? new DenoSql(":memory:"),
      clock: this.clock,
      members: new MemoryMembers(),
      id: () => `id${++ids}`,
      // Ticks are run by hand.
      soon: () => {},
      report: (error, where) => void this.reported.push({ error, where }),
      ...options.host,
    });
    const { metrics } = this;
    this.registry = new Registry({ host: this.host, rooms, limits, graceMs: options.graceMs ?? 0, metrics });
    const verify: Verify = options.verify ?? (() => Promise.reject(new Refusal("token_invalid")));
    const pack = (frame: Encoded | readonly Encoded[]): MemoryPacket => {
      this.packed++;
      const frames = typeof frame === "string" || frame instanceof Uint8Array ? [frame] : frame;
      return { frames, length: frames.reduce((sum, { length }) => sum + length, 0) };
    };
    this.gateway = new Gateway({
      id: "g",
      host: this.host,
      rooms: this.registry,
      gate: this.registry.gate,
      limits,
      metrics,
      verify,
      pack,
      note: (event, fields) => void this.notes.push({ event, ...fields }),
    });
    this.registry.connect((effects) => this.gateway.deliver(effects), () => this.gateway.flush());
    this.registry.start();
    this.gateway.start();
  }

  client(user: User | null = someone("user_1"), vsn: "1" | "2" = "2", expires = Infinity): StageClient {
    return new StageClient(this, user, vsn, expires);
  }
  /** One tick. */
  tick(): void {
    this.registry.gate.tick();
  }
  /** What is queued, and what that queues. */
  run(): void {
    for (let tick = 0; tick < 5 || (!this.registry.gate.quiet && tick < 1000); tick++) this.tick();
  }
  advance(ms: number): void {
    this.clock.advance(ms, () => this.run());
    this.run();
  }
  /** Lets promises settle, then runs ticks: for Later and publish. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      this.run();
    }
  }
  close(): void {
    this.host.sql.close();
  }
}

/** A user of every case, an attorney unless said otherwise. */
export function someone(id: string, role: User["role"] = "attorney", cases: User["cases"] = "*"): User {
  return { id, name: `Name of ${id}`, role, cases };
}

/** A store over SQLite in memory that can be broken and listened to. */
export class BreakableSql implements SqlHost {
  /** Called when a commit is asked for, before it is done. */
  committing: () => void = () => {};
  /** How many commits fail from now on; what the tick wrote is rolled back, as SQLite would. */
  failCommits = 0;
  /** Statements that match fail as a full disk does. */
  failing: RegExp | null = null;
  /** What was written since the start, in order. */
  readonly written: string[] = [];

  constructor(readonly inner: SqlHost = new DenoSql(":memory:")) {}

  run(statement: string, parameters: readonly SqlValue[], writes: boolean): SqlRow[] {
    if (writes) this.written.push(statement);
    if (this.failing?.test(statement)) {
      const cause = new Error("database or disk is full");
      this.inner.lose(cause);
      throw new StoreLost("Cannot write: the tick is lost", { cause });
    }
    return this.inner.run(statement, parameters, writes);
  }
  commit(): boolean {
    this.committing();
    if (this.failCommits > 0) {
      this.failCommits--;
      this.inner.lose(new Error("disk I/O error"));
    }
    return this.inner.commit();
  }
  vet(statement: string, prefix: string): void {
    this.inner.vet(statement, prefix);
  }
  atomic<T>(body: () => T): T {
    return this.inner.atomic(body);
  }
  lose(cause: unknown): void {
    this.inner.lose(cause);
  }
  close(): void {
    this.inner.close();
  }
}

const Any = z.looseObject({});

/** A contract for tests of the mechanism: every kind of event, presence, and pushes that the test gives a meaning. */
export function labContract(name: string) {
  return channel({
    topic: `${name}:{id}`,
    join: { payload: Any, reply: z.unknown() },
    pushes: {
      do: { payload: Any, reply: z.unknown() },
      also: { payload: Any, reply: z.unknown() },
      bytes: { payload: Any, reply: z.unknown(), binary: true },
      hush: { payload: Any, silent: true },
    },
    events: {
      kept: lasting(Any),
      posted: lasting(Any, { published: true }),
      told: exact(Any),
      seen: passing(Any),
    },
    presence: Any,
  });
}

export type LabContract = ReturnType<typeof labContract>;
type LabBehaviour = Behaviour<LabContract>;

/** A room of that contract, `lab/{id}`, with one table `lab_item (room, id, body)`; what is not given does nothing. */
export function lab(
  { on, ...behaviour }: Partial<Omit<LabBehaviour, "on">> & { on?: Partial<LabBehaviour["on"]> } = {},
  more: Partial<RoomDefinition> = {},
  name = "lab",
): Room {
  const nothing = () => ({});
  return room(`${name}/{id}`, {
    migrations: [`create table ${name}_item (room text not null, id text not null, body text not null, primary key (room, id)) strict`],
    topics: [behave(labContract(name), { admit() {}, join: nothing, ...behaviour, on: { do: nothing, also: nothing, bytes: nothing, hush: () => {}, ...on } })],
    ...more,
  });
}
