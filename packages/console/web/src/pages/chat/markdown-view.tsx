// Draws parsed Markdown as nodes. Text only ever becomes text nodes; there is no HTML string here.

import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import { type Block, headingText, parseBlocks, parseInline } from "./markdown.ts";

/** Longer paragraphs are shown as plain text: nobody writes them, and marking them costs time. */
const INLINE_CHARS_MAX = 20_000;

/** A model's answer. */
export function Markdown({ text }: { readonly text: string }): VNode {
  return (
    <div class="markdown">
      {parseBlocks(text).map((block, index) => (
        <BlockView key={`${index}:${block.kind}`} block={block} />
      ))}
    </div>
  );
}

function BlockView({ block }: { readonly block: Block }): VNode {
  // The same node for the same source: while text streams in, only the last block changes.
  return useMemo(() => drawBlock(block), [block.kind, block.source]);
}

function drawBlock(block: Block): VNode {
  switch (block.kind) {
    case "code":
      return <CodeBlock lang={block.lang} text={block.text} />;
    case "heading":
      return (
        <Heading level={block.level}>
          <Inlines text={headingText(block.source)} />
        </Heading>
      );
    case "list":
      return (
        <ul class="md-list">
          {block.items.map((item, index) => (
            <li key={index} data-depth={item.depth}>
              <span class="md-marker">{item.marker}</span>
              <span>
                <Inlines text={item.text} />
              </span>
            </li>
          ))}
        </ul>
      );
    case "paragraph":
      return (
        <p>
          <Inlines text={block.source} />
        </p>
      );
  }
}

/** Two levels down: the page's own headings are levels 1 and 2. */
function Heading({ level, children }: { readonly level: number; readonly children: VNode }): VNode {
  if (level === 1) return <h3 class="md-heading">{children}</h3>;
  if (level === 2) return <h4 class="md-heading">{children}</h4>;
  return <h5 class="md-heading">{children}</h5>;
}

function Inlines({ text }: { readonly text: string }): VNode {
  if (text.length > INLINE_CHARS_MAX) return <>{text}</>;
  const parts = parseInline(text).map((part, index) => {
    if (part.kind === "code") return <code key={index}>{part.text}</code>;
    if (part.kind === "strong") return <strong key={index}>{part.text}</strong>;
    if (part.kind === "emphasis") return <em key={index}>{part.text}</em>;
    return part.text;
  });
  return <>{parts}</>;
}

function CodeBlock({ lang, text }: { readonly lang: string; readonly text: string }): VNode {
  return (
    <figure class="code-block">
      <figcaption>
        <span>{lang || "code"}</span>
        <CopyButton text={text} />
      </figcaption>
      <pre>
        <code>{text}</code>
      </pre>
    </figure>
  );
}

/** Copies text; says when it did, and when the browser does not allow it. */
export function CopyButton({ text }: { readonly text: string }): VNode {
  const [label, setLabel] = useState("Copy");
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      setLabel("Copied");
    } catch {
      // Browsers offer the clipboard on https and localhost only.
      setLabel("Not allowed here");
    }
    setTimeout(() => setLabel("Copy"), 1500);
  };
  return (
    <button type="button" class="quiet-button" onClick={() => void copy()}>
      {label}
    </button>
  );
}
