// Entry of the web app: makes the services and mounts the shell.

import { type ReadonlySignal, signal } from "@preact/signals";
import { render } from "preact";
import { App } from "./app.tsx";
import { AppServices } from "./app-services.ts";
import { parseHash, type Route } from "./router.ts";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";

const root = document.getElementById("app");
if (root === null) throw new Error("index.html has no element with the id app");
render(<App services={new AppServices(document.baseURI)} route={followHash(window)} />, root);

/** The present route, following links and the browser's history for as long as the page lives. */
function followHash(target: Window): ReadonlySignal<Route> {
  const route = signal(parseHash(target.location.hash));
  target.addEventListener("hashchange", () => {
    route.value = parseHash(target.location.hash);
  });
  return route;
}
