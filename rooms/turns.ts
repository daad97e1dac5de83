/**
 * The mechanism of turns: runs a handler so that its writes and effects stand together or vanish together, and hands it to
 * the gate. What happens in a room stands in `actor.ts`.
 */
import type { Channel } from "../protocol/contract.ts";
import type { Body } from "../protocol/frame.ts";
import { Refusal } from "../protocol/reason.ts";
import { type Gate, RETRY_MS } from "./gate.ts";
import { type Clock, type Host, type Member, StoreLost } from "./host.ts";
import type { Limits } from "./limits.ts";
import type { Metrics } from "./metrics.ts";
import { type Behaviour, type Context, Later, type Outside, type Stream } from "./room.ts";
import { bodyOf, CannotEncode, type Effect, encode } from "./seam.ts";
import { type Finish, Slow } from "./slow.ts";
import { Streams } from "./streams.ts";
import type { RoomSql } from "./sql.ts";
import type { Call, Storage, Task } from "./storage.ts";
import type { TopicState } from "./topic.ts";
import { Turn, type TurnOwner } from "./turn.ts";

/** What every room is given. */
export interface Ground {
  readonly host: Host;
  readonly storage: Storage;
  readonly gate: Gate;
  readonly limits: Limits;
  readonly graceMs: number;
  readonly metrics: Metrics;
  /** Whether a refusal of authority to this user may still be logged. */
  mayLogRefusal(user: string): boolean;
  /** Asks a room on behalf of another, and of a user when there is one. Rejects with the Refusal. */
  ask(room: string, message: string, from: string, userId?: string): Promise<unknown>;
  /** The ids of all rooms of a kind that have a log. */
  rooms(kind: string): Promise<string[]>;
  /** Resolves when something more has been kept in a room, or the signal says so. */
  stirred(room: string, signal: AbortSignal): Promise<void>;
  /** After a commit: calls to carry, work to be done, timers that were set. */
  carry(calls: readonly Call[]): void;
  labour(tasks: readonly Task[]): void;
  armTimers(): void;
  /** The room may have nobody left; whether it has kept something. */
  rested(room: string): void;
  stir(room: string): void;
}

/** How a handler ended. `cursors` are those of the lasting events it queued. */
export type Outcome =
  | { readonly kind: "ok"; readonly value: unknown; readonly body: Body; readonly cursors: readonly string[] }
  | { readonly kind: "refused"; readonly refusal: Refusal }
  | { readonly kind: "crashed"; readonly error: unknown };

/** Where refusals stand that concern no room of which anything is known. No topic leads to it. */
const NOWHERE = "refusals";

export abstract class Turns implements TurnOwner {
  readonly host: Host;
  readonly storage: Storage;
  wrote = false;
  /** Work under way that must find this room again. */
  protected busy = 0;
  protected readonly streams = new Streams({
    outside: (userId) => this.outside(userId),
    turn: (at, member, handler, isOver) => this.#streamed(at, member, handler, isOver),
    report: (error, where) => this.host.report(error, where),
    soon: (callback) => this.ground.gate.post(callback),
  });
  /** Who waits to be admitted. */
  readonly #waiting = new Set<{ mayEnter(): boolean; enter(): void }>();

  constructor(readonly name: string, readonly id: string, readonly kind: string, readonly roomSql: RoomSql, protected readonly ground: Ground) {
    this.host = ground.host;
    this.storage = ground.storage;
  }

  get limits(): Limits {
    return this.ground.limits;
  }

  abstract topicOf(contract: Channel): string;
  abstract seesOf(contract: Channel): Behaviour["sees"];
  abstract settle(): void;
  abstract recover(): void;
  abstract rest(kept: boolean): void;
  abstract membersOf(contract: Channel): Iterable<Member>;

  outside(userId?: string): Outside {
    const { ground, name } = this;
    return {
      ask: <T>(room: string, message: unknown) => ground.ask(room, encode(message), name, userId) as Promise<T>,
      work: <T>(task: unknown, signal: AbortSignal) => ground.host.work(task, { owner: name, signal }) as Promise<T>,
      stirred: (room, signal) => ground.stirred(room, signal),
      rooms: (kind) => ground.rooms(kind),
      elapsed: () => ground.host.clock.elapsed(),
      pause: (ms, signal) => pause(ground.host.clock, ms, signal),
    };
  }

  begin(at: TopicState, member: Member, name: string, stream: Stream): () => void {
    return this.streams.begin(at, member, name, stream);
  }
  abandon(session: string, name: string): (() => void) | undefined {
    return this.streams.abandon(session, name);
  }
  streamsOf(userId: string): number {
    return this.streams.of(userId);
  }

  /** Runs a handler: its writes and effects stand together or vanish together. */
  protected run(turn: Turn, handler: () => unknown): Outcome {
    try {
      return this.storage.sql.atomic(() => {
        const value = handler();
        if (value instanceof Promise) refuseAsync(value);
        const body = value instanceof Later ? "" : bodyOf(value === undefined ? {} : value);
        return { kind: "ok", value, body, cursors: turn.seal() };
      });
    } catch (error) {
      turn.vanish();
      if (error instanceof Refusal) {
        this.#logRefusal(turn, error);
        return { kind: "refused", refusal: error };
      }
      if (error instanceof StoreLost) {
        // The gate will answer: this tick cannot be kept.
        this.wrote = true;
        return { kind: "refused", refusal: new Refusal("unavailable") };
      }
      this.host.report(error, `a turn of ${this.kind}`);
      if (error instanceof CannotEncode) return { kind: "refused", refusal: new Refusal("internal") };
      return { kind: "crashed", error };
    }
  }

  /**
   * Refusals of authority stand in the room's chain, bounded per user. A room that nothing happened in stays unwritten; but
   * one entry is written then too: how long an answer takes must not tell what there is. Its topic is whatever the client
   * said, a token by mistake: so its digest stands there.
   */
  #logRefusal(turn: Turn, { reason, detail, ofAuthority }: Refusal): void {
    const { author } = turn;
    if (!ofAuthority || !author || !this.ground.mayLogRefusal(author.user)) return;
    const { log } = this.storage;
    const isKnown = log.head(this.name).number > 0;
    const topic = isKnown ? author.topic : this.host.sha256(author.topic);
    const entry = { at: this.host.clock.now(), user: author.user, topic, event: "refused", payload: encode({ reason: detail.refused?.reason ?? reason }) };
    this.write(() => log.append(isKnown ? this.name : NOWHERE, entry));
  }

  /** Writes beside a handler. When the tick is lost by it, the gate will say so to everybody concerned. */
  protected write(body: () => void): void {
    this.wrote = true;
    try {
      body();
    } catch (error) {
      if (!(error instanceof StoreLost)) throw error;
    }
  }

  /** Sends effects that no handler is behind. */
  protected tell(effects: readonly Effect[]): void {
    this.ground.gate.finish({ actor: this, effects, undo: [] });
  }

  protected finish(turn: Turn): void {
    const { calls, tasks, timers, admits, kept } = turn;
    if (calls || tasks || timers || admits) {
      turn.kept = () => {
        kept?.();
        if (calls) this.ground.carry(calls);
        if (tasks) this.ground.labour(tasks);
        if (timers) this.ground.armTimers();
        if (admits) { for (const waiter of this.#waiting) if (waiter.mayEnter()) waiter.enter(); }
      };
    }
    this.ground.gate.finish(turn);
  }

  /** A turn that answers nobody. It stands or falls with the join or the end that it follows: they share the tick. */
  protected fact(at: TopicState, member: Member, handler: (ctx: Turn) => void): void {
    const turn = new Turn(this, at, member);
    const outcome = this.run(turn, () => handler(turn));
    if (outcome.kind === "refused") this.host.report(outcome.refusal, `a fact of ${this.kind}`);
    this.finish(turn);
  }

  /** Tries a fact again that met a lost tick. */
  protected again(fact: () => void): readonly Effect[] {
    this.busy++;
    this.host.clock.after(RETRY_MS, () =>
      this.ground.gate.post(() => {
        this.busy--;
        this.ground.gate.touch(this);
        fact();
      }));
    return [];
  }

  /** A turn in which slow work has something to say. */
  #streamed(at: TopicState, member: Member, handler: (ctx: Context) => void, isOver: () => boolean): Promise<"kept" | "over" | Refusal> {
    const { promise, resolve } = Promise.withResolvers<"kept" | "over" | Refusal>();
    this.ground.gate.post(() => {
      this.ground.gate.touch(this);
      if (isOver()) return resolve("over");
      const turn = new Turn(this, at, member);
      const outcome = this.run(turn, () => handler(turn));
      turn.lost = () => {
        resolve(new Refusal("unavailable"));
        return [];
      };
      turn.kept = () => resolve(outcome.kind === "ok" ? "kept" : outcome.kind === "refused" ? outcome.refusal : new Refusal("internal"));
      this.finish(turn);
    });
    return promise;
  }

  protected slow(later: Later, deal: (finish: Finish) => void, userId: string): Slow {
    const { clock } = this.host;
    const { gate, limits } = this.ground;
    this.busy++;
    return new Slow(later, { clock, gate, limitMs: limits.later_ms, outside: this.outside(userId) }, (finish) => {
      this.busy--;
      gate.touch(this);
      deal(finish);
    });
  }

  /**
   * Resolves when a turn that called `admitAgain` has been kept and `admit` lets him in, after `ms`, or when the signal says
   * so. Who is still refused waits on: how long it takes must not tell him what there is.
   */
  protected admittedAgain(ms: number, signal: AbortSignal, admit: () => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter = {
      mayEnter() {
        try {
          admit();
          return true;
        } catch {
          // Asked again in his own turn, which says why.
          return false;
        }
      },
      enter: resolve,
    };
    this.#waiting.add(waiter);
    const cancel = this.host.clock.after(ms, resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
    return promise.finally(() => {
      cancel();
      this.#waiting.delete(waiter);
    });
  }
}

function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) return Promise.resolve();
  const cancel = clock.after(ms, resolve);
  signal.addEventListener("abort", () => resolve());
  return promise.finally(cancel);
}

/** What an async handler throws later would be an unhandled rejection, and its ok reply a lie. */
function refuseAsync(promise: Promise<unknown>): never {
  promise.catch(() => {});
  throw new TypeError("Cannot wait for a handler: handlers are synchronous, slow work is a Later");
}
