/** The privilege call on a document: what analysis suggests until a person decides. Its history is kept by the case. */
import { z } from "zod";
import { Count, Id, Time } from "./common.ts";

const TYPES = ["none", "attorney-client", "work-product", "confidential"] as const;
export type PrivilegeType = (typeof TYPES)[number];

/** As other pages write them. */
const SPELLINGS = { "attorney_client": "attorney-client", "work_product": "work-product", "not_privileged": "none" } as const;

/** The type that a word means; undefined when it is none of ours. */
export function typeOf(word: string): PrivilegeType | undefined {
  return TYPES.find((type) => type === word) ?? (Object.hasOwn(SPELLINGS, word) ? SPELLINGS[word as keyof typeof SPELLINGS] : undefined);
}

/** `suggested` by analysis; `confirmed` or `overridden` by a person. */
export const Privilege = z.object({
  document_id: Id,
  privilege_type: z.enum(TYPES),
  is_privileged: z.boolean(),
  confidence: z.number().min(0).max(1).optional(),
  status: z.enum(["suggested", "confirmed", "overridden"]),
  reason: z.string().optional(),
  reviewed_by: z.object({ id: Id, name: z.string() }).optional(),
  reviewed_at: Time.optional(),
  version: Count,
});
export type Privilege = z.output<typeof Privilege>;

/** What analysis says of a document. */
export const PrivilegeAnalysis = z.looseObject({
  is_privileged: z.boolean(),
  privilege_type: z.string().max(64).optional(),
  confidence: z.number().min(0).max(1).optional(),
  factors: z.array(z.looseObject({ factor: z.string(), weight: z.number().optional(), evidence: z.unknown().optional() })).optional(),
  recommended_action: z.string().optional(),
  review_required: z.boolean().optional(),
});

/** A person's call. `version`: the one that he has seen; another one since then is a conflict. */
export const Decision = z.object({
  privilege_type: z.enum([...TYPES, "attorney_client", "work_product", "not_privileged"]),
  reason: z.string().max(10_000).optional(),
  version: Count.optional(),
});
export type Decision = z.output<typeof Decision>;
