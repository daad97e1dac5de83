/** Every channel that Caseroom speaks. A new kind adds a line. */
import type { Channel } from "../contract.ts";
import { caseChannel } from "./case.ts";
import { collaborationChannel } from "./collaboration.ts";
import { documentChannel } from "./document.ts";
import { processingChannel } from "./processing.ts";
import { searchChannel } from "./search.ts";

export const channels: readonly Channel[] = [caseChannel, documentChannel, collaborationChannel, processingChannel, searchChannel];
