/** `processing:{jobId}`: how far a job is with its documents. What it tells each member is what he may see of it. */
import { z } from "zod";
import { channel, exact } from "../contract.ts";
import { Count, Id, Time } from "./common.ts";

/** What is done with a document, in this order. */
export const OPERATIONS = ["text_extraction", "entity_extraction", "privilege_detection", "summarization"] as const;
export type Operation = (typeof OPERATIONS)[number];
/** Each of them alone, or all. */
export const WORKFLOWS = ["processing", ...OPERATIONS] as const;

/** Why a document could not be read. */
export const EXCEPTIONS = {
  empty: "there is nothing in it",
  unsupported: "it is of a kind that cannot be read here",
  encrypted: "it needs a password",
  damaged: "it is broken or cut off",
  no_text: "it is a scan without text",
  too_large: "there is more in it than can be read",
  too_deep: "it is nested too deeply",
  wrong_type: "it is not what its name says",
  timeout: "reading it took too long",
  crashed: "reading it crashed the reader",
  memory: "reading it took too much memory",
  failed: "it could not be worked on",
} as const;
export type ExceptionCode = keyof typeof EXCEPTIONS;

const Exception = z.object({ document_id: Id, filename: z.string(), code: z.enum(Object.keys(EXCEPTIONS) as [ExceptionCode]), error: z.string() });

/** `percentage`: 0 to 100, never less than before. `completed` and `failed` are counted in documents. */
const Progress = z.object({
  job_id: Id,
  percentage: z.number().min(0).max(100),
  current_operation: z.string(),
  completed: Count,
  failed: Count,
  total: Count,
  estimated_completion: Time.nullable(),
});

/** How a job ended. `errors` are the first hundred. */
const Summary = z.object({ total_documents: Count, completed: Count, failed: Count, duration_ms: Count, errors: z.array(Exception) });

export const processingChannel = channel({
  topic: "processing:{jobId}",
  join: {
    payload: z.object({}),
    reply: z.object({
      ...Progress.shape,
      case_id: Id,
      name: z.enum(WORKFLOWS),
      status: z.enum(["running", "completed"]),
      started_at: Time,
      exceptions: z.array(Exception),
      summary: Summary.optional(),
    }),
  },
  pushes: {
    /** Runs the job again for documents that could not be read, all of them when none is named: as a job of its own. */
    retry_exceptions: {
      payload: z.object({ document_ids: z.array(Id).min(1).max(1000).optional() }),
      reply: z.object({ processing_job_id: Id, document_ids: z.array(Id) }),
    },
  },
  events: {
    progress: exact(Progress, { alias: "processing:progress" }),
    "document:completed": exact(z.object({ document_id: Id, results: z.looseObject({}) })),
    /** A document could not be read; the job goes on. An ordinary event: the channel is as well as ever. */
    error: exact(Exception),
    "job:completed": exact(z.object({ job_id: Id, summary: Summary })),
  },
});
