/** Measures how fast mail comes into a case, its text only: `ingest`. */
import { Casework, formOf, range } from "./casework.ts";
import { INGEST } from "./figures.ts";
import type { Row } from "./measure.ts";
import { Child } from "./server.ts";
import { ending, inTurns, rowOf, type StrainGround } from "./strain.ts";

/** Both do the same mails; each pair has others. */
export async function measureIngest({ folder, serverCore, generatorCore }: StrainGround): Promise<Row[]> {
  const { name, what, mails, asked } = INGEST;
  const casework = await Casework.start();
  const bare = [serverCore, generatorCore].map((core) => new Child(core, "bare_ingest.ts", [Deno.makeTempDirSync({ dir: folder })], `${folder}/errors`));
  let [rounds, pairs] = [0, 0];
  const numbers = () => range(mails * Math.floor(pairs++ / 2), mails);
  const rate = (how: string, ms: number, more = "") => {
    console.error(`${name} ${how}: ${Math.round(mails / ms * 1000)} mails/s${more}`);
    return mails / ms * 1000;
  };
  return await ending([casework, ...bare], async () => {
    await Promise.all(bare.map((child) => child.next()));
    const without = async () => {
      const all = numbers();
      await Promise.all(bare.map((child, index) => child.ask("load", all.filter((_, at) => at % bare.length === index))));
      const round = `round_${++rounds}`;
      const took = await Promise.all(bare.map((child) => child.ask("run", round) as Promise<number>));
      return rate("bare", Math.max(...took));
    };
    const within = async () => {
      const form = formOf(numbers(), "text_extraction");
      const { sent, all } = await casework.ingest(`case_${++rounds}`, form);
      return rate("caseroom", all, `, ${Math.round(sent)} of ${Math.round(all)} ms until the upload was answered`);
    };
    await without();
    await within();
    return [rowOf(what, await inTurns(without, within), (value) => `${Math.round(value)} mails/s`, { least: asked })];
  });
}
