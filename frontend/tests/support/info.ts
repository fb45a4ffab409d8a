/** Representations for tests that need no server. */

import type { TaskInfo } from "../../src/protocol.js";

export const UUID = "6b0f3a4e-0000-4000-8000-000000000000";

export const infoOf = (fields: Partial<TaskInfo> = {}): TaskInfo => ({
  uuid: UUID,
  task: "sum",
  status: "running",
  progress: null,
  target: null,
  inputs: {},
  outputs: null,
  messages: [],
  message_count: fields.messages?.length ?? 0,
  error: null,
  attempt: 1,
  seq: 1,
  cancel_requested: false,
  created: "2026-01-02T03:04:05Z",
  started: null,
  finished: null,
  ...fields,
});
