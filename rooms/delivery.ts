/**
 * Effects out: from rooms to sockets. Each event is encoded once per serializer, queued on every socket that hears it, and
 * flushed once per tick. Subscriptions change only by delivered effects.
 */
import { type Body, type Encoded, type Serializer, V1, V2 } from "../protocol/frame.ts";
import type { EventKind } from "../protocol/contract.ts";
import type { Clock } from "./host.ts";
import type { Metrics } from "./metrics.ts";
import { type Effect, encode } from "./seam.ts";
import type { Pack, Packet, Session, Socket } from "./socket.ts";

type Of<K extends Effect["kind"]> = Extract<Effect, { kind: K }>;

/** An event as one version of the wire says it; null where it cannot. `more`: its second name and its `update`, made once somebody wants them. */
interface Said {
  readonly packet: Packet | null;
  more?: readonly Packet[];
}

export interface DeliveryOptions {
  readonly clock: Clock;
  readonly pack: Pack;
  readonly metrics: Metrics;
  socketOf(id: string): Socket | undefined;
  /** It cannot be told what it must not miss. */
  tooSlow(socket: Socket): void;
}

/** Every error reply begins with it. */
function reasonOf(body: Body | undefined): string {
  return typeof body === "string" ? /^\{"reason":"([^"]*)"/.exec(body)?.[1] ?? "" : "";
}

export class Delivery {
  readonly #sessions = new Map<string, Session>();
  readonly #subscribers = new Map<string, Session[]>();
  readonly #replays = new WeakMap<Of<"replay">["events"], Map<Serializer, Packet>>();
  /** Sockets with something to flush. */
  #unflushed: Socket[] = [];
  #tick = 0;
  /** What the wall clock said when this tick first delivered something. */
  #wall = { tick: -1, now: 0 };

  constructor(private readonly options: DeliveryOptions) {}

  get sessions(): number {
    return this.#sessions.size;
  }

  #now(): number {
    if (this.#wall.tick !== this.#tick) this.#wall = { tick: this.#tick, now: this.options.clock.now() };
    return this.#wall.now;
  }

  /** A join is on its way: effects for it find its socket. */
  expect(session: Session): void {
    this.#sessions.set(session.id, session);
  }

  deliver(effects: readonly Effect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "broadcast":
          this.#broadcast(effect);
          break;
        case "mute":
          for (const { socket } of this.#subscribers.get(effect.topic) ?? []) if (socket.hasLate) socket.dropLate(({ sender }) => sender === effect.session);
          break;
        case "direct": {
          const socket = this.options.socketOf(effect.socket);
          if (socket) this.#answer(socket, effect.frame, effect.status, effect.body);
          break;
        }
        case "stray": {
          const { session, topic, join_ref, ref, status, body } = effect;
          const socket = this.options.socketOf(session.slice(0, session.lastIndexOf(".")));
          if (socket) this.#answer(socket, socket.serializer.reply(join_ref, ref, topic, status, body), status, body);
          break;
        }
        default: {
          const session = this.#sessions.get(effect.session);
          if (session) this.#one(session, effect);
        }
      }
    }
  }

  #one(session: Session, effect: Exclude<Effect, { kind: "broadcast" | "mute" | "direct" | "stray" }>): void {
    const { socket, topic, join_ref, told_ref } = session;
    const { serializer } = socket;
    // After its end a token hears nothing, not even an answer; the gateway is about to close the socket.
    if (socket.closed || (effect.kind !== "end" && this.#now() >= socket.expires)) return;
    switch (effect.kind) {
      case "joined":
        this.options.metrics.counts.joins++;
        this.#answer(socket, serializer.reply(join_ref, effect.ref, topic, "ok", effect.body), "ok");
        return this.#subscribe(session);
      case "reply": {
        // A refused join, or the reply to a push of one that stands.
        const at = session.place < 0 ? join_ref : told_ref;
        return this.#answer(socket, serializer.reply(at, effect.ref, topic, effect.status, effect.body), effect.status, effect.body);
      }
      case "push": {
        const frame = serializer.push(told_ref, null, topic, effect.event, effect.body);
        if (frame && this.#tell(socket, this.options.pack(frame), "exact") === "lost") this.options.tooSlow(socket);
        return;
      }
      case "replay":
        return this.#replay(session, effect.events);
      case "silence":
        return this.#unsubscribe(session);
      case "end": {
        // phx_close and phx_error carry ref = join_ref. [76, 77]
        const frame = effect.event && serializer.push(join_ref, join_ref, topic, effect.event, effect.body);
        if (frame) this.#answer(socket, frame);
        if (socket.topics.get(topic) === session) socket.topics.delete(topic);
        return this.forget(session);
      }
    }
  }

  /** It asked for them, so that they do not count as waiting. Looks like what the others were told, and is made once for all who missed the same. */
  #replay({ socket, topic }: Session, events: Of<"replay">["events"]): void {
    const { serializer } = socket;
    let packets = this.#replays.get(events);
    if (!packets) this.#replays.set(events, packets = new Map());
    let packet = packets.get(serializer);
    if (!packet) packets.set(serializer, packet = this.options.pack(events.map(({ event, body }) => serializer.broadcast(topic, event, body)!)));
    this.options.metrics.counts.events_replayed += events.length;
    this.#mark(socket);
    socket.answerAll(packet, events.length);
  }

  #broadcast(effect: Of<"broadcast">): void {
    const subscribers = effect.sessions ? this.#those(effect.sessions) : this.#subscribers.get(effect.topic);
    if (!subscribers) return;
    const { topic, durability, except, key, roles } = effect;
    const { counts } = this.options.metrics;
    const now = this.#now();
    const hasMore = durability === "lasting" || effect.alias !== undefined;
    let v1: Said | undefined, v2: Said | undefined;
    let slow: Socket[] | null = null;
    let told = 0;
    for (const session of subscribers) {
      const { socket } = session;
      if (session.id === except || (roles && !roles.includes(socket.user!.role))) continue;
      const said = socket.serializer === V2 ? v2 ??= this.#say(V2, effect) : v1 ??= this.#say(V1, effect);
      const { packet } = said;
      // `exp` is checked before every delivery, not only by a timer.
      if (packet === null || now >= socket.expires || socket.closed) continue;
      const late = key === undefined ? undefined : { key, topic, sender: except };
      const how = this.#tell(socket, packet, durability, late);
      if (how === "told") told++;
      else if (how === "lost") (slow ??= []).push(socket);
      if (hasMore && session.aliases) {
        said.more ??= this.#sayMore(socket.serializer, effect);
        said.more.forEach((packet, index) => this.#tell(socket, packet, durability, late && { ...late, key: `${index} ${key}` }));
      }
    }
    counts.broadcasts++;
    counts.deliveries += told;
    for (const socket of slow ?? []) this.options.tooSlow(socket);
  }

  /** Of some sessions, those that hear their topic. */
  #those(ids: readonly string[]): Session[] {
    return ids.map((id) => this.#sessions.get(id)).filter((session) => session !== undefined && session.place >= 0) as Session[];
  }

  #say(serializer: Serializer, { topic, event, body }: Of<"broadcast">): Said {
    const frame = serializer.broadcast(topic, event, body);
    return { packet: frame === null ? null : this.options.pack(frame) };
  }

  #sayMore(serializer: Serializer, { topic, event, body, durability, alias }: Of<"broadcast">): Packet[] {
    const more = alias === undefined ? [] : [this.#say(serializer, { kind: "broadcast", topic, event: alias, body, durability }).packet];
    // Every lasting event has its mirror, for those who listen to one event only. [B06, X21]
    if (durability === "lasting") {
      const mirror = `{"event":${encode(event)},"payload":${body}}`;
      more.push(this.#say(serializer, { kind: "broadcast", topic, event: "update", body: mirror, durability }).packet);
    }
    return more.filter((packet) => packet !== null);
  }

  #tell(socket: Socket, packet: Packet, durability: EventKind, late?: Parameters<Socket["tell"]>[2]): ReturnType<Socket["tell"]> {
    this.#mark(socket);
    const how = socket.tell(packet, durability, late);
    if (how === "late") this.options.metrics.counts.passing_dropped++;
    return how;
  }

  #answer(socket: Socket, frame: Encoded, status?: "ok" | "error", body?: Body): void {
    if (socket.closed) return;
    const { metrics } = this.options;
    if (status === "ok") metrics.counts.replies_ok++;
    else if (status === "error") {
      metrics.counts.replies_error++;
      metrics.refused(reasonOf(body));
    }
    this.#mark(socket);
    socket.answer(frame);
  }

  #mark(socket: Socket): void {
    if (socket.hasLate && this.#now() >= socket.expires) socket.dropLate(() => true);
    if (socket.begin(this.#tick)) this.#unflushed.push(socket);
  }

  /** Nothing new came for it, but it can be told what it was too slow for. */
  catchUp(socket: Socket): void {
    if (socket.catchesUp) this.#mark(socket);
  }

  /** Once per tick: one write for each socket that has something to hear. */
  flush(): void {
    const sockets = this.#unflushed;
    this.#unflushed = [];
    this.#tick++;
    for (const socket of sockets) {
      if (socket.closed) continue;
      socket.wire.flush();
      this.options.metrics.counts.messages_sent += socket.flushed();
    }
  }

  #subscribe(session: Session): void {
    const subscribers = this.#subscribers.get(session.topic);
    if (subscribers) session.place = subscribers.push(session) - 1;
    else {
      session.place = 0;
      this.#subscribers.set(session.topic, [session]);
    }
  }

  /** The session is over. */
  forget(session: Session): void {
    this.#sessions.delete(session.id);
    this.#unsubscribe(session);
  }

  #unsubscribe(session: Session): void {
    const subscribers = this.#subscribers.get(session.topic);
    if (!subscribers || session.place < 0) return;
    if (session.socket.hasLate) session.socket.dropLate(({ topic }) => topic === session.topic);
    const last = subscribers.pop()!;
    if (last !== session) {
      subscribers[session.place] = last;
      last.place = session.place;
    }
    session.place = -1;
    if (subscribers.length === 0) this.#subscribers.delete(session.topic);
  }
}
