/** Slow work under way: outside any turn, with a deadline; what comes of it is a job of a later tick. */
import { Refusal } from "../protocol/reason.ts";
import type { Gate } from "./gate.ts";
import type { Clock } from "./host.ts";
import { type Context, Later, type Outside } from "./room.ts";
import type { Effect } from "./seam.ts";

/** The handler of the turn in which slow work ends: it returns the reply, or throws what went wrong. */
export type Finish = (ctx: Context) => unknown;

export class Slow {
  /** Resolves when what came of it has been dealt with. */
  readonly done: Promise<void>;
  /** Nobody waits for it any more. */
  gone = false;
  readonly #abort = new AbortController();
  readonly #cancelDeadline: () => void;
  readonly #gate: Gate;
  readonly #deal: (finish: Finish) => void;
  readonly #resolve: () => void;
  #over = false;

  /** Starts the work. `deal` is called once, inside a tick; after `limitMs` with a finish that refuses with `timeout`. */
  constructor(
    later: Later,
    { clock, gate, limitMs, outside }: { clock: Clock; gate: Gate; limitMs: number; outside: Outside },
    deal: (finish: Finish) => void,
  ) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    this.#gate = gate;
    this.#deal = deal;
    this.#cancelDeadline = clock.after(limitMs, () => this.fail(new Refusal("timeout")));
    const work = async () => await later.work(this.#abort.signal, outside);
    work().then((result) => this.#settle((ctx) => later.finish(ctx, result)), (error) => this.fail(error));
  }

  /** Whoever asked is gone. */
  leave(): void {
    this.gone = true;
    this.fail(new Refusal("timeout"));
  }

  /** Gives it up. Returns no effects: they come with its end. */
  fail(error: unknown): readonly Effect[] {
    this.#abort.abort();
    this.#settle(() => {
      throw error;
    });
    return [];
  }

  #settle(finish: Finish): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelDeadline();
    this.#gate.post(() => {
      this.#deal((ctx) => {
        const value = finish(ctx);
        if (value instanceof Later) throw new TypeError("Cannot finish slow work with slow work");
        return value;
      });
      this.#resolve();
    });
  }
}
