/** What several channels say alike. */
import { z } from "zod";
import { isName } from "../frame.ts";

/** An id is a name: it stands in topics, and is compared and printed. */
export const Id = z.string().min(1).max(255).refine(isName, "it has control characters or is no well-formed Unicode");
/** Back ends write times with and without an offset. */
export const Time = z.iso.datetime({ offset: true, local: true });
export const Count = z.int().nonnegative();

export const Role = z.enum(["admin", "attorney", "paralegal", "client", "viewer", "service"]);
export const UserRef = z.object({ id: Id, name: z.string(), role: Role });

/** Shown to others, so bounded and free of markup, control and bidirectional characters. */
const Shown = z.string().max(200).transform((text) => text.replace(/[\p{Cc}\p{Cs}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069<>]/gu, "").trim());

/** What a member shows of himself, wherever presence is shown. */
export const Meta = z.object({ name: z.string(), status: z.string(), activity: z.string(), location: z.string(), online_at: Time });

/** What a member may say of himself; what is left out stays as it was. */
export const Activity = z.object({ status: Shown.optional(), activity: Shown.optional(), location: Shown.optional() });
