/** Runs a figure: windows of both servers in turns, and what they come to. */
import { BUSY, type Counted, type Figure, type IDLE, type Job, type Load, PAIRS, SHARED, TIMES } from "./figures.ts";
import { linesOf, pinned } from "./machine.ts";
import type { Server } from "./server.ts";

export interface Ground {
  readonly servers: { readonly bare: Server; readonly caseroom: Server };
  readonly tokens: readonly string[];
  /** The generator's. */
  readonly core: number;
  readonly errors: string;
}

/** A row of the table. */
export interface Row {
  readonly what: string;
  /** Of the bare loop; or of Caseroom without the trouble. */
  readonly base: string;
  readonly ours: string;
  readonly ratio: string;
  readonly asked: string;
  readonly met: boolean;
}

type Times = (typeof TIMES)[keyof typeof TIMES];
type Pair = { readonly bare: Counted; readonly caseroom: Counted };

export async function measureFigure(figure: Figure, ground: Ground): Promise<Row> {
  for (const server of Object.values(ground.servers)) await window(figure.load, server, ground, TIMES.first);
  const pairs: Pair[] = [];
  for (let index = 0; index < PAIRS; index++) {
    const run = async (which: "bare" | "caseroom") => {
      const before = await droppedBy(ground, which);
      const counted = await window(figure.load, ground.servers[which], ground, TIMES.each);
      checkCounted(figure, counted, await droppedBy(ground, which) - before);
      console.error(`${figure.name} ${index + 1} ${which}: ${line(figure, counted)}`);
      return counted;
    };
    // Every other pair begins with the other one.
    const first = index % 2 === 0 ? await run("bare") : undefined;
    const caseroom = await run("caseroom");
    pairs.push({ bare: first ?? await run("bare"), caseroom });
  }
  const all = pairs.flatMap(({ bare, caseroom }) => [bare, caseroom]);
  const perCpu = figure.perCpu || all.some(({ generator, others, seconds }) => generator / seconds > BUSY || others / seconds > SHARED);
  const rate = (counted: Counted) => counted[figure.counts] / (perCpu ? counted.server : counted.seconds);
  const ratios = pairs.map(({ bare, caseroom }) => rate(caseroom) / rate(bare)).toSorted((a, b) => a - b);
  const shown = (which: keyof Pair) =>
    `${Math.round(median(pairs.map((pair) => rate(pair[which])))).toLocaleString("en")} ${figure.unit}/${perCpu ? "CPU-s" : "s"}`;
  return {
    what: figure.what,
    base: shown("bare"),
    ours: shown("caseroom"),
    ratio: `${median(ratios).toFixed(2)} (${ratios[0].toFixed(2)} to ${ratios.at(-1)!.toFixed(2)})`,
    asked: String(figure.asked),
    met: median(ratios) >= figure.asked,
  };
}

/** Events that found a reader too slow for them; the bare loop drops none. */
async function droppedBy({ servers }: Ground, which: keyof Pair): Promise<number> {
  return which === "bare" ? 0 : (await servers.caseroom.counts()).passing_dropped;
}

/** A server that refuses, or that loses what it should deliver, is fast for nothing. */
function checkCounted({ name, load }: Figure, { odd, events, replies }: Counted, dropped: number): void {
  if (odd > 0) throw new Error(`${name}: ${odd} replies were of another size than the first: refused, most likely`);
  if (dropped > 0.01 * events) throw new Error(`${name}: ${dropped} events were dropped, beside ${events} deliveries`);
  if (load.kind !== "push" || load.event !== "shout") return;
  const heard = events / replies / (load.sockets / load.topics);
  // What is in flight when a window begins and ends makes them differ a little; more where other programs hold one side up.
  if (!(Math.abs(heard - 1) <= 0.05)) throw new Error(`${name}: ${(heard * 100).toFixed(1)} % of the deliveries came`);
}

function line(figure: Figure, { seconds, server, generator, others, reads, ...counts }: Counted): string {
  const count = counts[figure.counts];
  const frames = counts.events + counts.replies;
  return `${Math.round(count / seconds)} ${figure.unit}/s, ${Math.round(count / server)} per CPU-s; server ${
    (server / seconds).toFixed(2)
  } of its core (others ${(others / seconds).toFixed(2)}), ` +
    `generator ${(generator / seconds).toFixed(2)}; ${(frames / Math.max(1, reads)).toFixed(1)} frames per read`;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** One generator, one window. */
async function window(load: Load, server: Server, ground: Ground, times: Times): Promise<Counted> {
  const { child, first } = await generate(load, server, ground, times);
  await child.stdin.close();
  await child.status;
  return first as Counted;
}

/** Starts a generator; resolves with the first thing that it says. */
async function generate(load: Load, server: Server, { tokens, core, errors }: Ground, times: Times): Promise<{ child: Deno.ChildProcess; first: unknown }> {
  const job: Job = { ...load, port: server.ready.port, pid: server.pid, core: server.core, tokens, ...times };
  const child = pinned(core, "generator.ts", [JSON.stringify(job)], errors);
  for await (const line of linesOf(child.stdout)) return { child, first: JSON.parse(line) };
  throw new Error(`The generator failed: ${Deno.readTextFileSync(errors).slice(-1000)}`);
}

/** Two rows: of what the system sees, and of what the heap holds. Only the first one is asked for. */
export async function measureMemory(idle: typeof IDLE, ground: Ground): Promise<Row[]> {
  const used: Record<string, { rss: number; heapUsed: number }> = {};
  for (const which of ["bare", "caseroom"] as const) {
    const server = ground.servers[which];
    const held = async (sockets: number) => {
      const load = { kind: "idle", topic: "case", sockets, perTopic: idle.perTopic } as const;
      const { child } = await generate(load, server, ground, TIMES.each);
      const memory = await server.memory();
      await child.stdin.close();
      await child.status;
      return memory;
    };
    // Some come and go first, so that what is loaded and compiled once does not count.
    await held(500);
    // Longer than a presence is held.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    const before = await server.memory();
    const after = await held(idle.sockets);
    const per = (key: "rss" | "heapUsed") => (after[key] - before[key]) / idle.sockets / 1024;
    used[which] = { rss: per("rss"), heapUsed: per("heapUsed") };
    console.error(`${idle.name} ${which}: ${JSON.stringify({ before, after, perSocketKB: used[which] })}`);
  }
  const { bare, caseroom } = used;
  const row = (what: string, key: "rss" | "heapUsed", asked: string, met: boolean): Row => ({
    what,
    base: `${bare[key].toFixed(1)} KB`,
    ours: `${caseroom[key].toFixed(1)} KB`,
    ratio: (caseroom[key] / bare[key]).toFixed(2),
    asked,
    met,
  });
  return [
    row(`${idle.what} (RSS)`, "rss", `at most ${idle.asked} KB`, caseroom.rss <= idle.asked),
    row("the same (V8 heap after a collection)", "heapUsed", "", caseroom.heapUsed <= idle.asked),
  ];
}
