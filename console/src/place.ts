/** Addresses of pages: `/console/PAGE/NAME?…`. Pure. */

export interface Place {
  page: string;
  /** What the page is about: a device's or rollout's id. */
  name: string | undefined;
  query: URLSearchParams;
}

const BASE = '/console/';

export function placeOf(path: string, search: string): Place {
  const parts = (path.startsWith(BASE) ? path.slice(BASE.length) : '').split('/').filter(Boolean);
  return {
    page: parts[0] ?? 'fleet',
    name: parts.length > 1 ? parts.slice(1).map(decoded).join('/') : undefined,
    query: new URLSearchParams(search),
  };
}

export function pathTo(
  page: string,
  name?: string,
  query?: Record<string, string | undefined>,
): string {
  const path = BASE + page + (name === undefined ? '' : `/${encodeURIComponent(name)}`);
  const set = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) if (value) set.set(key, value);
  return set.size > 0 ? `${path}?${set}` : path;
}

/** An address that somebody mistyped is still an address. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
