/**
 * The port to a team's own model: what is known of a document goes out as JSON, results come back as JSON. It runs in the server, so it imports nothing that
 * analyses. What comes back is a stranger's: read piece by piece up to a bound, checked, cut, and only what was asked for is kept.
 */
import { z } from "zod";
import { typeOf } from "../../protocol/channels/privilege.ts";
import { bounded, cut, ENTITY_TYPES, type Facts, type Results, type Step } from "./results.ts";

/** What is sent of a text, in UTF-16 units, and read of an answer, in bytes. */
const SENT = 1_000_000;
const READ = 1_048_576;

export interface Question extends Facts {
  readonly document_id: string;
  readonly case_id: string;
}
export type OutsideAnalyzer = (question: Question, steps: readonly Step[], signal: AbortSignal) => Promise<Results>;

const Confidence = z.number().min(0).max(1);
const EntityTypes = z.enum(ENTITY_TYPES);
const Entities = z.array(
  z.object({
    text: z.string().min(1),
    type: z.string().transform((type) => EntityTypes.safeParse(type.toUpperCase()).data),
    confidence: Confidence.default(0.5),
    count: z.int().min(1).default(1),
    normalized: z.string().optional(),
  }),
  // A kind that we have no word for is left out.
).transform((all) => all.flatMap(({ type, ...entity }) => type === undefined ? [] : [{ ...entity, type }]));

const Analysis = z.object({
  is_privileged: z.boolean(),
  // A word that is not ours says that there is something.
  privilege_type: z.string().transform((word) => typeOf(word) ?? "confidential"),
  confidence: Confidence,
  factors: z.array(z.object({ factor: z.string(), weight: z.number().default(0), evidence: z.string().default("") })).default([]),
  recommended_action: z.string().default(""),
  review_required: z.boolean().default(true),
}).transform((analysis) => {
  const is_privileged = analysis.is_privileged || analysis.privilege_type !== "none";
  const privilege_type = is_privileged && analysis.privilege_type === "none" ? "confidential" as const : analysis.privilege_type;
  return { ...analysis, is_privileged, privilege_type };
});

/** What each step must answer, and may. */
const ANSWERS = {
  entity_extraction: z.object({
    entities: Entities,
    key_dates: z.array(z.object({ text: z.string(), date: z.iso.date(), context: z.string().optional() })).optional(),
    monetary_amounts: z.array(z.object({ text: z.string(), amount: z.number(), currency: z.string().max(8), context: z.string().optional() })).optional(),
  }),
  privilege_detection: z.object({ privilege_analysis: Analysis }),
  summarization: z.object({ summary: z.string() }),
} as const satisfies Record<Step, z.ZodType>;

/**
 * Asks the analyzer at `url` by POST: `{document_id, case_id, steps, text, title, author, date, from, to, cc, bcc, subject, filename}`, the text cut to
 * 1,000,000 UTF-16 units. Its answer is JSON of the shape of Results, at most 1 MB, within `timeoutMs` from question to last byte. Redirects are not
 * followed. Rejects with an Error that says what was wrong, and nothing of the text.
 */
export function outsideAnalyzer(url: string, options: { timeoutMs: number; fetch?: typeof fetch }): OutsideAnalyzer {
  const ask = options.fetch ?? fetch;
  return async (question, steps, signal) => {
    const late = AbortSignal.timeout(options.timeoutMs);
    try {
      const response = await ask(url, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/json" },
        body: JSON.stringify({ ...known(question), steps, text: cut(question.text, SENT).toWellFormed() }),
        redirect: "manual",
        signal: AbortSignal.any([signal, late]),
      });
      return resultsOf(await read(response), steps);
    } catch (error) {
      if (error instanceof Failed) throw new Error(`Cannot use the analyzer: ${error.message}`);
      if (signal.aborted) throw new Error("Cannot use the analyzer: it was given up");
      throw new Error(`Cannot use the analyzer: ${late.aborted ? `it took longer than ${options.timeoutMs} ms` : "it cannot be reached or broke off"}`);
    }
  };
}

/** What is wrong in words of our own: those of others may repeat the text or a secret of the address. */
class Failed extends Error {}

function known({ document_id, case_id, title, author, date, from, to, cc, bcc, subject, filename }: Question) {
  return { document_id, case_id, title, author, date, from, to, cc, bcc, subject, filename };
}

async function read(response: Response): Promise<string> {
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Failed(`it answered with status ${response.status}`);
  }
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let length = 0;
  // Leaving the loop cancels the rest.
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > READ) throw new Failed(`its answer is longer than ${READ} bytes`);
    text += decoded(decoder, chunk);
  }
  return text + decoded(decoder);
}

function decoded(decoder: TextDecoder, chunk?: Uint8Array): string {
  try {
    return decoder.decode(chunk, { stream: chunk !== undefined });
  } catch {
    throw new Failed("its answer is not UTF-8");
  }
}

function resultsOf(text: string, steps: readonly Step[]): Results {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Failed("its answer is not JSON");
  }
  const results: Results = {};
  for (const step of steps) {
    const answer = ANSWERS[step].safeParse(json);
    if (!answer.success) throw new Failed(`its answer has the wrong shape: ${answer.error.issues[0].path.join(".") || "it is no object"}`);
    Object.assign(results, answer.data);
  }
  return bounded(results);
}
