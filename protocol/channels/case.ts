/**
 * `case:{caseId}`: all activity of one case, and who is working on it.
 *
 * What back ends publish is checked in the fields named here; what else they say is relayed and kept as it came.
 */
import { z } from "zod";
import { channel, exact, lasting } from "../contract.ts";

const Id = z.string().min(1).max(255);
/** Back ends write times with and without an offset. */
const Time = z.iso.datetime({ offset: true, local: true });
const Status = z.enum(["pending", "processing", "completed", "failed", "archived"]);
const Count = z.int().nonnegative();

/** Shown to others, so bounded and free of markup, control and bidirectional characters. */
const Shown = z.string().max(200).transform((text) => text.replace(/[\p{Cc}\p{Cs}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069<>]/gu, "").trim());

export const Role = z.enum(["admin", "attorney", "paralegal", "client", "viewer", "service"]);

export const UserRef = z.object({ id: Id, name: z.string(), role: Role });

/** A document as the case lists it. */
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

const Entity = z.object({
  text: z.string(),
  type: z.string().max(64),
  confidence: z.number().optional(),
  count: Count.optional(),
  normalized: z.string().optional(),
});

/** What processing found. */
const Results = z.looseObject({ entities: z.array(Entity).optional(), summary: z.string().optional() });

const Workflow = {
  workflow_id: Id,
  case_id: Id,
  execution_id: Id.optional(),
  name: z.string().max(255).optional(),
  status: z.string().max(64).optional(),
};

/** What a member may say of himself; what is left out stays as it was. */
const Activity = z.object({ status: Shown.optional(), activity: Shown.optional(), location: Shown.optional() });

export const caseChannel = channel({
  topic: "case:{caseId}",
  join: {
    payload: z.object({}),
    /** `cursor`: where the case's log stands now, null while nothing has happened. `rights`: what this user may do. */
    reply: z.object({ case_id: Id, cursor: z.string().nullable(), rights: z.array(z.string()) }),
  },
  pushes: {
    "presence:update": { payload: Activity },
  },
  events: {
    "document:uploaded": lasting(z.looseObject({ document: Document }), { published: true }),
    "document:processed": lasting(
      z.looseObject({ document_id: Id, status: Status, results: Results.optional(), error: z.string().max(1000).optional() }),
      { published: true },
    ),
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
  presence: z.object({ name: z.string(), status: z.string(), activity: z.string(), location: z.string(), online_at: Time }),
});
