// The pages of the console, in the order of the navigation. To add one: a folder in pages/ whose
// page.tsx exports a component as default, and a line here.

import type { ComponentType } from "preact";
import type { AppServices } from "./app-services.ts";

export interface PageProps {
  readonly services: AppServices;
  /** What follows the page's own path in the address, without the slash; "" mostly. */
  readonly rest: string;
}

export interface Page {
  /** The page's address is `#/` and this. */
  readonly path: string;
  readonly title: string;
  /** Loaded on the first visit, so that a page costs nothing to those who never open it. */
  readonly load: () => Promise<{ readonly default: ComponentType<PageProps> }>;
}

/** Every page; the first is the home page. */
export const pages: readonly [Page, ...Page[]] = [
  { path: "chat", title: "Chat", load: () => import("./pages/chat/page.tsx") },
  { path: "engine", title: "Engine", load: () => import("./pages/engine/page.tsx") },
  { path: "trace", title: "Trace", load: () => import("./pages/trace/page.tsx") },
  { path: "experts", title: "Experts", load: () => import("./pages/experts/page.tsx") },
  { path: "jobs", title: "Jobs", load: () => import("./pages/jobs/page.tsx") },
  { path: "pipeline", title: "Pipeline", load: () => import("./pages/pipeline/page.tsx") },
];
