// What the other modules need of the vendored libraries, under one name.
import { Fragment, h, render } from "./vendor/preact.js";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { batch, computed, effect, signal } from "./vendor/signals.js";
import htm from "./vendor/htm.js";

/** Makes elements; inserted values are always text, never HTML. */
export const html = htm.bind(h);
export { Fragment, batch, computed, effect, h, render, signal, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };
