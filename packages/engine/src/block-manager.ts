// Which block of the paged KV cache belongs to whom. Full blocks are shared between sequences with
// the same beginning (automatic prefix caching); a partly filled block has one owner, so nothing is
// ever copied. It holds numbers only: the cache's memory is the model's.
//
// A full block is known by its chain: the chain of the blocks before it, and its own tokens. The
// token tuple itself is the map's key, so two different contents can never be taken for each other.

/** One sequence's blocks. Only the block manager changes it. */
export interface BlockTable {
  /** Cache blocks in order; block i holds tokens i·blockTokens … */
  readonly blocks: number[];
  /** How many of the first blocks are full and registered. */
  registered: number;
  /** Chain of the last registered block, 0 at the beginning. */
  chain: number;
}

interface CachedBlock {
  readonly key: string;
  readonly chain: number;
}

export interface BlockManagerOptions {
  readonly numBlocks: number;
  readonly blockTokens: number;
  /** @default true */
  readonly prefixCaching?: boolean;
}

export interface OpenOptions {
  /** Look for a cached beginning. @default true */
  readonly lookup?: boolean;
  /**
   * Count the lookup in the statistics; a preempted sequence that returns does not. @default true
   */
  readonly count?: boolean;
  /** Blocks that must stay available beyond the ones taken. @default 0 */
  readonly spare?: number;
}

export interface PrefixCacheCounts {
  queriedTokens: number;
  hitTokens: number;
}

export class BlockManager {
  readonly numBlocks: number;
  readonly blockTokens: number;
  /** Tokens looked up when sequences were admitted, and those found. */
  readonly prefixCache: PrefixCacheCounts = { queriedTokens: 0, hitTokens: 0 };
  /** Grows whenever a block loses its last owner; until then, what did not fit still does not. */
  releases = 0;
  readonly #prefixCaching: boolean;
  readonly #references: Int32Array;
  /** Blocks without content worth keeping. */
  readonly #free: number[] = [];
  /** Cached blocks that nobody references, least recently used first. */
  readonly #idle = new Set<number>();
  readonly #byKey = new Map<string, number>();
  readonly #cached: (CachedBlock | undefined)[];
  #nextChain = 1;

  constructor(options: BlockManagerOptions) {
    this.numBlocks = options.numBlocks;
    this.blockTokens = options.blockTokens;
    this.#prefixCaching = options.prefixCaching ?? true;
    this.#references = new Int32Array(options.numBlocks);
    this.#cached = new Array(options.numBlocks).fill(undefined);
    for (let block = options.numBlocks - 1; block >= 0; block--) this.#free.push(block);
  }

  /** Blocks that could be handed out now: empty ones and cached ones nobody references. */
  get available(): number {
    return this.#free.length + this.#idle.size;
  }

  /** Blocks that sequences reference. */
  get used(): number {
    return this.numBlocks - this.available;
  }

  /** Blocks whose content may be found by a later request. */
  get cachedBlocks(): number {
    return this.#byKey.size;
  }

  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockTokens);
  }

  references(block: number): number {
    return this.#references[block] as number;
  }

  /**
   * A table for a sequence with these tokens, beginning with the cached blocks that hold its first
   * tokens. The block of the last token is never taken from the cache, because that token must be
   * computed to get logits.
   *
   * Returns undefined, and takes nothing, unless blocks for all the tokens and `spare` more are
   * available: a prompt that is begun can be finished.
   */
  open(
    tokens: readonly number[],
    options: OpenOptions = {},
  ): { readonly table: BlockTable; readonly cachedTokens: number } | undefined {
    const table: BlockTable = { blocks: [], registered: 0, chain: 0 };
    const lookup = this.#prefixCaching && (options.lookup ?? true);
    const hits = lookup ? this.#lookup(tokens) : [];
    const idleHits = hits.filter((block) => this.#idle.has(block)).length;
    const wanted = this.blocksFor(tokens.length) - hits.length + (options.spare ?? 0);
    if (this.available - idleHits < wanted) return undefined;
    for (const block of hits) {
      this.#reference(block);
      table.blocks.push(block);
      table.registered++;
      table.chain = (this.#cached[block] as CachedBlock).chain;
    }
    const cachedTokens = hits.length * this.blockTokens;
    if (lookup && (options.count ?? true)) {
      this.prefixCache.queriedTokens += tokens.length;
      this.prefixCache.hitTokens += cachedTokens;
    }
    this.reserve(table, tokens.length);
    return { table, cachedTokens };
  }

  /** Makes the table long enough for this many tokens; false, and no change, if blocks run out. */
  reserve(table: BlockTable, tokens: number): boolean {
    const missing = this.blocksFor(tokens) - table.blocks.length;
    if (missing <= 0) return true;
    if (missing > this.available) return false;
    for (let i = 0; i < missing; i++) table.blocks.push(this.#take());
    return true;
  }

  /**
   * Makes the blocks that the table's first `tokens.length` ≥ `written` tokens fill findable. May
   * be called when the step that writes them is planned, so that others in that very step share
   * them.
   *
   * Where another block already holds the same beginning: with `join`, which must wait until the
   * table's own were written, the table takes that one and frees its own. Their contents are equal
   * to the bit, since a token's latent does not depend on its batch.
   */
  register(
    table: BlockTable,
    tokens: readonly number[],
    written: number,
    options: { readonly join?: boolean } = {},
  ): void {
    if (!this.#prefixCaching) return;
    const full = Math.floor(written / this.blockTokens);
    for (let i = table.registered; i < full; i++) {
      const key = this.#key(table.chain, tokens, i);
      const own = table.blocks[i] as number;
      const known = this.#byKey.get(key);
      if (known === undefined) {
        const cached = { key, chain: this.#nextChain++ };
        this.#byKey.set(key, own);
        this.#cached[own] = cached;
        table.chain = cached.chain;
      } else if (options.join) {
        this.#reference(known);
        this.#release(own);
        table.blocks[i] = known;
        table.chain = (this.#cached[known] as CachedBlock).chain;
      } else return;
      table.registered = i + 1;
    }
  }

  /** Gives all blocks of the table back; registered ones stay findable until they are needed. */
  close(table: BlockTable): void {
    // Last block first, so that a chain is evicted from its end and never loses its beginning.
    for (let i = table.blocks.length - 1; i >= 0; i--) this.#release(table.blocks[i] as number);
    table.blocks.length = 0;
    table.registered = 0;
    table.chain = 0;
  }

  /** Forgets every cached block that nobody references. */
  clearCache(): void {
    for (const block of this.#idle) {
      this.#forget(block);
      this.#free.push(block);
    }
    this.#idle.clear();
  }

  #lookup(tokens: readonly number[]): number[] {
    const hits: number[] = [];
    const most = Math.floor((tokens.length - 1) / this.blockTokens);
    let chain = 0;
    for (let i = 0; i < most; i++) {
      const block = this.#byKey.get(this.#key(chain, tokens, i));
      if (block === undefined) break;
      hits.push(block);
      chain = (this.#cached[block] as CachedBlock).chain;
    }
    return hits;
  }

  /** The chain before block `i`, and the block's tokens, two code units each. */
  #key(chain: number, tokens: readonly number[], i: number): string {
    const units = new Array<number>(this.blockTokens * 2);
    const first = i * this.blockTokens;
    for (let t = 0; t < this.blockTokens; t++) {
      const token = tokens[first + t] as number;
      units[2 * t] = token & 0xffff;
      units[2 * t + 1] = token >>> 16;
    }
    return `${chain}:${String.fromCharCode(...units)}`;
  }

  #reference(block: number): void {
    if (this.#references[block] === 0) this.#idle.delete(block);
    this.#references[block] = (this.#references[block] as number) + 1;
  }

  #release(block: number): void {
    const left = (this.#references[block] as number) - 1;
    if (left < 0) throw new Error(`KV block ${block} was released more often than it was taken`);
    this.#references[block] = left;
    if (left > 0) return;
    this.releases++;
    if (this.#cached[block] === undefined) this.#free.push(block);
    else this.#idle.add(block);
  }

  /** An empty block, or the least recently used cached one. */
  #take(): number {
    let block = this.#free.pop();
    if (block === undefined) {
      const oldest = this.#idle.values().next();
      if (oldest.done) throw new Error("KV blocks ran out although their number was checked");
      block = oldest.value;
      this.#idle.delete(block);
      this.#forget(block);
    }
    this.#references[block] = 1;
    return block;
  }

  #forget(block: number): void {
    const cached = this.#cached[block];
    if (cached === undefined) return;
    this.#byKey.delete(cached.key);
    this.#cached[block] = undefined;
  }
}
