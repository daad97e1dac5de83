/** The figures, as data: what load, what is counted, and how much of the bare loop is asked. */

interface Common {
  readonly port: number;
  /** The server's process, and its core. */
  readonly pid: number;
  readonly core: number;
  readonly tokens: readonly string[];
  readonly warmMs: number;
  readonly windowMs: number;
}

/** Sockets spread over topics; the first `publishers` of them push, and push again when they are answered. */
export interface PushLoad {
  readonly kind: "push";
  readonly event: "shout" | "echo" | "keep";
  readonly topics: number;
  readonly sockets: number;
  readonly publishers: number;
  readonly inFlight: number | "1..8";
}

/** Connect, join a case, close; so many at a time. */
export interface ConnectLoad {
  readonly kind: "connect";
  readonly inFlight: number;
  readonly perTopic: number;
}

/** Joined, and silent from then on. */
export interface IdleLoad {
  readonly kind: "idle";
  readonly topic: string;
  readonly sockets: number;
  readonly perTopic: number;
}

export type Load = PushLoad | ConnectLoad | IdleLoad;

/** What the generator is told. */
export type Job = Load & Common;

/** What it counted in one window; CPU in seconds. */
export interface Counted {
  readonly seconds: number;
  readonly server: number;
  readonly generator: number;
  /** What else ran on the server's core. */
  readonly others: number;
  readonly replies: number;
  readonly events: number;
  readonly reads: number;
  readonly odd: number;
  readonly cycles: number;
}

export interface Figure {
  readonly name: string;
  readonly what: string;
  readonly load: PushLoad | ConnectLoad;
  readonly counts: "events" | "replies" | "cycles";
  readonly unit: string;
  /** Always per CPU second of the server: one generator cannot keep up with the fan-out of one server. */
  readonly perCpu?: boolean;
  /** The least ratio to the bare loop. */
  readonly asked: number;
}

export const FIGURES: readonly Figure[] = [
  {
    name: "fanout",
    what: "fan-out of a passing event, 1,000 subscribers, 8 publishers x 8 in flight",
    load: { kind: "push", event: "shout", topics: 1, sockets: 1000, publishers: 8, inFlight: 8 },
    counts: "events",
    unit: "deliveries",
    perCpu: true,
    asked: 0.8,
  },
  {
    name: "fanout-one",
    what: "the same, 1 publisher x 1 in flight",
    load: { kind: "push", event: "shout", topics: 1, sockets: 1000, publishers: 1, inFlight: 1 },
    counts: "events",
    unit: "deliveries",
    perCpu: true,
    asked: 0.7,
  },
  {
    name: "reply",
    what: "push and reply, 100 sockets x 8 in flight",
    load: { kind: "push", event: "echo", topics: 10, sockets: 100, publishers: 100, inFlight: 8 },
    counts: "replies",
    unit: "replies",
    asked: 0.55,
  },
  {
    name: "topics",
    what: "200 topics of 10 subscribers, one publisher each with 1 to 8 in flight",
    load: { kind: "push", event: "shout", topics: 200, sockets: 2000, publishers: 200, inFlight: "1..8" },
    counts: "events",
    unit: "deliveries",
    perCpu: true,
    asked: 0.6,
  },
  {
    name: "connect",
    what: "connect + join a case with a verified token, 64 in flight",
    load: { kind: "connect", inFlight: 64, perTopic: 20 },
    counts: "cycles",
    unit: "joins",
    asked: 0.55,
  },
  {
    name: "lasting",
    what: "lasting events acknowledged after fsync, 64 rooms x 8 in flight",
    load: { kind: "push", event: "keep", topics: 64, sockets: 64, publishers: 64, inFlight: 8 },
    counts: "replies",
    unit: "events",
    asked: 0.45,
  },
];

export const IDLE = { name: "memory", what: "memory per idle joined socket, 5,000 sockets in cases of 20", sockets: 5000, perTopic: 20, asked: 20 } as const;

/** Above this share of its core, the generator may be what limits: then the server's CPU is what is compared. */
export const BUSY = 0.85;
/** Above this share of the server's core, other programs decide how much a server does in a second: the same holds. */
export const SHARED = 0.1;
export const PAIRS = 5;
/** Many short windows in turns rather than few long ones: on a shared machine the speed of a core drifts within seconds. */
export const TIMES = {
  /** Before the first pair each server serves this long, so that its hot code is compiled. */
  first: { warmMs: 3000, windowMs: 100 },
  each: { warmMs: 1000, windowMs: 2000 },
} as const;
