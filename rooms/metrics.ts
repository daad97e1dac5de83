/**
 * What the server counts, as Prometheus text. Counters are plain fields, for some are counted a hundred thousand times a
 * second; a library's would cost more than what they count. No topic, room or user is ever a label.
 */

import { CLOSE_CODES, REASONS } from "../protocol/reason.ts";

/** Each counter with its help text; `caseroom_<name>_total`. */
const COUNTERS = {
  sockets_opened: "Sockets that opened.",
  messages_received: "WebSocket messages that came from clients.",
  messages_sent: "WebSocket messages handed to the network: replies, pushes, events.",
  joins: "Joins answered ok.",
  replies_ok: "Replies with status ok, joins among them.",
  replies_error: "Replies with status error.",
  broadcasts: "Events told to a topic that somebody hears.",
  deliveries: "Events told to one session each, late ones not; second names and `update` are not counted.",
  events_replayed: "Missed events told again after a join.",
  events_kept: "Entries appended to the log and committed.",
  passing_dropped: "Passing events that a slow reader did not get, or got later.",
  commits: "Transactions committed.",
  ticks_lost: "Ticks whose writes were not kept.",
} as const;

/** The close codes that are told apart: ours, and those that WebSockets have. Clients make up others. */
const CODES: ReadonlySet<number> = new Set([1000, 1002, 1005, 1006, 1007, 1011, ...Object.keys(CLOSE_CODES).map(Number)]);

export type Counter = keyof typeof COUNTERS;

/** A value that is asked for when it is wanted. */
export interface Gauge {
  readonly name: string;
  readonly help: string;
  value(): number;
}

export class Metrics {
  readonly counts: Record<Counter, number> = Object.fromEntries(Object.keys(COUNTERS).map((name) => [name, 0])) as Record<Counter, number>;
  /** Sockets that ended, by close code; refusals, by reason. Both lists are closed. */
  readonly closes = new Map<string, number>();
  readonly refusals = new Map<string, number>();
  /** How long commits took, in milliseconds. */
  commitMs = 0;
  readonly #gauges: Gauge[] = [];

  closed(code: number): void {
    count(this.closes, CODES.has(code) ? String(code) : "other");
  }
  refused(reason: string): void {
    count(this.refusals, Object.hasOwn(REASONS, reason) ? reason : "other");
  }
  gauge(name: string, help: string, value: () => number): void {
    this.#gauges.push({ name, help, value });
  }

  /** The text format, version 0.0.4. */
  text(): string {
    const lines: string[] = [];
    const add = (name: string, help: string, type: "counter" | "gauge", values: readonly [labels: string, value: number][]) => {
      lines.push(
        `# HELP caseroom_${name} ${help}`,
        `# TYPE caseroom_${name} ${type}`,
        ...values.map(([labels, value]) => `caseroom_${name}${labels} ${value}`),
      );
    };
    const labelled = (label: string, counts: ReadonlyMap<string, number>) =>
      [...counts].map(([value, count]): [string, number] => [`{${label}="${value}"}`, count]);
    for (const [name, help] of Object.entries(COUNTERS)) add(`${name}_total`, help, "counter", [["", this.counts[name as Counter]]]);
    add("sockets_closed_total", "Sockets that ended, by close code.", "counter", labelled("code", this.closes));
    add("refusals_total", "What was refused, by reason.", "counter", labelled("reason", this.refusals));
    add("commit_seconds_total", "Time spent in commits.", "counter", [["", this.commitMs / 1000]]);
    for (const { name, help, value } of this.#gauges) add(name, help, "gauge", [["", value()]]);
    return lines.join("\n") + "\n";
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
