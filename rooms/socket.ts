/** One client connection, as the gateway keeps it: who it is, what it has joined, how far behind it is. */
import type { Encoded, Ref, Serializer } from "../protocol/frame.ts";
import type { Channel, EventKind } from "../protocol/contract.ts";
import type { CloseCode } from "../protocol/reason.ts";
import type { User } from "./host.ts";
import type { Limits } from "./limits.ts";

/** A frame as the transport sends it, made once and sent to many. */
export interface Packet {
  readonly length: number;
}

/** What a transport lends for one connection. */
export interface Wire {
  /** Queues a packet until the next flush. */
  send(packet: Packet): void;
  /** Queues a frame that nobody else hears, of which no packet has to be made. */
  say(frame: Encoded): void;
  /** The same packet, to be kept for later: it holds no memory of others. */
  own(packet: Packet): Packet;
  /** Sends what is queued, in one write. */
  flush(): void;
  /** Flushes, then closes. */
  close(code: CloseCode, reason: string): void;
  /** Ends the connection at once. */
  cut(): void;
  /** Bytes that were flushed and that the network has not taken yet. */
  readonly backlog: number;
  /** Bytes that ever came from the client, pings and unfinished frames included. */
  readonly received: number;
  /** Stops and resumes reading: the client feels it as a full connection. Each pause needs its resume. */
  pause(): void;
  resume(): void;
  /** Resolves when the backlog has gone out, or will not any more. */
  drained(): Promise<void>;
}

/** One join: a socket on a topic. */
export interface Session {
  readonly id: string;
  readonly socket: Socket;
  readonly room: string;
  readonly topic: string;
  readonly contract: Channel;
  /** Whether it hears second names and `update`. */
  readonly aliases: boolean;
  /** As the client gave it: phx_close and phx_error carry it, later messages are matched with it. [38, 52] */
  readonly join_ref: Ref;
  /** What pushes and replies carry: the join's ref where it had no join_ref. [52] */
  readonly told_ref: Ref;
  /** Where it stands among the topic's subscribers; -1 when it hears nothing (yet, or any more). */
  place: number;
}

export class Socket {
  user: User | null;
  /** When the token ends, in milliseconds since 1970. */
  expires: number;
  /** The newest session of each topic, joined or on its way. */
  readonly topics = new Map<string, Session>();
  closed = false;
  /** While a slow join or the check of a token is waited for, or a flood is kept back, nothing is served. [57] */
  waiting = false;
  /** Nothing more of it is served in this go; how many joins were. */
  enough = false;
  joins = 0;
  /** Whether it has its place among those that are served next. */
  scheduled = false;
  /** It was told that its token ends soon. */
  warned = false;
  heardBytes = 0;
  heardAt: number;
  /** Messages served before it had a user, or overheard after it was closed; and `rate_limited` answers so far. */
  unknown = 0;
  refused = 0;
  #inbound: (string | Uint8Array)[] = [];
  #inboundSize = 0;
  #served = 0;
  #full = false;
  #sessions = 0;
  #queued = 0;
  #messages = 0;
  #unsolicited = 0;
  #behind = 0;
  #tick = -1;
  /** The newest of each passing event that it was too slow for. */
  #late: Map<string, Late> | null = null;

  constructor(
    readonly id: string,
    readonly wire: Wire,
    readonly serializer: Serializer,
    readonly limits: Limits,
    identity: { user: User; expires: number } | null,
    readonly openedAt: number,
  ) {
    this.user = identity?.user ?? null;
    this.expires = identity?.expires ?? Infinity;
    this.heardAt = openedAt;
  }

  /** A message has been read. Above a limit of such, or with more in them than one may have, reading pauses. */
  take(data: string | Uint8Array): void {
    this.#inbound.push(data);
    this.#inboundSize += data.length;
    if (this.#full || (this.#inbound.length - this.#served < this.limits.frames_waiting && this.#inboundSize < this.limits.frame_bytes)) return;
    this.#full = true;
    this.wire.pause();
  }
  /** The next message to serve; undefined when there is none. */
  next(): string | Uint8Array | undefined {
    if (this.#served === this.#inbound.length) return undefined;
    const data = this.#inbound[this.#served++];
    this.#inboundSize -= data.length;
    if (this.#served === this.#inbound.length) {
      this.#inbound.length = this.#served = 0;
      if (this.#full) {
        this.#full = false;
        this.wire.resume();
      }
    }
    return data;
  }
  /** Puts back what `next` gave. */
  putBack(data: string | Uint8Array): void {
    this.#inboundSize += data.length;
    if (this.#served > 0) this.#inbound[--this.#served] = data;
    else this.#inbound.unshift(data);
  }
  /** It is over: what waits is not served any more, and reading goes on, for the client's answer to the close. */
  dropWaiting(): void {
    this.#inbound.length = this.#served = this.#inboundSize = 0;
    if (this.#full) this.wire.resume();
    this.#full = false;
  }
  /** How much is in the next message: 0 when there is none. */
  get nextSize(): number {
    return this.hasNext ? this.#inbound[this.#served].length : 0;
  }
  get hasNext(): boolean {
    return this.#served < this.#inbound.length;
  }

  nextSession(): string {
    return `${this.id}.${++this.#sessions}`;
  }

  /** Before something is sent: true the first time in a tick, when it is seen how far behind it is. */
  begin(tick: number): boolean {
    if (this.#tick === tick) return false;
    this.#tick = tick;
    // Of what waits, no more than this can be unsolicited.
    this.#behind = this.#unsolicited = Math.min(this.wire.backlog, this.#unsolicited);
    if (this.#late && this.#behind <= this.limits.passing_outbox_bytes) {
      for (const { packet } of this.#late.values()) this.#send(packet);
      this.#late = null;
    }
    return true;
  }

  /** Whether it would now get what it was too slow for. */
  get catchesUp(): boolean {
    return this.#late !== null && this.wire.backlog <= this.limits.passing_outbox_bytes;
  }
  get hasLate(): boolean {
    return this.#late !== null;
  }
  /** What may not arrive any more: of a topic that it has left, or of a sender who is gone. */
  dropLate(isOver: (late: Late) => boolean): void {
    for (const [key, late] of this.#late ?? []) if (isOver(late)) this.#late!.delete(key);
    if (this.#late?.size === 0) this.#late = null;
  }

  /** Sends what it asked for: that does not count as waiting. */
  answer(frame: Encoded): void {
    if (this.closed) return;
    this.#queued += frame.length;
    this.#messages++;
    this.wire.say(frame);
  }
  /** So many messages that others may have asked for as well. */
  answerAll(packet: Packet, messages: number): void {
    if (this.closed) return;
    this.#queued += packet.length;
    this.#messages += messages;
    this.wire.send(packet);
  }
  /** What was queued is the network's now: so many messages. */
  flushed(): number {
    const messages = this.#messages;
    this.#queued = this.#messages = 0;
    return messages;
  }
  /** So much waits for it that it is asked for no more: its answers would pile up. */
  get burdened(): boolean {
    return this.wire.backlog + this.#queued > this.limits.outbox_bytes;
  }

  /**
   * Sends what it did not ask for. "late": a passing event that it is too slow for; the newest with its key arrives later.
   * "lost": it is too far behind for something that must not be missed. What counts is what earlier ticks left behind: one
   * tick's burst says nothing about the reader.
   */
  tell(packet: Packet, durability: EventKind, late?: { readonly key: string; readonly topic: string; readonly sender?: string }): "told" | "late" | "lost" {
    if (this.#behind > this.limits.passing_outbox_bytes) {
      if (durability === "passing") {
        if (late && ((this.#late ??= new Map()).size < LATE || this.#late.has(late.key))) {
          this.#late.set(late.key, { packet: this.wire.own(packet), topic: late.topic, sender: late.sender });
        }
        return "late";
      }
      if (this.#behind > this.limits.outbox_bytes) return "lost";
    }
    this.#send(packet);
    return "told";
  }

  #send(packet: Packet): void {
    this.#unsolicited += packet.length;
    this.#messages++;
    this.wire.send(packet);
  }
}

/** A passing event that its reader was too slow for; `sender`: the session that it came from. */
export interface Late {
  readonly packet: Packet;
  readonly topic: string;
  readonly sender?: string;
}

/** How many senders' newest passing events are kept for a reader that is too slow. */
const LATE = 1000;

/** Makes packets, of one frame or of several in a row; lent by the transport. */
export type Pack = (frame: Encoded | readonly Encoded[]) => Packet;
