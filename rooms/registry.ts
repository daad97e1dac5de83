/**
 * Topic → room → the one living actor. Actors are made when something is said to them and forgotten when nobody is left:
 * a million topics that came and went leave nothing behind.
 */
import type { Channel } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { Actor } from "./actor.ts";
import { Gate, RETRY_MS } from "./gate.ts";
import type { Host, User } from "./host.ts";
import type { Limits } from "./limits.ts";
import type { Metrics } from "./metrics.ts";
import type { Publication } from "./publication.ts";
import type { Page } from "./reading.ts";
import type { Room } from "./room.ts";
import { type Effect, encode, type Item, type Rooms } from "./seam.ts";
import { RoomSql } from "./sql.ts";
import { type Call, Storage, type Task } from "./storage.ts";
import type { Ground } from "./turns.ts";

/** How many idle actors are kept warm. */
const WARM = 1000;
/** How often work is tried: the last time some seven minutes after the first. */
const ATTEMPTS = 8;
/** How long until a timer of an unknown kind of room is looked at again, in milliseconds. */
const UNKNOWN_MS = 3_600_000;
/** Calls of one room to another that are taken in one tick. */
const CARRIED = 8;

export interface RegistryOptions {
  readonly host: Host;
  readonly rooms: readonly Room[];
  readonly limits: Limits;
  readonly graceMs: number;
  readonly metrics: Metrics;
}

interface Served {
  readonly room: Room;
  readonly contract: Channel;
}

/** Who waits for something more to be kept in a room. */
class Stirs {
  readonly #waiting = new Map<string, Set<() => void>>();

  wait(room: string, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(room) ?? new Set();
    const go = () => {
      waiting.delete(go);
      signal.removeEventListener("abort", go);
      if (waiting.size === 0 && this.#waiting.get(room) === waiting) this.#waiting.delete(room);
      resolve();
    };
    if (signal.aborted) return Promise.resolve();
    this.#waiting.set(room, waiting.add(go));
    signal.addEventListener("abort", go);
    return promise;
  }

  stir(room: string): void {
    if (this.#waiting.size > 0) { for (const go of [...this.#waiting.get(room) ?? []]) go(); }
  }
}

export class Registry implements Rooms {
  readonly storage: Storage;
  readonly gate: Gate;
  readonly #host: Host;
  readonly #limits: Limits;
  readonly #served: Served[] = [];
  readonly #kinds = new Map<string, { room: Room; sql: RoomSql }>();
  readonly #actors = new Map<string, Actor>();
  /** Idle actors, the longest idle first. */
  readonly #idle = new Map<string, Actor>();
  readonly #refusals = new Map<string, number>();
  #refusalsSince = 0;
  /** Calls on their way, per pair of rooms, in order: the first one is being carried. */
  readonly #calls = new Map<string, Call[]>();
  #alarm: () => void = () => {};
  readonly #stirs = new Stirs();
  readonly #ground: Ground;
  #deliver: (effects: readonly Effect[]) => void = () => {};
  #flush: () => void = () => {};

  constructor({ host, rooms, limits, graceMs, metrics }: RegistryOptions) {
    this.#host = host;
    this.#limits = limits;
    this.storage = new Storage(host, new Map(rooms.map((room) => [room.kind, room.migrations])));
    this.gate = new Gate(host, this.storage, (effects) => this.#deliver(effects), () => this.#flush(), metrics);
    for (const room of rooms) {
      this.#kinds.set(room.kind, { room, sql: new RoomSql(host.sql, `${room.kind}_`) });
      for (const { contract } of room.topics) this.#served.push({ room, contract });
    }
    this.#ground = {
      host,
      storage: this.storage,
      gate: this.gate,
      limits,
      graceMs,
      metrics,
      mayLogRefusal: (user) => this.#mayLogRefusal(user),
      ask: (room, message, from, userId) => this.#ask(room, message, from, userId),
      rooms: (kind) => new Promise((resolve) => this.gate.post(() => resolve(this.storage.roomsOf(kind)))),
      stirred: (room, signal) => this.#stirs.wait(room, signal),
      stir: (room) => this.#stirs.stir(room),
      carry: (calls) => this.#carry(calls),
      labour: (tasks) => this.#labour(tasks),
      armTimers: () => this.#armTimers(),
      rested: (room) => this.#rested(this.#actors.get(room)!),
    };
    metrics.gauge("rooms", "Rooms that live in memory, idle ones among them.", () => this.#actors.size);
  }

  /** Connects the gateway: where effects go, and what is called once they all have. */
  connect(deliver: (effects: readonly Effect[]) => void, flush: () => void): void {
    this.#deliver = deliver;
    this.#flush = flush;
  }

  /** What a dead process left behind goes on: timers that came due, calls that were not taken. */
  start(): void {
    this.#armTimers();
    this.#carry(this.storage.waitingCalls());
    this.#labour(this.storage.waitingTasks());
  }

  // The first declared match wins. [53]
  find(topic: string, userId: string): { room: string; contract: Channel } | undefined {
    for (const { room, contract } of this.#served) {
      const id = contract.idOf(topic);
      if (id !== undefined) return { room: `${room.kind}/${room.per === "user" ? userId : id}`, contract };
    }
    return undefined;
  }

  inbox(item: Item): void | Promise<void> {
    return this.#actor(item.room)!.inbox(item);
  }

  /** Publishes as a service: all or nothing. Resolves to the cursors once they are durable; rejects with a Refusal. */
  async publish(topic: string, user: User, publications: readonly Publication[]): Promise<string[]> {
    const found = this.find(topic, user.id);
    if (found === undefined) throw new Refusal("unmatched topic");
    return await new Promise((resolve, reject) => {
      this.gate.post(() => void this.#actor(found.room)!.publish(topic, user, publications).then(resolve, reject));
    });
  }

  /** A page of a room's record, once nothing in it can still be lost. Rejects with a Refusal. */
  async read(topic: string, user: User, after: string | null, limit: number): Promise<Page> {
    const found = this.find(topic, user.id);
    if (found === undefined) throw new Refusal("not_found");
    return await new Promise((resolve, reject) => {
      this.gate.post(() => void this.#actor(found.room)!.read(topic, user, after, limit).then(resolve, reject));
    });
  }

  /** Asks a room on behalf of a user. Rejects with the Refusal. */
  ask<T>(room: string, message: unknown, user: User): Promise<T> {
    return this.#ask(room, encode(message), "", user.id) as Promise<T>;
  }

  #ask(room: string, message: string, from: string, userId?: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.gate.post(() => {
        const actor = this.#actor(room);
        if (actor) actor.asked(message, from, userId).then(resolve, reject);
        else reject(new TypeError(`Cannot ask ${room}: there is no such kind of room`));
      });
    });
  }

  /** The one living actor of a room; undefined when there is no such kind of room. Called inside a tick. */
  #actor(name: string): Actor | undefined {
    let actor = this.#actors.get(name);
    if (!actor) {
      const slash = name.indexOf("/");
      const kind = this.#kinds.get(name.slice(0, slash));
      if (!kind) return undefined;
      actor = new Actor(kind.room, name.slice(slash + 1), kind.sql, this.#ground);
      this.#actors.set(name, actor);
      this.gate.touch(actor);
    }
    this.#idle.delete(name);
    return actor;
  }

  #rested(actor: Actor): void {
    this.#idle.delete(actor.name);
    this.#idle.set(actor.name, actor);
    if (this.#idle.size > WARM) this.evict(this.#idle.values().next().value!);
  }

  /** Forgets an actor. It comes back equal: what it knew is on disk, or in the member store. */
  evict(actor: Actor): void {
    if (!actor.idle) return;
    this.#idle.delete(actor.name);
    this.#actors.delete(actor.name);
    this.storage.log.forget(actor.name);
  }

  /** How many actors live: for the tests. */
  get size(): number {
    return this.#actors.size;
  }

  #mayLogRefusal(user: string): boolean {
    const now = this.#host.clock.elapsed();
    if (now - this.#refusalsSince > 60_000) {
      this.#refusals.clear();
      this.#refusalsSince = now;
    }
    const count = (this.#refusals.get(user) ?? 0) + 1;
    this.#refusals.set(user, count);
    return count <= this.#limits.refusals_logged;
  }

  // Calls: for each pair of rooms those of one tick, which stand or fall together, so that a retry overtakes nothing.

  #carry(calls: readonly Call[]): void {
    for (const call of calls) {
      const pair = JSON.stringify([call.room, call.target]);
      const waiting = this.#calls.get(pair);
      if (waiting) waiting.push(call);
      else {
        this.#calls.set(pair, [call]);
        this.#carryNext(pair);
      }
    }
  }

  #carryNext(pair: string): void {
    const calls = this.#calls.get(pair)?.slice(0, CARRIED) ?? [];
    if (calls.length === 0) {
      this.#calls.delete(pair);
      return;
    }
    this.gate.postPatiently(() => {
      let open = calls.length;
      let lost = false;
      const settled = (call: Call, how: "taken" | "lost" | { failed: string }) => {
        if (how === "lost") lost = true;
        else {
          this.#calls.get(pair)!.shift();
          this.#settleCall(call, how);
        }
        if (--open > 0) return;
        if (lost) this.#host.clock.after(RETRY_MS, () => this.#carryNext(pair));
        else this.#carryNext(pair);
      };
      const actor = this.#actor(calls[0].target);
      for (const call of calls) {
        if (actor) actor.called(call, (how) => settled(call, how));
        else settled(call, { failed: "no such kind of room" });
      }
    });
  }

  /** The outbox's row goes, or is set aside: tried again when its tick is lost. */
  #settleCall(call: Call, how: "taken" | { failed: string }): void {
    const again = () => {
      this.#host.clock.after(RETRY_MS, () => this.#settleCall(call, how));
      return [];
    };
    this.gate.postPatiently(() => {
      // It writes for no room: a stand-in shares its tick's fate.
      const clerk = { wrote: true, settle() {}, recover() {}, rest() {} };
      this.gate.finish({ actor: clerk, effects: [], undo: [], lost: again });
      if (how === "taken") this.storage.removeCall(call.id);
      else this.storage.parkCall(call.id, how.failed);
    });
  }

  // Work: handed to the host, and what came of it back to the room.

  #labour(tasks: readonly Task[]): void {
    for (const task of tasks) this.#attempt(task, 0);
  }

  /** What could not be done is tried again, later and later: a disk may be full, no process to be had. */
  #attempt(task: Task, failures: number): void {
    const note = (note: unknown) => this.gate.post(() => this.#actor(task.room)?.noted(task, note));
    this.#host.work(JSON.parse(task.task), { owner: task.room, note }).then((result) => this.#worked(task, result), (error) => {
      // Called off because the server ends: it is done again.
      if (this.gate.closed) return;
      this.#host.report(error, `work for ${task.room.slice(0, task.room.indexOf("/"))}`);
      if (failures === ATTEMPTS - 1) this.#worked(task, { failed: error instanceof Error ? error.name : typeof error });
      else this.#host.clock.after(RETRY_MS * 4 ** failures, () => this.#attempt(task, failures + 1));
    });
  }

  #worked(task: Task, result: unknown): void {
    this.gate.postPatiently(() => {
      // Its kind may come back with another version of the program.
      this.#actor(task.room)?.worked(task, result, (how) => {
        if (how === "lost") this.#host.clock.after(RETRY_MS, () => this.#worked(task, result));
      });
    });
  }

  // Timers: many over one alarm.

  #armTimers(): void {
    this.#alarm();
    const due = this.storage.nextTimer();
    if (due === null) return;
    // A clock's callback takes at most 2^31 - 1 ms.
    const wait = Math.min(Math.max(0, due - this.storage.steadyNow()), 2 ** 31 - 1);
    this.#alarm = this.#host.clock.after(wait, () => this.gate.post(() => this.#ring()));
  }

  #ring(): void {
    // Armed again after the commit, or after a lost one: the rows that remain are due.
    this.#host.clock.after(RETRY_MS, () => this.gate.post(() => this.#armTimers()));
    const now = this.storage.steadyNow();
    for (const { room, name } of this.storage.dueTimers(now)) {
      const actor = this.#actor(room);
      if (actor) actor.timer(name);
      // Its kind may come back with another version of the program.
      else this.storage.setTimer(room, name, now + UNKNOWN_MS);
    }
  }
}
