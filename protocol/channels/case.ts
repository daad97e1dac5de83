/**
 * `case:{caseId}`: all activity of one case, and who is working on it.
 *
 * What back ends publish is checked in the fields named here; what else they say is relayed and kept as it came.
 */
import { z } from "zod";
import { channel, exact, lasting } from "../contract.ts";
import { Activity, Count, Id, Meta, Time, UserRef } from "./common.ts";
import { PrivilegeAnalysis } from "./privilege.ts";

const Status = z.enum(["pending", "processing", "completed", "failed", "archived"]);
/** A document as a back end tells of it. */
export const Document = z.looseObject({
  id: Id,
  case_id: Id.optional(),
  filename: z.string().max(1024).optional(),
  content_type: z.string().max(255).optional(),
  size: Count.optional(),
  hash: z.string().max(255).optional(),
  status: Status.optional(),
  created_at: Time.optional(),
  tags: z.array(z.string().max(255)).max(1000).optional(),
  metadata: z.record(z.string(), z.unknown()).optional(),
  title: z.string().max(1024).optional(),
  summary: z.string().optional(),
  privilege_type: z.string().max(64).optional(),
  custodian: z.string().max(255).optional(),
  author: z.string().max(255).optional(),
  date_created: z.string().max(64).optional(),
});

/** What a join is told of each document; the rest stands in its events. */
export const Listed = Document.pick({ id: true, filename: true, title: true, content_type: true, status: true }).strip();

const Entity = z.object({
  text: z.string(),
  type: z.string().max(64),
  confidence: z.number().optional(),
  count: Count.optional(),
  normalized: z.string().optional(),
});

/** What processing found. */
const Results = z.looseObject({
  entities: z.array(Entity).optional(),
  summary: z.string().optional(),
  privilege_analysis: PrivilegeAnalysis.optional(),
});

const Workflow = {
  workflow_id: Id,
  case_id: Id,
  execution_id: Id.optional(),
  name: z.string().max(255).optional(),
  status: z.string().max(64).optional(),
};

export const caseChannel = channel({
  topic: "case:{caseId}",
  join: {
    payload: z.object({}),
    /** `rights`: what this user may do. `documents`: the newest ones, newest first, unless what was missed is replayed. */
    reply: z.object({ case_id: Id, rights: z.array(z.string()), documents: z.array(Listed).optional(), more_documents: z.boolean().optional() }),
  },
  pushes: {
    "presence:update": { payload: Activity },
  },
  events: {
    /** `released`: it is told again, to those who could not see it until now. */
    "document:uploaded": lasting(z.looseObject({ document: Document, released: z.literal(true).optional() }), { published: true }),
    "document:processed": lasting(
      z.looseObject({ document_id: Id, status: Status, results: Results.optional(), error: z.string().max(1000).optional() }),
      { published: true },
    ),
    /** To those who may not see what is privileged: a document that they saw is not theirs to see any more. */
    "document:withdrawn": lasting(z.object({ document_id: Id })),
    "workflow:started": lasting(z.looseObject({ ...Workflow, started_at: Time.optional() }), { published: true }),
    "workflow:completed": lasting(
      z.looseObject({
        ...Workflow,
        case_id: Id.optional(),
        completed_at: Time.optional(),
        duration_ms: z.number().nonnegative().optional(),
        documents_processed: Count.optional(),
      }),
      { published: true },
    ),
    "user:joined": exact(z.object({ user: UserRef })),
    "user:left": exact(z.object({ user: UserRef })),
  },
  presence: Meta,
});
