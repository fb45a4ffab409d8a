/**
 * What the script tag gives: the client as the global `TaskAPI`, of a page or of a worker.
 *
 * A page may have the tag twice, in its base and in a widget: the first copy stays, with its options, its runs and its
 * socket, and with the classes that the page compares errors with.
 */

import tasks from "./index.js";

/** The version of the client that is there already; undefined where there is none, or something else has its name. */
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
    `TaskAPI ${tasks.version} was loaded on a page that has TaskAPI ${present}, which stays. Load one of them only.`,
  );
}
