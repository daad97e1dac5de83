/** What figures of one server beside itself have in common: with some trouble and without, in turns. */
import type { User } from "../../rooms/host.ts";
import { sign } from "../../rooms/token.ts";
import { PAIRS } from "./figures.ts";
import { median, type Row } from "./measure.ts";
import { Child, Server } from "./server.ts";
import { SECRET } from "./serving.ts";

export interface StrainGround {
  readonly folder: string;
  readonly serverCore: number;
  readonly generatorCore: number;
  readonly tokens: readonly string[];
  /** Names of limits that some server had raised are put in here. */
  readonly raised: Set<string>;
}

export async function serverOf(ground: StrainGround, folder?: string, ...args: string[]): Promise<Server> {
  const server = await Server.start("caseroom.ts", ground.serverCore, ground.folder, folder, args);
  for (const name of server.ready.raised) ground.raised.add(name);
  return server;
}

export async function generatorOf(ground: StrainGround, script: string, job: unknown): Promise<Child> {
  const child = new Child(ground.generatorCore, script, [JSON.stringify(job)], `${ground.folder}/errors`);
  await child.next();
  return child;
}

export function token(id: string, role: User["role"] = "attorney"): Promise<string> {
  return sign(SECRET, { id, name: id, role, cases: "*" }, 86_400, Date.now());
}

/** Ends what was started, whatever happened. */
export async function ending<T>(parts: { end(): Promise<void> }[], body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } finally {
    // Generators first, or they miss their server.
    for (const part of parts.toReversed()) await part.end();
  }
}

/** Runs both in turns, every other pair the other way round. */
export async function inTurns<T>(without: () => Promise<T>, within: () => Promise<T>): Promise<{ without: T; within: T }[]> {
  const pairs: { without: T; within: T }[] = [];
  for (let index = 0; index < PAIRS; index++) {
    const first = index % 2 === 0 ? await without() : undefined;
    const trouble = await within();
    pairs.push({ without: first ?? await without(), within: trouble });
  }
  return pairs;
}

export function rowOf(
  what: string,
  pairs: readonly { without: number; within: number }[],
  unit: (value: number) => string,
  asked: { least?: number; most?: number },
): Row {
  const ratios = pairs.map(({ without, within }) => within / without).toSorted((a, b) => a - b);
  const ratio = median(ratios);
  return {
    what,
    base: unit(median(pairs.map(({ without }) => without))),
    ours: unit(median(pairs.map(({ within }) => within))),
    ratio: `${ratio.toFixed(2)} (${ratios[0].toFixed(2)} to ${ratios.at(-1)!.toFixed(2)})`,
    asked: asked.least === undefined ? `at most ${asked.most}` : String(asked.least),
    met: ratio >= (asked.least ?? 0) && ratio <= (asked.most ?? Infinity),
  };
}

/** How long it took, as the table shows it. */
export const ms = (value: number) => `${value.toFixed(value < 10 ? 2 : 0)} ms`;
