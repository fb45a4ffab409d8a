/** Errors as sentences: a refusal of the server names the parameter, a failure of a task has its message. */

/** Returns the sentences for an error with which a handle, or its `cancel()`, rejected. */
export function sentences(error) {
  if (error.name === "TaskFailed") return [error.message];
  if (typeof error.detail?.detail === "string") return [error.message || error.detail.detail]; // of an upload that was refused
  const found = [...leaves(error.detail?.inputs ?? error.detail)];
  return found.length > 0 ? found : [error.message || "The server refused without saying why."];
}

/** Returns the names of the inputs that the server refused. */
export function refusedInputs(error) {
  return Object.keys(error.detail?.inputs ?? {});
}

/** Yields each sentence of a detail with its path: "numbers, item 2: A valid number is required." */
function* leaves(detail, path = []) {
  if (typeof detail === "string") {
    yield path.length > 0 ? `${path.join(", ")}: ${detail}` : detail;
  } else if (Array.isArray(detail)) {
    for (const [index, item] of detail.entries()) yield* leaves(item, typeof item === "string" ? path : [...path, place(index)]);
  } else if (detail !== null && typeof detail === "object") {
    for (const [key, item] of Object.entries(detail)) yield* leaves(item, [...path, /^\d+$/.test(key) ? place(Number(key)) : key]);
  }
}

const place = (index) => `item ${index + 1}`;
