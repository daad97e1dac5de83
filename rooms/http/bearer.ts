/** Who asks, over HTTP. */
import { byteLength, isName } from "../../protocol/frame.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import type { Limits } from "../limits.ts";
import type { Verify } from "../token.ts";

/** The token of an `Authorization: Bearer` header. */
export function bearerToken(header: string | undefined): string | undefined {
  return /^Bearer +(\S+)$/i.exec(header ?? "")?.[1];
}

/** The user of such a header. Throws Refusal. */
export async function bearer(header: string | undefined, verify: Verify): Promise<User> {
  const token = bearerToken(header);
  if (!token) throw new Refusal("unauthenticated", { message: "send `Authorization: Bearer <token>`" });
  return (await verify(token)).user;
}

/** An id in the path, of a topic `kind:id`. Throws Refusal `not_found`: there can be no such topic. */
export function nameIn(url: string, index: number, kind: string, limits: Limits): string {
  return checkName(pathPart(url, index), kind, limits);
}

/** An id of a topic `kind:id`, or what may be one. Throws Refusal `not_found`. */
export function checkName(name: string | undefined, kind: string, limits: Limits): string {
  if (!name || !isName(name) || byteLength(`${kind}:${name}`) > limits.topic_bytes) throw new Refusal("not_found");
  return name;
}

/** Entries of one page: unless said otherwise, and at most. */
const [DEFAULT, MOST] = [100, 1000];

/** How many entries a page is to have. Throws Refusal. */
export function pageSize(said = String(DEFAULT)): number {
  if (!/^[1-9]\d{0,3}$/.test(said) || Number(said) > MOST) {
    throw new Refusal("invalid_payload", { message: `limit: it is no number from 1 to ${MOST}`, limit: MOST });
  }
  return Number(said);
}

/** A part of the path, strictly decoded: one that is no UTF-8 names nothing. */
export function pathPart(url: string, index: number): string | undefined {
  try {
    return decodeURIComponent(new URL(url).pathname.split("/")[index]);
  } catch {
    return undefined;
  }
}
