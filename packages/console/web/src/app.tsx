// The shell around every page: navigation, the server's state, the key, and the outlet that loads
// and shows the page of the present address.

import type { ReadonlySignal } from "@preact/signals";
import { Component, type ComponentType, type VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { AppServices } from "./app-services.ts";
import { type Page, type PageProps, pages } from "./pages.ts";
import type { Route } from "./router.ts";
import { ApiKeyButton } from "./ui/api-key.tsx";
import { Mark } from "./ui/mark.tsx";
import { FeedBanner, ServerStatus } from "./ui/server-status.tsx";

export interface AppProps {
  readonly services: AppServices;
  readonly route: ReadonlySignal<Route>;
}

/** The whole app. */
export function App({ services, route }: AppProps): VNode {
  const { path, rest } = route.value;
  const page = path === "" ? pages[0] : pages.find((candidate) => candidate.path === path);
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${page?.title ?? "Not found"} · Open Infra`;
    // A reader of the screen must hear of the new page; the first one announces itself.
    if (!first.current) main.current?.focus({ preventScroll: true });
    first.current = false;
  }, [page]);
  return (
    <div class="shell">
      <button type="button" class="skip-link" onClick={() => main.current?.focus()}>
        Skip to the page
      </button>
      <header class="rail">
        <a class="brand" href="#/" aria-label="Open Infra, home">
          <Mark />
          <span>Open Infra</span>
        </a>
        <nav aria-label="Pages">
          {pages.map(({ path: address, title }) => (
            <a
              key={address}
              href={`#/${address}`}
              aria-current={page?.path === address ? "page" : undefined}
            >
              {title}
            </a>
          ))}
        </nav>
        <div class="rail-foot">
          <ServerStatus services={services} />
          <ApiKeyButton services={services} />
        </div>
      </header>
      <main ref={main} tabIndex={-1}>
        <FeedBanner services={services} />
        {page === undefined ? (
          <NotFound path={path} />
        ) : (
          <Outlet key={page.path} page={page} props={{ services, rest }} />
        )}
      </main>
    </div>
  );
}

function NotFound({ path }: { readonly path: string }): VNode {
  return (
    <div class="empty">
      <h1>No such page</h1>
      <p>
        There is nothing at <code>#/{path}</code>. <a href="#/">Go to the first page</a>
      </p>
    </div>
  );
}

type Loaded = { readonly view: ComponentType<PageProps> } | { readonly error: string };

/** Loads the page's code and shows it, or why it cannot be shown. */
function Outlet({ page, props }: { readonly page: Page; readonly props: PageProps }): VNode | null {
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  useEffect(() => {
    let wanted = true;
    page.load().then(
      (module) => wanted && setLoaded({ view: module.default }),
      (error: unknown) => wanted && setLoaded({ error: String(error) }),
    );
    return () => {
      wanted = false;
    };
  }, [page]);
  if (loaded === null) return null;
  if ("error" in loaded) return <PageFailure title={page.title} reason={loaded.error} />;
  const View = loaded.view;
  return (
    <Guard title={page.title}>
      <View {...props} />
    </Guard>
  );
}

interface GuardProps {
  readonly title: string;
  readonly children: VNode;
}

/** Keeps the navigation usable when a page throws while drawing. */
class Guard extends Component<GuardProps, { readonly reason?: string }> {
  static override getDerivedStateFromError(error: unknown): { reason: string } {
    return { reason: error instanceof Error ? error.message : String(error) };
  }

  override render(): VNode {
    const { reason } = this.state;
    if (reason === undefined) return this.props.children;
    return <PageFailure title={this.props.title} reason={reason} />;
  }
}

function PageFailure({
  title,
  reason,
}: {
  readonly title: string;
  readonly reason: string;
}): VNode {
  return (
    <div class="empty" role="alert">
      <h1>{title} cannot be shown</h1>
      <p>{reason}</p>
      <p>
        <button type="button" class="button" onClick={() => location.reload()}>
          Reload
        </button>
      </p>
    </div>
  );
}
