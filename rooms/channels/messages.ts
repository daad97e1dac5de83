/** What the rooms of a case, its documents and its jobs say to each other, and what HTTP asks of them: plain data. */
import type { z } from "zod";
import type { Document, Listed, Metadata, Results, Status } from "../../protocol/channels/case.ts";
import type { Decision, Privilege } from "../../protocol/channels/privilege.ts";
import type { ExceptionCode, Operation, WORKFLOWS } from "../../protocol/channels/processing.ts";
import type { Extracted } from "../documents/formats/extracted.ts";
import type { User } from "../host.ts";

export type Workflow = (typeof WORKFLOWS)[number];
export type DocumentShown = z.output<typeof Document>;

/** A file whose content is kept. `hash`: 64 hexadecimal digits; `size`: bytes. */
export interface Kept {
  readonly filename: string;
  readonly content_type: string;
  readonly size: number;
  readonly hash: string;
  readonly metadata?: z.output<typeof Metadata>;
}

/** What was made of an upload. `duplicate`: the case had it already. */
export interface Uploaded {
  readonly upload_id: string;
  readonly documents: (DocumentShown & { readonly duplicate?: true })[];
  readonly processing_job_id: string;
}

export interface Filters {
  readonly status?: z.output<typeof Status>;
  readonly content_type?: string;
  readonly tag?: string;
  readonly custodian?: string;
}

/** What a case is asked. Each throws Refusal `forbidden` when the user may not be there. */
export type CaseQuestion =
  | { readonly ask: "decide"; readonly document_id: string; readonly decision: Decision; readonly by: { readonly id: string; readonly name: string } }
  | { readonly ask: "upload"; readonly user: User }
  | { readonly ask: "ticket"; readonly user: User; readonly ticket: string }
  | { readonly ask: "register"; readonly user: User; readonly files: readonly Kept[]; readonly workflow: Workflow; readonly ticket?: string }
  | { readonly ask: "documents"; readonly user: User; readonly after: string | null; readonly limit: number; readonly filters: Filters }
  | { readonly ask: "document"; readonly user: User; readonly document_id: string }
  | { readonly ask: "content"; readonly user: User; readonly document_id: string }
  | { readonly ask: "workflow"; readonly user: User; readonly name: Workflow; readonly document_ids: readonly string[] }
  | { readonly ask: "search"; readonly user: User; readonly search_id: string; readonly query: string; readonly filters: unknown }
  | { readonly ask: "found"; readonly user: User; readonly ids: readonly string[]; readonly indexed: number }
  | { readonly ask: "privilege_log"; readonly user: User; readonly after: number; readonly limit: number };

/** What was read in a document, besides its text. */
export type Facts = Omit<Extracted, "text">;

export interface Trouble {
  readonly code: ExceptionCode;
  readonly error: string;
}

/** A file that was found in another one. `attachment`: it inherits its mail's privilege. `member`: one of an archive's. */
export interface Inner {
  readonly filename: string;
  readonly content_type: string;
  readonly size: number;
  readonly hash: string;
  readonly kind: "attachment" | "member";
}

/** What a case is told. */
export type CaseCall =
  | { readonly tell: "inner"; readonly job_id: string; readonly document_id: string; readonly files: readonly Inner[] }
  | {
    readonly tell: "processed";
    readonly job_id: string;
    readonly document_id: string;
    readonly facts?: Facts;
    readonly results?: z.output<typeof Results>;
    readonly trouble?: Trouble;
    /** What hangs on it. */
    readonly inner?: readonly Inner[];
  }
  | { readonly tell: "ended"; readonly job_id: string; readonly name: Workflow; readonly duration_ms: number };

/** A document as a job needs it. */
export interface JobDocument {
  readonly id: string;
  readonly hash: string;
  readonly filename: string;
  readonly content_type: string;
  readonly visible: boolean;
  /** It was uploaded with this job, by its user. */
  readonly own: boolean;
  /** The case has it already, and its sender may not know: it is read as any other, for nothing. */
  readonly phantom?: true;
  readonly tags: readonly string[];
  readonly custodian: string;
}

/** What a job is told by its case. */
export type JobCall =
  | {
    readonly tell: "begin";
    readonly case_id: string;
    readonly name: Workflow;
    readonly user_id: string;
    readonly documents: readonly JobDocument[];
  }
  | { readonly tell: "more"; readonly documents: readonly JobDocument[] }
  /** The case has taken what was read in it. */
  | { readonly tell: "done"; readonly document_id: string }
  | { readonly tell: "visible"; readonly document_id: string; readonly visible: boolean };

/** What the host is asked to do. */
export type Labour =
  | { readonly do: "keep"; readonly content_base64: string }
  | {
    readonly do: "process";
    readonly case_id: string;
    readonly document: JobDocument;
    readonly operations: readonly Operation[];
  }
  | { readonly do: "summarize"; readonly case_id: string; readonly document: JobDocument }
  | { readonly do: "mark"; readonly case_id: string; readonly changes: readonly Mark[] }
  | { readonly do: "text"; readonly case_id: string; readonly document_id: string; readonly from: number; readonly length: number }
  | {
    readonly do: "search";
    readonly case_id: string;
    readonly query: string;
    readonly all: boolean;
    readonly dates: { readonly start?: string; readonly end?: string };
    readonly limit: number;
    readonly candidates: number;
    readonly deadline_ms: number;
    /** Only what came or changed after that. */
    readonly after?: number;
  };

/** What a document's place in the index is to say besides its text: of two sources, each with a revision of its own. */
export interface Mark {
  readonly id: string;
  readonly revision?: number;
  readonly visible?: boolean;
  readonly coding?: number;
  readonly coded?: readonly string[];
}

/** What came of `process`. */
export interface Processed {
  readonly facts?: Facts;
  readonly results?: z.output<typeof Results>;
  readonly trouble?: Trouble;
  readonly inner?: readonly Inner[];
}

/** What came of `search`. `documents`: how many there are in the index; `change`: how far it is. */
export interface Searched {
  readonly results: readonly { readonly id: string; readonly score: number; readonly snippets: readonly string[] }[];
  readonly total: number;
  readonly exact: boolean;
  readonly documents: number;
  readonly change: number;
}

/** What a document's room is told by its case; each time all of it, with a revision that grows. */
export interface Registration {
  readonly case_id: string;
  readonly revision: number;
  /** To those who may not see what is privileged. */
  readonly visible: boolean;
  readonly document: z.input<typeof Listed>;
  readonly privilege: Privilege | null;
}
