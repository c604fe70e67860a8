/**
 * The lines of a long table, as far as they are known: pages of the inventory by their place. Pure.
 *
 * A page begins behind the last id of the page before it, so a page far down can only be asked for once those above it
 * are known. `next` says which page to ask for, until what is in sight is there and fresh.
 */

import type { DeviceLine, Inventory } from '../site/contract.ts';

/** Of 100,000 devices: 200 pages of some 50 KB. */
export const PAGE_LINES = 500;

export interface Sight {
  first: number;
  last: number;
}

export class Shelf {
  total: number | undefined;
  private pages: DeviceLine[][] = [];
  private stale = new Set<number>();

  line(at: number): DeviceLine | undefined {
    return this.pages[Math.floor(at / PAGE_LINES)]?.[at % PAGE_LINES];
  }

  /** Everything may be otherwise by now. It is shown until it is known otherwise. */
  age() {
    this.pages.forEach((_, page) => {
      this.stale.add(page);
    });
  }

  next(sight: Sight): { page: number; after: string | undefined } | undefined {
    if (this.total === undefined) return { page: 0, after: undefined };
    const last = Math.floor(Math.min(sight.last, Math.max(0, this.total - 1)) / PAGE_LINES);
    for (let page = Math.floor(Math.max(0, sight.first) / PAGE_LINES); page <= last; page += 1) {
      if (this.pages[page] && !this.stale.has(page)) continue;
      // The nearest page above it that has an end to begin behind.
      let known = page;
      while (known > 0 && !this.pages[known - 1]?.length) known -= 1;
      return { page: known, after: this.after(known) };
    }
    return undefined;
  }

  take(page: number, answer: Inventory) {
    const before = this.pages[page]?.at(-1)?.id;
    this.pages[page] = answer.devices;
    this.stale.delete(page);
    this.total = answer.total;
    // There is nothing behind the end; a page that ends elsewhere now moves all behind it.
    if (!answer.next) this.pages.length = page + 1;
    else if (before !== undefined && before !== answer.devices.at(-1)?.id) {
      for (let later = page + 1; later < this.pages.length; later += 1) this.stale.add(later);
    }
  }

  private after(page: number): string | undefined {
    return page === 0 ? undefined : this.pages[page - 1]?.at(-1)?.id;
  }
}
