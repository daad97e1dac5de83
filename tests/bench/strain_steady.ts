/** Measures how long members who talk steadily wait for each other, with trouble in their room and without: `paused` and `flood`. */
import { FLOOD, PAUSED, STEADY } from "./figures.ts";
import type { Flood } from "./flooder.ts";
import type { Row } from "./measure.ts";
import type { Child, Server } from "./server.ts";
import type { Pausing, SteadyJob, Talked } from "./steady.ts";
import { ending, generatorOf, inTurns, ms, rowOf, serverOf, type StrainGround, token } from "./strain.ts";

/** A server with default limits, and members who keep within them, each a user of his own. */
async function steady(ground: StrainGround): Promise<{ server: Server; members: Child }> {
  const server = await serverOf(ground, undefined, "default");
  const tokens = await Promise.all(Array.from({ length: STEADY.members }, (_, index) => token(`member_${index}`)));
  const job: SteadyJob = { port: server.ready.port, pid: server.pid, core: server.core, tokens };
  return { server, members: await generatorOf(ground, "steady.ts", job) };
}

async function talk(name: string, how: string, members: Child): Promise<Talked> {
  const talked = await members.ask("talk", STEADY.windowMs) as Talked;
  const { told, seconds, server, generator, others, p50, p99, max } = talked;
  console.error(
    `${name} ${how}: ${told} told to ${STEADY.members}; p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(max)}; server ${(server / seconds).toFixed(2)} of its core ` +
      `(others ${(others / seconds).toFixed(2)}), generator ${(generator / seconds).toFixed(2)}`,
  );
  return talked;
}

function p99Row(what: string, pairs: readonly { without: Talked; within: Talked }[], asked: number): Row {
  return rowOf(what, pairs.map(({ without, within }) => ({ without: without.p99, within: within.p99 })), ms, { most: asked });
}

export async function measurePaused(ground: StrainGround): Promise<Row[]> {
  const { name, what, readers, asked } = PAUSED;
  const { server, members } = await steady(ground);
  return await ending([server, members], async () => {
    await talk(name, "first", members);
    const tokens = await Promise.all(Array.from({ length: readers }, (_, index) => token(`paused_${index}`)));
    let fillers = 0;
    const within = async () => {
      const pausing: Pausing = { tokens, filler: await token(`filler_${++fillers}`), fills: 90 };
      await members.ask("pause", pausing);
      const before = await server.counts();
      const talked = await talk(name, "with paused readers", members);
      const after = await server.counts();
      const dropped = after.passing_dropped - before.passing_dropped;
      if (dropped !== readers * talked.told) throw new Error(`${name}: ${dropped} of ${readers * talked.told} events found a paused reader too slow for them`);
      await members.ask("unpause");
      return talked;
    };
    return [p99Row(what, await inTurns(() => talk(name, "without", members), within), asked)];
  });
}

export async function measureFlood(ground: StrainGround): Promise<Row[]> {
  const { name, what, message, asked } = FLOOD;
  const { server, members } = await steady(ground);
  const flooder = await generatorOf(ground, "flooder.ts", null);
  return await ending([server, members, flooder], async () => {
    await talk(name, "first", members);
    let floods = 0;
    const within = async () => {
      // Each time another one: whoever goes on is closed with 1008.
      const flood: Flood = { port: server.ready.port, token: await token(`flooder_${++floods}`), topic: STEADY.topic, message };
      const before = await server.counts();
      await flooder.ask("start", flood);
      const talked = await talk(name, "with a flood", members);
      const { open, blocks } = await flooder.ask("stop") as { open: boolean; blocks: number };
      const after = await server.counts();
      const refused = after.replies_error - before.replies_error;
      console.error(`${name}: ${refused} were refused, ${blocks} blocks were written`);
      if (!open || refused < 1000) throw new Error(`${name}: ${open ? "only" : "the flood was closed after"} ${refused} pushes were refused`);
      return talked;
    };
    return [p99Row(what, await inTurns(() => talk(name, "without", members), within), asked)];
  });
}
