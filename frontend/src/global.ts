/** What the script tag gives: the client as the global `TaskAPI`, of a page or of a worker. */

import tasks from "./index.js";

Object.assign(self, { TaskAPI: tasks });
