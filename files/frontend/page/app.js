// Starts everything. One question a second, and what hangs on its answer.

import { offerAdding } from "./add.js";
import { offerBurst } from "./burst.js";
import { showConfig } from "./config.js";
import { follow } from "./contact.js";
import { followItems, offerItems } from "./items.js";
import { showTopology } from "./topology.js";
import { countVisit } from "./visits.js";

offerBurst();
offerAdding();
offerItems();
follow((status) => {
  showConfig(status.config);
  showTopology(status);
  followItems(status);
  countVisit(status);
});
