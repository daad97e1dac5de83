/** Measures how soon somebody who searches a large case hears of a first result, beside the FTS5 statement: `search`. */
import type { RawClient } from "../support/raw.ts";
import { someone } from "../support/stage.ts";
import { Casework } from "./casework.ts";
import { SEARCH } from "./figures.ts";
import { WORDS } from "./mails.ts";
import { median, type Row } from "./measure.ts";
import { Child } from "./server.ts";
import { ending, inTurns, ms, rowOf, type StrainGround } from "./strain.ts";

const CASE = "large";
const QUERIES = SEARCH.queries.map(({ what, ranks }) => ({ what, queries: ranks.map((pair) => pair.map((rank) => WORDS[rank]).join(" ")) }));

/** Milliseconds from the push until the first result is heard. */
async function first(client: RawClient, query: string): Promise<number> {
  const begun = performance.now();
  client.send(["1", "2", "search:live", "search", { query, filters: { case_ids: [CASE] }, limit: 20 }]);
  let took: number | undefined;
  for (;;) {
    const [, , , event, payload] = await client.next(20_000);
    if (payload.status === "error") throw new Error(`A search was refused: ${JSON.stringify(payload)}`);
    if (event === "result") took ??= performance.now() - begun;
    if (event !== "search:complete") continue;
    if (took === undefined) throw new Error(`Nothing was found of ${query}: ${JSON.stringify(payload)}`);
    return took;
  }
}

/** A row of all queries, and one of each kind. */
export async function measureSearch({ folder, serverCore, generatorCore }: StrainGround): Promise<Row[]> {
  const { name, what, documents, asked } = SEARCH;
  const dataDir = Deno.makeTempDirSync({ dir: folder });
  // Its tables, and a case that is known.
  const before = await Casework.start({ DATA_DIR: dataDir });
  const { client } = await before.join(`case:${CASE}`);
  await client.ask(["1", "2", `case:${CASE}`, "add:document", { file: { name: "first.txt", content_base64: btoa("a first document") } }]);
  client.ws.close();
  await before.end();
  const begun = Date.now();
  const bare = new Child(serverCore, "bare_search.ts", [folder, String(documents)], `${folder}/errors`);
  const filler = new Child(generatorCore, "filled_case.ts", [dataDir, CASE, String(documents)], `${folder}/errors`);
  const parts: { end(): Promise<void> }[] = [bare];
  return await ending(parts, async () => {
    await ending([filler], () => filler.next());
    await bare.next();
    console.error(`${name}: filled in ${Math.round((Date.now() - begun) / 1000)} s`);
    const casework = await Casework.start({ DATA_DIR: dataDir });
    parts.push(casework);
    let users = 0;
    type Took = number[][];
    const tell = (how: string, took: Took) => {
      console.error(`${name} ${how}: ${QUERIES.map(({ what }, index) => `${what} ${took[index].map((value) => value.toFixed(1)).join(" ")}`).join("; ")} ms`);
      return took;
    };
    const without = async () => {
      const took: Took = [];
      for (const { queries } of QUERIES) {
        const times: number[] = [];
        for (const query of queries) {
          const answer = await bare.ask("search", query) as { took: number; found: number };
          if (answer.found === 0) throw new Error(`${name}: nothing is found of ${query}`);
          times.push(answer.took);
        }
        took.push(times);
      }
      return tell("bare", took);
    };
    const within = async () => {
      // Another one each time: a person searches so often in a minute, and no more.
      const { client } = await casework.join("search:live", someone(`searcher_${++users}`));
      const took: Took = [];
      for (const { queries } of QUERIES) {
        const times: number[] = [];
        for (const query of queries) times.push(await first(client, query));
        took.push(times);
      }
      client.ws.close();
      await client.closed;
      return tell("caseroom", took);
    };
    await without();
    await within();
    const pairs = await inTurns(without, within);
    const row = (what: string, of: (took: Took) => number) =>
      rowOf(what, pairs.map(({ without, within }) => ({ without: of(without), within: of(within) })), ms, { most: asked });
    return [row(what, (took) => median(took.flat())), ...QUERIES.map(({ what }, index) => row(`the same, ${what}`, (took) => median(took[index])))];
  });
}
