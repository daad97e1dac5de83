/** How much a user may ask for: sliding windows per user, over all his sockets. What is refused costs nothing. [V05, V06] */
import { type Channel, own, type PushSpec } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import type { Limits } from "./limits.ts";

const MINUTE = 60_000;

/** Each budget is a limit by name, and the length of its window in milliseconds. */
const WINDOWS = {
  requests: MINUTE,
  joins: MINUTE,
  authentications: MINUTE,
  batches: MINUTE,
  batched_messages: MINUTE,
  operations: 1000,
  rate_refusals: MINUTE,
  frames: MINUTE,
} as const;

export type Budget = keyof typeof WINDOWS;

/** What a push costs. Cursors cost nothing: they are coalesced. */
export function costOf({ pushes, loose }: Channel, { event, payload }: { event: string; payload: unknown }, limits: Limits): readonly Cost[] {
  if (event === "batch" && !loose) {
    const messages = typeof payload === "object" && payload !== null ? own(payload as Record<string, unknown>, "messages") : undefined;
    // One that is too long to be taken is refused by the room, and costs as a single one.
    const count = Array.isArray(messages) && messages.length <= limits.batch_messages ? messages.length : 0;
    return [["batches", 1], ["batched_messages", count]];
  }
  const { budget = "requests" } = own<PushSpec>(pushes, event) ?? {};
  return budget === "cursors" ? NOTHING : ONE[budget];
}

const NOTHING: readonly Cost[] = [];
const ONE = { requests: [["requests", 1]], operations: [["operations", 1]] } as const satisfies Record<string, readonly Cost[]>;

/** Up to this limit each moment is remembered by itself; above it, moments within a thousandth of the window stand together. */
const EXACT = 1000;

/** What was spent in the last `ms` milliseconds. */
class Window {
  /** Oldest first: from when to when, and how much. */
  #spent: { from: number; to: number; count: number }[] = [];
  #sum = 0;
  /** When the oldest of it is forgotten. */
  #until = Infinity;
  readonly #grain: number;

  constructor(private readonly limit: number, private readonly ms: number) {
    this.#grain = limit <= EXACT ? 0 : ms / 1000;
  }

  /** In how many milliseconds so much can be spent; 0 for now. */
  wait(now: number, count: number): number {
    this.#forget(now);
    let free = this.limit - this.#sum;
    if (free >= count) return 0;
    for (const { to, count: spent } of this.#spent) {
      free += spent;
      if (free >= count) return to + this.ms - now;
    }
    // It never will: more than the limit at once.
    return this.ms;
  }

  spend(now: number, count: number): void {
    const last = this.#spent[this.#spent.length - 1];
    if (last !== undefined && now - last.from <= this.#grain) {
      last.to = now;
      last.count += count;
    } else this.#spent.push({ from: now, to: now, count });
    this.#sum += count;
    if (this.#spent.length === 1) this.#until = now + this.ms;
  }

  #forget(now: number): void {
    if (now < this.#until) return;
    let gone = 0;
    while (gone < this.#spent.length && this.#spent[gone].to + this.ms <= now) this.#sum -= this.#spent[gone++].count;
    this.#spent.splice(0, gone);
    this.#until = this.#spent.length > 0 ? this.#spent[0].to + this.ms : Infinity;
  }

  empty(now: number): boolean {
    this.#forget(now);
    return this.#spent.length === 0;
  }
}

/** So much of a budget. */
export type Cost = readonly [budget: Budget, count: number];

/** Which budget is used up, and for how many milliseconds. */
export interface Overspent {
  readonly budget: Budget;
  readonly wait: number;
  readonly limit: number;
}

export function overspent(over: Overspent | null): Refusal | null {
  return over && new Refusal("rate_limited", { limit: over.limit, retry_after_ms: Math.ceil(over.wait) });
}

/** The windows of one spender. */
export class Purse {
  /** Until then nothing of this user is served: what he asked for took long. */
  restsUntil = 0;
  readonly #windows: Partial<Record<Budget, Window>> = {};

  constructor(private readonly limits: Limits) {}

  /** Returns 0, or how long to wait in milliseconds: then nothing was spent. */
  spend(budget: Budget, now: number, count = 1): number {
    const window = this.#window(budget);
    const wait = window.wait(now, count);
    if (wait === 0) window.spend(now, count);
    return wait;
  }

  /**
   * Spends all of it, and returns null; or nothing, and returns which budget is used up, and for how many milliseconds.
   * `now` counts on whatever the wall clock does.
   */
  spendAll(now: number, costs: readonly Cost[]): Overspent | null {
    for (const [budget, count] of costs) {
      const wait = this.#window(budget).wait(now, count);
      if (wait > 0) return { budget, wait, limit: this.limits[budget] };
    }
    for (const [budget, count] of costs) this.#window(budget).spend(now, count);
    return null;
  }

  #window(budget: Budget): Window {
    return this.#windows[budget] ??= new Window(this.limits[budget], WINDOWS[budget]);
  }

  empty(now: number): boolean {
    return now >= this.restsUntil && Object.values(this.#windows).every((window) => window.empty(now));
  }
}

/** The purses of all users, kept as long as something was spent from them lately. */
export class Purses {
  readonly #purses = new Map<string, Purse>();
  /** Whose was asked for last: a socket's messages come in rows. */
  #last: { readonly user: string; readonly purse: Purse } | null = null;
  /** Of all who have not said yet who they are. */
  readonly nobody: Purse;

  constructor(private readonly limits: Limits) {
    this.nobody = new Purse(limits);
  }

  of(user: string): Purse {
    if (this.#last?.user === user) return this.#last.purse;
    let purse = this.#purses.get(user);
    if (!purse) this.#purses.set(user, purse = new Purse(this.limits));
    this.#last = { user, purse };
    return purse;
  }

  /** Forgets those who have spent nothing for as long as any window reaches back. */
  sweep(now: number): void {
    this.#last = null;
    for (const [user, purse] of this.#purses) if (purse.empty(now)) this.#purses.delete(user);
  }

  get size(): number {
    return this.#purses.size;
  }
}
