/**
 * `deno task bench [name …]`: Caseroom beside the bare loop. Both servers stand on one core, the generator is on another;
 * windows alternate, and what counts is the median of the pairs' ratios: whatever else the machine does, it does to both.
 * A second table has Caseroom beside itself, with some trouble and without.
 */
import { sign } from "../../rooms/token.ts";
import { checkChains } from "./chains.ts";
import { measureBusy } from "./documents_busy.ts";
import { measureIngest } from "./documents_ingest.ts";
import { measureSearch } from "./documents_search.ts";
import { measureUpload } from "./documents_upload.ts";
import { BUSY_CASE, CHURN, FIGURES, FLOOD, IDLE, INGEST, PAIRS, PAUSED, RECOVER, REDIAL, SEARCH, UPLOAD } from "./figures.ts";
import { machineLine, twoCores } from "./machine.ts";
import { measureFigure, measureMemory, type Row } from "./measure.ts";
import { Server } from "./server.ts";
import { SECRET } from "./serving.ts";
import type { StrainGround } from "./strain.ts";
import { measureChurn } from "./strain_churn.ts";
import { measureRecover, measureRedial } from "./strain_crowd.ts";
import { measureFlood, measurePaused } from "./strain_steady.ts";

/** Figures of Caseroom beside itself. */
const STRAINS: Readonly<Record<string, (ground: StrainGround) => Promise<Row[]>>> = {
  [RECOVER.name]: measureRecover,
  [PAUSED.name]: measurePaused,
  [FLOOD.name]: measureFlood,
  [CHURN.name]: measureChurn,
  [REDIAL.name]: measureRedial,
  [BUSY_CASE.name]: measureBusy,
  [UPLOAD.name]: measureUpload,
};

/** Figures about documents, beside the least that does the same. */
const BARE: Readonly<Record<string, (ground: StrainGround) => Promise<Row[]>>> = { [INGEST.name]: measureIngest, [SEARCH.name]: measureSearch };

const known = [...FIGURES.map(({ name }) => name), IDLE.name, ...Object.keys(STRAINS), ...Object.keys(BARE)];
const names = Deno.args.length > 0 ? Deno.args : known;
const unknown = names.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`There is no figure ${unknown.join(", ")}; there are ${known.join(", ")}`);
  Deno.exit(2);
}

const [serverCore, generatorCore] = twoCores();
const folder = Deno.makeTempDirSync({ prefix: "caseroom-bench-" });
const tokens = await Promise.all(Array.from({ length: 100 }, (_, index) => {
  const user = { id: `user_${index}`, name: `User ${index}`, role: "attorney", cases: "*" } as const;
  return sign(SECRET, user, 86_400, Date.now());
}));

Deno.writeTextFileSync(`${folder}/errors`, "");

const rows: Row[] = [];
const strains: Row[] = [];
const raised = new Set<string>();
let rowsChecked = 0;
const begun = Date.now();

/** A figure beside the bare loop. */
async function measure(name: string): Promise<void> {
  const servers = {
    bare: await Server.start("bare.ts", serverCore, folder),
    caseroom: await Server.start("caseroom.ts", serverCore, folder),
  };
  for (const limit of servers.caseroom.ready.raised) raised.add(limit);
  try {
    const figure = FIGURES.find((figure) => figure.name === name);
    const ground = { servers, tokens, core: generatorCore, errors: `${folder}/errors` };
    rows.push(...(figure ? [await measureFigure(figure, ground)] : await measureMemory(IDLE, ground)));
  } finally {
    await Promise.all([servers.bare.end(), servers.caseroom.end()]);
  }
  if (name === "lasting") { for (const { folder } of Object.values(servers)) rowsChecked += checkChains(`${folder}/log.db`); }
}

try {
  for (const name of names) {
    const ground = { folder, serverCore, generatorCore, tokens, raised };
    if (Object.hasOwn(STRAINS, name)) strains.push(...await STRAINS[name](ground));
    else if (Object.hasOwn(BARE, name)) rows.push(...await BARE[name](ground));
    else await measure(name);
  }
} finally {
  const errors = Deno.readTextFileSync(`${folder}/errors`).split("\n").filter((line) => line !== "" && !line.includes('"level":"info"'));
  if (errors.length > 0) console.error(`Errors of the servers or of the generator, ${errors.length} lines:\n${errors.slice(0, 20).join("\n")}`);
  Deno.removeSync(folder, { recursive: true });
}

function table(rows: readonly Row[], base: string, ours: string): void {
  if (rows.length === 0) return;
  console.log(`| figure | ${base} | ${ours} | ratio, median of ${PAIRS} pairs (min to max) | asked | met? |\n|---|---|---|---|---|---|`);
  for (const { what, base, ours, ratio, asked, met } of rows) console.log(`| ${what} | ${base} | ${ours} | ${ratio} | ${asked} | ${met ? "yes" : "no"} |`);
  console.log();
}
table(rows, "bare", "caseroom");
table(strains, "without", "with");
console.log(`Limits raised for Caseroom: ${[...raised].join(", ") || "none"}${strains.length > 0 ? "; paused and flood: none" : ""}.`);
if (rowsChecked > 0) console.log(`Kept alike: ${rowsChecked.toLocaleString("en")} rows of both logs were verified as chains.`);
console.log(`Machine: ${machineLine()}; server on core ${serverCore}, generator on core ${generatorCore}.`);
console.log(
  `Command: \`deno task bench${Deno.args.map((name) => ` ${name}`).join("")}\`, ${Math.round((Date.now() - begun) / 1000)} s, ${new Date().toISOString()}.`,
);
Deno.exit([...rows, ...strains].every(({ met }) => met) ? 0 : 1);
