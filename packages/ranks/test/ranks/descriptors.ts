// Opens windows until the process may open no more files; run with few allowed.

import { joinGroup, MemoryStore, RanksSystemError } from "@open-infra/ranks";

const group = await joinGroup({ rank: 0, size: 1, store: new MemoryStore() });
try {
  for (let i = 0; ; i++) await group.openWindow({ name: `window ${i}`, bytes: 8 });
} catch (error) {
  const { errno, message } = error as RanksSystemError;
  process.stdout.write(
    `${error instanceof RanksSystemError ? error.name : "another"} ${errno} ${message}\n`,
  );
}
await group.close();
