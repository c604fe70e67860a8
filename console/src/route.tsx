/**
 * Where one is: `/console/PAGE/NAME?…`. A page's filter stands in the address, so that a link says what its sender saw
 * and the way back leads where one came from.
 */

import {
  type AnchorHTMLAttributes,
  type MouseEvent,
  useCallback,
  useSyncExternalStore,
} from 'react';
import { type Place, placeOf } from './place.ts';

export { pathTo } from './place.ts';

const MOVED = 'plimsoll-moved';

export function go(path: string, { replace = false } = {}) {
  if (path === location.pathname + location.search) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', path);
  dispatchEvent(new Event(MOVED));
}

function watch(moved: () => void): () => void {
  addEventListener('popstate', moved);
  addEventListener(MOVED, moved);
  return () => {
    removeEventListener('popstate', moved);
    removeEventListener(MOVED, moved);
  };
}

let last: { href: string; place: Place } | undefined;

function here(): Place {
  const href = location.pathname + location.search;
  if (last?.href !== href) last = { href, place: placeOf(location.pathname, location.search) };
  return last.place;
}

export function usePlace(): Place {
  return useSyncExternalStore(watch, here);
}

/** Changes some of the query and keeps the rest. Typing replaces the address, so that the way back stays short. */
export function useQueryText(): (set: Record<string, string | undefined>) => void {
  return useCallback(set => {
    const query = new URLSearchParams(location.search);
    for (const [key, value] of Object.entries(set)) {
      if (value) query.set(key, value);
      else query.delete(key);
    }
    const text = query.toString();
    go(location.pathname + (text ? `?${text}` : ''), { replace: true });
  }, []);
}

export function Link({
  to,
  onClick,
  ...rest
}: { to: string } & AnchorHTMLAttributes<HTMLAnchorElement>) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    const isPlain =
      event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (event.defaultPrevented || !isPlain) return;
    event.preventDefault();
    go(to);
  };
  return <a href={to} onClick={follow} {...rest} />;
}
