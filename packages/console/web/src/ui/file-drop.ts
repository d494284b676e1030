// Files let go anywhere over the window.

import { useEffect, useRef, useState } from "preact/hooks";

/** Takes a file dropped on the window; true while one is held over it. */
export function useFileDrop(open: (file: File) => void): boolean {
  const [over, setOver] = useState(false);
  const latest = useRef(open);
  latest.current = open;
  useEffect(() => {
    const listening = new AbortController();
    const { signal } = listening;
    const onOver = (event: DragEvent): void => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      setOver(true);
    };
    const onDrop = (event: DragEvent): void => {
      setOver(false);
      const file = event.dataTransfer?.files[0];
      if (file === undefined) return;
      event.preventDefault();
      latest.current(file);
    };
    const onLeave = (event: DragEvent): void => {
      if (event.relatedTarget === null) setOver(false);
    };
    addEventListener("dragover", onOver, { signal });
    addEventListener("drop", onDrop, { signal });
    addEventListener("dragleave", onLeave, { signal });
    return () => listening.abort();
  }, []);
  return over;
}
