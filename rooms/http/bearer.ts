/** Who asks, over HTTP. */
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
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

/** A part of the path, strictly decoded: one that is no UTF-8 names nothing. */
export function pathPart(url: string, index: number): string | undefined {
  try {
    return decodeURIComponent(new URL(url).pathname.split("/")[index]);
  } catch {
    return undefined;
  }
}
