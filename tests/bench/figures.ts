/** The figures, as data: what load, what is counted, and how much of the bare loop, or of the same without trouble, is asked. */
import type { Spent } from "./machine.ts";

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

/** What it counted in one window. */
export interface Counted extends Spent {
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

/** Clients that all dial within `spreadMs`, join cases of `perTopic`, and are told what they missed when they ask for it. */
export interface CrowdLoad {
  readonly clients: number;
  readonly perTopic: number;
  readonly missed: number;
  readonly spreadMs: number;
}

/** As after a broken network: nothing spreads them. */
export const RECOVER = {
  name: "recover",
  what: "1,000 clients at once, in cases of 20, recover 300 missed events each, beside plain joins",
  load: { clients: 1000, perTopic: 20, missed: 300, spreadMs: 0 },
  asked: 0.5,
} as const;

/** They dial as they were closed: the drain spreads that over a second. */
export const REDIAL = {
  name: "redial",
  what: "p99 of 5,000 joins that recover 20 events after a restart, dialled within a second, beside plain joins",
  load: { clients: 5000, perTopic: 20, missed: 20, spreadMs: 1000 },
  asked: 3,
} as const;

/** Members of one topic of whom each tells all of them something once in `everyMs`: within the default budgets. */
export const STEADY = { topic: "bench:0", members: 100, everyMs: 1000, windowMs: 4000 } as const;

export const PAUSED = {
  name: "paused",
  what: "p99 of 10,000 deliveries/s to 100 members while 10 others do not read, beside without",
  readers: 10,
  asked: 1.5,
} as const;

export const FLOOD = {
  name: "flood",
  what: "p99 of 10,000 deliveries/s to 100 members while another user floods one socket, default budgets, beside without",
  /** A push of which 100 a minute are allowed. */
  message: JSON.stringify(["1", "2", "bench:0", "shout", { document_id: "doc_99999999", page: 12, x: 318.25, y: 604.5, tool: "pointer" }]),
  asked: 1.5,
} as const;

/**
 * Cases joined and left, on so many sockets with so many joins at a time each. It is warm once the longest window of a budget, a
 * minute, has been full.
 */
export const CHURN = { name: "churn", sockets: 8, atOnce: 50, warm: 20_000, warmMs: 65_000, million: 1_000_000, step: 100_000, asked: 0.05 } as const;

/** Figures about documents: servers, their children and the bench share the cores. */
export const INGEST = {
  name: "ingest",
  what: "1,000 mails into a case, text only, until the job is over, beside parsing and FTS5 on as many cores",
  mails: 1000,
  asked: 0.5,
} as const;

/** Two words each, by their ranks: how often a word is used falls with its rank. */
export const SEARCH = {
  name: "search",
  what: "first result of two words among 100,000 mails, beside the FTS5 statement",
  documents: 100_000,
  queries: [
    { what: "rare and common", ranks: [[19_000, 20], [17_500, 40], [18_200, 70]] },
    { what: "middling", ranks: [[900, 1200], [700, 1500], [1100, 1000]] },
    { what: "common", ranks: [[30, 60], [80, 25], [50, 90]] },
  ],
  asked: 3,
} as const;

export const BUSY_CASE = {
  name: "busy",
  what: "p99 of cursors in a document while another case has a job of 1,000 mails and is searched with w/, beside idle",
  mails: 1000,
  members: 10,
  everyMs: 100,
  windowMs: 3000,
  asked: 3,
} as const;

export const UPLOAD = { name: "upload", what: "memory of the server above idle while 100 MB are uploaded", bytes: 104_857_600, askedMb: 40 } as const;

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
