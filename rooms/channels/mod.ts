/** Every room that Caseroom runs. A new kind adds a line. */
import type { Room } from "../room.ts";
import { caseRoom } from "./case.ts";
import { documentRoom } from "./document.ts";
import { jobRoom } from "./processing.ts";
import { searchRoom } from "./search.ts";

export const rooms: readonly Room[] = [caseRoom, documentRoom, jobRoom, searchRoom];
