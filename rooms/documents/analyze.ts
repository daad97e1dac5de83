/**
 * Analysis of one document, step by step. It runs in a child process: the text is hostile, and loading `compromise` alone takes longer than a server may
 * stand still. That one asks the environment for DEBUG_TAGS, so a child without permissions is to be started with `--ignore-env`.
 */
import { findEntities } from "./entities.ts";
import { bounded, type Facts, type Results, type Step } from "./results.ts";
import { suggestPrivilege } from "./suggestion.ts";
import { summarize } from "./summary.ts";

export { type Facts, type Results, type Step, STEPS } from "./results.ts";

const RUN: Readonly<Record<Step, (facts: Facts) => Results>> = {
  entity_extraction: findEntities,
  privilege_detection: (facts) => ({ privilege_analysis: suggestPrivilege(facts) }),
  summarization: ({ text }) => ({ summary: summarize(text) }),
};

/**
 * Runs the steps in their order; `began` hears each before it starts. Deterministic; its time is bounded whatever the text. Of a step that breaks down
 * there is no result, but a privilege suggestion there always is. Throws only what `began` throws.
 */
export function analyze(facts: Facts, steps: readonly Step[], began?: (step: Step) => void): Results {
  const results: Results = {};
  for (const step of steps) {
    began?.(step);
    try {
      Object.assign(results, RUN[step](facts));
    } catch {
      // A text that breaks a rule is one nobody has judged.
      if (step === "privilege_detection") Object.assign(results, { privilege_analysis: suggestPrivilege({ text: "" }) });
    }
  }
  return bounded(results);
}
