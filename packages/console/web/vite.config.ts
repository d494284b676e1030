// How the web app is bundled; used by build.ts and by `npx vite packages/console/web` while
// developing, which forwards the API to a server started with `npm start`.

import { fileURLToPath } from "node:url";
import { defineConfig, type UserConfig } from "vite";

const api = { target: process.env.OPEN_INFRA_CONSOLE_API ?? "http://127.0.0.1:8000" };

const config: UserConfig = defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  // Relative addresses, so that the app also works under a path of a reverse proxy.
  base: "./",
  // The pages compute with the packages themselves, taken from their sources: no build comes first.
  resolve: { conditions: ["@open-infra/source", "module", "browser", "import"] },
  worker: { format: "es" },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2023",
    // No data: URLs, so that the content policy needs no exception for them.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // The bundle contains preact, signals and uPlot; their licences ask to be passed on.
    license: { fileName: "licenses.md" },
  },
  server: { proxy: { "/v1": api, "/api": api, "/health": api } },
});

export default config;
