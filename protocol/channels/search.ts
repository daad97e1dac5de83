/** `search:live` and any other `search:{name}`: documents are found as one types. What is found is told to nobody else. */
import { z } from "zod";
import { channel, exact } from "../contract.ts";
import { Count, Id } from "./common.ts";

const Day = z.iso.date();

/** A document that was found. `score`: higher is better, within one case. `snippets`: escaped for HTML, with what matched in `<mark>`. */
export const Found = z.object({
  id: Id,
  document_id: Id,
  case_id: Id,
  title: z.string(),
  filename: z.string().optional(),
  content_type: z.string().optional(),
  score: z.number(),
  snippets: z.array(z.string()),
  metadata: z.object({ date: z.string().optional(), author: z.string().optional(), document_type: z.string().optional() }),
});

/** `search_time`, in milliseconds; `search_time_ms` says the same under a name that says so. */
const Complete = z.object({
  search_id: Id,
  total_results: Count,
  /** Whether there are no more than that. */
  total_is_exact: z.boolean(),
  search_time: z.number(),
  search_time_ms: z.number(),
  /** Cases that could not be searched to the end. */
  incomplete: z.array(z.object({ case_id: Id, reason: z.string() })).optional(),
});

export const searchChannel = channel({
  topic: "search:{name}",
  join: { payload: z.object({}), reply: z.object({}) },
  pushes: {
    /**
     * Without `case_ids`: in every case of the token. `date_range`: days, both included. `limit`: results of one case.
     * `stream: false`: the reply has them all. `live`: what is processed later is told too, until the search is cancelled.
     */
    search: {
      payload: z.object({
        query: z.string(),
        filters: z.object({
          case_ids: z.array(Id).max(100).optional(),
          date_range: z.object({ start: Day.optional(), end: Day.optional() }).optional(),
        }).default({}),
        stream: z.boolean().default(true),
        live: z.boolean().default(false),
        limit: z.int().min(1).max(1000).default(100),
      }),
      reply: z.object({ search_id: Id, results: z.array(Found).optional(), ...Complete.partial().omit({ search_id: true }).shape }),
    },
    cancel_search: { payload: z.object({ search_id: Id }) },
  },
  events: {
    /** `total_so_far`: 1, 2, 3 … of this search. */
    result: exact(z.object({ search_id: Id, document: Found, total_so_far: Count }), { alias: "search:result" }),
    "search:complete": exact(Complete),
  },
});
