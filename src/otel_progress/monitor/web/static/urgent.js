// Opens the most urgent operation once, while nobody has chosen one: its half of the page would be empty.
import { effect } from "./html.js";
import { loaded } from "./live.js";
import { selected } from "./selection.js";
import { plan } from "./state.js";

const wide = matchMedia("(min-width: 821px)"); // narrower, an operation covers the list
let chosen = false;

effect(() => {
  if (selected.value != null) chosen = true;
  if (chosen || !loaded.value || !wide.matches) return;
  const worst = plan.value.parts.find((part) => part.group.trouble && part.rows.length)?.rows[0];
  if (worst) selected.value = worst.id; // not in the address, which still means the list
});
