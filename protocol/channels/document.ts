/** `document:{documentId}`: what reviewers mark, say and decide on one document, and who has it open. */
import { z } from "zod";
import { channel, Encrypted, lasting, passing } from "../contract.ts";
import { Listed } from "./case.ts";
import { Activity, Count, Id, Meta, Time, UserRef } from "./common.ts";
import { Decision, Privilege } from "./privilege.ts";

const Text = z.string().max(20_000);
const Position = z.object({ page: z.int().positive(), x: z.number(), y: z.number() });
/** Where in the text, by the W3C's Web Annotation model: robust against another layout. */
const Selector = z.union([
  z.object({ type: z.literal("TextQuoteSelector"), exact: Text, prefix: Text.optional(), suffix: Text.optional() }),
  z.object({ type: z.literal("TextPositionSelector"), start: Count, end: Count }),
]);
const Mark = z.object({
  type: z.enum(["highlight", "note", "redaction"]).default("highlight"),
  text: Text.default(""),
  position: Position.optional(),
  selector: z.union([Selector, z.array(Selector).max(4)]).optional(),
  /** The annotation that it answers. */
  reply_to: Id.optional(),
});

/** Who made it and when; encrypted ones show no more than that. */
const Made = z.object({ id: Id, document_id: Id, user: z.object({ id: Id, name: z.string() }), created_at: Time, updated_at: Time.optional(), version: Count });
export const Annotation = z.object({ ...Made.shape, ...Mark.shape, type: z.enum(["highlight", "note", "redaction"]), text: z.string() });
const Shown = z.union([z.object({ annotation: Annotation }), z.object({ annotation: Made, encrypted: Encrypted })]);

/** How reviewers code it. */
const Coding = z.object({ responsive: z.boolean().nullable(), hot: z.boolean(), tags: z.array(z.string()), version: Count });
const Tag = z.string().trim().min(1).max(100);

export const documentChannel = channel({
  topic: "document:{documentId}",
  join: {
    /** `capabilities`: the rights that this session wants, of those that its user has; all of them when it says nothing. */
    payload: z.object({ capabilities: z.array(z.string().max(64)).max(32).optional() }),
    /** `annotations`: the newest, oldest first, unless what was missed is replayed. `viewing`: who has it open, the joiner too. */
    reply: z.object({
      document_id: Id,
      case_id: Id,
      capabilities: z.array(z.string()),
      document: Listed.optional(),
      privilege: Privilege.nullable(),
      coding: Coding,
      annotations: z.array(Shown).optional(),
      more_annotations: z.boolean().optional(),
      viewing: z.array(UserRef),
    }),
  },
  pushes: {
    add_annotation: { payload: Mark, reply: Shown, encrypted: true },
    /** What is left out stays. `version`: the one that was seen. */
    update_annotation: {
      payload: z.object({
        annotation_id: Id,
        version: Count,
        text: Text.optional(),
        position: Position.optional(),
        selector: Mark.shape.selector,
      }),
      reply: Shown,
    },
    remove_annotation: { payload: z.object({ annotation_id: Id }) },
    update_privilege: { payload: Decision, reply: z.object({ privilege: Privilege }) },
    /** What is left out stays; `responsive: null` takes the call back. */
    code: {
      payload: z.object({ responsive: z.boolean().nullable().optional(), hot: z.boolean().optional(), tags: z.array(Tag).max(100).optional() }),
      reply: z.object({ coding: Coding }),
    },
    "presence:update": { payload: Activity },
  },
  events: {
    "annotation:added": lasting(Shown),
    "annotation:updated": lasting(Shown),
    "annotation:removed": lasting(z.object({ annotation_id: Id, user: z.object({ id: Id, name: z.string() }) })),
    "privilege:updated": lasting(z.object({ privilege: Privilege })),
    "document:coded": lasting(z.object({ coding: Coding, user: z.object({ id: Id, name: z.string() }) })),
    "user:viewing": passing(z.object({ user: UserRef })),
  },
  presence: Meta,
});
