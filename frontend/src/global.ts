/**
 * The script for a script tag: makes the client the global `TaskAPI` of a page or a worker.
 *
 * A page may load the script twice, from its base template and from a widget. The first copy stays, with its options,
 * its runs, its socket and its error classes.
 */

import tasks from "./index.js";

/** The version of the client that the page has; undefined if it has none, or if something else is called `TaskAPI`. */
function presentVersion(): string | undefined {
  const present: unknown = Reflect.get(self, "TaskAPI");
  if (typeof present !== "object" || present === null) return undefined;
  const { version, attach } = present as { version?: unknown; attach?: unknown };
  return typeof version === "string" && typeof attach === "function" ? version : undefined;
}

const present = presentVersion();
if (present === undefined) Object.assign(self, { TaskAPI: tasks });
else if (present !== tasks.version) {
  console.warn(
    `TaskAPI ${tasks.version} was not loaded: the page has TaskAPI ${present} already. Load only one of them.`,
  );
}
