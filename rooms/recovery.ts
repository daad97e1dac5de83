/** What a client missed: the lasting events of its topic after the cursor that it saw last, as they were told. [promise 4] */
import { type Channel, own } from "../protocol/contract.ts";
import type { Clock } from "./host.ts";
import type { Limits } from "./limits.ts";
import type { Kept, Log } from "./log.ts";
import { withCursor } from "./seam.ts";

/** An event to be told again. */
export interface Missed {
  readonly event: string;
  readonly body: string;
}

/** How long what was read for one client is kept for the next: after a broken network they come together. In milliseconds. */
const KEPT_MS = 1000;
/** How many different cursors are remembered at once. */
const KEPT = 16;

export class Recovery {
  /** What was read, by topic and cursor, and where the log stood then. */
  #read = new Map<string, readonly Kept[] | null>();
  #told = new WeakMap<readonly Kept[], readonly Missed[]>();
  #head = "";

  constructor(private readonly room: string, private readonly log: Log, private readonly clock: Clock, private readonly limits: Limits) {}

  /**
   * What a topic has told since `cursor`, oldest first; null when that is not known any more or too much: the client must
   * start from the state. `sees` is asked for each event when given. Clients with the same cursor get the same array.
   */
  since(
    cursor: string,
    { contract, topic }: { contract: Channel; topic: string },
    sees?: (event: string, payload: unknown) => boolean,
  ): readonly Missed[] | null {
    const { hash: head } = this.log.head(this.room);
    if (head !== this.#head) this.forget();
    this.#head = head;
    const key = JSON.stringify([topic, cursor]);
    let kept = this.#read.get(key);
    if (kept === undefined) {
      const position = this.log.positionOf(this.room, cursor);
      if (position === undefined) return null;
      kept = this.#find(position, contract, topic);
      if (this.#read.size === 0) this.clock.after(KEPT_MS, () => this.forget());
      if (this.#read.size < KEPT) this.#read.set(key, kept);
    }
    if (kept === null) return null;
    if (sees) return kept.filter(({ event, payload }) => sees(event, JSON.parse(payload))).map(tell);
    let told = this.#told.get(kept);
    if (!told) this.#told.set(kept, told = kept.map(tell));
    return told;
  }

  #find(position: number, contract: Channel, topic: string): readonly Kept[] | null {
    const { recovery_events: entries, recovery_bytes: bytes } = this.limits;
    const found = this.log.since(this.room, position, { entries, bytes });
    return found && found.filter((entry) => entry.topic === topic && own(contract.events, entry.event)?.kind === "lasting");
  }

  forget(): void {
    this.#read = new Map();
  }
}

function tell({ event, payload, cursor }: Kept): Missed {
  return { event, body: withCursor(payload, cursor) };
}
