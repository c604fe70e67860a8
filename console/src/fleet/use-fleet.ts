import { useCallback, useEffect, useRef, useState } from 'react';
import { ending, useAsk } from '../site/ask.ts';
import { get } from '../site/call.ts';
import type { DeviceLine, Inventory } from '../site/contract.ts';
import { type Filter, inventoryPath } from './filter.ts';
import { PAGE_LINES, Shelf, type Sight } from './shelf.ts';

export interface Fleet {
  total: number | undefined;
  line: (at: number) => DeviceLine | undefined;
  /** Tells which lines are in sight, so that they come. */
  look: (sight: Sight) => void;
  error: Error | null;
  again: () => void;
  /** What is shown belongs to the filter before. */
  isBehind: boolean;
}

/**
 * The fleet as one long table. Its first page is an ordinary question, asked anew when something changed; each time that
 * it comes anew, what is in sight farther down is asked for too.
 */
export function useFleet(filter: Filter): Fleet {
  const path = inventoryPath(filter, PAGE_LINES);
  const first = useAsk<Inventory>(path, { keeps: true });
  const [, setVersion] = useState(0);
  const kept = useRef({
    path: '',
    filter,
    shelf: new Shelf(),
    sight: { first: 0, last: 0 },
    fetching: '',
  });
  const [error, setError] = useState<Error | null>(null);

  const fill = useCallback(async () => {
    const own = kept.current;
    const { path: now, filter: looked, shelf } = own;
    if (own.fetching === now) return;
    own.fetching = now;
    try {
      for (;;) {
        const wanted = shelf.next(own.sight);
        if (!wanted || own.path !== now) break;
        const answer = await ending(
          get<Inventory>(inventoryPath(looked, PAGE_LINES, wanted.after)),
        );
        if (own.path !== now) break;
        shelf.take(wanted.page, answer);
        setVersion(version => version + 1);
      }
      setError(null);
    } catch (failed) {
      setError(failed as Error);
    } finally {
      if (own.fetching === now) own.fetching = '';
    }
  }, []);

  // That it was asked anew counts, also with the same answer.
  useEffect(() => {
    if (!first.data || first.isPlaceholderData) return;
    const own = kept.current;
    if (own.path !== path) {
      own.path = path;
      own.filter = filter;
      own.shelf = new Shelf();
    }
    own.shelf.age();
    own.shelf.take(0, first.data);
    setVersion(version => version + 1);
    fill();
  }, [first.data, first.dataUpdatedAt, first.isPlaceholderData, path, filter, fill]);

  const look = useCallback(
    (sight: Sight) => {
      kept.current.sight = sight;
      if (kept.current.shelf.total !== undefined) fill();
    },
    [fill],
  );
  const { shelf } = kept.current;
  return {
    total: shelf.total,
    line: at => shelf.line(at),
    look,
    error: first.error ?? error,
    again: () => {
      first.refetch();
    },
    isBehind: kept.current.path !== path && shelf.total !== undefined,
  };
}
