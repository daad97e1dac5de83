/** The program of a child process: reads, analyses and searches documents, one task at a time. */
import type { Task } from "../documents/tasks.ts";
import { serveTasks } from "./deno_tasks.ts";

await serveTasks(import.meta.url, async (task, note) => {
  const { perform } = await import("../documents/tasks.ts");
  return await perform(task as Task, note);
});
