/**
 * `case:{caseId}`: all activity of one case, and who is working on it.
 *
 * What back ends publish is checked in the fields named here; what else they say is relayed and kept as it came.
 */
import { z } from "zod";
import { channel, exact, lasting, recorded } from "../contract.ts";
import { Activity, Count, Id, Meta, Time, UserRef } from "./common.ts";
import { Privilege, PrivilegeAnalysis } from "./privilege.ts";
import { WORKFLOWS } from "./processing.ts";

export const Status = z.enum(["pending", "processing", "completed", "failed", "archived"]);
/** A document as a back end tells of it, and as this server does of one that was uploaded here. `hash`: `sha256:` and 64 hexadecimal digits. */
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
  /** The archive that it came in, for those who see all. */
  archive: z.object({ id: Id, filename: z.string() }).optional(),
  /** The documents that it is attached to, of those that the reader may see. */
  parent_ids: z.array(Id).optional(),
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
export const Results = z.looseObject({
  entities: z.array(Entity).optional(),
  key_dates: z.array(z.object({ text: z.string(), date: z.string(), context: z.string().optional() })).optional(),
  monetary_amounts: z.array(z.object({ text: z.string(), amount: z.number(), currency: z.string(), context: z.string().optional() })).optional(),
  summary: z.string().optional(),
  privilege_analysis: PrivilegeAnalysis.optional(),
});

/** What an uploader says of a document. */
export const Metadata = z.object({
  tags: z.array(z.string().trim().min(1).max(255)).max(100).optional(),
  title: z.string().max(1024).optional(),
  custodian: z.string().max(255).optional(),
}).catchall(z.union([z.string().max(1024), z.number(), z.boolean(), z.null()])).refine(
  (metadata) => Object.keys(metadata).length <= 100,
  "it has more than 100 fields",
);

/** A file in JSON: with its content when that is small; a browser's `File` is `{}` there. */
const FileRef = z.looseObject({
  name: z.string().max(1024).optional(),
  type: z.string().max(255).optional(),
  content_base64: z.base64().optional(),
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
    /** A file whose content is not in it is to be sent to `upload.url`, once, by the same user. */
    "add:document": {
      payload: z.object({ file: FileRef, metadata: Metadata.optional() }),
      reply: z.object({
        document: Document.optional(),
        duplicate: z.literal(true).optional(),
        processing_job_id: Id.optional(),
        upload: z.object({ url: z.string(), method: z.literal("PUT"), expires_at: Time }).optional(),
      }),
    },
    start_workflow: {
      payload: z.object({ name: z.enum(WORKFLOWS).default("processing"), document_ids: z.array(Id).min(1).max(1000) }),
      reply: z.object({ workflow_id: Id, processing_job_id: Id }),
    },
    /** `pending`: there is none yet; `document:processed` will bring it. `failed`: the document could not be read. */
    "request:summary": {
      payload: z.object({ document_id: Id }),
      reply: z.object({ document_id: Id, status: z.enum(["completed", "pending", "failed"]), summary: z.string().optional() }),
    },
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
    /** A person called a document privileged, or not. */
    "privilege:decided": recorded(z.object({ document_id: Id, privilege: Privilege })),
    /** Somebody searched this case. */
    searched: recorded(z.object({ search_id: Id, query: z.string(), filters: z.unknown() })),
    "user:joined": exact(z.object({ user: UserRef })),
    "user:left": exact(z.object({ user: UserRef })),
  },
  presence: Meta,
});
