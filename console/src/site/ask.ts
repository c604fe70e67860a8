/** What pages ask, kept as long as it is true: TanStack Query with this site's habits. */

import {
  keepPreviousData,
  QueryClient,
  type UseMutationResult,
  type UseQueryResult,
  useMutation,
  useQuery,
  useQueryClient,
} from '@tanstack/react-query';
import { useEffect } from 'react';
import { type Came, change, get, Refused } from './call.ts';
import type { Me } from './contract.ts';
import { type Change, listen, useLive } from './live.ts';
import { isStale } from './stale.ts';

/** Without the stream, what is on the page is asked for again so often. */
const POLL_MS = 5_000;
/** With it, so often all the same: what the site counts without saying so (gates, deadlines) is seen too. */
const REFRESH_MS = 30_000;
/** Changes are gathered for so long, so that a thousand of them ask once. Of devices that were merely heard: longer. */
const GATHER_MS = { said: 300, seen: 5_000 };
const TRIES_MAX = 3;

export const client = new QueryClient({
  defaultOptions: {
    queries: {
      // A plant's network has no road to the internet; what a browser calls offline says nothing about the site.
      networkMode: 'always',
      staleTime: 1_000,
      gcTime: 300_000,
      retry: (tries, error) => tries < TRIES_MAX && mayGetBetter(error),
      retryDelay: tries => Math.min(500 * 2 ** tries, 5_000),
    },
    mutations: { networkMode: 'always', retry: false },
  },
});

function mayGetBetter(error: unknown): boolean {
  return (
    error instanceof Refused && (error.status === 0 || error.status >= 502 || error.status === 429)
  );
}

export const SESSION = '/v1/session';
/** How many alerts are firing; asked once for all that show it. */
export const FIRING = '/v1/alerts?state=firing&limit=1';
/** What waits for a second person: a site has fewer open ones than one page holds. */
export const OPEN_APPROVALS = '/v1/approvals?state=open';

/** Who is signed in; `null`: nobody. */
export function useSession(): UseQueryResult<Me | null, Error> {
  return useQuery({
    queryKey: [SESSION],
    queryFn: async ({ signal }) => {
      try {
        return await get<Me>(SESSION, signal);
      } catch (error) {
        if (error instanceof Refused && error.status === 401) return null;
        throw error;
      }
    },
    refetchInterval: 60_000,
  });
}

export interface Asking {
  enabled?: boolean | undefined;
  /** Keeps what was shown while another path is asked: pages and filters. */
  keeps?: boolean | undefined;
  everyMs?: number | undefined;
}

/** What is at this path, kept fresh while somebody looks. */
export function useAsk<T>(
  path: string,
  { enabled = true, keeps, everyMs }: Asking = {},
): UseQueryResult<T, Error> {
  const live = useLive();
  return useQuery({
    queryKey: [path],
    queryFn: ({ signal }) => ending(get<T>(path, signal)),
    enabled,
    refetchInterval: everyMs ?? (live === 'live' ? REFRESH_MS : POLL_MS),
    ...(keeps ? { placeholderData: keepPreviousData } : {}),
  });
}

/** A session that ended shows at whatever is asked next. */
export async function ending<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) client.setQueryData([SESSION], null);
    throw error;
  }
}

export interface Ordered {
  path: string;
  method?: 'POST' | 'DELETE';
  body?: unknown;
}

/** What an order is called, however often it is sent (`Idempotency-Key`): control does it once. */
const names = new WeakMap<Ordered, string>();

function nameOf(order: Ordered): string {
  const name = names.get(order) ?? crypto.randomUUID();
  names.set(order, name);
  return name;
}

/**
 * A change, and everything asked anew when it is done: what a change touches is control's to know. One whose answer was lost
 * is sent again under its name.
 */
export function useOrder<T>(): UseMutationResult<Came<T>, Error, Ordered> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (order: Ordered) =>
      ending(change<T>(order.method ?? 'POST', order.path, order.body, nameOf(order))),
    retry: (tries, error) => tries < TRIES_MAX && error instanceof Refused && error.status === 0,
    retryDelay: 1_000,
    onSettled: () => queries.invalidateQueries(),
  });
}

/** Follows the stream as long as somebody is signed in. */
export function useStream() {
  const queries = useQueryClient();
  const live = useLive();
  // Control ends a stream with the session or the rights that began it: who one is by now is the first thing to know.
  useEffect(() => {
    if (live === 'reconnecting') queries.invalidateQueries({ queryKey: [SESSION] });
  }, [queries, live]);
  useEffect(() => {
    const gathered = { said: [] as Change[], seen: [] as Change[] };
    const timers: Partial<Record<'said' | 'seen', ReturnType<typeof setTimeout>>> = {};
    const end = listen(said => {
      const box = said.kind === 'seen' ? 'seen' : 'said';
      gathered[box].push(said);
      timers[box] ??= setTimeout(() => {
        const changes = gathered[box];
        gathered[box] = [];
        delete timers[box];
        queries.invalidateQueries({
          predicate: query => changes.some(one => isStale(query.queryKey, one)),
        });
      }, GATHER_MS[box]);
    });
    return () => {
      end();
      clearTimeout(timers.said);
      clearTimeout(timers.seen);
    };
  }, [queries]);
}
