/** What went wrong, in sentences: refusals of the server name the parameter, failures of a task carry its message. */

/** The sentences for an error that a handle, or its `cancel()`, rejected with. */
export function sentences(error) {
  if (error.name === "TaskFailed") return [error.message];
  const found = [...leaves(error.detail?.inputs ?? error.detail)];
  return found.length > 0 ? found : [error.message || "The server refused, and did not say why."];
}

/** The names of the inputs that the server found fault with. */
export function refusedInputs(error) {
  return Object.keys(error.detail?.inputs ?? {});
}

/** "numbers, item 2: A valid number is required.": each sentence of a detail, led by the path to it. */
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
