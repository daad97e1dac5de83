/** Slow work with many results, under way in one room: each result is a turn of the member who began it. */
import { Refusal } from "../protocol/reason.ts";
import type { Member } from "./host.ts";
import type { Context, Outside, Stream } from "./room.ts";
import type { TopicState } from "./topic.ts";

interface Running {
  readonly at: TopicState;
  readonly member: Member;
  readonly name: string;
  readonly stream: Stream;
  readonly abort: AbortController;
  /** Nothing more comes of it. */
  gone: boolean;
}

/** The room's side. */
export interface StreamOwner {
  outside(userId: string): Outside;
  /** Runs a turn in a tick of its own unless `isOver`; resolves to how it ended. */
  turn(at: TopicState, member: Member, handler: (ctx: Context) => void, isOver: () => boolean): Promise<"kept" | "over" | Refusal>;
  report(error: unknown, where: string): void;
  /** After this tick. */
  soon(callback: () => void): void;
}

export class Streams {
  readonly #running = new Set<Running>();

  constructor(private readonly owner: StreamOwner) {}

  get idle(): boolean {
    return this.#running.size === 0;
  }

  /** How many are under way for a user. */
  of(userId: string): number {
    return [...this.#running].filter(({ member, gone }) => !gone && member.user.id === userId).length;
  }

  /** Begins. Returns how to take it back. */
  begin(at: TopicState, member: Member, name: string, stream: Stream): () => void {
    if (this.#find(member.session, name)) throw new TypeError(`Cannot start ${name}: it is under way`);
    const running: Running = { at, member, name, stream, abort: new AbortController(), gone: false };
    this.#running.add(running);
    // In its own time: what it throws at once is an end like any other.
    void this.#pump(running);
    return () => this.#end(running);
  }

  /** Nothing more comes of it. Returns how to take that back within the tick; undefined when there is none. */
  abandon(session: string, name: string): (() => void) | undefined {
    const running = this.#find(session, name);
    return running && this.#end(running);
  }

  /** The session is over. Returns how to take that back within the tick. */
  abandonAll(session: string): () => void {
    const undo = [...this.#running].filter(({ member, gone }) => !gone && member.session === session).map((running) => this.#end(running));
    return () => undo.forEach((step) => step());
  }

  #find(session: string, name: string): Running | undefined {
    return [...this.#running].find((running) => !running.gone && running.member.session === session && running.name === name);
  }

  #end(running: Running): () => void {
    running.gone = true;
    this.owner.soon(() => {
      if (running.gone) running.abort.abort();
    });
    return () => void (running.gone = false);
  }

  async #pump(running: Running): Promise<void> {
    const { at, member, stream, abort } = running;
    const turn = (handler: (ctx: Context) => void) => this.owner.turn(at, member, handler, () => running.gone);
    let refusal: Refusal | null = null;
    try {
      for await (const result of stream.work(abort.signal, this.owner.outside(member.user.id))) {
        const how = await turn((ctx) => stream.each(ctx, result));
        if (how === "over") break;
        if (how !== "kept") throw how;
      }
    } catch (error) {
      refusal = error instanceof Refusal ? error : new Refusal("internal");
      if (refusal !== error && !running.gone) this.owner.report(error, "slow work");
    }
    await turn((ctx) => stream.end(ctx, refusal));
    running.gone = true;
    abort.abort();
    this.#running.delete(running);
  }
}
