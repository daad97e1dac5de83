/** One client connection, as the gateway keeps it: who it is, what it has joined, how far behind it is. */
import type { Encoded, Ref, Serializer } from "../protocol/frame.ts";
import type { EventKind } from "../protocol/contract.ts";
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
  /** Sends what is queued, in one write. */
  flush(): void;
  /** Flushes, then closes. */
  close(code: CloseCode, reason: string): void;
  /** Bytes that were flushed and that the network has not taken yet. */
  readonly backlog: number;
  /** Bytes that ever came from the client, pings and unfinished frames included. */
  readonly received: number;
  /** Stops and resumes reading: the client feels it as a full connection. Each pause needs its resume. */
  pause(): void;
  resume(): void;
  /** Pauses until the backlog has gone out. */
  choke(): void;
}

/** One join: a socket on a topic. */
export interface Session {
  readonly id: string;
  readonly socket: Socket;
  readonly room: string;
  readonly topic: string;
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
  /** Frames that wait for a slow join or for the check of a token; null while nothing is waited for. [57] */
  held: (() => void)[] | null = null;
  heardBytes = 0;
  heardAt: number;
  #sessions = 0;
  #unsolicited = 0;
  #behind = 0;
  #tick = -1;

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

  nextSession(): string {
    return `${this.id}.${++this.#sessions}`;
  }

  /** Before something is sent: true the first time in a tick, when it is seen how far behind it is. */
  begin(tick: number): boolean {
    if (this.#tick === tick) return false;
    this.#tick = tick;
    // Of what waits, no more than this can be unsolicited.
    this.#behind = this.#unsolicited = Math.min(this.wire.backlog, this.#unsolicited);
    return true;
  }

  /** Sends what it asked for: that does not count as waiting. */
  answer(packet: Packet): void {
    if (!this.closed) this.wire.send(packet);
  }

  /**
   * Sends what it did not ask for. Returns false when it is too far behind for something that must not be missed. What
   * counts is what earlier ticks left behind: one tick's burst says nothing about the reader.
   */
  tell(packet: Packet, durability: EventKind): boolean {
    if (this.#behind > this.limits.passing_outbox_bytes) {
      if (durability === "passing") return true;
      if (this.#behind > this.limits.outbox_bytes) return false;
    }
    this.#unsolicited += packet.length;
    this.wire.send(packet);
    return true;
  }
}

/** Makes packets; lent by the transport. */
export type Pack = (frame: Encoded) => Packet;
